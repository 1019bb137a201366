"""vqclip batch: a file of prompts becomes a folder of pictures."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..batch.manifest import TEMPLATE, Manifest, check_template, counted
from ..batch.prompt_files import MAX_FILE, listed, load_rows, read_rows
from ..batch.rows import Row, check_base, crossed, make_rows
from ..config.layers import layered
from ..errors import InputError, UsageError, VqclipError
from ..files.atomic import check_no_file
from ..files.paths import expand
from ..models.catalogue import find
from ..runs.intervals import Interval
from .options import (
    PRESETS,
    AsJson,
    Changes,
    CheckpointEvery,
    Config,
    Device,
    Fit,
    FramesEvery,
    NoMetadata,
    Quiet,
    given_settings,
    read_changes,
    setting,
)
from .progress import Counting, loading, put, say
from .rowing import Rowing

EXAMPLES = """
Examples:

  vqclip batch prompts.txt -o pictures

  vqclip batch a.csv -o b --seeds 8 --keep best --ranker ViT-B-16:openai

  echo "a {colour} heart" | vqclip batch - -o c --cross colour=red,blue

A second call goes on: rows that are done are skipped, those that were stopped resume, --retry tries failed ones again. \
A row's own settings win over the command line's.
"""
ROWS, RUN = "Rows", "Output and machine"
LIMIT = 1000


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Prompts: .txt (one a line), .csv, .jsonl, .yaml or .toml; - is stdin.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for pictures, runs and results.", show_default=False)],
    kind: Annotated[str | None, typer.Option("--format", metavar="NAME", help=r"What the file is, where its ending does not say. \[txt]", rich_help_panel=ROWS)] = None,
    cross: Annotated[list[str] | None, typer.Option("--cross", metavar="NAME=A,B", help="Every row with each of these: a setting, or a {word} in the prompts; several multiply.", rich_help_panel=ROWS)] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="N|A-B", help="So many seeds of every row, or these: 8, 1-8, 3,5.", rich_help_panel=ROWS)] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="More rows than this are refused.", rich_help_panel=ROWS)] = LIMIT,
    template: Annotated[str, typer.Option("--template", help="Names: index, slug, seed, source (the number of the prompt).", rich_help_panel=ROWS)] = TEMPLATE,
    steps: Annotated[int | None, setting("steps", "--steps", ROWS, "-n")] = None,
    size: Annotated[str | None, setting("size", "--size", ROWS, "-s", metavar="WxH")] = None,
    preset: Annotated[str | None, typer.Option(help=rf"{PRESETS} \[auto]", rich_help_panel=ROWS, show_default=False)] = None,
    changes: Changes = None,
    config: Config = None,
    keep: Annotated[str, typer.Option("--keep", metavar="all|best|N", help="Of several seeds, those whose picture goes into the folder; runs stay.", rich_help_panel=RUN)] = "all",
    ranker: Annotated[str | None, typer.Option("--ranker", metavar="CLIP", help="The CLIP that ranks; better one that was not optimised.", rich_help_panel=RUN)] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try rows again that failed.", rich_help_panel=RUN)] = False,
    batch_size: Annotated[str, typer.Option("--batch-size", metavar="auto|N", help="Rows in one tensor; auto: one on the CPU, what the memory holds elsewhere.", rich_help_panel=RUN)] = "auto",
    engine: Annotated[str, typer.Option("--engine", metavar="local|ray", help="Where rows are drawn.", rich_help_panel=RUN)] = "local",
    address: Annotated[str | None, typer.Option("--address", help="The Ray cluster; otherwise one is started here.", rich_help_panel=RUN)] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Workers of the Ray cluster; 0: as many as it has GPUs, or pairs of CPUs.", rich_help_panel=RUN)] = 0,
    frames_every: FramesEvery = 10,
    checkpoint_every: CheckpointEvery = "30s",
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    fit: Fit = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw every row of a file; print the folder."""
    check_no_file(expand(out))
    flags = read_changes(changes) | given_settings(locals())
    rows = _rows(file, kind, cross, seeds, limit, flags, config, preset)
    check_template(template)
    together = _batch_size(batch_size)
    tell = (lambda note: None) if quiet else say
    if ranker:
        find("clip", ranker)
    if frames_every < 0 or workers < 0:
        raise UsageError("frames-every and workers are not negative", "use 0 or more")
    every = Interval.parse(checkpoint_every)

    loading(quiet=quiet)
    from ..batch.engines import check_engine
    from ..batch.run import choose, read_keep, run_batch
    from ..batch.worker import Work
    from ..report import report
    from ..runs.recorder import Plan
    from ..runs.session import choose_device

    kept, folder = read_keep(keep), expand(out)
    check_engine(engine, address)
    if engine == "local":  # a cluster may have what is not here
        choose_device(device)
    manifest = Manifest(folder.absolute())
    try:
        wanted = manifest.add(rows, template)
        work = Work(manifest.runs, Plan(not no_metadata, frames_every, every), device, together, fit)
        with Rowing(manifest, quiet=quiet) as rowing:
            ended = run_batch(
                manifest, wanted, work, engine=engine, address=address, workers=workers, retry=retry,
                on_step=rowing.step, on_row=rowing.row, on_start=rowing.start,
            )  # fmt: skip
        fault = None
        if not rowing.stopped_by:
            try:
                with Counting("picture ranked", quiet=quiet) as counting:
                    for note in choose(
                        manifest, ended, keep=kept, ranker=ranker, device=device, on_picture=counting.at
                    ):
                        tell(note)
            except VqclipError as error:
                fault = error  # the rows are drawn all the same, and shown
        with Counting("run of the page", quiet=quiet) as counting:
            for note in report(manifest, pictures=not rowing.stopped_by, on_run=counting.at):
                tell(note)
    finally:
        manifest.close()
    if fault:
        raise fault
    _finish(folder, counted([manifest.entries[entry.name] for entry in wanted]), rowing.stopped_by, as_json, quiet)


