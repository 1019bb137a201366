"""vqclip generate: one picture from a prompt."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..settings import parse_size, resolve
from .options import LOOP, OUTPUT, PICTURE, START, VIEWS, setting
from .progress import Reporter, say

EXAMPLES = """
Examples:

  vqclip generate "a red heart" --seed 7

  vqclip generate "a castle | a night sky:0.5 | text:-0.5" --size 192x128 -o castle.png

  vqclip generate "a strawberry" --init-image photo.jpg --init-weight 0.5

A prompt is text[:weight], several joined by |; a negative weight pushes away. A number after the last colon is \
a weight unless that colon follows a digit ("a clock at 10:30" is all text). Write a plain colon or bar as \\: or \\|.
"""


def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw: "text[:weight] | text[:weight]".', show_default=False)] = "",
    seed: Annotated[int | None, setting("seed", "--seed", PICTURE, "-S", show=False)] = None,
    size: Annotated[str | None, setting("size", "--size", PICTURE, "-s", metavar="WxH")] = None,
    steps: Annotated[int | None, setting("steps", "--steps", PICTURE, "-n")] = None,
    image_prompt: Annotated[list[Path] | None, setting("image_prompts", "--image-prompt", PICTURE, "-i", metavar="FILE")] = None,
    image_prompt_weight: Annotated[float | None, setting("image_prompt_weight", "--image-prompt-weight", PICTURE)] = None,
    preset: Annotated[str, typer.Option(help="Models and the settings that suit them: auto or tiny.", rich_help_panel=PICTURE)] = "auto",
    vqgan: Annotated[str | None, setting("vqgan", "--vqgan", PICTURE)] = None,
    clip: Annotated[list[str] | None, setting("clips", "--clip", PICTURE)] = None,
    init: Annotated[str | None, setting("init", "--init", START, metavar="smooth|codes|grey")] = None,
    tries: Annotated[int | None, setting("tries", "--tries", START)] = None,
    init_image: Annotated[Path | None, setting("init_image", "--init-image", START, metavar="FILE")] = None,
    init_weight: Annotated[float | None, setting("init_weight", "--init-weight", START)] = None,
    step_size: Annotated[float | None, setting("step_size", "--step-size", LOOP)] = None,
    momentum: Annotated[float | None, setting("momentum", "--momentum", LOOP)] = None,
    coarse: Annotated[float | None, setting("coarse", "--coarse", LOOP)] = None,
    ema: Annotated[float | None, setting("ema", "--ema", LOOP)] = None,
    tv: Annotated[float | None, setting("tv", "--tv", LOOP)] = None,
    cutouts: Annotated[int | None, setting("cutouts", "--cutouts", VIEWS, "-c")] = None,
    overview: Annotated[float | None, setting("overview", "--overview", VIEWS)] = None,
    smallest_cutout: Annotated[float | None, setting("smallest_cutout", "--smallest-cutout", VIEWS)] = None,
    augments: Annotated[str | None, setting("augments", "--augments", VIEWS, metavar="NAME,NAME")] = None,
    noise: Annotated[float | None, setting("noise", "--noise", VIEWS)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also write the final picture here: .png, .jpg or .webp.", rich_help_panel=OUTPUT)] = None,
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run directories are made.", rich_help_panel=OUTPUT)] = Path("runs"),
    frames_every: Annotated[int, typer.Option("--frames-every", metavar="N", help="Save a progress frame every N steps; 0 for none.", rich_help_panel=OUTPUT)] = 10,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let -o replace a file.", rich_help_panel=OUTPUT)] = False,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave prompt and settings out of the pictures.", rich_help_panel=OUTPUT)] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=OUTPUT)] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the path.", rich_help_panel=OUTPUT)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=OUTPUT)] = False,
) -> None:  # fmt: skip
    """Draw one picture from a prompt; print its path."""
    values: dict[str, Any] = {
        "size": parse_size(size) if size is not None else None,
        "steps": steps,
        "image_prompts": tuple(map(str, image_prompt)) if image_prompt else None,
        "image_prompt_weight": image_prompt_weight,
        "vqgan": vqgan,
        "clips": tuple(clip) if clip else None,
        "init": init,
        "tries": tries,
        "init_image": str(init_image) if init_image else None,
        "init_weight": init_weight,
        "step_size": step_size,
        "momentum": momentum,
        "coarse": coarse,
        "ema": ema,
        "tv": tv,
        "cutouts": cutouts,
        "overview": overview,
        "smallest_cutout": smallest_cutout,
        "augments": tuple(name.strip() for name in augments.split(",") if name.strip())
        if augments is not None
        else None,
        "noise": noise,
    }
    settings = resolve(prompt, preset, seed, **values)  # what is wrong is said before torch loads

    with Reporter(quiet=quiet) as reporter:
        from .. import pipeline

        result = pipeline.generate(
            settings, runs=runs, out=out, overwrite=overwrite, metadata=not no_metadata, frames_every=frames_every,
            device=device, on_start=reporter.start, on_step=reporter.step,
        )  # fmt: skip
    if not quiet:
        say(f"{result.steps} steps in {result.seconds:.1f} s; frames, metrics and settings are in {result.run}")
    if as_json:
        record = {"path": str(result.path), "run": str(result.run), "seed": result.settings.seed, "steps": result.steps,
                  "distance": round(result.distance, 6), "seconds": round(result.seconds, 2)}  # fmt: skip
        typer.echo(json.dumps(record))
    else:
        typer.echo(str(result.path))
    if reporter.stopped_by:
        raise typer.Exit(128 + reporter.stopped_by)
