"""A row of a batch made ready to be drawn: its run directory begun, or taken up where it was stopped."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..core.loop import State
from ..errors import OutputExists
from ..settings.schema import Settings
from .checkpoint import load_state
from .memory import fit_to
from .metadata import settings_of
from .recorder import Plan, Recording
from .resume import take_up
from .run_dir import RunDir
from .session import Networks, Session, prepare


@dataclass(frozen=True)
class Task:
    """A row to be drawn: the name of its run directory, and its settings."""

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
    """What all rows of a batch have in common. batch_size: rows in one tensor; 0: as the device and its memory ask."""

    runs: Path
    plan: Plan
    device: str = "auto"
    batch_size: int = 0
    fit: bool = False


@dataclass(eq=False)
class Run:
    """A row under way: what it writes, and the state that it goes on from."""

    task: Task
    recording: Recording
    state: State | None

    @property
    def session(self) -> Session:
        """What the run needs, ready to run."""
        return self.recording.session


def place(run: Run) -> tuple[int, int, tuple[int, ...]]:
    """Return what runs of one tensor must have in common beside their settings: where they are on their way."""
    return (run.state.step, run.state.adam.t, tuple(run.state.z.shape)) if run.state else (0, 0, ())


def open_run(work: Work, task: Task, networks: Networks) -> Run:
    """Take up a row's run where there is one, else begin it. Raises what `generate` and `resume` raise."""
    path = work.runs / task.name
    if (path / "run.json").is_file():
        run = RunDir.open(path)
        with contextlib.ExitStack() as held:
            held.callback(run.close)
            record = run.read_json()
            settings, plan = settings_of(path, record), Plan.of(record)
            state, fault = load_state(path)
            session = _prepared(work, networks, settings)
            recording = take_up(run, record, plan, session, state, fault=fault)
            held.pop_all()
        return Run(task, recording, state)
    session = _prepared(work, networks, task.settings)
    if path.is_dir() and not any(file.is_file() and file.name != ".lock" for file in path.rglob("*")):
        shutil.rmtree(path, ignore_errors=True)  # begun by a process that was killed at once
    if path.exists():
        raise OutputExists(f"{path} is there already, and is no run", "move it away")
    run = RunDir.create(work.runs, task.name)
    return Run(task, Recording(session, run, work.plan), None)


def _prepared(work: Work, networks: Networks, settings: Settings) -> Session:
    session = prepare(settings, work.device, networks)
    if change := fit_to(session, fit=work.fit):
        session.change(change)
    return session