def _finish(folder: Path, counts: dict[str, int], stopped_by: int, as_json: bool, quiet: bool) -> None:
    if not quiet:
        say(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
        if counts.get("failed"):
            say("what failed is in results.csv; --retry tries it again")
    put(json.dumps({"path": str(folder), **counts}) if as_json else str(folder))
    if stopped_by:
        if not quiet:
            say("the same command goes on")
        raise typer.Exit(128 + stopped_by)
    if counts.get("failed"):
        raise typer.Exit(3)


def _rows(
    file: str, kind: str | None, cross: list[str] | None, seeds: str | None, limit: int,
    flags: dict[str, Any], config: Path | None, preset: str | None,
) -> list[Row]:  # fmt: skip
    """Read and check all rows. Raises InputError after naming every bad one; what is wrong for all of them at once."""
    crosses = {}
    for pair in cross or []:
        name, given, value = pair.partition("=")
        if not given:
            raise UsageError(f"--cross {pair!r} has no values", "write --cross NAME=VALUE,VALUE")
        crosses[name.strip()] = listed(value)
    base, _ = layered(flags, config=config, preset_name=preset, environ=os.environ, folder=Path())
    name, data = ("stdin", sys.stdin.buffer.read(MAX_FILE + 1)) if file == "-" else (file, load_rows(expand(file)))
    ending = expand(file).suffix.lower().lstrip(".")
    found = read_rows(name, data, kind or (ending if file != "-" and ending else "txt"))
    raws = crossed(found, crosses, limit)
    many = _seeds(seeds)
    count = len(raws) * (many if isinstance(many, int) else len(many))
    if count > limit:
        raise UsageError(f"that makes {count:,} rows, more than {limit:,}", f"if that is meant: --limit {count}")
    rows, faults = make_rows(raws, base, many)
    if not rows:
        check_base(base)  # what is wrong with every row may be what was given for all
    for fault in dict.fromkeys(faults):  # a cross repeats those of its row
        say(f"error: {fault}")
    if faults:
        raise InputError(f"{name}: {len(faults)} of {len(raws)} rows are wrong", "mend them; nothing was begun")
    return rows


def _seeds(text: str | None) -> int | list[int]:
    """Read --seeds: a number of them, or which. Raises UsageError."""
    if text is None:
        return 1
    items = listed(text)
    try:
        numbers = [int(item) for item in items]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or numbers == [0] or any(number >= 2**63 for number in numbers):
        raise UsageError(f"--seeds {text!r} is not understood", "write how many, or which: 8, 1-8, 3,5,9")
    return numbers[0] if len(numbers) == 1 and "-" not in text else numbers


def _batch_size(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UsageError(f"--batch-size {text!r} is not understood", "use auto or a number from 1")
    return int(text)
