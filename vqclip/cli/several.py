"""Several images by one call of vqclip generate: their settings, their drawing, their grid and their ranking."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..config.addresses import Downloads, fetch_addresses
from ..config.layers import gather, layered
from ..config.resolve import drawn_seed, is_any_seed, seeded
from ..config.styles import expand_prompts
from ..errors import UsageError, VqclipError
from ..files.atomic import write_atomic
from ..files.locked_folder import numbered
from ..runs.output import Output
from ..runs.progress import Observers
from ..runs.run_dir import slugify
from ..settings.schema import Settings
from ..text import plural
from .options import typed_prompt
from .outcome import put_image, raise_first
from .preview import Preview
from .progress import Reporter, progress_bar, put, say, typed

if TYPE_CHECKING:
    from ..runs.recorder import Result
    from ..runs.several import Scored

MOST = 100  # images of one call
SMALL_WORDS = {"a", "an", "the", "of", "in", "on", "at", "with", "and", "or"}


@dataclass(frozen=True)
class Sources:
    """Where the settings of images come from: prompts as typed, options, a preset and a file."""

    prompts: tuple[str, ...]
    values: dict[str, Any]
    preset: str | None
    config: Path | None
    downloads: Downloads

    def settings(self, styles: Sequence[str], count: int) -> list[Settings]:
        """Return the settings of every image, alternatives expanded. Raises UsageError, InputError."""
        where: dict[str, Any] = {"environ": os.environ, "folder": Path(), "config": self.config}
        given, _ = layered(self.values, preset_name=self.preset, **where)
        files = fetch_addresses(given, self.downloads)
        fetched = {name: value for name, value in files.items() if value != given[name]}
        check_quotes(self.prompts)
        sources = list(map(typed_prompt, self.prompts)) or [given.get("prompt", "")]
        texts = [text for source in sources for text in _expanded(source, styles)]
        if len(texts) * count > MOST:
            hint = f"steps are --steps {count}" if count > MOST else "a file of prompts: vqclip batch FILE --seeds N"
            raise UsageError(f"that makes {plural(len(texts) * count, 'image')}, more than {MOST}", hint)
        # All prompts have the same seeds.
        seed = {"seed": drawn_seed()} if len(texts) > 1 and is_any_seed(given.get("seed")) else {}
        values = [self.values | fetched | seed | ({"prompt": text} if text else {}) for text in texts]
        return seeded([gather(each, preset_name=self.preset, **where)[0] for each in values], count)


def check_quotes(prompts: Sequence[str]) -> None:
    """Refuse the words of a prompt that was typed without quotes: an owl. Raises UsageError."""
    if len(prompts) > 1 and not any(" " in prompt for prompt in prompts) and SMALL_WORDS & set(prompts):
        words = ", ".join(map(repr, prompts[:4])) + (", ..." if len(prompts) > 4 else "")
        raise UsageError(f"{words} are prompts of one word", "put a prompt of several words in quotes")


@dataclass(frozen=True)
class Printed:
    """What goes to stdout, paths, JSON or the image itself, and whether stderr says nothing but errors."""

    as_json: bool
    to_stdout: bool
    quiet: bool


def _expanded(source: str, styles: Sequence[str]) -> list[str]:
    return expand_prompts(source, styles) if source.strip() else [source]


def check_alone(given: Mapping[str, Any]) -> None:
    """Refuse options of one image, by their names, where several are to be drawn. Raises UsageError."""
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} is for one image", "leave it out, or give one prompt and no --count")


def draw_several(
    settings: Sequence[Settings],
    output: Output,
    seen: Preview,
    printed: Printed,
    *,
    ranker: str | None,
    device: str,
    files: Sequence[Path] = (),
) -> None:
    """Draw images, rank those of each prompt, write a grid of all; print their paths, the best of the last prompt last.

    files: where each is copied to, if anywhere. What goes wrong with one image ends the call; those before it are kept,
    and shown.
    """
    results: list[Result] = []
    fault: VqclipError | None = None
    quiet = printed.quiet
    with seen, Reporter(quiet=quiet) as reporter:
        from ..runs.several import generate_several, ranked, unranked

        try:
            drawn = generate_several(settings, output, device=device, progress=Observers(seen, reporter))
            for result, file in zip(drawn, files or itertools.repeat(None)):  # noqa: B905 - the first may be stopped
                # its pixels are in its file by now: a hundred images need not be in memory
                results.append(replace(result, path=_copied(result, file), picture=None))
        except VqclipError as error:
            fault = error
    if not results:
        reporter.say_how_to_go_on()
        raise_first(fault)
        raise typer.Exit(128 + reporter.stopped_by)
    with progress_bar("ranking", quiet=quiet):
        try:
            groups = ranked(settings, results, ranker, device)
        except VqclipError as error:  # it costs none of the images
            fault, groups = fault or error, unranked(results)
    grid, unwritten = _write_grid(groups, output)
    if not quiet:
        _say_outcome(groups, settings, ranker, grid)
        _say_how_to_go_on(results, settings)
    best, path = groups[-1][0].result, groups[-1][0].result.path
    try:
        path = _copied(best, output.out, overwrite=output.overwrite)
    except VqclipError as error:
        fault = fault or error
    if printed.as_json:
        put(json.dumps({"path": str(path), "images": _records(groups), "grid": str(grid) if grid else None}))
    elif printed.to_stdout and path:
        put_image(path)
    else:
        paths = [item.result.path for group in groups for item in reversed(group)]
        put("\n".join(map(str, [*paths[:-1], path])))
    if reporter.stopped_by:
        raise typer.Exit(128 + reporter.stopped_by)
    raise_first(fault, unwritten)


def _copied(result: "Result", file: Path | None, *, overwrite: bool = False) -> Path | None:
    """Copy an image to where it was asked for; return where it is. Raises OutputError, OutputExists."""
    if not file or not result.path:
        return result.path
    from ..files.carry_metadata import copied

    write_atomic(file, copied(result.path, file), replace=overwrite)
    return file


def _write_grid(groups: "list[list[Scored]]", output: Output) -> tuple[Path | None, VqclipError | None]:
    """Write all images on one, the best of each prompt first, below the runs; return its path, or what went wrong."""
    from ..report.sheet import write_sheet

    items = [(rank, item) for group in groups for rank, item in enumerate(group, 1)]
    cells = [(item.result.path, _caption(rank, item)) for rank, item in items if item.result.path]
    first = groups[0][0].result.settings
    if not cells or not output.runs:
        return None, None
    names = numbered(f"{slugify(first.prompt)}-{min(item.result.settings.seed for _, item in items)}-grid")
    path = next(path for name in names if not (path := output.runs / f"{name}.png").exists())
    try:
        write_sheet(path, cells, replace=False)
    except VqclipError as error:  # it costs none of the images
        return None, error
    return path, None


def _caption(rank: int, item: "Scored") -> str:
    settings = item.result.settings
    return f"{rank if item.score is not None else ''} {settings.prompt}, seed {settings.seed}".strip()


def _say_outcome(
    groups: "list[list[Scored]]", settings: Sequence[Settings], ranker: str | None, grid: Path | None
) -> None:
    from ..runs.rank import judge_of, said_of

    done = sum(map(len, groups))
    images = f"{done} of {plural(len(settings), 'image')}" if done < len(settings) else plural(done, "image")
    say(f"{images}; the grid is {grid}" if grid else images)
    if any(len(group) > 1 for group in groups):
        judge = ranker or judge_of(settings[0].clips)
        say(said_of(judge, settings[0].clips))


def _say_how_to_go_on(results: "Sequence[Result]", settings: Sequence[Settings]) -> None:
    from ..runs.run_dir import FINISHED

    last = results[-1]
    if last.status not in FINISHED and last.run:
        say(f"go on with: vqclip resume {typed(last.run)}")
    if left := len(settings) - len(results):
        say(f"{plural(left, 'image')} {'were' if left > 1 else 'was'} not begun")


def _records(groups: "list[list[Scored]]") -> list[dict[str, Any]]:
    return [
        {"path": str(item.result.path), "run": str(item.result.run), "prompt": item.result.settings.prompt,
         "seed": item.result.settings.seed, "status": item.result.status, "steps": item.result.steps,
         "rank": rank if item.score is not None else None,
         "score": None if item.score is None else round(item.score, 6)}
        for group in groups for rank, item in enumerate(group, 1)
    ]  # fmt: skip
