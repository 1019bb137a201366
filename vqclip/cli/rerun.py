"""vqclip rerun and show: make an image again from what it says of itself, or print that."""

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..files.paths import expand
from ..runs import records
from ..runs.output import Interval, Output
from ..runs.progress import Callbacks, Observers
from ..runs.project_files import files_in, find_again
from ..runs.records import KEEP
from ..runs.run_dir import MOTION, slugify
from ..settings.remarks import texts_and_weights
from ..settings.schema import Settings, facts, without_effect
from ..video.ffmpeg import find_ffmpeg
from ..video.tags import ENDINGS, read_record
from .commands import DRAW, LOOK, command
from .enlarge import draw_windows, target_for
from .options import (
    AsJson,
    CheckpointEvery,
    Device,
    Fit,
    FramesEvery,
    NoMetadata,
    Out,
    Overwrite,
    Quiet,
    Runs,
    takes_settings,
)
from .outcome import goes_to_stdout, into_folder, report
from .progress import Reporter, put, say, say_all
from .sample import report_sample
from .video import Ffmpeg

if TYPE_CHECKING:
    from ..runs.session import Session

EXAMPLES = """
Examples:

  vqclip rerun runs/a-red-heart-7/final.png

  vqclip rerun heart.png --seed 8 --steps 200 -o another.png
"""
NOT_SHOWN = ("settings", "schema", "plan", "candidates")  # of a record, or elsewhere
DEEP = 4  # levels of a record that are shown in words
Source = Annotated[
    Path,
    typer.Argument(
        parser=expand, metavar="IMAGE|RUN", help="A PNG that vqclip made, or a run directory.", show_default=False
    ),
]


@command(DRAW, examples=EXAMPLES)
@takes_settings(texts={"seed": "another seed: a variation"}, defaults=False)
def rerun(
    *,
    source: Source,
    values: dict[str, Any],
    out: Out = None,
    runs: Runs = Path("runs"),
    frames_every: FramesEvery = 10,
    checkpoint_every: CheckpointEvery = "30s",
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    fit: Fit = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make an image, or a sample, again from its own metadata, the same or varied; print its path."""
    record = records.read(source)
    if record.get("schema") == MOTION:
        raise UsageError(
            f"{source} is a story's or a restyled clip's run",
            "make it again with vqclip story or restyle; show tells how",
        )
    sample = records.is_of_sample(record)
    settings = records.settings_of(source, record, values, sample=sample)  # before torch is loaded
    if source.is_dir():
        settings = find_again(source, record, settings, files_in(settings, values))
    overlap = records.overlap_of(source, record)
    if overlap is not None:
        from ..runs.enlarge import check_windowed, is_source

        check_windowed(values)
        if not is_source(settings, record):
            say(f"{settings.init_image} is not the image that {source} was made of: the result will differ")
        target = out or target_for(settings, Path(str(settings.init_image)).stem)
        enlarging = Output(out=target, overwrite=overwrite, metadata=not no_metadata)
        draw_windows(settings, overlap, enlarging, device=device, as_json=as_json, quiet=quiet)
        return
    if sample:
        if other := [name for name in values if not facts(name).sample or name == "init"]:
            raise UsageError(f"{other[0].replace('_', '-')} does not count in a sample", "leave it out")
        beside = source.parent
        keep = records.kept_of(records.read(beside) if records.is_sample(beside) else record)
        output = Output(None if out else runs, out, overwrite, not no_metadata)
        with Reporter(quiet=quiet) as reporter:
            from ..runs.sample import sample as draw

            sampled = draw(settings, output, keep=keep, device=device, progress=reporter)
        report_sample(sampled, reporter, as_json=as_json)
        return
    to_stdout = goes_to_stdout(out, as_json=as_json)
    out = next(iter(into_folder(out, [f"{slugify(settings.title())}-{settings.seed}"])), out)
    every, out = Interval.parse(checkpoint_every), None if to_stdout else out
    output = Output(runs, out, overwrite, not no_metadata, frames_every, every, fit=fit)
    output.check()
    say_all(without_effect(values, settings), quiet=quiet)
    with Reporter(quiet=quiet) as reporter:
        from ..runs.generate import generate
        from ..runs.resume import differences

        def compare(session: "Session", run: Any) -> None:
            if not values:
                session.notes.extend(differences(record, session.record()))
            if record.get("changes"):
                session.notes.append("its settings were changed during the run: this image will differ")

        progress = Observers(Callbacks(on_start=compare), reporter)
        result = generate(settings, output, device=device, progress=progress)
    report(result, reporter, as_json=as_json, to_stdout=to_stdout)


@command(LOOK)
def show(
    source: Annotated[
        Path,
        typer.Argument(
            parser=expand,
            metavar="IMAGE|VIDEO|RUN",
            help="A PNG, mp4 or webm that vqclip made, or a run directory.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
    ffmpeg: Ffmpeg = None,
) -> None:
    """Print what an image, a video or a run says of itself: prompt, settings, models, versions."""
    if source.suffix.lower() in ENDINGS and source.is_file():
        record = read_record(find_ffmpeg(ffmpeg), source)
    else:
        record = records.read(source)
    if as_json:
        put(json.dumps(record, indent=2, sort_keys=True))  # ASCII: nothing that a terminal would obey
        return
    recorded = record.get("settings")
    settings: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    if "motion" in record:  # whose frames have steps of their own
        settings = {name: value for name, value in settings.items() if name != "steps"}
    rows = [row for key, value in record.items() if key not in NOT_SHOWN for row in _rows(key, value)]
    rows += [("best candidates", _best(record["candidates"]))] if isinstance(record.get("candidates"), list) else []
    for name, value in [*((key, settings[key]) for key in Settings.model_fields if key in settings), *rows]:
        if text := _text(name, value):
            say(f"{name:<20} {text}", to="stdout")
        if name == "prompt" and isinstance(value, str):
            with contextlib.suppress(UsageError):
                if read := texts_and_weights(value):
                    say(f"{'':<20} {read}", to="stdout")


def _rows(key: str, value: Any) -> list[tuple[str, Any]]:
    """Return a value under its name, or what a table has, each under both names: "models vqgan"."""
    return [(f"{key} {name}", inner) for name, inner in value.items()] if isinstance(value, dict) else [(key, value)]


def _best(ranked: list[Any]) -> str:
    """Return the numbers and distances of a sample's first candidates, and how many more there are."""
    rows = [row for row in ranked[:KEEP] if isinstance(row, dict)]
    first = ", ".join(f"{row.get('candidate')} ({row.get('distance')})" for row in rows)
    more = f"; {len(ranked) - KEEP} more" if len(ranked) > KEEP else ""
    return f"{first}{more} (in brackets the distance)" if rows else ""


def _text(name: str, value: Any, depth: int = 0) -> str:
    """Return a value as people write it: the beginning of a hash, "" for an empty value."""
    if isinstance(value, dict | list) and depth == DEEP:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, inner in value.items() if (text := _text(key, inner, depth + 1)))
    if isinstance(value, list):
        between = "x" if name.endswith("size") else ", "
        return between.join(filter(None, (_text("", inner, depth + 1) for inner in value)))
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value
    return "" if value is None else json.dumps(value)
