"""vqclip generate: one image from a prompt."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.layers import gather, write_config
from ..errors import UsageError
from ..files.atomic import check_free, write_atomic
from ..files.paths import expand
from ..runs.output import Interval, Output
from ..runs.progress import Observers, Progress
from ..settings.schema import without_effect
from ..video.live import LiveVideo
from ..video.writer import FORMATS
from .commands import DRAW, command
from .options import (
    IMAGE,
    OUTPUT,
    AsJson,
    CheckpointEvery,
    Config,
    Device,
    Fit,
    FramesEvery,
    NoMetadata,
    Open,
    Out,
    Overwrite,
    Preset,
    Quiet,
    Runs,
    SaveLatents,
    ShowPreview,
    option,
    prompt_of,
    takes_settings,
)
from .outcome import report, write_profile
from .preview import Preview
from .progress import Reporter, say_all

EXAMPLES = """
Examples:

  vqclip generate "a red heart" --seed 7

  vqclip generate "a castle | a night sky:0.5 | text:-0.5" --size 192x128

  vqclip generate "a strawberry" --init-image photo.jpg --init-weight 0.5

A prompt is text[:weight], several joined by |; a negative weight pushes away. A number after the last colon is \
a weight unless that colon follows a digit ("a clock at 10:30" is all text). Write a plain colon or bar as \\: or \\|.
"""


@command(DRAW, examples=EXAMPLES)
@takes_settings()
def generate(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='What to draw: "text[:weight] | text[:weight]"; - reads stdin.', show_default=False)] = "",
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    save_config: Annotated[Path | None, option(IMAGE, "--save-config", "Write the settings of this image here, as TOML.", parser=expand, metavar="FILE")] = None,
    out: Out = None,
    video: Annotated[Path | None, typer.Option("--video", parser=expand, metavar="FILE", help=f"Also make a video of the frames, while they are made: {FORMATS}. See: vqclip video.", rich_help_panel=OUTPUT)] = None,
    runs: Runs = Path("runs"),
    frames_every: FramesEvery = 10,
    checkpoint_every: CheckpointEvery = "30s",
    save_latents: SaveLatents = False,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    fit: Fit = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went, and write it to the run's profile.json.", rich_help_panel=OUTPUT)] = False,
    show: Open = False,
    preview: ShowPreview = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw one image from a prompt; print its path."""
    if prompt:  # else the file, the environment or the folder may have one
        values["prompt"] = prompt_of(prompt)
    settings, _ = gather(values, config=config, preset_name=preset, environ=os.environ, folder=Path())
    output = Output(
        expand(runs), out and expand(out), overwrite, not no_metadata, frames_every, Interval.parse(checkpoint_every),
        save_latents, fit,
    )  # fmt: skip
    output.check()  # before torch is loaded, which takes seconds
    say_all(without_effect(values, settings), quiet=quiet)
    live = LiveVideo(video, steps=settings.steps, output=output) if video else None
    if save_config:
        if expand(save_config).suffix.lower() == ".json":
            raise UsageError(f"{save_config}: settings are written as TOML", "name it .toml")
        if output.out and expand(save_config).absolute() == output.out.absolute():
            raise UsageError(f"{output.out} can't be both the image and the settings", "give one another name")
        check_free(expand(save_config), overwrite)
        write_atomic(expand(save_config), write_config(settings).encode(), replace=overwrite)

    seen = Preview.chosen(preview, config=config, quiet=quiet)
    with seen, Reporter(quiet=quiet) as reporter, live or contextlib.nullcontext(), contextlib.ExitStack() as stack:
        from ..report.watch import BrowserView
        from ..runs.generate import generate as make
        from ..runs.profile import Profile

        timing = Profile() if profile else Progress()
        view = stack.enter_context(BrowserView().closing()) if show else Progress()
        progress = Observers(live or Progress(), seen, reporter, timing, view)
        result = make(settings, output, device=device, progress=progress)
        fault = live.finish(result.steps) if live else None
    if isinstance(timing, Profile):
        write_profile(timing, result.run, quiet=quiet)
    report(result, reporter, as_json=as_json, live=live, fault=fault)
