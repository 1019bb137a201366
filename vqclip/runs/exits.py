"""SIGINT, SIGTERM and SIGHUP: however many come, and whenever, the process ends by itself, with 130, 143 or 129.

The first that is to end the work raises an exit, once: what is at hand cleans up behind it, undisturbed by others.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NUMBERS = tuple({signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)})
CLEAN_UP_S = 5.0  # for cleaning up; a later signal ends the process as a kill would

Handler = Callable[[int, FrameType | None], None]


class _Ending:
    """The signal that ends the process, and whether it has raised an exit: one is due once a block is done."""

    def __init__(self) -> None:
        self.number = 0
        self.since = 0.0
        self.raised = self.due = False
        self.blocks = 0  # that must not be interrupted


_ending = _Ending()


def handle(handler: Handler) -> dict[signal.Signals, Any]:
    """Let a function hear the signals, but for those that are ignored, as under nohup; return who heard them before."""
    heard = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(handlers: dict[signal.Signals, Any]) -> None:
    """Let those hear the signals who heard them before `handle`."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ignore() -> None:
    """Let nothing disturb the end of the process any more: its exit code is known."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def leave(number: int, frame: FrameType | None = None) -> None:
    """End the process here, with a signal's exit code."""
    os._exit(128 + number)


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Let a signal raise an exit, which passes through the code, so that nothing half is left."""
    global _ending
    _ending = _Ending()
    handlers = handle(raise_exit)
    try:
        yield
    finally:
        restore(handlers)


def raise_exit(number: int, frame: FrameType | None = None) -> None:
    """Raise an exit; do nothing if one was raised already, unless cleaning up has taken too long since."""
    if not _ending.number:
        settle(number)
        _ending.due = bool(_ending.blocks)
        if not _ending.due:
            _raise()
    elif time.monotonic() - _ending.since > CLEAN_UP_S:
        leave(number)


def settle(number: int) -> None:
    """Let no further signal raise an exit: the work has ended by this one, and only cleaning up is left."""
    _ending.number, _ending.since = number, time.monotonic()


def raised() -> int:
    """Return the signal that an exit was raised for, or 0.

    What comes out at the top may be another error: a library may have caught the exit, and stumbled.
    """
    return _ending.number if _ending.raised else 0


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the exit that a signal raises wait until the block is done."""
    _ending.blocks += 1
    try:
        yield
    finally:
        _ending.blocks -= 1
    if _ending.due and not _ending.blocks:
        _ending.due = False
        _raise()


def _raise() -> None:
    _ending.raised = True
    raise KeyboardInterrupt if _ending.number == signal.SIGINT else SystemExit(128 + _ending.number)
