"""The outcome of a run: a line on stderr, its path or one JSON object on stdout, how to go on if it was stopped."""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import UsageError, VqclipError
from ..files.atomic import refused, write_atomic
from ..files.locked_folder import numbered
from ..files.metadata import WRITERS
from ..text import plural
from .progress import Reporter, put, say, say_all, typed

if TYPE_CHECKING:
    from ..runs.profile import Profile
    from ..runs.recorder import Result
    from ..video.live import LiveVideo


def goes_to_stdout(out: Path | None, *, as_json: bool) -> bool:
    """Say whether the image itself is to go to stdout (-o -). Raises UsageError where it can't."""
    if out != Path("-"):
        return False
    if as_json:
        raise UsageError("stdout can't have both the image and JSON", "leave --json or -o - out")
    if sys.stdout.isatty():
        raise UsageError("the image would go to the terminal", "send it on: vqclip ... -o - > image.png")
    return True


def put_image(path: Path) -> None:
    """Write an image's bytes to stdout. Raises OutputError."""
    try:
        sys.stdout.buffer.write(path.read_bytes())
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # its reader has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise refused(Path("stdout"), error) from error


def report(
    result: "Result", reporter: Reporter, *, as_json: bool, to_stdout: bool = False, live: "LiveVideo | None" = None,
    fault: VqclipError | None = None,
) -> None:  # fmt: skip
    """Print a run's path, or one JSON object, or the image itself; raise Exit for one that a signal stopped.

    live: a video of it that was encoded meanwhile, unless `fault` prevented that. Raises what kept a file that was
    asked for from being written, in the end: the run is done all the same.
    """
    total, quiet = result.settings.steps, reporter.quiet
    if result.picture is None:
        reporter.say_how_to_go_on()
        raise typer.Exit(128 + reporter.stopped_by)
    say_all(_lines(result, reporter), quiet=quiet)
    if as_json:
        distance = None if math.isnan(result.distance) else round(result.distance, 6)
        record = {"path": str(result.path), "run": str(result.run), "seed": result.settings.seed,
                  "status": result.status, "steps": result.steps, "distance": distance,
                  "seconds": round(result.seconds, 2)}  # fmt: skip
        if live:
            record["video"] = None if fault else str(live.target)
        put(json.dumps(record))
    elif to_stdout and result.path:
        put_image(result.path)
    else:
        put(str(result.path))
    if live and not fault and not quiet:
        say(f"the video is {live.target}")
    if reporter.stopped_by:
        if not quiet and result.steps < total:
            aside = result.path if result.run and result.path and result.path.parent != result.run else None
            again = f" -o {typed(aside)} --overwrite" if aside else ""
            say(f"go on with: vqclip resume {typed(result.run)}{again}")
        raise typer.Exit(128 + reporter.stopped_by)
    raise_first(result.fault, fault)


def into_folder(out: Path | None, names: Iterable[str]) -> list[Path]:
    """Return a PNG that is not there yet for each name, in a folder that is; [] if `out` is none."""
    if out is None or out.suffix.lower() in WRITERS or not out.is_dir():
        return []
    files: list[Path] = []
    for name in names:
        free = (path for each in numbered(name) if not (path := out / f"{each}.png").exists() and path not in files)
        files.append(next(free))
    return files


def raise_first(*faults: VqclipError | None) -> None:
    """Raise the first of the faults that there are; say the others."""
    there = [fault for fault in faults if fault]
    for fault in there[1:]:
        say(f"error: {fault.what}")
        say(f"  {fault.hint}")
    if there:
        raise there[0]


def write_profile(profile: "Profile", run: Path | None, *, quiet: bool) -> None:
    """Write profile.json into the run directory, and print where the time went. Raises OutputError."""
    if run:
        write_atomic(run / "profile.json", json.dumps(profile.record(), indent=1).encode(), replace=True)
    say_all(profile.table(), quiet=quiet)


def _lines(result: "Result", reporter: Reporter) -> Iterator[str]:
    """Yield what is said of a run that has ended."""
    summary = _summary(result.steps, result.settings.steps, reporter.steps, result.seconds)
    if compared := reporter.compared(result.distance):
        yield compared
    yield f"{summary}; frames, metrics and settings are in {result.run}"
    if result.status == "converged":
        yield f"ended early: it came no nearer to the prompts for {plural(result.settings.stop_after, 'step')}"
    if result.path and result.path.suffix.lower() != ".png":
        yield f"{result.path} holds no settings, as a PNG does: to make it again, vqclip rerun {typed(result.run)}"


def _summary(done: int, total: int, now: int, seconds: float) -> str:
    """Return how far a run is and what this process did: "12 of 100 steps, 4 of them now, in 1.4 s"."""
    steps = f"{done} of {plural(total, 'step')}" if done < total else plural(done, "step")
    if not total:
        return "no steps: the best candidate as it is"
    if done and not now:
        return f"{steps}, all of them done before: --steps, more of them in all, goes on"
    return f"{steps}, {now} of them now, in {seconds:.1f} s" if 0 < now < done else f"{steps} in {seconds:.1f} s"
