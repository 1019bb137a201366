"""From settings to an image and its files: load the models, run the loop, record."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..core.loop import State, Step
from ..errors import Diverged, OutOfMemory
from ..settings.schema import Settings
from .memory import fit_memory, smaller_chunk, watched
from .networks import Networks
from .output import Output
from .progress import Progress
from .recorder import Recorder, Result
from .run_dir import RunDir
from .session import Session, Start


def generate(
    settings: Settings,
    output: Output,
    *,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make one image. output: checked by `Output.check`.

    Raises a VqclipError: InputError, ModelError, OutputError, OutputExists, OutOfMemory, Diverged.
    """
    progress = progress or Progress()
    with watched(settings, fit=output.fit):
        session = Session.load(settings, device, networks)
        fit_memory(session, fit=output.fit)
    if progress.stopped:  # while models were loaded
        return Result(None, session.settings, 0, math.nan, 0.0, None, None, "stopped")
    directory = RunDir.create(output.runs, session.folder_name()) if output.runs else None
    return Run(Recorder(session, directory, output)).optimize(progress)


@dataclass(eq=False)
class Run:
    """A run whose models are loaded and whose directory is locked; it begins at its start or at a state."""

    recorder: Recorder
    state: State | None = None  # what it goes on from
    start: Start | None = None  # once it has begun

    @property
    def session(self) -> Session:
        """The models, the targets and the settings."""
        return self.recorder.session

    def optimize(self, progress: Progress) -> Result:
        """Run the loop to its end, or until `progress` is stopped, and record it; the image so far is always kept."""
        recorder, session = self.recorder, self.session
        with watched(session.settings, fit=recorder.output.fit), recorder:
            begun = self.begin(progress)
            if begun and not progress.stopped:
                for step in self._steps(progress):
                    recorder.record(step)
                    progress.step(step)
                    if progress.stopped:
                        break
            if not begun or recorder.last.step < session.settings.steps:
                recorder.status = "converged" if begun and not progress.stopped else "stopped"
        return recorder.result()

    def begin(self, progress: Progress) -> bool:
        """Choose the start and write the first frame; return False if that was stopped, or stopped before."""
        self.recorder.open(self.state)
        progress.start(self.session, self.recorder.run)
        if progress.stopped:
            return False
        self.start = self.session.start(progress, self.recorder.folder)
        if self.start is None:
            return False
        self.recorder.start(self.start)
        progress.started(self.start)
        return True

    def _steps(self, progress: Progress) -> Iterator[Step]:
        """Run the loop. If it diverges (once) or, with `fit`, memory runs out, go on from the last state, changed."""
        recorder, session, state = self.recorder, self.session, self.state
        fit, calmed = recorder.output.fit, False
        while self.start:
            try:
                with watched(session.settings, fit=fit):  # here, where `fit` can go on after an OutOfMemory
                    yield from session.steps(self.start, state)
                return
            except Diverged as error:
                if calmed or recorder.last.state is None:
                    raise
                calmed, reason = True, error.what
                change: dict[str, Any] = session.settings.slower(0.5)
            except OutOfMemory as error:
                chunk = smaller_chunk(session.settings, session.device)
                if not fit or not chunk:
                    raise
                reason, change = error.what, {"chunk": chunk}
            state = recorder.last.state
            session.change(change)
            recorder.change(change)
            changed = ", ".join(f"{name} {value}" for name, value in change.items()).replace("_", " ")
            progress.note(f"{reason}: going on from step {recorder.last.step} with {changed}")
