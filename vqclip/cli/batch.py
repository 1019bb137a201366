"""vqclip batch: a file of prompts becomes a folder of images."""

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..batch.manifest import TEMPLATE, Entry, Manifest, check_template, count_states
from ..batch.prompt_files import MAX_FILE, PromptFile, load_rows, read_rows, split_values
from ..batch.rows import (
    Row,
    check_base,
    check_count,
    check_cross,
    cross_rows,
    expand_rows,
    fetch_images,
    list_images,
    make_rows,
)
from ..batch.shard import Shard, SharedManifest, check_seeds
from ..config.addresses import FOLDER, Downloads, fetch_addresses
from ..config.layers import layered
from ..errors import InputError, UsageError, VqclipError
from ..files.metadata import check_no_file
from ..files.paths import expand
from ..models.catalogue import find
from ..runs.output import Interval, Output
from ..settings.remarks import remarks
from ..settings.schema import without_effect
from ..text import plural
from .batch_bar import BatchReporter
from .commands import DRAW, command
from .dry_run import show_plan
from .options import (
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
    Preset,
    Quiet,
    Style,
    takes_settings,
)
from .progress import loading, progress_bar, put, say, say_all

if TYPE_CHECKING:
    from ..batch.run import Selection

EXAMPLES = """
Examples:

  vqclip batch prompts.txt -o pictures

  vqclip batch a.csv -o b --seeds 8 --keep best --ranker ViT-B-16:openai

  echo "a {colour} heart" | vqclip batch - -o c --cross colour=red,blue

A second call goes on: rows that are done are skipped, those that were stopped resume, --retry tries failed ones again. \
A row's own settings win over the command line's.
"""
ROWS = "Rows"
LIMIT = 1000
MOST_NOTES = 10  # lines


