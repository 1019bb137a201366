"""vqclip generate: images from prompts."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.addresses import FOLDER, Downloads
from ..config.layers import write_config
from ..errors import UsageError
from ..files.atomic import check_free, write_atomic
from ..files.paths import expand
from ..models.catalogue import find
from ..runs.output import Interval, Output
from ..runs.progress import Observers, Progress
from ..runs.run_dir import slugify
from ..settings.remarks import notes_on_prompts, remarks
from ..settings.schema import Settings, without_effect
from ..video.live import LiveVideo
from ..video.writer import FORMATS
from .commands import DRAW, command
from .dry_run import show_plan
from .options import (
    IMAGE,
    MODELS,
    OUTPUT,
    AllowUrl,
    AsJson,
    CheckpointEvery,
    Config,
    Device,
    DryRun,
    Fit,
    FramesEvery,
    NoMetadata,
    Open,
    Out,
    Overwrite,
    Preset,
    Quiet,
    Runs,
    SaveCutouts,
    SaveLatents,
    ShowPreview,
    Style,
    option,
    takes_settings,
)
from .outcome import goes_to_stdout, into_folder, report, write_profile
from .preview import Preview, browser
from .progress import Reporter, say_all
from .several import Printed, Sources, check_alone, draw_several

if TYPE_CHECKING:
    from ..report.trackers import Report

EXAMPLES = """
Examples:

  vqclip generate "a red heart" --seed 7

  vqclip generate "a castle | a night sky:0.5 | text:-0.5" --size 192x128

  vqclip generate "a strawberry" --init-image photo.jpg --init-weight 0.5

  vqclip generate "a {red|blue} heart" "an owl" --count 4

A prompt is text[:weight], several joined by |; a negative weight pushes away. A number after the last colon is \
a weight unless that colon follows a digit ("a clock at 10:30" is all text). Write a plain colon or bar as \\: or \\|. \
{red|blue}, {1..3}, {a..c} and __colours__ (a line of wildcards/colours.txt) make a prompt of each alternative.
"""


@command(DRAW, examples=EXAMPLES)
@takes_settings()
def generate(
    *,
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help='What to draw: "text[:weight] | text[:weight]"; - reads stdin. Of several prompts an image each.', show_default=False)] = None,
    count: Annotated[int, option(IMAGE, "--count", "Images of each prompt, from the seed and those that follow it; ranked, on a grid (1 or more).", "-n", metavar="N")] = 1,
    style: Style = None,
    ranker: Annotated[str | None, option(MODELS, "--ranker", "The CLIP that ranks several images; best one that was not optimised.", metavar="CLIP", show_default=False)] = None,
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    save_config: Annotated[Path | None, option(IMAGE, "--save-config", "Write the settings of this image here, as TOML.", parser=expand, metavar="FILE")] = None,
    out: Out = None,
    video: Annotated[Path | None, typer.Option("--video", parser=expand, metavar="FILE", help=f"Also make a video of the frames, while they are made: {FORMATS}. See: vqclip video.", rich_help_panel=OUTPUT)] = None,
    allow_url: AllowUrl = False,
    dry_run: DryRun = False,
    runs: Runs = Path("runs"),
    frames_every: FramesEvery = 10,
    checkpoint_every: CheckpointEvery = "30s",
    save_latents: SaveLatents = False,
    save_cutouts: SaveCutouts = 0,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    fit: Fit = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went, and write it to the run's profile.json.", rich_help_panel=OUTPUT)] = False,
    report_to: Annotated[str | None, option(OUTPUT, "--report", "Also send losses and images there: tensorboard[:DIR] or wandb[:PROJECT].", metavar="NAME[:WHERE]", show_default=False)] = None,
    show: Open = False,
    preview: ShowPreview = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw an image of each prompt; print its path, of several images the best's last."""
    downloads = Downloads(runs / FOLDER, allow_url, dry_run)
    sources = Sources(tuple(prompts or ()), values, preset, config, downloads)
    chosen = sources.settings(style or (), count)
    settings, several = chosen[0], len(chosen) > 1
    to_stdout = goes_to_stdout(out, as_json=as_json)
    out, files = _files(out, chosen)
    output = Output(
        runs, None if to_stdout else out, overwrite, not no_metadata, frames_every,
        Interval.parse(checkpoint_every), save_latents, save_cutouts, fit,
    )  # fmt: skip
    if not dry_run:  # which makes no folder
        output.check()  # before torch is loaded, which takes seconds
    if several:
        alone = {"--video": video, "--profile": profile, "--save-config": save_config, "--open": show}
        check_alone(alone | {"--report": report_to})
    if ranker:
        find("clip", ranker)
    tracker = _tracker(report_to, quiet=quiet)
    say_all(without_effect(values, *chosen), quiet=quiet)
    if dry_run:
        notes = [note for each in chosen for note in (*notes_on_prompts(each), *remarks(each))]
        say_all(dict.fromkeys(notes), quiet=quiet)
        show_plan(chosen, device, as_json=as_json, quiet=quiet)
        return
    seen = Preview.chosen(preview, config=config, quiet=quiet)
    if several:
        draw_several(
            chosen, output, seen, Printed(as_json, to_stdout, quiet), ranker=ranker, device=device, files=files
        )
        return
    live = LiveVideo(video, steps=settings.steps, output=output) if video else None
    if save_config:
        _write_config(save_config, settings, output)

    with (
        seen, Reporter(quiet=quiet) as reporter, live or contextlib.nullcontext(), browser(show) as view,
        tracker.closing() if tracker else contextlib.nullcontext(Progress()) as tracked,
    ):  # fmt: skip
        from ..runs.generate import generate as make
        from ..runs.profile import Profile

        timing = Profile() if profile else Progress()
        progress = Observers(live or Progress(), seen, reporter, timing, view, tracked)
        result = make(settings, output, device=device, progress=progress)
        fault = live.finish(result.steps) if live else None
    if tracker and tracker.fault:
        say_all([tracker.fault], quiet=quiet)
    if isinstance(timing, Profile):
        write_profile(timing, result.run, quiet=quiet)
    report(result, reporter, as_json=as_json, to_stdout=to_stdout, live=live, fault=fault)


def _files(out: Path | None, chosen: list[Settings]) -> tuple[Path | None, list[Path]]:
    """Return the file of the only or the best image, and that of each of several in a folder. Raises UsageError."""
    files = into_folder(out, (f"{slugify(each.title())}-{each.seed}" for each in chosen))
    if out and not files and (prompts := len({each.prompt for each in chosen})) > 1:
        hint = "give -o a folder that is there, or leave it out: images stand in the runs"
        raise UsageError(f"-o {out} takes one image, and {prompts} prompts make one each", hint)
    return (files.pop() if len(files) == 1 else None if files else out), files


def _tracker(text: str | None, *, quiet: bool) -> "Report | None":
    """Return what sends a run to another tool. Raises UsageError."""
    if not text:
        return None
    from ..report.trackers import Report

    return Report(text, quiet=quiet)


def _write_config(path: Path, settings: Settings, output: Output) -> None:
    """Write the settings of an image as TOML. Raises UsageError, OutputError, OutputExists."""
    if path.suffix.lower() == ".json":
        raise UsageError(f"{path}: settings are written as TOML", "name it .toml")
    if output.out and path.absolute() == output.out.absolute():
        raise UsageError(f"{output.out} can't be both the image and the settings", "give one another name")
    check_free(path, output.overwrite)
    write_atomic(path, write_config(settings).encode(), replace=output.overwrite)
