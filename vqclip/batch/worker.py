"""Makes the images of rows, each in its own run directory; rows that agree may be stacked into one tensor."""

import contextlib
import functools
import itertools
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.loop import Step
from ..core.threads import side_by_side, use_threads, workers
from ..errors import OutputExists, VqclipError
from ..runs.generate import Run
from ..runs.memory import available, estimate, fit_memory, watched
from ..runs.networks import Networks
from ..runs.output import Output
from ..runs.progress import Progress
from ..runs.project_files import files_in, named_files
from ..runs.recorder import Recorder
from ..runs.resume import reopen
from ..runs.run_dir import FINISHED, RunDir
from ..runs.session import Session, are_small, choose_device
from ..settings.schema import Settings
from ..text import without_secrets
from . import stacked
from .manifest import Entry
from .progress import SILENT, BatchProgress

MEMORY_FRACTION = 0.8  # of the free memory that a stack may take
RETRIES = 3  # times that a row is sent again after its process was lost
MAX_STACK = 64  # rows in one tensor, if the memory decides


@dataclass(frozen=True)
class Work:
    """What all rows have in common. runs: holds their run directories; batch_size: rows in one tensor, 0 for auto."""

    runs: Path
    output: Output
    device: str = "auto"
    batch_size: int = 0


class Worker:
    """Makes the images of rows, and keeps the networks in between. A row that fails stops no other."""

    def __init__(self, work: Work, progress: BatchProgress = SILENT) -> None:
        self.work = work
        self._progress = progress
        self._networks = Networks()

    def run(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Run rows from their start, or from where they were stopped; yield each as it ended.

        Rows of small networks run side by side on the CPU's cores.
        """
        rows = sorted(entries, key=_networks_first)
        count = min(self._side_by_side(rows), len(rows))
        groups = [[row] for row in rows]
        if count < 2:
            groups = [list(group) for _, group in itertools.groupby(rows, key=_networks_first)]
        for _, entry in side_by_side([functools.partial(self._run_group, group) for group in groups], max(1, count)):
            yield entry

    def _side_by_side(self, rows: Sequence[Entry]) -> int:
        """Return how many rows run at a time."""
        try:
            device = choose_device(self.work.device)
            small = all(are_small(row.settings) for row in rows)
            if not small or self.work.batch_size > 1:
                return 1
            use_threads(small=small)
            return workers(device)
        except VqclipError:  # the row itself will say so
            return 1

    def _run_group(self, rows: Sequence[Entry]) -> Iterator[Entry]:
        """Run rows that share networks, in stacks."""
        size = 1 if self._progress.stopped else self._stack_size(rows[0].settings)
        for first in range(0, len(rows), size):
            yield from self._run_stack(rows[first : first + size])

    def _stack_size(self, settings: Settings) -> int:
        """Return how many rows of these settings go into one tensor; on the CPU a stack is no faster, so one."""
        if settings.chunk or settings.held_out():  # each ends when it ends
            return 1
        if self.work.batch_size:
            return self.work.batch_size
        try:
            if choose_device(self.work.device).type == "cpu":
                return 1
            session = Session.load(settings, self.work.device, self._networks)
        except VqclipError:  # the row itself will say so
            return 1
        need = estimate(session)
        if need is None:
            return 1
        return max(1, min(MAX_STACK, int(available(session.device) * MEMORY_FRACTION / need.total)))

    def _run_stack(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Run rows as one tensor. If anything fails they go on one by one, so that only the faulty one fails."""
        ended = self._run_together(entries) if len(entries) > 1 and not self._progress.stopped else []
        yield from ended
        for entry in [] if ended else entries:
            if not self._progress.stopped:
                yield self._run_alone(entry)

    def _run_together(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the rows of a stack as they ended; none if they can't be run together: they are saved then."""
        runs: list[Run] = []
        try:
            with contextlib.ExitStack() as recorders:
                for entry in entries:
                    run = self._open(entry)
                    run.recorder.status = "stopped"
                    runs.append(run)
                    recorders.enter_context(run.recorder)
                if len({_position(run) for run in runs}) > 1:
                    return []
                self._step_together(entries, runs)
        except Exception:  # run alone, the faulty row fails again and its error is reported
            return []
        return [_ended(entry, run) for entry, run in zip(entries, runs, strict=True)]

    def _step_together(self, entries: Sequence[Entry], runs: Sequence[Run]) -> None:
        settings, names = runs[0].session.settings, [entry.name for entry in entries]
        progress = [_RowProgress(self._progress, entry) for entry in entries]
        if not all(run.begin(each) for run, each in zip(runs, progress, strict=True)):
            return
        with watched(settings):
            for steps in stacked.optimize_stack(runs):
                for run, step in zip(runs, steps, strict=True):
                    run.recorder.record(step)
                self._progress.step(names, steps[0].step, settings.steps)
                if self._progress.stopped and steps[0].step < settings.steps:
                    return
        for run in runs:
            run.recorder.status = "done"

    def _run_alone(self, entry: Entry) -> Entry:
        run: Run | None = None
        try:
            run = self._open(entry)
            run.optimize(_RowProgress(self._progress, entry))
        except Exception as error:
            what = error.what if isinstance(error, VqclipError) else f"a fault in vqclip: {error!r}"
            return entry.failed(without_secrets(" ".join(what.split()))[:500], run.recorder.last.step if run else 0)
        return _ended(entry, run)

    def _open(self, entry: Entry) -> Run:
        """Begin a row's run, or take it up. Raises what `generate` and `resume` raise."""
        path, work = self.work.runs / entry.name, self.work
        with watched(entry.settings, fit=work.output.fit):
            if (path / "run.json").is_file():
                directory = RunDir.open(path)
                try:
                    record = directory.read_json()
                    files = files_in(entry.settings, named_files(entry.settings))
                    return reopen(
                        directory, record, {}, work.output, files=files, device=work.device, networks=self._networks
                    )
                except BaseException:
                    directory.close()
                    raise
            session = Session.load(entry.settings, work.device, self._networks)
            fit_memory(session, fit=work.output.fit)
            if path.is_dir() and not any(file.is_file() and file.name != ".lock" for file in path.rglob("*")):
                shutil.rmtree(path, ignore_errors=True)  # begun by a process that was killed at once
            if path.exists():
                raise OutputExists(f"{path} exists already, and is no run", "move it away")
            return Run(Recorder(session, RunDir.create(work.runs, entry.name), work.output))


class Losses:
    """Rows whose process was lost: they wait for another, up to RETRIES times."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def send_again(self, rows: Sequence[Entry], waiting: list[list[Entry]], reason: str) -> Iterator[Entry]:
        """Let rows wait, each by itself; yield those that were lost too often as failed."""
        for entry in rows:
            self._counts[entry.name] += 1
            if self._counts[entry.name] > RETRIES:
                yield entry.failed(f"its processes were lost, again and again: {reason}")
            else:
                waiting.insert(0, [entry])


def stacks_of(work: Work, entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut rows into what one process runs at a time: as many as go into one tensor."""
    size = max(1, work.batch_size)
    if size == 1:
        return [[entry] for entry in entries]
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(stacked.shared_settings(entry.settings), []).append(entry)
    return [rows[first : first + size] for rows in groups.values() for first in range(0, len(rows), size)]


class _RowProgress(Progress):
    """Passes the steps of one row on to the batch's progress."""

    def __init__(self, batch: BatchProgress, entry: Entry) -> None:
        self._batch, self._row, self._steps = batch, [entry.name], entry.settings.steps

    @property
    def stopped(self) -> bool:
        return self._batch.stopped

    def candidates(self, done: int, total: int) -> None:
        self._batch.step(self._row, 0, max(1, self._steps))

    def step(self, step: Step) -> None:
        self._batch.step(self._row, step.step, self._steps)


def _position(run: Run) -> tuple[int, int, tuple[int, ...]]:
    """Return (step, updates, latent shape): only runs that agree in these can share a tensor."""
    return (run.state.step, run.state.moments.t, tuple(run.state.z.shape)) if run.state else (0, 0, ())


def _ended(entry: Entry, run: Run) -> Entry:
    recorder = run.recorder
    return entry.model_copy(
        update={
            "status": "done" if recorder.status in FINISHED else recorder.status,
            "steps": recorder.last.step,
            "distance": recorder.distance if math.isfinite(recorder.distance) else None,
            "seconds": round(recorder.spent, 2),
            "error": "",
        }
    )


def _networks_first(entry: Entry) -> tuple[str, ...]:
    """Return what sorts rows: by their networks first, so that each is loaded once; then by what a stack shares."""
    return (entry.settings.vqgan, *entry.settings.clips, stacked.shared_settings(entry.settings))
