"""vqclip generate: one picture from a prompt."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config.layers import gather, write_config
from ..errors import UsageError
from ..files.atomic import check_folder, write_atomic
from ..files.metadata import check_target
from ..files.paths import expand
from ..video.live import Filming
from ..video.writer import FORMATS
from .options import (
    LOOP,
    OUTPUT,
    PICTURE,
    PRESETS,
    START,
    VIEWS,
    AsJson,
    CheckpointEvery,
    Config,
    Device,
    Fit,
    FramesEvery,
    NoMetadata,
    Out,
    Overwrite,
    Quiet,
    Runs,
    SaveLatents,
    given_settings,
    setting,
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


def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw: "text[:weight] | text[:weight]".', show_default=False)] = "",
    seed: Annotated[int | None, setting("seed", "--seed", PICTURE, "-S", show=False)] = None,
    size: Annotated[str | None, setting("size", "--size", PICTURE, "-s", metavar="WxH")] = None,
    steps: Annotated[int | None, setting("steps", "--steps", PICTURE, "-n")] = None,
    image_prompt: Annotated[list[Path] | None, setting("image_prompts", "--image-prompt", PICTURE, "-i", parser=expand, metavar="FILE")] = None,
    image_prompt_weight: Annotated[float | None, setting("image_prompt_weight", "--image-prompt-weight", PICTURE)] = None,
    preset: Annotated[str | None, typer.Option(help=rf"{PRESETS} \[auto]", rich_help_panel=PICTURE, show_default=False)] = None,
    config: Config = None,
    save_config: Annotated[Path | None, typer.Option("--save-config", parser=expand, metavar="FILE", help="Write the settings of this picture here, as TOML.", rich_help_panel=PICTURE)] = None,
    vqgan: Annotated[str | None, setting("vqgan", "--vqgan", PICTURE)] = None,
    clip: Annotated[list[str] | None, setting("clips", "--clip", PICTURE)] = None,
    clip_weights: Annotated[str | None, setting("clip_weights", "--clip-weights", PICTURE, metavar="N,N", show=False)] = None,
    clip_mix: Annotated[str | None, setting("clip_mix", "--clip-mix", PICTURE, metavar="sum|turns")] = None,
    long_prompts: Annotated[str | None, setting("long_prompts", "--long-prompts", PICTURE, metavar="split|cut")] = None,
    init: Annotated[str | None, setting("init", "--init", START, metavar="smooth|codes|grey|sample")] = None,
    dalle: Annotated[str | None, setting("dalle", "--dalle", START)] = None,
    candidates: Annotated[int | None, setting("candidates", "--candidates", START)] = None,
    guidance: Annotated[float | None, setting("guidance", "--guidance", START)] = None,
    temperature: Annotated[float | None, setting("temperature", "--temperature", START)] = None,
    top_k: Annotated[int | None, setting("top_k", "--top-k", START)] = None,
    candidate_weight: Annotated[float | None, setting("candidate_weight", "--candidate-weight", START)] = None,
    tries: Annotated[int | None, setting("tries", "--tries", START)] = None,
    init_image: Annotated[Path | None, setting("init_image", "--init-image", START, parser=expand, metavar="FILE")] = None,
    init_weight: Annotated[float | None, setting("init_weight", "--init-weight", START)] = None,
    step_size: Annotated[float | None, setting("step_size", "--step-size", LOOP)] = None,
    momentum: Annotated[float | None, setting("momentum", "--momentum", LOOP)] = None,
    coarse: Annotated[float | None, setting("coarse", "--coarse", LOOP)] = None,
    damping: Annotated[float | None, setting("damping", "--damping", LOOP)] = None,
    ema: Annotated[float | None, setting("ema", "--ema", LOOP)] = None,
    tv: Annotated[float | None, setting("tv", "--tv", LOOP)] = None,
    cutouts: Annotated[int | None, setting("cutouts", "--cutouts", VIEWS, "-c")] = None,
    overview: Annotated[float | None, setting("overview", "--overview", VIEWS)] = None,
    smallest_cutout: Annotated[float | None, setting("smallest_cutout", "--smallest-cutout", VIEWS)] = None,
    margin: Annotated[float | None, setting("margin", "--margin", VIEWS)] = None,
    augments: Annotated[str | None, setting("augments", "--augments", VIEWS, metavar="NAME,NAME")] = None,
    noise: Annotated[float | None, setting("noise", "--noise", VIEWS)] = None,
    chunk: Annotated[int | None, setting("chunk", "--chunk", VIEWS)] = None,
    precision: Annotated[str | None, setting("precision", "--precision", LOOP, metavar="auto|float32|bfloat16")] = None,
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
    values = given_settings(locals())
    if not prompt and "prompt" in values:
        del values["prompt"]  # the file, the environment or the folder may have one
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
