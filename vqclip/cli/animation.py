"""What story, restyle and resume have in common: options, a bar over all steps, and what is printed at the end."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..animate.progress import AnimationProgress
from ..config.layers import gather
from ..files.atomic import check_here
from ..files.paths import expand
from ..settings.schema import Settings
from ..video.writer import FORMATS
from .options import OUTPUT, option
from .outcome import typed
from .progress import Counting, put, say, used

if TYPE_CHECKING:
    from ..animate.run import Result
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

TO = f"Where the video goes: {FORMATS}. Otherwise video.mp4 in the run."
Video = Annotated[Path | None, option(OUTPUT, "--out", TO, "-o", parser=expand, metavar="FILE", show_default=False)]
Replace = Annotated[bool, option(OUTPUT, "--overwrite", "Replace the video that is there.")]
Quality = Annotated[int, option(OUTPUT, "--quality", "Of the video, 0 to 100.")]


def settle(values: dict[str, Any], config: Path | None, preset: str | None) -> tuple[Settings, dict[str, str]]:
    """Return the settings and where each comes from: options and --set, over what `generate` goes by."""
    return gather(values, config=config, preset_name=preset, environ=os.environ, folder=Path())


def report_animation(
    make: "Callable[[AnimationBar], Result]", out: Path | None, overwrite: bool, *, as_json: bool, quiet: bool
) -> None:
    """Let `make` make an animation under a bar; print its video's path, or one JSON object."""
    check_here()
    bar = AnimationBar(quiet=quiet)
    try:
        with bar.stack:
            result = make(bar)
    except BaseException:
        if bar.run and not quiet:
            target = f" -o {typed(out)}{' --overwrite' if overwrite else ''}" if out else ""
            say(f"every frame that was done is kept; go on with: vqclip resume {typed(bar.run)}{target}")
        raise
    video = result.video
    width, height = video.size
    if not quiet:
        for note in video.notes:
            say(note)
        say(f"{video.frames} frames of {width}x{height} in {video.seconds:.2f} s; they are in {result.run}")
    record = {
        "path": str(video.path),
        "run": str(result.run),
        "seed": result.settings.seed,
        "frames": video.frames,
        "size": [width, height],
        "seconds": round(video.seconds, 3),
        "fps": video.fps,
    }
    put(json.dumps(record) if as_json else str(video.path))


class AnimationBar(AnimationProgress):
    """Shows what an animation is made with, and a bar over the steps of all frames, then over the video's frames."""

    def __init__(self, *, quiet: bool) -> None:
        self.run: Path | None = None
        self.stack = contextlib.ExitStack()  # closes the bars
        self._quiet = quiet
        self._steps = self.stack.enter_context(Counting("step", quiet=quiet))
        self._frames: Counting | None = None

    def start(self, session: "Session", run: "RunDir", frames_done: int) -> None:
        """Say what is used."""
        self.run = run.path
        if self._quiet:
            return
        settings = session.settings
        say(used(session))
        for note in session.notes:
            say(note)
        resumed = f", {frames_done} frames are there" if frames_done else ""
        say(f"{settings.size[0]}x{settings.size[1]}, seed {settings.seed}{resumed}")

    def step(self, done: int, total: int) -> None:
        """Show one step."""
        self._steps.at(done, total)

    def frame(self, done: int, total: int) -> None:
        """Show one frame of the video, on a bar of its own."""
        if self._frames is None:
            self._frames = self.stack.enter_context(Counting("frame of the video", quiet=self._quiet))
        self._frames.at(done, total)
