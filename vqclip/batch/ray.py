"""Rows on a Ray cluster: an actor per GPU, or per few CPUs, keeps its networks; the rows of a lost one are sent again.

Actors write into the run directories themselves if they see the batch's folder, and so resume what a lost one began;
otherwise a finished run comes back as bytes. Ray is imported here alone.
"""

import contextlib
import logging
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray._private import ray_constants
from ray.exceptions import RayError

from ..errors import UsageError
from ..files.atomic import write_atomic
from .manifest import Entry
from .progress import BatchProgress
from .worker import Losses, Work, Worker, stacks_of

CPUS = 2  # of an actor without a GPU
POLL_S = 0.5
STARTUP_S = 180.0  # without any actor
LINGER_S = 30.0  # seconds that a lost actor may still lock its runs, and that actors have to save theirs at the end


class MarkerProgress(BatchProgress):
    """Stops an actor's rows once the marker file is gone."""

    def __init__(self, marker: Path, shared: bool) -> None:
        self._marker, self._shared = marker, shared

    @property
    def stopped(self) -> bool:
        """Whether the marker was seen and is gone."""
        return self._shared and not self._marker.exists()


class RowActor:
    """A Worker in an actor. Finds a marker file in `work.runs` if it sees the folder; stops when that is gone."""

    def __init__(self, work: Work, marker: str) -> None:
        self._work = work
        self._shared = (work.runs / marker).exists()
        self._worker = Worker(work, MarkerProgress(work.runs / marker, self._shared))

    def ready(self) -> None:
        """Return once the actor runs."""

    def run(self, entries: list[Entry]) -> list[tuple[Entry, dict[str, bytes]]]:
        """Run rows; return each as it ended, and its files if the folder is not seen from here."""
        if not self._shared:
            with tempfile.TemporaryDirectory(prefix="vqclip-") as folder:
                self._worker.work = replace(self._work, runs=Path(folder))
                return [(entry, pack(Path(folder) / entry.name)) for entry in self._worker.run(entries)]
        for entry in entries:
            with contextlib.suppress(Timeout, OSError):  # a lost actor's process may linger
                FileLock(self._work.runs / entry.name / ".lock").acquire(timeout=LINGER_S).lock.release()
        return [(entry, {}) for entry in self._worker.run(entries)]


def pack(run: Path) -> dict[str, bytes]:
    """Return a run's files, by their names."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def unpack(run: Path, files: dict[str, bytes]) -> None:
    """Write a run's files; run.json comes last: it says that the others are complete. Raises OutputError."""
    for name in sorted(files, key=lambda name: name == "run.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(run / name, files[name])


def run_on_cluster(
    work: Work, entries: Sequence[Entry], progress: BatchProgress, address: str | None = None, workers: int = 0
) -> Iterator[Entry]:
    """Run rows on the cluster at `address` (or RAY_ADDRESS), or on one that is started here; yield each as it ended.

    workers: actors; 0: one per GPU, or per two CPUs. A row whose actor is lost goes to another, up to RETRIES times.
    Raises UsageError if there is no cluster at the address, or no actor starts.
    """
    for stale in work.runs.glob(".shared-*"):  # of a process that was killed: its actors are to stop
        stale.unlink(missing_ok=True)
    marker = work.runs / f".shared-{secrets.token_hex(8)}"
    marker.touch()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(marker.unlink, missing_ok=True)
        if not ray.is_initialized():
            _connect(address or os.environ.get("RAY_ADDRESS") or "local")
            cleanup.callback(ray.shutdown)
        yield from ActorPool(work, marker, workers).run(stacks_of(work, entries), progress)


def _connect(address: str) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {}
    if address == "local":  # one of our own: no other machine is to reach it
        options = {"include_dashboard": False}
        ray_constants.ENABLE_RAY_CLUSTER = False  # as on macOS and Windows: its processes listen on loopback alone
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"there is no Ray cluster at {address}: {reason}", "start it: ray start --head") from None
    finally:
        for number, handler in handlers.items():  # ray replaces them
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)


class ActorPool:
    """Actors that come and go. An actor gets rows once it has answered, so that one that never starts holds none."""

    def __init__(self, work: Work, marker: Path, workers: int) -> None:
        self.work, self.marker, self.workers = work, marker, workers
        self._starting: dict[Any, Any] = {}  # future of the first answer -> actor
        self._busy: dict[Any, tuple[Any, list[Entry]]] = {}  # future of the rows as they ended -> actor, rows
        self._idle: list[Any] = []
        self._losses = Losses()
        self._fault = "none answered"

    def run(self, waiting: list[list[Entry]], progress: BatchProgress) -> Iterator[Entry]:
        """Yield rows as they ended, until all have, or progress says to stop."""
        last_sign = time.monotonic()
        stop_time = 0.0
        while (waiting and not stop_time) or self._busy:
            if not stop_time:
                self._assign(waiting)
            futures = [*self._starting, *self._busy]
            ready = ray.wait(futures, timeout=POLL_S)[0] if futures else []
            now = time.monotonic()
            if ready or self._busy:
                last_sign = now
            for future in ready:
                yield from self._take_answer(future, waiting)
            progress.step((), 0, 1)
            if not stop_time and progress.stopped:
                stop_time = now
                self.marker.unlink(missing_ok=True)
            if stop_time and now - stop_time > LINGER_S:
                return
            if now - last_sign > STARTUP_S:
                raise UsageError(f"no worker could be started: {self._fault}", "look at the cluster: ray status")

    def _assign(self, waiting: list[list[Entry]]) -> None:
        """Give rows to idle actors, and start an actor if there are rows and room for it."""
        while waiting and self._idle:
            actor = self._idle.pop()
            stack = waiting.pop(0)
            self._busy[actor.run.remote(stack)] = (actor, stack)
        cpus, gpus, room = self._room()
        if len(self._starting) < min(len(waiting), room - len(self._busy)):
            kind: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(RowActor)
            actor = kind.remote(self.work, self.marker.name)
            self._starting[actor.ready.remote()] = actor

    def _room(self) -> tuple[int, int, int]:
        """Return the CPUs and GPUs of an actor, and how many actors the nodes that are alive have room for."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if gpus and self.work.device in ("auto", "cuda"):
            return 1, 1, self.workers or gpus
        cores = [int(node.get("CPU", 0)) for node in nodes]
        cpus = max(1, min(CPUS, max(cores, default=1)))
        if self.workers:
            while cpus > 1 and sum(count // cpus for count in cores) < self.workers:
                cpus -= 1
        room = sum(count // cpus for count in cores)
        return cpus, 0, min(self.workers, room) if self.workers else room

    def _take_answer(self, future: Any, waiting: list[list[Entry]]) -> Iterator[Entry]:
        """Yield the rows of an actor's answer; if the actor was lost, its rows wait again."""
        started = self._starting.pop(future, None)
        actor, stack = (started, []) if started else self._busy.pop(future)
        try:
            ended = ray.get(future) or []
        except RayError as error:
            self._fault = " ".join(str(error).split())[:300]
            yield from self._losses.send_again(stack, waiting, self._fault)
            return
        self._idle.append(actor)
        for entry, files in ended:
            if files:
                unpack(self.work.runs / entry.name, files)
            yield entry
