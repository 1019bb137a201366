"""Makes the images of rows, each in its own run directory; rows that agree may be stacked into one tensor."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.devices import choose_device
from ..errors import OutputExists, VqclipError
from ..runs.generate import Run
from ..runs.memory import available, estimate, fit_memory, watched
from ..runs.networks import Networks
from ..runs.output import Output
from ..runs.progress import Callbacks
from ..runs.recorder import Recorder
from ..runs.resume import reopen
from ..runs.run_dir import RunDir
from ..runs.session import Session
from ..settings.schema import Settings
from . import stacked

MEMORY_FRACTION = 0.8  # of the free memory that a stack may take
MAX_STACK = 64  # rows in one tensor, if the memory decides

OnStep = Callable[[int, int, int], bool | None]  # rows made together, steps done, all steps; True stops


@dataclass(frozen=True)
class Task:
    """A row to be made: the name of its run directory, and its settings."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """How a row ended: done, stopped or failed."""

    name: str
    status: str
    steps: int = 0
    distance: float | None = None
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Work:
    """What all rows have in common. runs: holds their run directories; batch_size: rows in one tensor, 0 for auto."""

    runs: Path
    output: Output
    device: str = "auto"
    batch_size: int = 0


class Worker:
    """Makes the images of rows, and keeps the networks in between. A row that fails stops no other."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._networks = Networks()
        self._stopped = False

    def run(self, tasks: Sequence[Task], on_step: OnStep | None = None) -> Iterator[Outcome]:
        """Run rows from their start, or from where they were stopped; yield how each ended.

        on_step is called after every step. If it returns True, the rows at hand are saved and no other is begun.
        """
        self._stopped = False
        for _, group in itertools.groupby(sorted(tasks, key=_networks_first), key=_networks_first):
            rows = list(group)
            size = self._stack_size(rows[0].settings)
            for first in range(0, len(rows), size):
                if not self._stopped:
                    yield from self._run_stack(rows[first : first + size], on_step)

    def _stack_size(self, settings: Settings) -> int:
        """Return how many rows of these settings go into one tensor.

        On the CPU a stack is no faster than one row after the other, so that `auto` takes one.
        """
        if settings.chunk:
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

    def _run_stack(self, tasks: Sequence[Task], on_step: OnStep | None) -> Iterator[Outcome]:
        """Run rows as one tensor. If anything fails they go on one by one, so that only the faulty one fails."""
        outcomes = self._run_together(tasks, on_step) if len(tasks) > 1 else []
        yield from outcomes
        for task in [] if outcomes else tasks:
            if not self._stopped:
                yield self._run_alone(task, on_step)

    def _run_together(self, tasks: Sequence[Task], on_step: OnStep | None) -> list[Outcome]:
        """Return how the rows of a stack ended; nothing if they can't be run together: they are saved then."""
        runs: list[Run] = []
        together = False
        try:
            for task in tasks:
                runs.append(self._open(task))
            if len({_position(run) for run in runs}) == 1:
                if all(run.begin(self._listen(task, on_step)) for run, task in zip(runs, tasks, strict=True)):
                    self._step_together(runs, on_step)
                together = True
        except Exception:  # the row that failed fails again alone, and says why
            together = False
        finally:
            outcomes = [_finish(task, run) for task, run in zip(tasks, runs, strict=False)]
        return outcomes if together else []

    def _step_together(self, runs: Sequence[Run], on_step: OnStep | None) -> None:
        settings = runs[0].session.settings
        with watched(settings):
            for steps in stacked.steps(runs):
                for run, step in zip(runs, steps, strict=True):
                    run.recorder.record(step)
                if self._stop_asked(on_step, len(runs), steps[0].step, settings.steps):
                    return

    def _run_alone(self, task: Task, on_step: OnStep | None) -> Outcome:
        """Run one row; return how it ended."""
        run: Run | None = None
        try:
            run = self._open(task)
            result = run.optimize(self._listen(task, on_step))
        except Exception as error:
            return _failure(task, error, run)
        return _outcome(task, run, result.status)

    def _open(self, task: Task) -> Run:
        """Begin a row's run, or take it up. Raises what `generate` and `resume` raise."""
        path, work = self.work.runs / task.name, self.work
        with watched(task.settings, fit=work.output.fit):
            if (path / "run.json").is_file():
                directory = RunDir.open(path)
                try:
                    record = directory.read_json()
                    return reopen(directory, record, {}, work.output, device=work.device, networks=self._networks)
                except BaseException:
                    directory.close()
                    raise
            session = Session.load(task.settings, work.device, self._networks)
            fit_memory(session, fit=work.output.fit)
            if path.is_dir() and not any(file.is_file() and file.name != ".lock" for file in path.rglob("*")):
                shutil.rmtree(path, ignore_errors=True)  # begun by a process that was killed at once
            if path.exists():
                raise OutputExists(f"{path} exists already, and is no run", "move it away")
            return Run(Recorder(session, RunDir.create(work.runs, task.name), work.output))

    def _listen(self, task: Task, on_step: OnStep | None) -> Callbacks:
        """Return what asks on_step whether to stop, at every step of a row and every code of its candidates."""
        steps = task.settings.steps
        return Callbacks(
            on_step=lambda step: self._stop_asked(on_step, 1, step.step, steps),
            on_code=lambda done, total: self._stop_asked(on_step, 1, 0, max(1, steps)),
        )

    def _stop_asked(self, on_step: OnStep | None, rows: int, step: int, steps: int) -> bool:
        self._stopped = bool(on_step and on_step(rows, step, steps)) or self._stopped
        return self._stopped


def _position(run: Run) -> tuple[int, int, tuple[int, ...]]:
    """Return (step, updates, latent shape): only runs that agree in these can share a tensor."""
    return (run.state.step, run.state.adam.t, tuple(run.state.z.shape)) if run.state else (0, 0, ())


def _finish(task: Task, run: Run) -> Outcome:
    """End the run of a row in a stack; return how it ended."""
    status = "done" if run.recorder.last.step >= run.session.settings.steps else "stopped"
    try:
        run.recorder.finish(status)
    except Exception as error:
        return _failure(task, error, run)
    return _outcome(task, run, status)


def _outcome(task: Task, run: Run, status: str) -> Outcome:
    recorder = run.recorder
    distance = recorder.distance if recorder.last.losses else None
    return Outcome(task.name, status, recorder.last.step, distance, round(recorder.spent, 2))


def _failure(task: Task, error: Exception, run: Run | None) -> Outcome:
    what = error.what if isinstance(error, VqclipError) else f"a fault in vqclip: {type(error).__name__}: {error}"
    steps = run.recorder.last.step if run else 0
    return Outcome(task.name, "failed", steps, error=" ".join(what.split())[:500])


def _networks_first(task: Task) -> tuple[str, ...]:
    """Return what sorts tasks: by their networks first, so that each is loaded once; then by what a stack shares."""
    return (task.settings.vqgan, *task.settings.clips, stacked.shared_settings(task.settings))
