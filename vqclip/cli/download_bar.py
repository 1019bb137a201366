"""Downloads on stderr: a bar each on a terminal, a plain line now and then elsewhere."""

import contextlib
import sys
import time
from types import TracebackType
from typing import Any

from .progress import PLAIN_EVERY_S, open_bar, say


class DownloadBar:
    """Shows downloads: a bar each on a terminal, a plain line now and then elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._spoke = time.monotonic()

    def __enter__(self) -> "DownloadBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()

    def done(self) -> None:
        """End the bar at hand."""
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.close()
        self._bar = None

    def say(self, text: str) -> None:
        """Print a remark, between bars."""
        self.done()
        if not self.quiet:
            say(text)

    def progress(self, done: int, total: int) -> None:
        """Show how far a file has come, in bytes; total is 0 if it is not known."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            if self._bar is not None and (done < self._bar.n or self._bar.total != (total or None)):
                self.done()  # another file, or this one from its beginning
            if self._bar is None:
                self._bar = open_bar("B", total or None, initial=done, unit_scale=True)
            with contextlib.suppress(OSError):
                self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._spoke > PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            say(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB")
