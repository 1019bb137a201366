"""What story, restyle and resume have in common: options, a bar over all steps, and what is said at the end."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..config.layers import gather
from ..files.atomic import check_here
from ..files.paths import expand
from ..settings.schema import Settings
from ..video.writer import FORMATS
from .options import OUTPUT, PICTURE, PRESETS, given_settings, option, read_changes, setting
from .outcome import typed
from .progress import Counting, put, say, used

if TYPE_CHECKING:
    from ..animate.run import Moved
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

TO = f"Where the video goes: {FORMATS}. Otherwise video.mp4 in the run."
Seed = Annotated[int | None, setting("seed", "--seed", PICTURE, "-S", show=False)]
Preset = Annotated[str | None, option(PICTURE, "--preset", PRESETS, show_default="auto")]
Vqgan = Annotated[str | None, setting("vqgan", "--vqgan", PICTURE)]
Clips = Annotated[list[str] | None, setting("clips", "--clip", PICTURE)]
Video = Annotated[Path | None, option(OUTPUT, "--out", TO, "-o", parser=expand, metavar="FILE", show_default=False)]
Replace = Annotated[bool, option(OUTPUT, "--overwrite", "Replace the video that is there.")]
Quality = Annotated[int, option(OUTPUT, "--quality", "Of the video, 0 to 100.")]


def settle(
    options: dict[str, Any], changes: list[str] | None, config: Path | None, preset: str | None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings and where each comes from: options and --set, over what `generate` goes by."""
    given = given_settings(options) | read_changes(changes)
    return gather(given, config=config, preset_name=preset, environ=os.environ, folder=Path())


def report_moving(
    make: "Callable[[Moving], Moved]", out: Path | None, overwrite: bool, *, as_json: bool, quiet: bool
) -> None:
    """Let `make` make a moving picture under a bar; print its video's path, or one JSON object."""
    check_here()
    moving = Moving(quiet)
    try:
        with moving.stack:
            moved = make(moving)
    except BaseException:
        if moving.run and not quiet:
            there = f" -o {typed(out)}{' --overwrite' if overwrite else ''}" if out else ""
            say(f"every frame that was done is kept; go on with: vqclip resume {typed(moving.run)}{there}")
        raise
    video = moved.video
    width, height = video.size
    if not quiet:
        for note in video.notes:
            say(note)
        say(f"{video.frames} frames of {width}x{height} in {video.seconds:.2f} s; they are in {moved.run}")
    if as_json:
        record = {"path": str(video.path), "run": str(moved.run), "seed": moved.settings.seed, "frames": video.frames,
                  "size": [width, height], "seconds": round(video.seconds, 3), "fps": video.fps}  # fmt: skip
        put(json.dumps(record))
    else:
        put(str(video.path))


class Moving:
    """Says what is used, and how far the steps of all frames are."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.stack = quiet, contextlib.ExitStack()
        self.counting = self.stack.enter_context(Counting("step", quiet=quiet))
        self.encoding: Counting | None = None
        self.run: Path | None = None

    @property
    def heard(self) -> dict[str, Callable[..., None]]:
        """Return what `play` and `resume` are to call."""
        return {"on_start": self.start, "on_step": self.step, "on_frame": self.frame}

    def start(self, session: "Session", run: "RunDir", done: int) -> None:
        """Say what is used."""
        self.run = run.path
        if self.quiet:
            return
        settings = session.settings
        say(used(session))
        for note in session.notes:
            say(note)
        say(
            f"{settings.size[0]}x{settings.size[1]}, seed {settings.seed}"
            + (f", {done} frames are there" if done else "")
        )

    def frame(self, done: int, total: int) -> None:
        """Show one frame of the video; the time that the steps took is none of its own."""
        self.encoding = self.encoding or self.stack.enter_context(Counting("frame of the video", quiet=self.quiet))
        self.encoding.at(done, total)

    def step(self, done: int, total: int) -> None:
        """Show one step."""
        self.counting.at(done, total)
