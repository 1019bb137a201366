"""What story, restyle and resume have in common: options, a bar over all steps, and what is printed at the end."""

import contextlib
import functools
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..animate.progress import AnimationProgress
from ..config.layers import gather
from ..files.atomic import check_here
from ..files.paths import expand
from ..runs.progress import Observers, Progress
from ..settings.schema import Settings, without_effect
from ..text import plural
from ..video.make import VideoOptions
from ..video.writer import FORMATS
from .options import OUTPUT, AsJson, Config, Device, NoMetadata, Open, Preset, Quiet, Runs, ShowPreview, option
from .preview import Preview, browser
from .progress import MOMENT_S, Bar, put, say, say_all, typed, used
from .signals import Stoppable
from .video import Ffmpeg

if TYPE_CHECKING:
    from PIL import Image

    from ..animate.render import Animation
    from ..animate.run import Result
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

TO = f"Where the video goes: {FORMATS}. Otherwise video.mp4 in the run."


@dataclass(frozen=True)
class SharedOptions:
    """The options of story and of restyle beside their own and the settings."""

    preset: Preset = None
    config: Config = None
    out: Annotated[
        Path | None, option(OUTPUT, "--out", TO, "-o", parser=expand, metavar="FILE", show_default=False)
    ] = None
    overwrite: Annotated[bool, option(OUTPUT, "--overwrite", "Replace the video that is there.")] = False
    quality: Annotated[int, option(OUTPUT, "--quality", "Of the video, 0 to 100.")] = 80
    runs: Runs = Path("runs")
    no_metadata: NoMetadata = False
    device: Device = "auto"
    ffmpeg: Ffmpeg = None
    show: Open = False
    preview: ShowPreview = False
    as_json: AsJson = False
    quiet: Quiet = False

    def gather(self, values: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
        """Return the settings and where each comes from, as `generate` finds them."""
        settings, origins = gather(
            values, config=self.config, preset_name=self.preset, environ=os.environ, folder=Path()
        )
        say_all(without_effect(values, settings), quiet=self.quiet)
        return settings, origins


def takes_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of SharedOptions, which it receives as `shared`."""
    signature, fields = inspect.signature(command), inspect.signature(SharedOptions).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        shared = SharedOptions(**{name: given.pop(name) for name in fields})
        command(shared=shared, **given)

    own = [parameter for parameter in signature.parameters.values() if parameter.name != "shared"]
    added = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in fields.values()]
    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return run


def draw_animation(make: "Callable[[], Animation]", settings: Settings, shared: SharedOptions) -> None:
    """Draw an animation and its video; print the video's path, or one JSON object."""

    def draw(bar: AnimationBar) -> "Result":
        from ..animate.run import animate

        options = VideoOptions(
            quality=shared.quality, overwrite=shared.overwrite, metadata=not shared.no_metadata, ffmpeg=shared.ffmpeg
        )
        return animate(
            make(), settings, runs=shared.runs, out=shared.out, options=options, device=shared.device, progress=bar
        )

    seen = Preview.chosen(shared.preview, config=shared.config, quiet=shared.quiet)
    report_animation(
        draw, shared.out, shared.overwrite, seen, show=shared.show, as_json=shared.as_json, quiet=shared.quiet
    )


def report_animation(
    draw: "Callable[[AnimationBar], Result]", out: Path | None, overwrite: bool, seen: Preview, *, show: bool = False,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Let `draw` draw an animation under a bar; print its video's path, or one JSON object.

    seen: shows its frames in the terminal. show: in the browser.
    """
    check_here()
    bar = AnimationBar(quiet=quiet)
    try:
        with seen, Stoppable(quiet=quiet), contextlib.closing(bar), browser(show) as view:
            bar.views = Observers(seen, view)
            result = draw(bar)
    except BaseException:
        if bar.run and not quiet and (bar.run / "run.json").is_file():  # else the folder is gone, frames and all
            target = f" -o {typed(out)}{' --overwrite' if overwrite else ''}" if out else ""
            say(f"every frame that was done is kept; go on with: vqclip resume {typed(bar.run)}{target}")
        raise
    video = result.video
    width, height = video.size
    summary = f"{plural(video.frames, 'frame')} of {width}x{height} in {video.seconds:.2f} s; they are in {result.run}"
    say_all([*video.notes, summary], quiet=quiet)
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
        self.views = Progress()  # what shows the frames
        self._quiet = quiet
        self._steps = Bar("step", quiet=quiet, delay=MOMENT_S)
        self._frames = Bar("frame of the video", quiet=quiet, delay=MOMENT_S)

    def start(self, session: "Session", run: "RunDir", frames_done: int) -> None:
        """Say what is used."""
        self.run = run.path
        self.views.start(session, run)
        if self._quiet:
            return
        settings = session.settings
        say(used(session))
        say_all(session.notes, quiet=self._quiet)
        resumed = f", {plural(frames_done, 'frame')} done before" if frames_done else ""
        say(f"{settings.size[0]}x{settings.size[1]}, seed {settings.seed}{resumed}")

    def step(self, done: int, total: int) -> None:
        """Show one step."""
        self._steps.at(done, total)

    def image(self, image: "Image.Image") -> None:
        """Show a frame that was drawn."""
        self.views.image(image)

    def frame(self, done: int, total: int) -> None:
        """Show one frame of the video, on a bar of its own."""
        self._steps.close()
        self.views.note("")  # makes room for it
        self._frames.at(done, total)

    def close(self) -> None:
        """End the bars."""
        self._steps.close()
        self._frames.close()