@command(DRAW, examples=EXAMPLES)
@takes_settings()
def batch(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Prompts: .txt (one a line), .csv, .tsv, .json, .jsonl, .yaml or .toml; - is stdin.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for images, runs and results.", show_default=False)],
    kind: Annotated[str | None, typer.Option("--format", metavar="NAME", help=r"What the file is, if its ending does not say. \[txt]", rich_help_panel=ROWS)] = None,
    cross: Annotated[list[str] | None, typer.Option("--cross", metavar="NAME=A,B", help="Every row with each of these values: of a setting, or of a {word} in the prompts; several multiply.", rich_help_panel=ROWS)] = None,
    init_images: Annotated[Path | None, typer.Option("--init-images", parser=expand, metavar="DIR", help="Every row with each image of this folder to start from.", rich_help_panel=ROWS)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a file of which something is read otherwise than it may be meant.", rich_help_panel=ROWS)] = False,
    style: Style = None,
    seeds: Annotated[str | None, typer.Option("--seeds", "--count", "-n", metavar="N|A-B", help="How many seeds of every row, or which: 8, 1-8, 3,5.", rich_help_panel=ROWS)] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="More rows than this are refused.", rich_help_panel=ROWS)] = LIMIT,
    template: Annotated[str, typer.Option("--template", help="Names: index, slug, seed, source (the number of the prompt).", rich_help_panel=ROWS)] = TEMPLATE,
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    keep: Annotated[str, typer.Option("--keep", metavar="all|best|N", help="Of several seeds, whose images go into the folder; runs stay.", rich_help_panel=OUTPUT)] = "all",
    ranker: Annotated[str | None, typer.Option("--ranker", metavar="CLIP", help="The CLIP that ranks them; best one that was not optimised.", rich_help_panel=OUTPUT)] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also rows that failed.", rich_help_panel=OUTPUT)] = False,
    batch_size: Annotated[str, typer.Option("--batch-size", metavar="auto|N", help="Rows in one tensor; auto: one on the CPU, as many as memory holds elsewhere.", rich_help_panel=OUTPUT)] = "auto",
    engine: Annotated[str, typer.Option("--engine", metavar="local|ray", help="Where images are made.", rich_help_panel=OUTPUT)] = "local",
    address: Annotated[str | None, typer.Option("--address", metavar="HOST:PORT", help="The Ray cluster; otherwise one is started here.", rich_help_panel=OUTPUT)] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Workers of the Ray cluster; 0: as many as it has GPUs, or pairs of CPUs.", rich_help_panel=OUTPUT)] = 0,
    devices: Annotated[str | None, typer.Option("--devices", metavar="auto|N,N", help="Several devices of this machine, a process each: 0,2, or auto for every CUDA device.", rich_help_panel=OUTPUT)] = None,
    shard: Annotated[str | None, typer.Option("--shard", metavar="I/N|slurm", help="Only part I of N of the prompts; several processes or machines share the folder. slurm: of a Slurm array's task.", rich_help_panel=OUTPUT)] = None,
    frames_every: FramesEvery = 10,
    checkpoint_every: CheckpointEvery = "30s",
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    fit: Fit = False,
    allow_url: AllowUrl = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make an image for every row of a file; print the folder."""
    folder = expand(out)
    check_no_file(folder)
    check_template(template)
    base, _ = layered(values, config=config, preset_name=preset, environ=os.environ, folder=Path())
    rows = _read_rows(
        _Source(
            file,
            kind,
            cross or [],
            seeds,
            limit,
            init_images,
            tuple(style or ()),
            Downloads(folder / FOLDER, allow_url, dry_run),
        ),
        base,
        strict=strict,
        quiet=quiet,
    )
    say_all(_without_effect(values, rows), quiet=quiet)
    rows_together = _read_batch_size(batch_size)
    output = Output(
        metadata=not no_metadata, frames_every=frames_every, checkpoint_every=Interval.parse(checkpoint_every), fit=fit
    )
    output.check()
    if ranker:
        find("clip", ranker)

    part = Shard.parse(shard, os.environ) if shard else None
    if part:
        check_seeds(rows)
    if dry_run:
        todo = _unfinished(folder.absolute(), rows, template)
        mine, todo = (part.of(rows), part.of(todo)) if part else (rows, todo)
        if any(row.random_seed for row in rows):
            say_all(["seeds that are not given are drawn anew when the batch runs"], quiet=quiet)
        planned, names = [entry.settings for entry in todo], [entry.name for entry in todo]
        show_plan(planned, device, as_json=as_json, quiet=quiet, done=len(mine) - len(todo), names=names)
        return
    if devices and device != "auto":
        raise UsageError("--device is one, --devices are several", "leave one of them out")

    loading(quiet=quiet)
    from ..batch.devices import read_devices
    from ..batch.run import Engine, Selection, run_batch
    from ..batch.worker import Work
    from ..core.devices import choose_device

    selection = Selection(_read_keep(keep), ranker, device)
    where = Engine(engine, address, workers, read_devices(devices) if devices else ())
    where.check()
    if engine == "local":  # a cluster may have devices that this machine has not
        choose_device(device)
    path = folder.absolute()
    with contextlib.closing(SharedManifest(path, part) if part else Manifest(path)) as manifest:
        entries = manifest.add(rows, template)
        work = Work(manifest.runs, output, device, rows_together)
        with BatchReporter(quiet=quiet) as progress:
            entries = run_batch(manifest, entries, work, engine=where, retry=retry, progress=progress)
        fault = _show(manifest, entries, None if progress.stopped else selection, quiet)
        counts = count_states(manifest.entries[entry.name] for entry in entries)
    _print_outcome(folder, counts, progress.stopped_by, as_json, quiet)
    if fault:
        raise fault


def _unfinished(folder: Path, rows: list[Row], template: str) -> list[Entry]:
    """Return the rows of a folder, which need not exist, that are not done; nothing is written."""
    manifest = Manifest.unheld(folder)
    added = [entry.name for entry in manifest.add(rows, template)]
    manifest.refresh()
    return [entry for name in added if (entry := manifest.entries[name]).status != "done"]


def _without_effect(values: dict[str, Any], rows: list[Row]) -> Iterator[str]:
    """Yield a line for each setting that was given for all rows and has an effect in none."""
    yield from without_effect(values, *(row.settings for row in rows))
    yield from dict.fromkeys(remark for row in rows for remark in remarks(row.settings))
    if "prompt" in values and all(row.settings.prompt != values["prompt"] for row in rows):
        yield "the prompt given for all rows has no effect: each has its own"


def _show(
    manifest: Manifest, entries: Sequence[Entry], selection: "Selection | None", quiet: bool
) -> VqclipError | None:
    """Rank the finished rows and keep the best, if a selection is given, and write the report in any case.

    Returns what has gone wrong with either: the images are made all the same.
    """
    from ..batch.run import select
    from ..report import report

    fault = None
    if selection:
        try:
            with progress_bar("image ranked", quiet=quiet) as bar:
                say_all(select(manifest, entries, selection, bar.at), quiet=quiet)
        except VqclipError as error:
            fault = error
    try:
        with progress_bar("run of the page", quiet=quiet) as bar:
            say_all(report(manifest, images=selection is not None, on_run=bar.at), quiet=quiet)
    except VqclipError as error:
        hint = f"all images are in {manifest.path}; {error.hint}, and then the same command writes the rest"
        fault = fault or type(error)(f"the report is not whole: {error.what}", hint)
    return fault


def _print_outcome(folder: Path, counts: dict[str, int], stopped_by: int, as_json: bool, quiet: bool) -> None:
    """Print the folder, or one JSON object, and how to go on. Raises typer.Exit if not all rows are done."""
    failed = counts.get("failed", 0)
    if not quiet:
        say(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
        if failed:
            say("what failed is in results.csv; --retry tries it again")
    put(json.dumps({"path": str(folder), **counts}) if as_json else str(folder))
    if stopped_by:
        if not quiet:
            say("the same command goes on")
        raise typer.Exit(128 + stopped_by)
    if failed:
        raise typer.Exit(3)


@dataclass(frozen=True)
class _Source:
    """Where rows come from, as the options say."""

    file: str
    kind: str | None
    cross: list[str]
    seeds: str | None
    limit: int
    init_images: Path | None
    styles: tuple[str, ...]
    downloads: Downloads

    def read(self) -> tuple[str, PromptFile]:
        """Return the file's name and contents. Raises InputError."""
        if self.file == "-":
            return "stdin", read_rows("stdin", sys.stdin.buffer.read(MAX_FILE + 1), self.kind or "txt")
        path = expand(self.file)
        kind = self.kind or path.suffix.lower().lstrip(".") or "txt"
        return self.file, read_rows(self.file, load_rows(path), kind)


