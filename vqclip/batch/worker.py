"""Draws rows, together where they agree, each into its own run directory. One row's failure stops no other."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..core.loop import Step
from ..errors import Diverged, OutOfMemory, VqclipError
from ..runs.driving import Halt, drive
from ..runs.memory import available, estimate, watched
from ..runs.opening import Outcome, Run, Task, Work, open_run, place
from ..runs.recorder import Recording
from ..runs.session import Networks, Session
from .stacked import agreeing, steps

__all__ = ["OnStep", "Outcome", "Task", "Work", "Worker"]

SHARE = 0.8  # of the free memory that a batch may take
MOST = 64  # rows of one tensor, at most, where the memory decides

OnStep = Callable[[int, int, int], bool | None]  # rows drawn together, steps done, steps in all; True stops


class Worker:
    """Draws groups of rows, and keeps the networks in between."""

    def __init__(self, work: Work) -> None:
        self.work, self._networks, self._stopping = work, Networks(), False
        self._outcomes: dict[str, Outcome] = {}

    def draw(self, tasks: Sequence[Task], on_step: OnStep | None = None) -> Iterator[Outcome]:
        """Draw rows from their start, or from where they were stopped; yield how each ended.

        on_step is called after every step, and may return True: the rows at hand are then stopped, and saved.
        """
        self._stopping = False
        for _, alike in itertools.groupby(sorted(tasks, key=_alike), key=_alike):
            waiting, size = list(alike), 0
            while waiting and not self._stopping:
                opened = self._opened(waiting[: size or 1], on_step)
                if not size and opened:
                    size = self._size(opened[0].session)
                    opened += self._opened(waiting[1:size], on_step)
                waiting = waiting[size or 1 :]
                for _, level in itertools.groupby(sorted(opened, key=place), key=place):
                    self._drive(list(level), on_step)
                    yield from self._ended()
                yield from self._ended()

    def _ended(self) -> Iterator[Outcome]:
        outcomes, self._outcomes = self._outcomes, {}
        yield from outcomes.values()

    def _size(self, session: Session) -> int:
        """Return how many rows like this one go into one tensor.

        On the CPU a batch of rows is no faster than one after the other, so auto takes one.
        """
        if session.settings.chunk:
            return 1
        if self.work.batch_size or session.device.type == "cpu":
            return max(1, self.work.batch_size)
        need = estimate(session)
        return max(1, min(MOST, int(available(session.device) * SHARE / need.total))) if need else 1

    def _code(self, on_step: OnStep | None, total: int, done: int, codes: int) -> None:
        """Hear of a code of a row's candidates: no step yet, but a time to stop. Raises Halt."""
        if on_step and on_step(1, 0, total):
            self._stopping = True
            raise Halt

    def _opened(self, tasks: Sequence[Task], on_step: OnStep | None) -> list[Run]:
        runs = []
        for task in tasks:
            try:
                with watched(task.settings, fit=self.work.fit):
                    run = open_run(self.work, task, self._networks)
                run.session.on_code = partial(self._code, on_step, max(1, task.settings.steps))
                runs.append(run)
            except Exception as error:
                self._fail(task, error)
        return runs

    def _drive(self, runs: list[Run], on_step: OnStep | None) -> None:
        if len(runs) == 1:
            return self._drive_alone(runs[0], on_step)
        try:
            for run in runs:
                runs = self._each(runs, run, partial(run.recording.start, run.state))
        except Halt:
            for run in runs:
                self._end(run, "stopped")
            return
        self._drive_many(runs, on_step)

    def _drive_many(self, runs: list[Run], on_step: OnStep | None) -> None:
        """Run rows that have begun to their end. What fails in all of them is looked for in halves."""
        if len(runs) == 1:  # alone it has its own ways out of divergence and short memory
            self._end(runs[0], "stopped")
            for run in self._opened([runs[0].task], on_step):
                self._drive_alone(run, on_step)
            return
        try:
            self._drive_together(runs, on_step)
        except (Diverged, OutOfMemory):
            half = len(runs) // 2
            for part in (runs[:half], runs[half:]):
                self._drive_many(self._later(part), on_step)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            for run in runs:
                self._end(run, "stopped" if stopped else "failed", error)
            if not isinstance(error, Exception):
                raise

    def _drive_together(self, runs: list[Run], on_step: OnStep | None) -> None:
        while len(runs) > 1:
            sessions = [run.session for run in runs]
            total, faulty = sessions[0].settings.steps, False
            with watched(sessions[0].settings):
                for parts in steps(sessions, [run.state for run in runs]):
                    kept = runs
                    for run, part in zip(runs, parts, strict=True):
                        kept = self._each(kept, run, partial(run.recording.step, part))
                    if faulty := len(kept) < len(runs):
                        runs[:] = self._later(kept)
                        break
                    if on_step and on_step(len(runs), parts[0].step, total):
                        self._stopping = True
                        break
            if not faulty:
                for run in runs:
                    self._end(run, "stopped" if self._stopping else "done")
                return
        if runs:
            self._drive_many(runs, on_step)

    def _drive_alone(self, run: Run, on_step: OnStep | None) -> None:
        total = run.session.settings.steps

        def step(step: Step) -> bool:
            self._stopping = bool(on_step and on_step(1, step.step, total)) or self._stopping
            return self._stopping

        try:
            drive(run.recording, run.state, lambda: None, step, fit=self.work.fit)
        except Exception as error:
            self._fail(run.task, error, run.recording)
        except Halt:
            self._outcomes[run.task.name] = _outcome(run, "stopped")
        except BaseException:
            self._outcomes[run.task.name] = _outcome(run, "stopped")
            raise
        else:
            self._outcomes[run.task.name] = _outcome(run, "stopped" if self._stopping else "done")

    @staticmethod
    def _later(runs: Sequence[Run]) -> list[Run]:
        """Return runs that go on from their last step."""
        return [Run(run.task, run.recording, run.recording.last.state or run.state) for run in runs]

    def _each(self, runs: list[Run], run: Run, act: Callable[[], None]) -> list[Run]:
        """Do something for one run; where that fails the run ends, and is left out of those that are returned."""
        try:
            act()
        except Exception as error:
            self._end(run, "failed", error)
            return [other for other in runs if other is not run]
        return runs

    def _end(self, run: Run, status: str, error: BaseException | None = None) -> None:
        try:
            run.recording.finish(status)
        except Exception as fault:
            status, error = "failed", error or fault
        if status == "failed" and error is not None:
            self._fail(run.task, error, run.recording)
        else:
            self._outcomes[run.task.name] = _outcome(run, status)

    def _fail(self, task: Task, error: BaseException, recording: Recording | None = None) -> None:
        what = error.what if isinstance(error, VqclipError) else f"a fault in vqclip: {type(error).__name__}: {error}"
        done = recording.last.step if recording else 0
        self._outcomes[task.name] = Outcome(task.name, "failed", done, error=" ".join(what.split())[:500])


def _outcome(run: Run, status: str) -> Outcome:
    last = run.recording.last
    distance = float(last.losses["prompt"].mean()) if last.losses else None
    return Outcome(run.task.name, status, last.step, distance, round(run.recording.spent, 2))


def _alike(task: Task) -> tuple[str, ...]:
    """Return what sorts tasks: by their networks first, so that each is loaded once."""
    return (task.settings.vqgan, *task.settings.clips, agreeing(task.settings))
