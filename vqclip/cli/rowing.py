"""The live line of a batch: rows done, rate, time left; a signal ends it in good order."""

import contextlib
import sys
import time

from tqdm import tqdm

from ..batch.manifest import Entry, Manifest
from .progress import PLAIN_EVERY_S, Stoppable, say


class Rowing(Stoppable):
    """Shows a batch's progress. The first Ctrl-C, SIGTERM or SIGHUP ends it after this step, a second at once."""

    def __init__(self, manifest: Manifest, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.manifest = manifest
        self._total = self._done = 0
        self._before = 0.0  # rows' worth of steps that earlier sittings made: none of this one's rate
        self._fresh = True  # the next step is the first of its rows here
        self._loading = True  # no step was made yet
        self._began = self._spoke = time.monotonic()

    def start(self, done: int, total: int) -> None:
        """Say how many rows there are, and how many of them need nothing."""
        self._total, self._began = total - done, time.monotonic()
        if self.quiet:
            return
        say(f"{total} rows, {done} of them done already" if done else f"{total} rows")
        if sys.stderr.isatty() and self._total:
            self._bar = tqdm(total=self._total, unit="row", dynamic_ncols=True, file=sys.stderr)

    def step(self, rows: int, step: int, steps: int) -> bool:
        """Show one step of so many rows; say whether to stop."""
        if self._fresh and step:
            self._before, self._fresh = self._before + rows * (step - (not self._loading)) / steps, False
            if self._loading:  # the first step has loading in it, which says nothing of those to come
                self._loading, self._began = False, time.monotonic()
                if self._bar is not None:
                    self._bar.unpause()
            if self._bar is not None:
                self._bar.initial = self._before
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.update(self._done + round(rows * step / steps, 2) - self._bar.n)
        elif not self.quiet and time.monotonic() - self._spoke > PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            self._tell(self._done + rows * step / steps)
        return bool(self.stopped_by)

    def _tell(self, done: float) -> None:
        spent, told = time.monotonic() - self._began, f"rows {int(done)} of {self._total}"
        if (now := done - self._before) > 0:
            left = spent / now * (self._total - done)
            told += f", {now / spent * 3600:,.0f} an hour, {left / 60:.1f} min left"
        say(told)

    def row(self, entry: Entry) -> None:
        """Take in a row that ended; one that failed is named at once."""
        self._done, self._fresh = self._done + (entry.status != "stopped"), True
        if entry.status == "failed" and not self.quiet:
            with contextlib.suppress(OSError), tqdm.external_write_mode(file=sys.stderr):
                say(f"{entry.name} ({entry.place}) failed: {entry.error}")
        if self._bar is not None and entry.status != "stopped":  # whose steps stay counted: the bar never goes back
            with contextlib.suppress(OSError):
                self._bar.update(self._done - self._bar.n)
