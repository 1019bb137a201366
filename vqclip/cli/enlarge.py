"""vqclip enlarge: an image made larger and drawn anew, window by window."""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, UsageError
from ..files.atomic import check_here
from ..files.carry_metadata import suffix_for
from ..files.images import load_image
from ..files.paths import expand
from ..models.catalogue import find
from ..models.upscaler import BUNDLED, FACTORS
from ..runs.output import Output
from ..runs.records import OVERLAPS
from ..settings.schema import Settings
from ..text import plural
from .commands import DRAW, command
from .dry_run import duration
from .options import (
    ENDINGS,
    OUTPUT,
    AsJson,
    Changes,
    Device,
    DryRun,
    NoMetadata,
    Overwrite,
    Preset,
    Quiet,
    option,
    prompt_of,
    read_changes,
)
from .progress import loading, progress_bar, put, say, typed

if TYPE_CHECKING:
    from ..runs.enlarge import Layout

EXAMPLES = """
Examples:

  vqclip enlarge runs/a-red-heart-7 --by 2

  vqclip enlarge photo.png --prompt "a stone wall" --by 4 -o wall.png

Stopped by Ctrl-C or killed, it keeps the windows that are done beside the image; the same command goes on.
"""
WORK = "Enlarging"
SHORT_S = 0.5  # of a window: one that was kept is read in less
USUAL = {"upscale": 2, "upscaler": BUNDLED}


@command(DRAW, examples=EXAMPLES)
def enlarge(
    source: Annotated[Path, typer.Argument(parser=expand, metavar="IMAGE|RUN", help="An image of any format, or a run: its image as it was drawn.", show_default=False)],
    by: Annotated[int | None, option(WORK, "--by", r"How many times as large, 2 to 8. \[2]", metavar="FACTOR")] = None,
    prompt: Annotated[str | None, option(WORK, "--prompt", "What it shows; otherwise what the run or the image says.")] = None,
    steps: Annotated[int | None, option(WORK, "--steps", r"Steps for each window, 1 or more. \[20]", "-n")] = None,
    window: Annotated[str | None, option(WORK, "--window", "Size of a window; otherwise that in which the image was drawn.", metavar="WxH")] = None,
    overlap: Annotated[float, option(WORK, "--overlap", "How much of a window its neighbour shares, 0.1 to 0.75.")] = 0.25,
    upscaler: Annotated[str | None, option(WORK, "--upscaler", rf"What makes it larger at first: a name or a file. \[{BUNDLED}]", metavar="NAME|FILE")] = None,
    changes: Changes = None,
    preset: Preset = None,
    out: Annotated[Path | None, option(OUTPUT, "--out", f"Where to: {ENDINGS}. Otherwise NAME-enlarged.png here.", "-o", parser=expand, metavar="FILE", show_default=False)] = None,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    dry_run: DryRun = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make an image larger and draw it anew towards its prompt, in overlapping windows; print its path.

    It takes the memory of one window, and time for each. vqclip upscale makes larger what is there, and draws nothing.
    """
    check_here()
    if not OVERLAPS[0] <= overlap <= OVERLAPS[1]:
        raise UsageError(f"overlap: {overlap} is out of range", "use 0.1 to 0.75")
    if by is not None and not FACTORS[0] <= by <= FACTORS[1]:
        raise UsageError(f"by: {by} is out of range", "use {} to {}".format(*FACTORS))
    text = None if prompt is None else prompt_of(prompt)
    options = {"upscale": by, "prompt": text, "steps": steps, "size": window, "upscaler": upscaler}
    given = USUAL | read_changes(changes) | {name: value for name, value in options.items() if value is not None}
    loading(quiet=quiet)
    from ..runs.enlarge import settings_for

    settings = settings_for(source, preset, given)
    name = source.resolve().name if source.is_dir() else source.stem
    finished = source / "final.png" if source.is_dir() else None
    if dry_run:
        show_plan(settings, overlap, finished, device, as_json=as_json, quiet=quiet)
        return
    output = Output(out=out or target_for(settings, name), overwrite=overwrite, metadata=not no_metadata)
    draw_windows(settings, overlap, output, finished, device=device, as_json=as_json, quiet=quiet)


def target_for(settings: Settings, name: str) -> Path:
    """Return the file that an image becomes where none is named."""
    return Path(f"{name}-enlarged{suffix_for(Path(str(settings.init_image)))}")


def show_plan(
    settings: Settings, overlap: float, finished: Path | None, device: str, *, as_json: bool, quiet: bool
) -> None:
    """Print what an image would become, and the seconds that its windows take by a few steps of the first."""
    for model in settings.models():
        find(*model)
    from ..runs.bench import expected_seconds
    from ..runs.enlarge import layout_of

    layout = layout_of(settings, overlap)
    window = settings.model_copy(update={"size": layout.window, "upscale": 0})
    with progress_bar("measurement", quiet=quiet):
        seconds = expected_seconds(window, device, layout.before) * layout.windows
    if as_json:
        put(json.dumps({"size": layout.size, "windows": layout.windows, "seconds": round(seconds, 1)}))
        return
    say(describe(settings, layout, finished), to="stdout")
    put(f"about {duration(seconds)} here, and loading; nothing was made")


def describe(settings: Settings, layout: "Layout", finished: Path | None) -> str:
    """Return a line on what an image becomes; where its run's finished image is no smaller, on what exceeds that."""
    before, size, window = (f"{width}x{height}" for width, height in (layout.before, layout.size, layout.window))
    source = finished.parent.resolve() if finished else Path(str(settings.init_image))
    line = f"{source.name}: {before} becomes {size}, in {plural(layout.windows, 'window')} of {window}"
    with contextlib.suppress(InputError):
        width, height = load_image(finished).size if finished else (0, 0)
        if width >= layout.size[0]:
            by = width // layout.before[0] + 1
            larger = f"--by {by} is larger" if by <= FACTORS[1] else f"vqclip enlarge {typed(finished)} starts from it"
            line += f"; the run's final.png is {width}x{height}: {larger}"
    return line


def draw_windows(
    settings: Settings, overlap: float, output: Output, finished: Path | None = None, *, device: str, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Enlarge the image of settings and draw it anew; print its path. finished: the result of its run."""
    output.check()
    for model in settings.models():
        find(*model)  # a wrong name is said before anything is loaded
    from ..runs.enlarge import enlarge as make
    from ..runs.enlarge import layout_of

    if not quiet:
        say(describe(settings, layout_of(settings, overlap), finished))
    began, done, last, unsaid = time.monotonic(), (0, 0), math.inf, not quiet
    with progress_bar("window", quiet=quiet) as bar:

        def at(number: int, windows: int) -> None:
            nonlocal done, last, unsaid
            took, last, done = time.monotonic() - last, time.monotonic(), (number, windows)
            if unsaid and took > SHORT_S and number < windows:
                say(f"about {duration(took * (windows - number))} to go")
                unsaid = False
            bar.at(number, windows)

        try:
            size = make(settings, overlap, output, device=device, on_window=at)
        except (KeyboardInterrupt, SystemExit):
            if done[0] and not quiet:
                say(f"stopped: {done[0]} of {done[1]} windows are kept beside {output.out}; the same command goes on")
            raise
    if not quiet:
        if output.out and output.out.suffix.lower() != ".png":
            say(f"{output.out} holds no settings, as a PNG does")
        say(f"{size[0]}x{size[1]} in {time.monotonic() - began:.1f} s")
    record = {"path": str(output.out), "size": list(size), "factor": settings.upscale}
    put(json.dumps(record) if as_json else str(output.out))
