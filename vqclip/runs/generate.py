"""From a prompt, or a run that was stopped, to a picture and its files: prepare, run the loop, record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..config.resolve import change, resolve
from ..core.loop import State
from ..errors import InputError, UsageError
from ..files.atomic import check_folder
from ..files.images import load_image
from ..files.metadata import check_target
from ..files.paths import expand
from ..settings.schema import Settings
from .checkpoint import load_state
from .driving import OnStep, drive
from .intervals import Interval
from .memory import fit_to, watched
from .metadata import settings_of
from .recorder import Plan, Recording
from .resume import BEGUN, differences, take_up
from .run_dir import RunDir, slugify
from .session import Session, prepare

__all__ = ["Result", "differences", "generate", "prepare", "resume"]

OnStart = Callable[[Session, RunDir | None], None]
OnDraw = Callable[[int, int, Path | None], None]  # codes of candidates drawn, in all, the run's folder


@dataclass(frozen=True)
class Result:
    """A finished (or stopped) run."""

    picture: Image.Image
    settings: Settings
    steps: int  # steps done
    distance: float  # loss of the prompts at the last step; nan where none was made
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
    checkpoint_every: str = "30s",
    save_latents: bool = False,
    device: str = "auto",
    fit: bool = False,
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
    on_draw: OnDraw | None = None,
    preset: str = "auto",
    seed: int | None = None,
    **values: Any,
) -> Result:
    """Make one picture from a prompt and any fields of Settings, or from Settings that are complete.

    runs: make a run directory with frames and metrics below it. out: also write the final picture there.
    frames_every: steps between frames; 0 saves none but the final picture. checkpoint_every: "50" steps, "30s" or
    "0"; the state is saved at the end in any case. save_latents: keep each frame's latent too.
    fit: where memory does not suffice, let CLIP see the cutouts in chunks. on_start gets the session and run
    directory before the first step; on_step gets every step, and may return True to end the run there: the picture so
    far is then the result. on_draw hears of every code while a Mini DALL-E draws the start, before on_start; what it
    raises ends the run there, and `resume` goes on.

    Raises a VqclipError: UsageError, InputError, ModelError, OutputError, OutputExists, OutOfMemory, Diverged.
    """
    if isinstance(prompt, Settings) and (values or seed is not None):
        raise UsageError(
            "single values stand beside complete settings", "change them: settings.model_copy(update={...})"
        )
    settings = prompt if isinstance(prompt, Settings) else resolve(prompt, preset, seed, **values)
    if frames_every < 0:
        raise UsageError(f"frames-every: {frames_every} is negative", "use 0 for none, or a number of steps")
    plan = Plan(metadata, frames_every, Interval.parse(checkpoint_every), save_latents)
    target, place = check_target(out, overwrite), expand(runs) if runs else None
    if place:
        check_folder(place)
    with watched(settings, fit=fit):
        session = prepare(settings, device)
        _listen(session, on_draw)
        _fit(session, fit)
        run = RunDir.create(place, f"{slugify(session.title())}-{session.settings.seed}") if place else None
        recording = Recording(session, run, plan, target=target, overwrite=overwrite)
        return _run(session, recording, None, on_start, on_step, fit)


def resume(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    fit: bool = False,
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
    on_draw: OnDraw | None = None,
    **changes: Any,
) -> Result:
    """Go on with a run that was stopped, by whatever, to the bytes that it would have ended with.

    It goes on from its last checkpoint; what was written after that is made again. changes: settings for the steps
    to come, `steps` for instance; those that decide the start and the shapes can't change. A run that is done, and
    of which nothing changes, is left as it is.

    Raises what `generate` raises, RunLocked, and IntegrityError where no checkpoint is sound.
    """
    path, target = expand(folder), check_target(out, overwrite)
    run = RunDir.open(path)
    try:
        record = run.read_json()
        settings, plan = settings_of(path, record), Plan.of(record)
        wanted = change(settings, {key: value for key, value in changes.items() if value is not None})
        changed = {key: value for key, value in wanted if value != getattr(settings, key)}
        for key in BEGUN:
            if key in changed:
                raise UsageError(f"{key.replace('_', '-')} can't change in a run that has begun", "make a new one")
        final = path / "final.png"
        if record.get("status") == "done" and not changed and not target and final.exists():
            done = int(record.get("steps_done", settings.steps))
            return Result(load_image(final), settings, done, float("nan"), 0.0, path, final)
        state, fault = load_state(path)
        if state is None and record.get("status") == "done" and settings.steps:
            raise InputError(f"{path} is done and has no state to go on from", "make it anew: vqclip rerun")
        if state and wanted.steps < state.step:
            raise UsageError(f"steps: {state.step} are done already", "give more, or make a new run: vqclip rerun")
        with watched(wanted, fit=fit):
            session = prepare(wanted, device)
            _listen(session, on_draw)
            changed |= _fit(session, fit)
            recording = take_up(
                run, record, plan, session, state, fault=fault, changed=changed, target=target, overwrite=overwrite
            )
            return _run(session, recording, state, on_start, on_step, fit)
    finally:
        run.close()


def _listen(session: Session, on_draw: OnDraw | None) -> None:
    if on_draw:
        session.on_code = lambda done, total: on_draw(done, total, session.folder)


def _fit(session: Session, fit: bool) -> dict[str, int]:
    """Change settings, with `fit`, so that a step fits into memory; say so. Raises OutOfMemory."""
    change = fit_to(session, fit=fit)
    if change:
        session.change(change)
        session.notes += (f"memory is short: CLIP sees {change['chunk']} of the cutouts at a time",)
    return change


def _run(
    session: Session,
    recording: Recording,
    state: State | None,
    on_start: OnStart | None,
    on_step: OnStep | None,
    fit: bool,
) -> Result:
    def begun() -> None:
        if on_start:
            on_start(session, recording.run)

    drive(recording, state, begun, on_step, fit=fit)
    return _result(session, recording)


def _result(session: Session, recording: Recording) -> Result:
    last = recording.last
    return Result(
        picture=session.picture(last.latent),
        settings=session.settings,
        steps=last.step,
        distance=float(last.losses["prompt"].mean()) if last.losses else float("nan"),
        seconds=recording.seconds,
        run=recording.run.path if recording.run else None,
        path=recording.target or recording.final,
    )
