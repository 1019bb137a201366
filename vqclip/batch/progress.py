"""Progress of a batch: the interface that the command line implements."""

from .manifest import Entry


class BatchProgress:
    """Is told how far a batch is. This class shows nothing; subclasses override what they show.

    Once `stopped` is true, the current rows are saved after their step, and no other row begins.
    """

    @property
    def stopped(self) -> bool:
        """Whether the batch should end."""
        return False

    def rows(self, done: int, total: int) -> None:
        """Show how many rows there are, and how many of them were finished before."""

    def step(self, rows: int, step: int, steps: int) -> None:
        """Show that `rows` rows have made step number `step` of `steps` together."""

    def row(self, entry: Entry) -> None:
        """Show that a row has ended."""


SILENT = BatchProgress()
