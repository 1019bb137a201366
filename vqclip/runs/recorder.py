"""What a run leaves behind: frames, metrics and checkpoints as it goes, the final picture and its record at the end."""

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.loop import State, Step
from ..errors import InputError
from ..files.atomic import require_space, write_atomic
from ..files.metadata import published, to_png, writer_for
from .checkpoint import TENSORS, latent_to_bytes, save_state
from .intervals import Interval
from .run_dir import RunDir
from .session import Session

HALF_A_MINUTE = Interval(seconds=30)
FRAME_SHARE = 0.6  # of a picture's bytes, about what its PNG takes
METRICS_LINE = 150  # bytes


@dataclass(frozen=True)
class Plan:
    """What a run is to leave in its folder; a resumed run follows the plan of its beginning."""

    metadata: bool = True
    frames_every: int = 10  # steps; 0 saves the final picture alone
    checkpoint_every: Interval = HALF_A_MINUTE
    latents: bool = False  # beside the frames

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Plan":
        """Read what a Recording's `record` says. Raises InputError."""
        try:
            told = record["plan"]
            often, frames = told["checkpoint_every"], int(told["frames_every"])
            every = Interval(int(often["steps"]), float(often["seconds"]))
            if min(frames, every.steps, every.seconds) < 0:
                raise ValueError("a negative number")
            return cls(bool(told["metadata"]), frames, every, bool(told.get("latents", False)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"run.json has no sound plan: {error!r}", "it must be as vqclip wrote it") from None


class Recording:
    """Writes one run's files; a run without a folder and without a target leaves nothing.

    A frame is compressed and written while the next step is made; whatever is written after it waits for it.
    """

    def __init__(
        self,
        session: Session,
        run: RunDir | None,
        plan: Plan,
        *,
        target: Path | None = None,
        overwrite: bool = False,
        changes: list[dict[str, Any]] | None = None,
        before: float = 0.0,
    ) -> None:
        """Take over a run directory. changes: what earlier sittings changed on the way; before: seconds they took."""
        self.session, self.run, self.plan = session, run, plan
        self.target, self.overwrite = target, overwrite
        self.record = session.record() | {"plan": asdict(plan)} | ({"changes": changes} if changes else {})
        session.folder = run.path if run else None
        self.last = Step(0, torch.empty(0), {}, 0.0)  # until `start`, which may draw for minutes, there is no latent
        self.final: Path | None = None
        self._began = self._then = self._saved = time.monotonic()
        self._saved_step = 0
        self._before = before
        self._behind = ThreadPoolExecutor(1, "frames")
        self._frame_at_work: tuple[Future[None], Step] | None = None  # and the step before it

    def start(self, state: State | None = None) -> None:
        """Say that the run is running, from its first frame or from a state, and begin to count the seconds."""
        if state:
            self.last = Step(state.step, state.ema, {}, 0.0, state)
        if self.run:
            left = self.session.settings.steps - self.last.step
            frames = left // self.plan.frames_every if self.plan.frames_every else 0
            require_space(self.run.path, frames * self._frame + self._reserve + left * METRICS_LINE, "the run")
            self._note("running")
            self.run.rewind(self.last.step, self.plan.frames_every)
        if not state:
            self.last = Step(0, self.session.z, self.session.nearness, 0.0)
            self._before += self.session.begun_in
        if self.run and self.plan.frames_every and not state:
            self._begin_frame(self.last)
        self._saved_step = self.last.step
        self._began = self._then = self._saved = time.monotonic()

    @property
    def _frame(self) -> int:
        width, height = self.session.settings.size
        return round(width * height * 3 * FRAME_SHARE)

    @property
    def _reserve(self) -> int:
        """Bytes that must stay free for a good end: two states, the last frame, latest.png and final.png."""
        return 2 * len(TENSORS) * math.prod(self.session.shape) * 4 + 3 * self._frame

    @property
    def seconds(self) -> float:
        """Seconds since the first step began."""
        return self._then - self._began

    @property
    def spent(self) -> float:
        """Seconds of this sitting and of all before it."""
        return self._before + self.seconds

    def step(self, step: Step) -> None:
        """Take in one step: a line of metrics, and a frame and a checkpoint when their turn has come."""
        self._settle()
        now = time.monotonic()
        if self.run:
            losses = {name: round(float(value.mean()), 6) for name, value in step.losses.items()}
            took = round(now - self._then, 4)
            self.run.add_metrics({"step": step.step, **losses, "changed": round(step.changed, 6), "seconds": took})
            if self.plan.frames_every and step.step % self.plan.frames_every == 0:
                require_space(self.run.path, self._frame + self._reserve, "a frame, with what the end needs,")
                self._begin_frame(step)
        self.last = step  # not before: a step whose files could not be written must be made again
        every = self.plan.checkpoint_every
        if (every.steps and step.step - self._saved_step >= every.steps) or (
            every.seconds and now - self._saved >= every.seconds
        ):
            self.checkpoint()
        self._then = now

    def change(self, step: int, settings: dict[str, Any]) -> None:
        """Record that settings changed after `step` steps, the last ones; their state is saved first."""
        self.checkpoint()  # else a run that is killed would make the steps before with the settings after
        self.record |= {
            "settings": self.session.settings.model_dump(mode="json"),
            "changes": [*self.record.get("changes", []), {"after": step, "settings": settings}],
        }
        self._note("running")

    def checkpoint(self) -> None:
        """Save the state of the last step, if it has not been saved yet."""
        self._settle()  # there is a frame for every step of a state, too
        if self.run and self.last.state and self.last.step > self._saved_step:
            self.run.sync_metrics()  # their lines must be there for every step of a state
            save_state(self.run.path, self.last.state)
            self._saved, self._saved_step = time.monotonic(), self.last.step
            self._note("running")

    def finish(self, status: str) -> None:
        """Write the state and the picture of the last step, and close the record.

        Of a failed run the picture so far stays in its folder, if a step was made; `-o` is left alone.
        """
        try:
            self._settle()
        except Exception:
            status = "failed"
            raise
        finally:
            self._end(status)

    def _end(self, status: str) -> None:
        try:
            try:
                self.checkpoint()
            finally:
                self._behind.shutdown()  # a frame that is late would bring latest.png back
                if self.last.latent.numel() and (status != "failed" or self.last.step):
                    self._write_final(with_target=status != "failed")
        except BaseException:
            status = "failed"
            raise
        finally:
            if self.run:
                with contextlib.closing(self.run):
                    self._note(status)

    def _note(self, status: str) -> None:
        if self.run:
            done = {"status": status, "steps_done": self.last.step, "seconds": round(self.spent, 2)}
            if not self.last.step and self.last.losses:  # of steps it is in the metrics
                done["distance"] = round(float(self.last.losses["prompt"].mean()), 6)
            self.run.write_json(self.record | done)

    def _write_final(self, *, with_target: bool) -> None:
        picture, about = self.session.picture(self.last.latent), self._about(self.last)
        try:
            if self.run:
                png = to_png(picture, about)
                if self.plan.frames_every and self.last.step % self.plan.frames_every:
                    self._write_frame(self.last, lambda: png)
                self.final = self.run.write_final(png)
        finally:  # the run's own folder may have filled up or gone
            if self.target and with_target:
                write_atomic(self.target, writer_for(self.target)(picture, about), replace=self.overwrite)

    def _begin_frame(self, step: Step) -> None:
        picture, about = self.session.picture(step.latent), self._about(step)
        self._settle()
        future = self._behind.submit(self._write_frame, step, lambda: to_png(picture, about))
        self._frame_at_work = future, self.last

    def _settle(self) -> None:
        """Wait for the frame that is being written. Raises OutputError where it can't be: its step is not done then."""
        if self._frame_at_work:
            future, before = self._frame_at_work
            try:
                future.result()
            except Exception:  # a signal that ends the wait says nothing of the frame
                self.last, self._frame_at_work = before, None
                raise
            self._frame_at_work = None

    def _write_frame(self, step: Step, png: Callable[[], bytes]) -> None:
        assert self.run is not None
        if self.plan.latents:  # first: every frame that is there has its latent
            self.run.write_latent(step.step, latent_to_bytes(step.latent))
        self.run.write_frame(step.step, png())

    def _about(self, step: Step) -> dict | None:
        if not self.plan.metadata:
            return None
        told = {key: value for key, value in self.record.items() if key != "plan"}
        return published(told) | {"step": step.step}
