"""Render the frames of an animation one after the other; each is on the disk before the next begins."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError
from ..files.atomic import require_space
from ..files.images import load_image
from ..files.metadata import published, to_png
from ..runs.recorder import FRAME_SHARE, METRICS_LINE
from ..runs.run_dir import RunDir
from ..runs.session import Session
from ..video.ffmpeg import Ffmpeg
from .frame import FramePlan, optimize_frame
from .progress import AnimationProgress
from .restyle import Restyle
from .story import Story

Animation = Story | Restyle


class FrameRenderer:
    """Renders an animation in a run directory. The frames that exist are all of its state."""

    def __init__(self, session: Session, animation: Animation, run: RunDir, record: dict[str, Any]) -> None:
        """Find the frames that exist. Raises InputError if one is missing between them."""
        self.session, self.animation, self.run, self.record = session, animation, run, record
        self.done, self.last = find_last(run.path / "frames")
        width, height = session.settings.size
        self._frame_bytes = round(width * height * 3 * FRAME_SHARE)  # about
        self._enlarged_bytes = self._frame_bytes * max(1, session.settings.upscale) ** 2

    def render(self, ffmpeg: Ffmpeg, progress: AnimationProgress) -> None:
        """Render the frames that are still missing. Whatever ends it, finished frames stay."""
        status, total = "failed", self.animation.frames
        try:
            self.run.rewind(self.done, 1)
            self._write_record("running")
            rest = (total - self.done) * (self._frame_bytes + METRICS_LINE) + 4 * self._enlarged_bytes
            require_space(self.run.path, rest, "all of its frames and their video")
            progress.start(self.session, self.run, self.done)
            with self.animation.planner(self.session, self.done, ffmpeg) as plan:
                for number in range(self.done, total):
                    require_space(self.run.path, 4 * self._enlarged_bytes, "a frame, with what the end needs,")
                    self._render_frame(number, plan(number, self.last), progress)
            assert self.last is not None
            self.run.write_final(self._png(self.session.finished(self.last), total, self.session.upscaled))
            status = "done"
        except (KeyboardInterrupt, SystemExit):
            status = "stopped"
            raise
        finally:
            self._write_record(status)

    def _render_frame(self, number: int, plan: FramePlan, progress: AnimationProgress) -> None:
        """Render frame `number`, counted from 0, and write it, its line of metrics first."""
        began, step = time.monotonic(), None
        for step in optimize_frame(self.session, number, plan):
            progress.step(*self._count_steps(number, step.step))
        assert step is not None
        self.last = self.session.picture(step.latent)
        losses = {name: round(float(value.mean()), 6) for name, value in step.losses.items()}
        losses.pop("frame", None)  # whose name the frame's number has
        self.run.add_metrics({"frame": number + 1, **losses, "seconds": round(time.monotonic() - began, 4)})
        self.run.sync_metrics()  # so that a cut of power leaves no frame without its line
        latest = self._png(self.session.preview(self.last), number + 1)
        self.run.write_frame(number + 1, self._png(self.last, number + 1), latest)
        progress.image(self.last)
        self.done = number + 1

    def _count_steps(self, number: int, step: int) -> tuple[int, int]:
        """Return (steps done, steps in all) at a step of a frame."""
        first, each = self.animation.first_steps(self.session.settings), self.animation.frame_steps
        before = first + (number - 1) * each if number else 0
        return before + step, first + (self.animation.frames - 1) * each

    def _write_record(self, status: str) -> None:
        self.run.write_json(self.record | {"status": status, "frames_done": self.done})

    def _png(self, image: Image.Image, frame: int, more: Mapping[str, Any] = {}) -> bytes:
        if not self.record["plan"]["metadata"]:
            return to_png(image, None)
        shown = {key: value for key, value in self.record.items() if key != "plan"}
        return to_png(image, published(shown) | {"frame": frame, **more})


def find_last(folder: Path) -> tuple[int, Image.Image | None]:
    """Return how many frames exist, and the last one; one that is damaged at the end is made again.

    Raises InputError if one is missing and later ones exist: they would be lost.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            missing = folder / f"{expected:06d}.png"
            what = f"{missing} is missing between the frames"
            raise InputError(what, "bring it back, or take those after it away too")
    for done in reversed(numbers):
        try:
            return done, load_image(folder / f"{done:06d}.png")
        except InputError:
            continue
    return 0, None