def _read_rows(source: _Source, base: dict[str, Any], *, strict: bool, quiet: bool) -> list[Row]:
    """Read and check all rows. Raises InputError after naming every bad one; a fault of all of them at once.

    strict: a note is a fault too.
    """
    cross = _read_cross(source.cross)
    if source.init_images:
        cross["init_image"] = list_images(source.init_images)
    name, file = source.read()
    file_rows = expand_rows(cross_rows(file, cross, source.limit), base, source.styles, source.limit)
    base = fetch_addresses(base, source.downloads)
    file_rows = fetch_images(file_rows, source.downloads)
    seeds = _read_seeds(source.seeds)
    check_count(len(file_rows) * (seeds if isinstance(seeds, int) else len(seeds)), source.limit)
    rows, faults = make_rows(file_rows, base, seeds)
    if not rows:
        check_base(base)  # what is wrong with every row may be what was given for all
    alike = Counter(fault.partition(": ")[2] for fault in dict.fromkeys(faults))  # a cross repeats those of its row
    for what, count in alike.items():
        first = next(fault for fault in faults if fault.partition(": ")[2] == what)
        say(f"error: {first}" + (f"; so in {plural(count - 1, 'row')} more" if count > 1 else ""))
    say_all(file.notes if faults else (), quiet=quiet)
    if faults:
        raise InputError(f"{name}: {len(faults)} of {len(file_rows)} rows are wrong", "correct them; nothing was begun")
    notes = list(dict.fromkeys(file.notes + [f"{row.location}: {note}" for row in rows for note in row.notes()]))
    if strict and notes:
        raise InputError(notes[0], "correct it, or leave --strict out; nothing was begun")
    if not quiet:
        for note in notes[:MOST_NOTES]:
            say(note)
        if len(notes) > MOST_NOTES:
            say(f"and {len(notes) - MOST_NOTES} more")
    return rows


def _read_cross(pairs: list[str]) -> dict[str, list[Any]]:
    cross = {}
    for pair in pairs:
        name, given, values = pair.partition("=")
        if not given:
            raise UsageError(f"--cross {pair!r} has no values", "write --cross NAME=VALUE,VALUE")
        cross[name.strip()] = split_values(values)
        check_cross(name.strip(), cross[name.strip()])
    return cross


def _read_seeds(text: str | None) -> int | list[int]:
    """Read --seeds: how many, or which. Raises UsageError."""
    if text is None:
        return 1
    try:
        seeds = [int(item) for item in split_values(text)]
    except ValueError:
        seeds = []
    if not seeds or seeds == [0] or not all(0 <= seed < 2**63 for seed in seeds):
        raise UsageError(f"--seeds {text!r} is not understood", "write how many, or which: 8, 1-8, 3,5,9")
    return seeds[0] if len(seeds) == 1 and "-" not in text else seeds


def _read_keep(text: str) -> int:
    """Read --keep: "all" (0), "best" (1) or how many of each prompt. Raises UsageError."""
    if text in ("all", "best"):
        return int(text == "best")
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise UsageError(f"--keep {text!r} is not understood", "use all, best or a number")
    return int(text)


def _read_batch_size(text: str) -> int:
    """Read --batch-size: "auto" (0) or how many rows. Raises UsageError."""
    if text == "auto":
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UsageError(f"--batch-size {text!r} is not understood", "use auto or a number from 1")
    return int(text)
