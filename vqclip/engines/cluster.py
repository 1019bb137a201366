"""Rows drawn on a Ray cluster: an actor a GPU, or a few CPUs, that keeps its networks; lost rows are sent again.

Workers write into the run directories themselves where they see the folder, and so resume what a lost one began;
where they don't, a finished run comes back as bytes. Ray is imported here alone.
"""

import contextlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from ..disk import write_atomic
from ..errors import UsageError
from ..together import agreeing
from ..worker import OnStep, Outcome, Task, Work, Worker

CPUS = 2  # of a worker without a GPU
RETRIES = 3  # times that a row is sent again after its worker was lost
POLL_S = 0.5
PATIENCE_S = 120.0  # without any worker


class Drawing:
    """What lives in an actor."""

    def __init__(self, work: Work, token: str, threads: int) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.shared = (work.runs / token).exists()
        self._aside = None if self.shared else tempfile.TemporaryDirectory(prefix="vqclip-")
        self.work = work if self._aside is None else replace(work, runs=Path(self._aside.name))
        self._worker = Worker(self.work)

    def where(self) -> str:
        """Return the node's id."""
        return str(ray.get_runtime_context().get_node_id())

    def draw(self, tasks: list[Task]) -> list[tuple[Outcome, dict[str, bytes]]]:
        """Draw rows; return how each ended, and its files where the folder is not seen from here."""
        ended = list(self._worker.draw(tasks))
        return [(outcome, {} if self.shared else _packed(self.work.runs / outcome.name)) for outcome in ended]


@dataclass
class _Crew:
    """An actor and what it does."""

    actor: Any
    tasks: list[Task]
    future: Any


def _packed(run: Path) -> dict[str, bytes]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def _unpack(run: Path, files: dict[str, bytes]) -> None:
    for name in sorted(files, key=lambda name: name == "run.json"):  # run.json last: it says that all is there
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(run / name, files[name])


def draw(
    work: Work, tasks: Sequence[Task], on_step: OnStep, *, address: str | None = None, workers: int = 0
) -> Iterator[Outcome]:
    """Draw tasks on the cluster at `address`, or on one that is started here, and yield how each ended.

    workers: actors; 0: one a GPU, or one for every two CPUs. A row whose worker is lost goes to another, up to
    RETRIES times. Raises UsageError where there is no cluster at the address.
    """
    token = f".shared-{secrets.token_hex(8)}"
    (work.runs / token).touch()
    with contextlib.ExitStack() as ending:
        ending.callback((work.runs / token).unlink, missing_ok=True)
        if not ray.is_initialized():
            try:
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"there is no Ray cluster at {address or 'this machine'}: {str(error)[:200]}"
                ) from None
            ending.callback(ray.shutdown)
        yield from _Driver(work, token, workers).run(_groups(work, tasks), on_step)


def _groups(work: Work, tasks: Sequence[Task]) -> list[list[Task]]:
    """Cut tasks into what one worker draws at a time."""
    size = max(1, work.batch_size)
    groups: list[list[Task]] = []
    ordered = sorted(tasks, key=lambda task: agreeing(task.settings)) if size > 1 else list(tasks)
    for task in ordered:
        last = groups[-1] if groups else None
        if last and len(last) < size and agreeing(last[0].settings) == agreeing(task.settings):
            last.append(task)
        else:
            groups.append([task])
    return groups


class _Driver:
    def __init__(self, work: Work, token: str, workers: int) -> None:
        self.work, self.token = work, token
        have = ray.cluster_resources()
        gpus = int(have.get("GPU", 0)) if work.device in ("auto", "cuda") else 0
        self.cpus = 1 if gpus else min(CPUS, max(1, int(have.get("CPU", 1))))
        self.gpus = 1 if gpus else 0
        self.most = workers or gpus or max(1, int(have.get("CPU", 1)) // self.cpus)

    def _hire(self) -> Any:
        kind = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)(Drawing)
        return kind.remote(self.work, self.token, 0 if self.gpus else int(os.environ.get("OMP_NUM_THREADS", 0)))

    def run(self, waiting: list[list[Task]], on_step: OnStep) -> Iterator[Outcome]:
        crews: list[_Crew] = []
        idle: list[Any] = []
        lost: dict[str, int] = {}
        lively = time.monotonic()
        while waiting or crews:
            while waiting and len(crews) < self.most:
                actor = idle.pop() if idle else self._hire()
                group = waiting.pop(0)
                crews.append(_Crew(actor, group, actor.draw.remote(group)))
            ready, _ = ray.wait([crew.future for crew in crews], timeout=POLL_S)
            if on_step(0, 0, 1):  # stopped: what is under way is lost at most back to its last checkpoint
                for crew in crews:
                    ray.kill(crew.actor)
                return
            if not ready and time.monotonic() - lively > PATIENCE_S and not ray.nodes():
                raise UsageError("the Ray cluster has no nodes left", "start it again; the same command goes on")
            for crew in [crew for crew in crews if crew.future in ready]:
                crews.remove(crew)
                lively = time.monotonic()
                try:
                    ended = ray.get(crew.future)
                except RayError as error:
                    yield from self._lost(crew, error, lost, waiting)
                    continue
                idle.append(crew.actor)
                for outcome, files in ended:
                    if files:
                        _unpack(self.work.runs / outcome.name, files)
                    yield outcome

    @staticmethod
    def _lost(crew: _Crew, error: RayError, lost: dict[str, int], waiting: list[list[Task]]) -> Iterator[Outcome]:
        """Send what a lost worker had to another; a row that was lost too often has failed."""
        with contextlib.suppress(RayError):
            ray.kill(crew.actor)
        for task in crew.tasks:
            lost[task.name] = lost.get(task.name, 0) + 1
            if lost[task.name] > RETRIES:
                what = " ".join(str(error).split())[:300]
                yield Outcome(task.name, "failed", error=f"its worker was lost {lost[task.name]} times: {what}")
            else:
                waiting.insert(0, [task])
