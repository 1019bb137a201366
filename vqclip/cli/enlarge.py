"""vqclip enlarge: an image made larger and drawn anew, window by window."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..files.atomic import check_here
from ..files.carry_metadata import suffix_for
from ..files.paths import expand
from ..models.catalogue import find
from ..models.upscaler import BUNDLED
from ..runs.output import Output
from ..runs.records import OVERLAPS
from ..settings.schema import Settings
from .commands import DRAW, command
from .options import (
    ENDINGS,
    OUTPUT,
    AsJson,
    Changes,
    Device,
    NoMetadata,
    Overwrite,
    Preset,
    Quiet,
    option,
    prompt_of,
    read_changes,
)
from .progress import loading, progress_bar, put, say

EXAMPLES = """
Examples:

  vqclip enlarge runs/a-red-heart-7 --by 2

  vqclip enlarge photo.png --prompt "a stone wall" --by 4 -o wall.png

Stopped by Ctrl-C or killed, it keeps the windows that are done beside the image; the same command goes on.
"""
WORK = "Enlarging"
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
    text = None if prompt is None else prompt_of(prompt)
    typed = {"upscale": by, "prompt": text, "steps": steps, "size": window, "upscaler": upscaler}
    given = USUAL | read_changes(changes) | {name: value for name, value in typed.items() if value is not None}
    loading(quiet=quiet)
    from ..runs.enlarge import settings_for

    settings = settings_for(source, preset, given)
    name = source.resolve().name if source.is_dir() else source.stem
    output = Output(out=out or target_for(settings, name), overwrite=overwrite, metadata=not no_metadata)
    draw_windows(settings, overlap, output, device=device, as_json=as_json, quiet=quiet)


def target_for(settings: Settings, name: str) -> Path:
    """Return the file that an image becomes where none is named."""
    return Path(f"{name}-enlarged{suffix_for(Path(str(settings.init_image)))}")


def draw_windows(
    settings: Settings, overlap: float, output: Output, *, device: str, as_json: bool, quiet: bool
) -> None:
    """Enlarge the image of settings and draw it anew; print its path."""
    output.check()
    for model in settings.models():
        find(*model)  # a wrong name is said before anything is loaded
    from ..runs.enlarge import enlarge as make

    began, done = time.monotonic(), (0, 0)
    with progress_bar("window", quiet=quiet) as bar:

        def at(number: int, windows: int) -> None:
            nonlocal done
            done = number, windows
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
        say(f"{settings.init_image}: {size[0]}x{size[1]} in {time.monotonic() - began:.1f} s")
    record = {"path": str(output.out), "size": list(size), "factor": settings.upscale}
    put(json.dumps(record) if as_json else str(output.out))
