"""The live line of a batch: rows done, rate, time left; a signal ends it in good order."""

import contextlib
import sys
import time

from ..batch.manifest import Entry
from ..batch.progress import BatchProgress
from .progress import PLAIN_EVERY_S, Stoppable, beside_bars, open_bar, say


class BatchBar(Stoppable, BatchProgress):
    """Shows a batch's progress. The first Ctrl-C, SIGTERM or SIGHUP ends it after this step, a second at once."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._total = self._done = 0  # rows
        self._earlier = 0.0  # rows' worth of steps that were not made in this call, and are not part of its rate
        self._new_rows = True  # the next step is the first of its rows in this call
        self._loading = True  # no step was made yet
        self._start = self._last_line = time.monotonic()

    @property
    def stopped(self) -> bool:
        """Whether a signal has come."""
        return bool(self.stopped_by)

    def rows(self, done: int, total: int) -> None:
        """Say how many rows there are, and how many of them are finished already."""
        self._total, self._start = total - done, time.monotonic()
        if self.quiet:
            return
        say(f"{total} rows, {done} of them done already" if done else f"{total} rows")
        if sys.stderr.isatty() and self._total:
            self._bar = open_bar("row", self._total)

    def step(self, rows: int, step: int, steps: int) -> None:
        """Show one step of so many rows."""
        self.at_hand = "this step"
        if self._new_rows and step:
            self._first_step(rows, step, steps)
        done = self._done + rows * step / steps
        if self._bar is not None:
            self._update(round(done, 2))
        elif not self.quiet and time.monotonic() - self._last_line > PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self._say_rate(done)

    def _first_step(self, rows: int, step: int, steps: int) -> None:
        """Leave out of the rate the steps that were made before, and the time of the first one, which loads."""
        self._new_rows = False
        self._earlier += rows * (step - (not self._loading)) / steps
        if self._loading:
            self._loading, self._start = False, time.monotonic()
            if self._bar is not None:
                self._bar.unpause()
        if self._bar is not None:
            self._bar.initial = self._earlier

    def _say_rate(self, done: float) -> None:
        text = f"rows {int(done)} of {self._total}"
        if (made := done - self._earlier) > 0:
            seconds = (time.monotonic() - self._start) / made  # per row
            text += f", {3600 / seconds:,.0f} an hour, {seconds * (self._total - done) / 60:.1f} min left"
        say(text)

    def row(self, entry: Entry) -> None:
        """Count a row that ended; one that failed is named at once."""
        self._new_rows = True
        if entry.status == "failed" and not self.quiet:
            with contextlib.suppress(OSError), beside_bars():
                say(f"{entry.name} ({entry.location}) failed: {entry.error}")
        if entry.status != "stopped":  # whose steps stay on the bar: it never goes back
            self._done += 1
            self._update(self._done)

    def _update(self, done: float) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.update(done - self._bar.n)
