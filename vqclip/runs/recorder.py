"""Write a run's files: frames, metrics and checkpoints during the run, the final image and its record at the end."""

import contextlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from ..core.loop import State, Step
from ..errors import OutputError, OutputExists, VqclipError
from ..files.atomic import require_space, write_atomic
from ..files.images import tile, to_picture
from ..files.metadata import ImageInfo, published, to_png, writer_for
from ..settings.schema import Settings
from ..text import pasted
from . import exits
from .candidates import distance_of
from .checkpoint import TENSORS, latent_to_bytes, save_state
from .output import Output
from .run_dir import RunDir
from .session import Session, Start

FRAME_SHARE = 0.6  # of an image's bytes, about what its PNG takes
METRICS_LINE = 150  # bytes


@dataclass(frozen=True)
class Result:
    """The outcome of a run that is done or was stopped."""

    picture: Image.Image | None = field(repr=False)  # None if it was stopped while its start was still being drawn
    settings: Settings = field(repr=False)
    steps: int  # steps done
    distance: float  # of the whole image to the prompts, as CLIP sees it: smaller is nearer; nan where it is unknown
    seconds: float  # of the loop
    run: Path | None  # the run directory, if one was made
    path: Path | None  # the final image's file, if one was written
    status: str = "done"  # or "converged", or "stopped"
    fault: VqclipError | None = None  # what kept the file that was asked for from being written; `path` is another

    def _repr_png_(self) -> bytes | None:
        """Return the image for a notebook, which shows it."""
        return to_png(self.picture, None) if self.picture else None

    def checked(self) -> Self:
        """Return it; raise its fault, if it has one."""
        if self.fault:
            raise self.fault
        return self


