"""From a prompt to a picture and its files: prepare, run the loop, record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .errors import OutOfMemory, UsageError
from .optimize import Step
from .paths import expand
from .recording import Recording, check_runs, check_target
from .rundir import RunDir
from .session import Session, prepare
from .settings import Settings, resolve

__all__ = ["Result", "generate", "prepare"]


@dataclass(frozen=True)
class Result:
    """A finished (or stopped) run."""

    picture: Image.Image
    settings: Settings
    steps: int  # steps done
    distance: float  # loss of the prompts at the last step
    seconds: float  # of the loop
    run: Path | None  # the run directory, if one was made
    path: Path | None  # the final picture's file, if one was written


def generate(
    prompt: str | Settings = "",
    *,
    runs: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    metadata: bool = True,
    frames_every: int = 10,
    device: str = "auto",
    on_start: Callable[[Session, RunDir | None], None] | None = None,
    on_step: Callable[[Step], bool | None] | None = None,
    preset: str = "auto",
    seed: int | None = None,
    **values: Any,
) -> Result:
    """Make one picture from a prompt and any fields of Settings, or from Settings that are complete.

    runs: make a run directory with frames and metrics below it. out: also write the final picture there.
    frames_every: steps between frames; 0 saves none but the final picture. on_start gets the session and run
    directory before the first step; on_step gets every step, and may return True to end the run there: the
    picture so far is then the result.

    Raises a VqclipError: UsageError, InputError, ModelError, OutputError, OutputExists, OutOfMemory, Diverged.
    """
    if isinstance(prompt, Settings) and (values or seed is not None):
        raise UsageError(
            "single values stand beside complete settings", "change them: settings.model_copy(update={...})"
        )
    settings = prompt if isinstance(prompt, Settings) else resolve(prompt, preset, seed, **values)
    if frames_every < 0:
        raise UsageError(f"frames-every: {frames_every} is negative", "use 0 for none, or a number of steps")
    target, place = check_target(out, overwrite), expand(runs) if runs else None
    if place:
        check_runs(place)
    try:
        session = prepare(settings, device)
        recording = Recording(
            session, runs=place, target=target, overwrite=overwrite, metadata=metadata, frames_every=frames_every
        )
        _run(session, recording, on_start, on_step)
    except (MemoryError, RuntimeError) as error:
        if _is_out_of_memory(error):
            width, height = settings.size
            what = f"there is too little memory for {width}x{height} pixels with {settings.cutouts} cutouts"
            raise OutOfMemory(what, "use a smaller --size or fewer --cutouts") from error
        raise
    last = recording.last
    return Result(
        picture=session.picture(last.latent),
        settings=session.settings,
        steps=last.step,
        distance=float(last.losses["prompt"].mean()) if last.losses else float("nan"),
        seconds=recording.seconds,
        run=recording.run.path if recording.run else None,
        path=target or recording.final,
    )


def _run(
    session: Session,
    recording: Recording,
    on_start: Callable[[Session, RunDir | None], None] | None,
    on_step: Callable[[Step], bool | None] | None,
) -> None:
    status = "failed"
    try:
        if on_start:
            on_start(session, recording.run)
        recording.start()
        for step in session.steps():
            recording.step(step)
            if on_step and on_step(step):
                status = "stopped"
                return
        status = "done"
    except (KeyboardInterrupt, SystemExit):
        status = "stopped"
        raise
    finally:  # whatever ended the loop, the picture so far is kept
        recording.finish(status)


def _is_out_of_memory(error: BaseException) -> bool:
    told = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)
