"""The frames of a moving picture, made one after the other; each is on the disk before the next begins."""

import time
from collections.abc import Callable
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
from .frame import Shot, shoot
from .restyle import Restyle
from .story import Story

Score = Story | Restyle
OnStart = Callable[[Session, RunDir, int], None]  # the last: frames that are there already
OnStep = Callable[[int, int], None]  # steps done, steps in all


class Takes:
    """Makes what a score asks for, in a run directory: the frames that are there are all of its state."""

    def __init__(self, session: Session, score: Score, run: RunDir, record: dict[str, Any]) -> None:
        """Find the frames that are there. Raises InputError where one is missing between them."""
        self.session, self.score, self.run, self.record = session, score, run, record
        self.done, self.before = find_last(run.path / "frames")
        width, height = session.settings.size
        self._frame = round(width * height * 3 * FRAME_SHARE)  # bytes, about

    def make(self, ffmpeg: Ffmpeg, on_start: OnStart | None, on_step: OnStep | None) -> None:
        """Make the frames that are still to come. What ends it leaves those that are done."""
        status, frames = "failed", self.score.frames
        try:
            self.run.rewind(self.done, 0)
            self._note("running")
            rest = (frames - self.done) * (self._frame + METRICS_LINE) + 4 * self._frame
            require_space(self.run.path, rest, "all of its frames and their video")
            if on_start:
                on_start(self.session, self.run, self.done)
            with self.score.play(self.session, self.done, ffmpeg) as play:
                for number in range(self.done, frames):
                    require_space(self.run.path, 4 * self._frame, "a frame, with what the end needs,")
                    self._take(number, play(number, self.before), on_step)
            assert self.before is not None
            self.run.write_final(self._png(self.before, frames))
            status = "done"
        except (KeyboardInterrupt, SystemExit):
            status = "stopped"
            raise
        finally:
            self._note(status)

    def _take(self, number: int, shot: Shot, on_step: OnStep | None) -> None:
        """Make frame `number`, counted from 0, and write it, its line of metrics first."""
        began, last = time.monotonic(), None
        for last in shoot(self.session, number, shot):
            if on_step:
                on_step(*self._progress(number, last.step))
        assert last is not None
        self.before = self.session.picture(last.latent)
        losses = {name: round(float(value.mean()), 6) for name, value in last.losses.items()}
        self.run.add_metrics({"frame": number + 1, **losses, "seconds": round(time.monotonic() - began, 4)})
        self.run.sync_metrics()  # a cut of power may not leave a frame without its line
        self.run.write_frame(number + 1, self._png(self.before, number + 1))
        self.done = number + 1

    def _progress(self, number: int, step: int) -> tuple[int, int]:
        """Return (steps done, steps in all)."""
        first, each = self.score.first_steps(self.session.settings), self.score.frame_steps
        return (first + (number - 1) * each if number else 0) + step, first + (self.score.frames - 1) * each

    def _note(self, status: str) -> None:
        self.run.write_json(self.record | {"status": status, "frames_done": self.done})

    def _png(self, picture: Image.Image, frame: int) -> bytes:
        if not self.record["plan"]["metadata"]:
            return to_png(picture, None)
        told = {key: value for key, value in self.record.items() if key != "plan"}
        return to_png(picture, published(told) | {"frame": frame})


def find_last(folder: Path) -> tuple[int, Image.Image | None]:
    """Return how many frames are there, and the last one; one that is damaged at the end is made again.

    Raises InputError where one is missing and later ones are there: they would be lost.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())
    if numbers and (gap := next((k for k, n in enumerate(numbers, 1) if k != n), 0)):
        missing = folder / f"{gap:06d}.png"
        raise InputError(f"{missing} is missing between the frames", "bring it back, or take those after it away too")
    for done in reversed(numbers):
        try:
            return done, load_image(folder / f"{done:06d}.png")
        except InputError:
            continue
    return 0, None
