"""Progress of a batch on stderr: rows done, rate, time left; a signal ends it in good order."""

import time
from collections.abc import Sequence

from ..batch.manifest import Entry
from ..batch.progress import BatchProgress
from ..text import plural
from .progress import Bar, say
from .signals import LOADING, Stoppable


class BatchReporter(Stoppable, BatchProgress):
    """Shows a batch's progress. The first Ctrl-C, SIGTERM or SIGHUP ends it after this step, a second at once."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, at_hand=LOADING)
        self._bar = Bar("row", quiet=quiet, line=self._rate)
        self._total = self._done = 0  # rows
        self._drawn: dict[str, float] = {}  # of rows that are begun, by name: the fraction of its steps
        self._shown = 0.0  # rows that the bar shows as done
        self._earlier = 0.0  # rows: steps of earlier calls, which do not count in the rate
        self._seen: set[str] = set()  # rows that have made a step in this call
        self._began = time.monotonic()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.close()
        super().__exit__(kind, error, trace)

    def rows(self, done: int, total: int) -> None:
        """Say how many rows there are, and how many of them are finished already."""
        self._total, self._began = total - done, time.monotonic()
        if self.quiet:
            return
        say(f"{plural(total, 'row')}, {done} of them done already" if done else plural(total, "row"))
        if self._total:
            self._bar.at(0, self._total)

    def step(self, rows: Sequence[str], step: int, steps: int) -> None:
        """Show one step of some rows."""
        self.at_hand = "this step"
        if step and (new := [name for name in rows if name not in self._seen]):
            self._first_step(new, step, steps)
        self._drawn |= dict.fromkeys(rows, step / steps)
        self._show()

    def _first_step(self, rows: Sequence[str], step: int, steps: int) -> None:
        """Exclude from the rate the steps of earlier calls, and the time until the first step, which loads models."""
        first = not self._seen
        self._seen.update(rows)
        self._earlier += len(rows) * (step - (not first)) / steps
        if first:
            self._began = time.monotonic()
        self._bar.leave_out(self._earlier, time_too=first)

    def _rate(self, done: float, total: float) -> str:
        text = f"rows {self._done} of {total}"
        if (made := done - self._earlier) > 0:
            seconds = (time.monotonic() - self._began) / made  # per row
            text += f", {3600 / seconds:,.0f} an hour, {seconds * (total - done) / 60:.1f} min left"
        return text

    def row(self, entry: Entry) -> None:
        """Count a row that ended; one that failed is named at once."""
        if entry.status == "failed" and not self.quiet:
            say(f"{entry.name} ({entry.location}) failed: {entry.error}")
        if entry.status != "stopped":  # the steps of a stopped row stay on the bar
            self._drawn.pop(entry.name, None)
            self._done += 1
        self._show()

    def _show(self) -> None:
        """Show how many rows, with parts of rows, are done. The bar never goes back, even if rows begin again."""
        self._shown = max(self._shown, self._done + sum(self._drawn.values()))
        self._bar.at(self._shown, self._total)
