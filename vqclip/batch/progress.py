"""What is shown of a batch while it goes on."""

from .manifest import Entry


class BatchProgress:
    """Hears how far a batch is; this one shows nothing.

    Once `stopped` is true, the rows at hand are saved after their step, and no other is begun.
    """

    @property
    def stopped(self) -> bool:
        """Whether the batch is to end."""
        return False

    def rows(self, done: int, total: int) -> None:
        """Hear how many rows there are, and how many of them are finished already."""

    def step(self, rows: int, step: int, steps: int) -> None:
        """Hear of a step, of `steps`, that so many rows made together."""

    def row(self, entry: Entry) -> None:
        """Hear of a row that ended."""


SILENT = BatchProgress()
