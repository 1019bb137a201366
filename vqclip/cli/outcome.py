"""What a run came to: told on stderr, its path or one JSON object on stdout, and how to go on where it was stopped."""

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..files.atomic import check_here
from ..text import pasted
from .progress import Reporter, put, say

if TYPE_CHECKING:
    from ..runs.generate import Result
    from ..video.live import Filming


def report(
    make: Callable[[Reporter], "Result"], *, as_json: bool, quiet: bool, filming: "Filming | None" = None
) -> None:
    """Let `make` make a picture under a Reporter, and end the video of it; print its path, or one JSON object."""
    check_here()
    with Reporter(quiet=quiet) as reporter, filming or contextlib.nullcontext():
        try:
            result = make(reporter)
        except (SystemExit, KeyboardInterrupt):
            if reporter.drawing_in and not quiet:
                say(f"candidates that are whole are kept; go on with: vqclip resume {typed(reporter.drawing_in)}")
            raise
        fault = filming.finish(result.steps) if filming else None
    total = result.settings.steps
    if not quiet:
        told = _told(result.steps, total, reporter.steps, result.seconds)
        say(f"{told}; frames, metrics and settings are in {result.run}")
    if as_json:
        distance = None if math.isnan(result.distance) else round(result.distance, 6)
        record = {"path": str(result.path), "run": str(result.run), "seed": result.settings.seed,
                  "status": "done" if result.steps == total else "stopped", "steps": result.steps,
                  "distance": distance, "seconds": round(result.seconds, 2)}  # fmt: skip
        if filming:
            record["video"] = None if fault else str(filming.target)
        put(json.dumps(record))
    else:
        put(str(result.path))
    if filming and not fault and not quiet:
        say(f"the video is {filming.target}")
    if reporter.stopped_by:
        if not quiet and result.steps < total:
            aside = result.path if result.run and result.path and result.path.parent != result.run else None
            again = f" -o {typed(aside)} --overwrite" if aside else ""
            say(f"go on with: vqclip resume {typed(result.run)}{again}")
        raise typer.Exit(128 + reporter.stopped_by)
    if fault:
        raise fault


def typed(path: Path | None) -> str:
    """Return a path as one can paste it into a shell, whatever its name: never an option, nothing unprintable."""
    text = str(path)
    return pasted(f"./{text}" if text.startswith("-") else text)


def _told(done: int, total: int, now: int, seconds: float) -> str:
    """Say how far a run is and what this sitting did: "12 of 100 steps, 4 of them now, in 1.4 s"."""
    steps = f"{done} of {total} steps" if done < total else "1 step" if done == 1 else f"{done} steps"
    if not total:
        return "no steps: the best candidate as it is"
    if done and not now:
        return f"{steps}, all of them done before"
    return f"{steps}, {now} of them now, in {seconds:.1f} s" if 0 < now < done else f"{steps} in {seconds:.1f} s"
