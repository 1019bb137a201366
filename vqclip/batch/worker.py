"""Makes the images of rows, each in its own run directory; rows that agree may be stacked into one tensor."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..core.loop import Step
from ..errors import VqclipError
from ..runs.driving import Halt, drive
from ..runs.memory import available, estimate, watched
from ..runs.opening import Outcome, Run, Task, Work, open_run, place
from ..runs.recorder import Recording
from ..runs.session import Networks, choose_device, prepare
from ..settings.schema import Settings
from . import stacked

__all__ = ["OnStep", "Outcome", "Task", "Work", "Worker"]

MEMORY_FRACTION = 0.8  # of the free memory that a stack may take
MAX_STACK = 64  # rows in one tensor, if the memory decides

OnStep = Callable[[int, int, int], bool | None]  # rows made together, steps done, all steps; True stops


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
            session = prepare(settings, self.work.device, self._networks)
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
                runs.append(self._open(task, on_step))
            if len({place(run) for run in runs}) == 1:
                for run in runs:
                    run.recording.start(run.state)
                self._step_together(runs, on_step)
                together = True
        except Halt:
            together = True
        except Exception:  # the row that failed fails again alone, and says why
            together = False
        finally:
            outcomes = [self._finish(run) for run in runs]
        return outcomes if together else []

    def _finish(self, run: Run) -> Outcome:
        """End the run of a row in a stack; return how it ended."""
        status = "done" if run.recording.last.step >= run.session.settings.steps else "stopped"
        try:
            run.recording.finish(status)
        except Exception as error:
            return _failure(run.task, error, run.recording)
        return _outcome(run, status)

    def _step_together(self, runs: Sequence[Run], on_step: OnStep | None) -> None:
        sessions = [run.session for run in runs]
        with watched(sessions[0].settings):
            for steps in stacked.steps(sessions, [run.state for run in runs]):
                for run, step in zip(runs, steps, strict=True):
                    run.recording.step(step)
                if self._stop_asked(on_step, len(runs), steps[0].step, sessions[0].settings.steps):
                    return

    def _run_alone(self, task: Task, on_step: OnStep | None) -> Outcome:
        """Run one row; return how it ended."""
        run: Run | None = None

        def step(step: Step) -> bool:
            return self._stop_asked(on_step, 1, step.step, task.settings.steps)

        try:
            run = self._open(task, on_step)
            drive(run.recording, run.state, lambda: None, step, fit=self.work.fit)
        except Halt:
            return _outcome(run, "stopped") if run else Outcome(task.name, "pending")
        except Exception as error:
            return _failure(task, error, run.recording if run else None)
        return _outcome(run, "stopped" if self._stopped else "done")

    def _open(self, task: Task, on_step: OnStep | None) -> Run:
        """Begin a row's run, or take it up. Raises VqclipError."""
        with watched(task.settings, fit=self.work.fit):
            run = open_run(self.work, task, self._networks)
        run.session.on_code = partial(self._on_code, on_step, task.settings.steps)
        return run

    def _stop_asked(self, on_step: OnStep | None, rows: int, step: int, steps: int) -> bool:
        self._stopped = bool(on_step and on_step(rows, step, steps)) or self._stopped
        return self._stopped

    def _on_code(self, on_step: OnStep | None, steps: int, done: int, total: int) -> None:
        """Ask whether to stop while a row's candidates are drawn. Raises Halt."""
        if self._stop_asked(on_step, 1, 0, max(1, steps)):
            raise Halt


def _outcome(run: Run, status: str) -> Outcome:
    last = run.recording.last
    distance = float(last.losses["prompt"].mean()) if last.losses else None
    return Outcome(run.task.name, status, last.step, distance, round(run.recording.spent, 2))


def _failure(task: Task, error: Exception, recording: Recording | None) -> Outcome:
    what = error.what if isinstance(error, VqclipError) else f"a fault in vqclip: {type(error).__name__}: {error}"
    steps = recording.last.step if recording else 0
    return Outcome(task.name, "failed", steps, error=" ".join(what.split())[:500])


def _networks_first(task: Task) -> tuple[str, ...]:
    """Return what sorts tasks: by their networks first, so that each is loaded once; then by what a stack shares."""
    return (task.settings.vqgan, *task.settings.clips, stacked.shared_settings(task.settings))
