"""What Ctrl-C, SIGTERM and SIGHUP do: the work ends in good order, and what is half written is removed."""

import contextlib
import os
import signal
import time
from types import FrameType
from typing import Any, Self

from ..runs import exits

LOADING = "loading"
WIPE = f"\r{' ' * len(f'{LOADING} ...')}\r"  # takes it off the line
SAME_KEY_S = 0.05  # a key that bounces, or a signal to the group and to the process, counts once


class Stoppable:
    """Work that a signal ends: after what is `at_hand` by the first signal, at once by the second.

    Where nothing is at hand (""), the first signal ends it at once: with an exception, which passes through the code.
    A signal that is ignored, as under nohup, stays ignored.
    """

    def __init__(self, *, quiet: bool = False, at_hand: str = "") -> None:
        self.quiet, self.at_hand = quiet, at_hand
        self.stopped_by = 0  # the signal
        self._stopped_at = 0.0
        self._old: dict[signal.Signals, Any] = {}

    @property
    def stopped(self) -> bool:
        """Whether a signal has come."""
        return bool(self.stopped_by)

    def __enter__(self) -> Self:
        self._old = exits.handle(self._stop)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.stopped_by:
            exits.settle(self.stopped_by)
        exits.restore(self._old)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.stopped_by and now - self._stopped_at < SAME_KEY_S:
            return
        if self.stopped_by or not self.at_hand:
            exits.raise_exit(number)
            return
        self.stopped_by, self._stopped_at = number, now
        if not self.quiet:  # not by print: it may be a print that the signal interrupts
            beside = WIPE if self.at_hand == LOADING else "\n"  # the terminal's ^C, on that line or on a bar's
            text = f"{beside * os.isatty(2)}stopping after {self.at_hand}; once more to stop at once\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())
