"""Progress of a batch: the interface that the command line implements."""

from collections.abc import Sequence

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

    def step(self, rows: Sequence[str], step: int, steps: int) -> None:
        """Show that rows, by their names, have made step `step` of `steps` together; without rows there is no news."""

    def row(self, entry: Entry) -> None:
        """Show that a row has ended."""


SILENT = BatchProgress()
