"""vqclip enlarge: an image made larger and drawn anew, window by window."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..files.atomic import write_atomic
from ..files.carry_metadata import bare, enlarged, suffix_for
from ..files.paths import expand
from ..models.catalogue import find
from ..models.upscaler import BUNDLED
from ..runs.output import check_target
from .commands import DRAW, command
from .options import AsJson, Changes, Device, NoMetadata, Out, Overwrite, Preset, Quiet, option, read_changes
from .progress import loading, progress_bar, put, say

EXAMPLES = """
Examples:

  vqclip enlarge runs/a-red-heart-7 --by 2

  vqclip enlarge photo.png --prompt "a stone wall" --by 4 -o wall.png
"""
WORK = "Enlarging"


@command(DRAW, examples=EXAMPLES)
def enlarge(
    source: Annotated[Path, typer.Argument(parser=expand, metavar="IMAGE|RUN", help="An image of any format, or a run: its image as it was drawn.", show_default=False)],
    by: Annotated[int, option(WORK, "--by", "How many times as large, 2 to 8.", metavar="FACTOR")] = 2,
    prompt: Annotated[str, option(WORK, "--prompt", "What it shows; otherwise what the run or the image says.")] = "",
    steps: Annotated[int, option(WORK, "--steps", "Steps for each window, 1 or more.", "-n")] = 20,
    window: Annotated[str, option(WORK, "--window", "Size of a window; otherwise that in which the image was drawn.", metavar="WxH")] = "",
    overlap: Annotated[float, option(WORK, "--overlap", "How much of a window its neighbour shares, 0.1 to 0.75.")] = 0.25,
    upscaler: Annotated[str, option(WORK, "--upscaler", "What makes it larger at first: a name or a file.", metavar="NAME|FILE")] = BUNDLED,
    changes: Changes = None,
    preset: Preset = None,
    out: Out = None,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make an image larger and draw it anew towards its prompt, in overlapping windows; print its path.

    It takes the memory of one window, and time for each. vqclip upscale makes larger what is there, and draws nothing.
    """
    if not 0.1 <= overlap <= 0.75:
        raise UsageError(f"overlap: {overlap} is out of range", "use 0.1 to 0.75")
    find("upscaler", upscaler)
    given = {**read_changes(changes), "steps": steps, **({"size": window} if window else {})}
    loading(quiet=quiet)
    from ..files.images import load_image, opened
    from ..runs.enlarge import enlarge as make
    from ..runs.enlarge import settings_for, source_image
    from ..runs.upscale import Enlarger

    file, settings = source_image(source), settings_for(source, prompt, preset or "auto", given)
    name = source.resolve().name if source.is_dir() else source.stem
    target = out or Path(f"{name}-enlarged{suffix_for(file)}")
    check_target(target, overwrite)
    image, enlarger = load_image(file), Enlarger(upscaler, by, device=device)
    with opened(file) as opened_file:
        info = {str(key): value for key, value in opened_file.info.items()}
    began = time.monotonic()
    with progress_bar("window", quiet=quiet) as bar:
        large = make(image, settings, enlarger, overlap=overlap, on_window=bar.at)
    data = bare(large, info, target) if no_metadata else enlarged(large, info, target, enlarger.tag, by)
    write_atomic(target, data, replace=overwrite)
    if not quiet:
        say(f"{file}: {large.width}x{large.height} in {time.monotonic() - began:.1f} s")
    put(json.dumps({"path": str(target), "size": list(large.size), "factor": by}) if as_json else str(target))
