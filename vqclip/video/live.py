"""A video of a run, made while the run goes on, from the frames that it writes. Its errors never end the run."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, VqclipError
from ..files.atomic import check_free
from ..files.images import load_image
from ..files.metadata import tags
from ..files.paths import expand
from ..runs import records
from ..runs.output import Output
from ..runs.progress import Progress
from ..runs.run_dir import RunDir
from .ffmpeg import find_ffmpeg
from .timing import Timing, output_fps
from .writer import VideoWriter

if TYPE_CHECKING:
    from ..core.loop import Step
    from ..runs.session import Session


class LiveVideo(Progress):
    """Encodes a run's frames as they come. An error of the video is reported after the run."""

    def __init__(self, out: str | Path, *, steps: int, output: Output) -> None:
        """Check all that can be checked before the run; steps: of the run, output: what it writes.

        Raises UsageError, InputError where ffmpeg or its codec is missing, OutputError, OutputExists.
        """
        every = output.frames_every
        if every < 1:
            raise UsageError("a video needs progress frames", "use --frames-every 1 or more")
        self.target, self.every, self.metadata = expand(out), every, output.metadata
        fps = output_fps(1 + -(-steps // every), Timing())
        self._writer = VideoWriter(self.target, fps, find_ffmpeg(), overwrite=output.overwrite)
        check_free(self.target, output.overwrite)
        self._run: Path | None = None
        self._session: Session | None = None
        self._next = 0
        self._fault: VqclipError | None = None

    def start(self, session: "Session", run: RunDir | None) -> None:
        """Remember where the run is, and what enlarges its frames."""
        self._run, self._session = run.path if run else None, session

    def step(self, step: "Step") -> None:
        """Take the frames of the steps before one; its own may still be on its way to the disk."""
        self._take_before(step.step)

    def _take_before(self, number: int) -> None:
        while self._next < number:
            self._take(self._next)
            self._next += self.every

    def _take(self, number: int, times: int = 1) -> None:
        if self._fault or self._run is None or self._session is None:
            return
        try:
            if not self._writer.frames:
                self._writer.tags = tags(records.read(self._run) if self.metadata else None)
            frame = load_image(self._run / "frames" / f"{number:06d}.png")
            self._writer.add(self._session.finished(frame), times)
        except VqclipError as error:
            self._fault = error
            self._writer.abort()

    def finish(self, steps: int) -> VqclipError | None:
        """Take what is left of a run of so many steps, hold the last frame, and put the video in its place.

        Returns what has gone wrong since the start, for the end to tell.
        """
        self._take_before(steps + 1)
        self._take(steps, bool(steps % self.every) + round(Timing().hold_last * self._writer.fps))
        if not self._fault:
            try:
                self._writer.finish()
            except VqclipError as error:
                self._fault = error
        if self._fault is None:
            return None
        hint = f"the run and its picture are whole; for the video: vqclip video {self._run}"
        return type(self._fault)(f"no video: {self._fault.what}", hint)

    def __enter__(self) -> "LiveVideo":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:  # the run failed: the target stays as it was
            self._writer.abort()