class Recorder:
    """Writes one run's files; a run without a directory and without `output.out` leaves nothing.

    It is a context manager: however the run ends, its image and its state so far are kept.
    A thread compresses and writes a frame while the next step is made; whatever is written later waits for the frame.
    """

    def __init__(
        self,
        session: Session,
        run: RunDir | None,
        output: Output,
        *,
        changes: Sequence[dict[str, Any]] = (),
        before: float = 0.0,
    ) -> None:
        """Take over a run directory. changes: of settings, after earlier steps; before: the seconds of those."""
        self.session, self.run, self.output = session, run, output
        self.folder = run.path if run else None
        self.status = "done"
        plan = {"plan": output.plan()}
        self._record = session.record() | plan | ({"changes": list(changes)} if changes else {})
        self.last = Step(0, torch.empty(0), {}, 0.0)  # there is no latent until `start`
        self.path: Path | None = None  # the final image's file, once one is written
        self.fault: VqclipError | None = None  # what kept `output.out` from being written
        self._image: tuple[torch.Tensor, Image.Image] | None = None  # the last latent that was decoded
        self._final: tuple[torch.Tensor, Image.Image] | None = None  # the image as it is shown in the end
        self.distance = math.nan  # of the final image, as in Result, once it is written
        self._began_at = self._last_step_at = self._saved_at = time.monotonic()
        self._saved_step = 0
        self._before = before
        self._frame_writer = ThreadPoolExecutor(1, "frames")
        self._frame_in_progress: tuple[Future[None], Step] | None = None  # and the step before it
        self._cutouts: dict[int, list[Tensor]] = {}  # of each CLIP in this step, where they are to be seen
        if run and output.save_cutouts:
            session.on_cutouts = self._keep_cutouts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            stopped = exits.raised() or isinstance(error, KeyboardInterrupt | SystemExit)
            self.status = "stopped" if stopped else "failed"
        self.finish(self.status)

    def open(self, state: State | None = None) -> None:
        """Write in run.json that the run is running, and delete what the steps after `state` will make again."""
        if state:
            self.last = Step(state.step, state.ema, {}, 0.0, state)
        if self.run:
            left, every = self.session.settings.steps - self.last.step, self.output.frames_every
            frames = left // every if every else 0
            require_space(self.run.path, frames * self._frame + self._reserve + left * METRICS_LINE, "the run")
            self._write_record("running")
            self.run.rewind(self.last.step, every)

    def start(self, start: Start) -> None:
        """Write the first frame, unless the run goes on from a state, and begin to count the seconds."""
        if self.last.state is None:
            self.last = Step(0, start.z, start.losses, 0.0)
            self._before += start.seconds
            if self.run and self.output.frames_every:
                self._begin_frame(self.last)
        self._saved_step = self.last.step
        self._began_at = self._last_step_at = self._saved_at = time.monotonic()

    @property
    def _frame(self) -> int:
        width, height = self.session.settings.size
        return round(width * height * 3 * FRAME_SHARE)

    @property
    def _enlarged(self) -> int:
        """Bytes of final.png."""
        return self._frame * max(1, self.session.settings.upscale) ** 2

    @property
    def _reserve(self) -> int:
        """Bytes that must stay free for a good end: two states, the last frame, latest.png and final.png."""
        return 2 * len(TENSORS) * math.prod(self.session.moved_shape) * 4 + self._frame + 2 * self._enlarged

    @property
    def seconds(self) -> float:
        """Seconds since the first step began."""
        return self._last_step_at - self._began_at

    @property
    def spent(self) -> float:
        """Seconds of this process and of all earlier ones that worked on the run."""
        return self._before + self.seconds

    def record(self, step: Step) -> None:
        """Write a line of metrics, and a frame and a checkpoint when they are due."""
        self._wait_for_frame()
        now = time.monotonic()
        if self.run:
            losses = {name: round(float(value.mean()), 6) for name, value in step.losses.items()}
            took = round(now - self._last_step_at, 4)
            self._write_cutouts(step.step)
            self.run.add_metrics({"step": step.step, **losses, "changed": round(step.changed, 6), "seconds": took})
            if self.output.frames_every and step.step % self.output.frames_every == 0:
                require_space(self.run.path, self._frame + self._reserve, "a frame, with what the end needs,")
                self._begin_frame(step)
        self.last = step  # not before: a step whose files could not be written must be made again
        every = self.output.checkpoint_every
        if (every.steps and step.step - self._saved_step >= every.steps) or (
            every.seconds and now - self._saved_at >= every.seconds
        ):
            self.checkpoint()
        self._last_step_at = now

    def _keep_cutouts(self, step: int, clip: int, cutouts: Tensor) -> None:
        if step == 0 or (step + 1) % self.output.save_cutouts == 0:
            self._cutouts.setdefault(clip, []).append(cutouts.cpu())

    def _write_cutouts(self, step: int) -> None:
        """Write what each CLIP was shown in a step, as one image a CLIP."""
        kept, self._cutouts = self._cutouts, {}
        for clip, chunks in kept.items():
            sheet = tile([to_picture(cutout) for cutout in torch.cat(chunks)], gap=2)
            assert self.run is not None
            self.run.write_cutouts(step, clip, to_png(sheet))

    def change(self, settings: dict[str, Any]) -> None:
        """Record that settings changed after the last step, whose state is saved first; it goes on from there."""
        self._cutouts = {}  # of the step that is made again
        self.checkpoint()  # else a run that is killed would make the steps before with the settings after
        self._record |= {
            "settings": self.session.settings.model_dump(mode="json"),
            "changes": [*self._record.get("changes", []), {"after": self.last.step, "settings": settings}],
        }
        self._write_record("running")

    def checkpoint(self) -> None:
        """Save the state of the last step, if it has not been saved yet."""
        self._wait_for_frame()  # there is a frame for every step of a state, too
        if self.run and self.last.state and self.last.step > self._saved_step:
            self.run.sync_metrics()  # their lines must be on the disk for every step of a state
            save_state(self.run.path, self.last.state)
            self._saved_at, self._saved_step = time.monotonic(), self.last.step
            self._write_record("running")

    def finish(self, status: str) -> None:
        """Write the state and the image of the last step, and close the run directory.

        The image so far of a failed run stays in its folder, if a step was made; `output.out` is left alone.
        """
        with exits.uninterrupted():
            try:
                self._wait_for_frame()
            except Exception:
                status = "failed"
                raise
            finally:
                self._end(status)

    def result(self) -> Result:
        """Return what came of the run, once it is finished."""
        last = self.last
        return Result(
            picture=self._finished(last.shown(self.session.settings)) if last.latent.numel() else None,
            settings=self.session.settings,
            steps=last.step,
            distance=self.distance,
            seconds=self.seconds,
            run=self.folder,
            path=self.path,
            status=self.status,
            fault=self.fault,
        )

    def _end(self, status: str) -> None:
        try:
            try:
                self.checkpoint()
            finally:
                self._frame_writer.shutdown()  # a frame that is late would bring latest.png back
                if self.last.latent.numel() and (status != "failed" or self.last.step):
                    self._write_final(with_out=status != "failed")
                    if status != "failed":
                        self.distance = distance_of(self.session, self._decode(self.last.shown(self.session.settings)))
        except BaseException:
            status = "failed"
            raise
        finally:
            if self.run:
                with contextlib.closing(self.run):
                    self._write_record(status)

    def _write_record(self, status: str) -> None:
        if self.run:
            done = {"status": status, "steps_done": self.last.step, "seconds": round(self.spent, 2)}
            if self.session.settings.final != "last":
                done["step_shown"] = self.last.shown(self.session.settings).step
            if math.isfinite(self.distance):
                done["distance"] = round(self.distance, 6)
            self.run.write_json(self._record | done)

    def _decode(self, step: Step) -> Image.Image:
        """Return a step's image, as the VQGAN draws it."""
        if not self._image or self._image[0] is not step.latent:
            self._image = step.latent, self.session.picture(step.latent, step.step)
        return self._image[1]

    def _finished(self, step: Step) -> Image.Image:
        """Return a step's image as it is shown in the end. Raises OutOfMemory."""
        if not self._final or self._final[0] is not step.latent:
            self._final = step.latent, self.session.finished(self._decode(step))
        return self._final[1]

    def _write_final(self, *, with_out: bool) -> None:
        out = self.output.out if with_out else None
        if not (self.run or out):
            return
        shown = self.last.shown(self.session.settings)
        try:
            every, steps = self.output.frames_every, {step.step: step for step in (shown, self.last)}
            another = self.session.finishing or len(steps) > 1
            for step in steps.values():
                if self.run and (step.step % every if every else another):
                    self._write_frame(step, self._decode(step), self._about(step))
        finally:
            image, about = self._finished(shown), self._about(shown, final=True)
            try:
                if self.run:
                    self._write_tiled(image, about)
                    self.path = self.run.write_final(to_png(image, about))
            finally:  # the run's own folder may have filled up or gone
                if out:
                    self._write_out(out, writer_for(out)(image, ImageInfo.of(about)))

    def _write_tiled(self, image: Image.Image, about: dict[str, Any] | None) -> None:
        columns, rows = self.session.settings.tiles()
        if self.run and columns * rows > 1:
            self.run.write_tiled(to_png(tile([image] * columns * rows, columns=columns), about))

    def _write_out(self, out: Path, data: bytes) -> None:
        """Write the copy of the final image that was asked for; if it can't be, the run itself is whole."""
        try:
            write_atomic(out, data, replace=self.output.overwrite)
            self.path = out
        except (OutputError, OutputExists) as error:
            if not self.run or not self.path:
                raise
            hint = f"it is {self.path}; to write it elsewhere: vqclip resume {pasted(str(self.run.path))} -o FILE"
            self.fault = type(error)(f"the image is done, but {error.what}", hint)

    def _begin_frame(self, step: Step) -> None:
        image, about = self._decode(step), self._about(step)
        self._wait_for_frame()
        self._frame_in_progress = self._frame_writer.submit(self._write_frame, step, image, about), self.last

    def _wait_for_frame(self) -> None:
        """Wait for the frame that is being written. Raises OutputError if it can't be: its step is not done then."""
        if self._frame_in_progress:
            future, before = self._frame_in_progress
            try:
                future.result()
            except Exception:  # a signal that ends the wait says nothing of the frame
                self.last, self._frame_in_progress = before, None
                raise
            self._frame_in_progress = None

    def _write_frame(self, step: Step, image: Image.Image, about: dict[str, Any] | None) -> None:
        assert self.run is not None
        if self.output.save_latents:  # first: every frame has its latent
            self.run.write_latent(step.step, latent_to_bytes(step.latent))
        png, preview = to_png(image, about), self.session.preview(image)
        self.run.write_frame(step.step, png, b"" if preview is image else to_png(preview, about))

    def _about(self, step: Step, *, final: bool = False) -> dict[str, Any] | None:
        """Return what an image says of itself; final: it is the finished one, which may be enlarged."""
        if not self.output.metadata:
            return None
        record = {key: value for key, value in self._record.items() if key != "plan"}
        return published(record) | {"step": step.step} | (self.session.upscaled if final else {})
