"""Rows on several devices of this machine: a process each, which keeps its networks; the rows of a lost one go again.

A run directory is claimed by its lock, which the system takes from a process that dies: another resumes what it began.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from ..core.devices import choose_device
from ..errors import UsageError
from ..runs.exits import NUMBERS
from .manifest import Entry
from .progress import BatchProgress
from .worker import Losses, Work, Worker, stacks_of

POLL_S = 0.5
LINGER_S = 30.0  # seconds that processes have to save their runs at the end


def read_devices(text: str) -> tuple[str, ...]:
    """Read "auto" (every CUDA device), or devices by number or name: "0,2", "cuda:1", "cpu,cpu". Raises UsageError."""
    if text.strip() == "auto":
        import torch

        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if not names:
            raise UsageError("devices: there is no CUDA device here", "leave --devices out, or name some: cpu,cpu")
    else:
        parts = [part.strip() for part in text.split(",")]
        names = [f"cuda:{part}" if part.isdecimal() else part for part in parts]
    for name in names:
        choose_device(name)
    return tuple(names)


class _PipedProgress(BatchProgress):
    """The progress of a process of its own: steps go to the one that began it, which says when to stop."""

    def __init__(self, connection: Connection, stop: Any) -> None:
        self._connection, self._stop, self._parent = connection, stop, os.getppid()

    @property
    def stopped(self) -> bool:
        """Whether it was said to stop, or the process that began it is gone."""
        return self._stop.is_set() or os.getppid() != self._parent

    def step(self, rows: Sequence[str], step: int, steps: int) -> None:
        """Pass it on."""
        with contextlib.suppress(OSError):
            self._connection.send((rows, step, steps))


def _serve(work: Work, connection: Connection, stop: Any) -> None:
    """Run rows as they come, until none comes any more; send each as it ended."""
    for number in NUMBERS:  # which a terminal sends to all: the first process says when to stop
        signal.signal(number, signal.SIG_IGN)
    worker = Worker(work, _PipedProgress(connection, stop))
    with contextlib.suppress(EOFError, OSError):
        while rows := connection.recv():
            connection.send(list(worker.run(rows)))


@dataclass
class _Device:
    """A device's process, and the rows that it runs."""

    name: str
    process: Any = None
    connection: Any = None
    rows: list[Entry] = field(default_factory=list)


def run_on_devices(
    work: Work, entries: Sequence[Entry], progress: BatchProgress, devices: Sequence[str]
) -> Iterator[Entry]:
    """Run rows on several devices; yield each as it ended. Rows whose process is lost go to another, RETRIES times."""
    pool = _Pool(work, devices)
    try:
        yield from pool.run(stacks_of(work, entries), progress)
    finally:
        pool.close()


class _Pool:
    def __init__(self, work: Work, devices: Sequence[str]) -> None:
        self._work, self._devices = work, [_Device(name) for name in devices]
        self._context = multiprocessing.get_context("spawn")  # CUDA can't be used after a fork
        self._stop = self._context.Event()
        self._deadline = 0.0  # for all processes, once they are to stop
        self._losses = Losses()

    def run(self, waiting: list[list[Entry]], progress: BatchProgress) -> Iterator[Entry]:
        """Yield rows as they ended, until all have, or progress says to stop."""
        while True:
            if progress.stopped:
                self._tell_to_stop()
            for device in self._devices:
                if waiting and not device.rows and not self._deadline:
                    self._give(device, waiting.pop(0))
            busy = {device.connection: device for device in self._devices if device.rows}
            if not busy or (self._deadline and time.monotonic() > self._deadline):
                return
            for connection in wait(list(busy), timeout=POLL_S):
                yield from self._hear(busy[connection], waiting, progress)
            progress.step((), 0, 1)

    def _tell_to_stop(self) -> None:
        self._stop.set()
        self._deadline = self._deadline or time.monotonic() + LINGER_S

    def _give(self, device: _Device, rows: list[Entry]) -> None:
        """Give rows to a device, whose process is begun when it is first needed, and anew where it was lost."""
        device.rows = rows
        if device.process is None or not device.process.is_alive():
            device.connection, other = self._context.Pipe()
            work = replace(self._work, device=device.name)
            device.process = self._context.Process(target=_serve, args=(work, other, self._stop), daemon=True)
            device.process.start()
            other.close()
        with contextlib.suppress(OSError):  # it is heard that it is lost
            device.connection.send(rows)

    def _hear(self, device: _Device, waiting: list[list[Entry]], progress: BatchProgress) -> Iterator[Entry]:
        """Take what a device's process says: a step, or its rows as they ended."""
        try:
            said = device.connection.recv()
        except (EOFError, OSError):
            yield from self._lost(device, waiting)
            return
        if isinstance(said, tuple):
            progress.step(*said)
            return
        device.rows = []
        yield from said

    def _lost(self, device: _Device, waiting: list[list[Entry]]) -> Iterator[Entry]:
        """Let the rows of a process that is gone wait again; yield those that were lost too often as failed."""
        rows, process, device.rows, device.process = device.rows, device.process, [], None
        process.join()
        yield from self._losses.send_again(rows, waiting, f"the last ended with {process.exitcode}")

    def close(self) -> None:
        """End all processes; those that save their rows until the deadline are killed then."""
        self._tell_to_stop()
        begun = [device for device in self._devices if device.process is not None]
        for device in begun:
            device.connection.close()
        for device in begun:
            device.process.join(max(0.0, self._deadline - time.monotonic()))
            if device.process.is_alive():
                device.process.kill()
