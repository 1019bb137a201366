"""Rows drawn on a Ray cluster: an actor a GPU, or a few CPUs, that keeps its networks; lost rows are sent again.

Workers write into the run directories themselves where they see the folder, and so resume what a lost one began;
where they don't, a finished run comes back as bytes. Ray is imported here alone.
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
from ray.exceptions import RayError

from ..errors import UsageError
from ..files.atomic import write_atomic
from .stacked import shared_settings
from .worker import OnStep, Outcome, Task, Work, Worker

CPUS = 2  # of a worker without a GPU
RETRIES = 3  # times that a row is sent again after its worker was lost
POLL_S = 0.5
PATIENCE_S = 180.0  # without any worker
LINGER_S = 30.0  # that a lost worker may still hold its runs; and that workers have to save theirs in the end


class Drawing:
    """What lives in an actor. A file in the folder tells whether it is seen from there, and, once gone, to stop."""

    def __init__(self, work: Work, token: str) -> None:
        self._token = work.runs / token
        self._shared, self._work, self._worker = self._token.exists(), work, Worker(work)

    def ready(self) -> None:
        """Answer once the actor is there."""

    def draw(self, tasks: list[Task]) -> list[tuple[Outcome, dict[str, bytes]]]:
        """Draw rows; return how each ended, and its files where the folder is not seen from here."""
        if not self._shared:
            with tempfile.TemporaryDirectory(prefix="vqclip-") as aside:
                self._worker.work = replace(self._work, runs=Path(aside))
                return [(outcome, packed(Path(aside) / outcome.name)) for outcome in self._worker.run(tasks)]
        for task in tasks:
            with contextlib.suppress(Timeout, OSError):  # a lost worker's process may linger
                FileLock(self._work.runs / task.name / ".lock").acquire(timeout=LINGER_S).lock.release()
        return [(outcome, {}) for outcome in self._worker.run(tasks, lambda *told: not self._token.exists())]


def packed(run: Path) -> dict[str, bytes]:
    """Return a run's files, by their names."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def unpack(run: Path, files: dict[str, bytes]) -> None:
    """Write a run's files; run.json comes last, and says that all are there. Raises OutputError."""
    for name in sorted(files, key=lambda name: name == "run.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(run / name, files[name])


def run_on_cluster(
    work: Work, tasks: Sequence[Task], on_step: OnStep, address: str | None = None, workers: int = 0
) -> Iterator[Outcome]:
    """Draw tasks on the cluster at `address` (or RAY_ADDRESS), or on one that is started here; yield how each ended.

    workers: actors; 0: one a GPU, or one for every two CPUs. A row whose worker is lost goes to another, up to
    RETRIES times. Raises UsageError where there is no cluster at the address, or no worker starts.
    """
    for left in work.runs.glob(".shared-*"):  # of a process that was killed: its workers are to stop
        left.unlink(missing_ok=True)
    token = work.runs / f".shared-{secrets.token_hex(8)}"
    token.touch()
    with contextlib.ExitStack() as ending:
        ending.callback(token.unlink, missing_ok=True)
        if not ray.is_initialized():
            _connect(address or os.environ.get("RAY_ADDRESS") or "local")
            ending.callback(ray.shutdown)
        yield from Crew(work, token, workers).draw(_groups(work, tasks), on_step)


def _connect(address: str) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    alone: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **alone)
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200]
        raise UsageError(f"there is no Ray cluster at {address}: {told}", "start it: ray start --head") from None
    finally:
        for number, handler in handlers.items():  # ray puts its own in the place of ours
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)


def _groups(work: Work, tasks: Sequence[Task]) -> list[list[Task]]:
    """Cut tasks into what one worker draws at a time: as many as go into one tensor."""
    groups: list[list[Task]] = []
    for task in sorted(tasks, key=lambda task: shared_settings(task.settings)) if work.batch_size > 1 else tasks:
        last = groups[-1] if groups else []
        if last and len(last) < work.batch_size and shared_settings(last[0].settings) == shared_settings(task.settings):
            last.append(task)
        else:
            groups.append([task])
    return groups


class Crew:
    """Workers that come and go. A worker gets rows once it has answered; one that is not there holds none."""

    def __init__(self, work: Work, token: Path, workers: int) -> None:
        self.work, self.token, self.workers = work, token, workers
        self._hired: dict[Any, Any] = {}  # future of an answer -> actor
        self._busy: dict[Any, tuple[Any, list[Task]]] = {}  # future of the outcomes -> actor, what it draws
        self._idle: list[Any] = []
        self._lost: dict[str, int] = {}
        self._fault = "none answered"

    def draw(self, waiting: list[list[Task]], on_step: OnStep) -> Iterator[Outcome]:
        """Yield how rows ended, until all have, or on_step says to stop."""
        lively, stopping = time.monotonic(), 0.0
        while (waiting and not stopping) or self._busy:
            if not stopping:
                self._employ(waiting)
            ready, _ = ray.wait([*self._hired, *self._busy], timeout=POLL_S) if self._hired or self._busy else ([], [])
            now = time.monotonic()
            lively = now if ready or self._busy else lively
            for future in ready:
                yield from self._answered(future, waiting)
            if not stopping and on_step(0, 0, 1):
                stopping = now
                self.token.unlink(missing_ok=True)
            if stopping and now - stopping > LINGER_S:
                return
            if now - lively > PATIENCE_S:
                raise UsageError(f"no worker could be started: {self._fault}", "look at the cluster: ray status")

    def _employ(self, waiting: list[list[Task]]) -> None:
        """Give rows to idle workers, and hire as many more as there are rows and room for."""
        while waiting and self._idle:
            actor, group = self._idle.pop(), waiting.pop(0)
            self._busy[actor.draw.remote(group)] = (actor, group)
        cpus, gpus, room = self._room()
        if len(self._hired) < min(len(waiting), room - len(self._busy)):
            kind: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(Drawing)
            actor = kind.remote(self.work, self.token.name)
            self._hired[actor.ready.remote()] = actor

    def _room(self) -> tuple[int, int, int]:
        """Return the CPUs and GPUs of a worker, and how many workers the nodes that are alive have room for."""
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

    def _answered(self, future: Any, waiting: list[list[Task]]) -> Iterator[Outcome]:
        hired = self._hired.pop(future, None)
        actor, group = (hired, []) if hired else self._busy.pop(future)
        try:
            ended = ray.get(future) or []
        except RayError as error:
            self._fault = " ".join(str(error).split())[:300]
            for task in group:
                self._lost[task.name] = self._lost.get(task.name, 0) + 1
                if self._lost[task.name] > RETRIES:
                    yield Outcome(task.name, "failed", error=f"its workers were lost, again and again: {self._fault}")
                else:
                    waiting.insert(0, [task])
            return
        self._idle.append(actor)
        for outcome, files in ended:
            if files:
                unpack(self.work.runs / outcome.name, files)
            yield outcome
