"""vqclip generate: one picture from a prompt."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.layers import gather, write_config
from ..errors import UsageError
from ..files.atomic import check_folder, write_atomic
from ..files.metadata import check_target
from ..files.paths import expand
from ..video.live import Filming
from ..video.writer import FORMATS
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
    Out,
    Overwrite,
    Preset,
    Quiet,
    Runs,
    SaveLatents,
    option,
    takes_settings,
)
from .outcome import report
from .profiling import Profiling
from .progress import Reporter

if TYPE_CHECKING:
    from ..core.loop import Step
    from ..runs.generate import Result
    from ..runs.run_dir import RunDir
    from ..runs.session import Session

EXAMPLES = """
Examples:

  vqclip generate "a red heart" --seed 7

  vqclip generate "a castle | a night sky:0.5 | text:-0.5" --size 192x128

  vqclip generate "a strawberry" --init-image photo.jpg --init-weight 0.5

A prompt is text[:weight], several joined by |; a negative weight pushes away. A number after the last colon is \
a weight unless that colon follows a digit ("a clock at 10:30" is all text). Write a plain colon or bar as \\: or \\|.
"""


@takes_settings()
def generate(
    *,
    prompt: Annotated[str, typer.Argument(help='What to draw: "text[:weight] | text[:weight]".', show_default=False)] = "",
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    save_config: Annotated[Path | None, option(IMAGE, "--save-config", "Write the settings of this picture here, as TOML.", parser=expand, metavar="FILE")] = None,
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
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw one picture from a prompt; print its path."""
    if prompt:  # else the file, the environment or the folder may have one
        values["prompt"] = prompt
    settings, _ = gather(values, config=config, preset_name=preset, environ=os.environ, folder=Path())
    target = check_target(out, overwrite)  # before torch is loaded, which takes seconds
    check_folder(expand(runs))
    profiling, filming = Profiling(wanted=profile, quiet=quiet), None
    if video:
        filming = Filming(
            video, steps=settings.steps, every=frames_every, overwrite=overwrite, metadata=not no_metadata
        )

    if save_config:
        if target and expand(save_config).absolute() == target.absolute():
            raise UsageError(f"{target} can't be both the picture and the settings", "give one another name")
        write_atomic(expand(save_config), write_config(settings).encode(), replace=overwrite)

    def draw(reporter: Reporter) -> "Result":
        from ..runs import generate as pipeline

        def start(session: "Session", run: "RunDir | None") -> None:
            if filming and run:
                filming.start(run.path)
            reporter.start(session, run)
            profiling.start(session)

        def step(step: "Step") -> bool:
            if filming:
                filming.step(step.step)
            return reporter.step(step)

        result = pipeline.generate(
            settings, runs=runs, out=out, overwrite=overwrite, metadata=not no_metadata, frames_every=frames_every,
            checkpoint_every=checkpoint_every, save_latents=save_latents, device=device, fit=fit, on_draw=reporter.draw, on_start=start,
            on_step=step,
        )  # fmt: skip
        profiling.finish(result.run)
        return result

    report(draw, as_json=as_json, quiet=quiet, filming=filming)
