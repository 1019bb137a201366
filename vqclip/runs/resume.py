"""Go on with a run that was stopped: check that what must be the same is the same, and note other differences."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.resolve import change
from ..core.loop import State
from ..errors import InputError, IntegrityError, UsageError
from ..files.atomic import write_atomic
from ..files.carry_metadata import copied
from ..files.images import is_whole, load_image
from ..files.paths import expand
from ..settings.schema import Settings, facts, fields_with
from .checkpoint import load_state
from .generate import Run
from .memory import fit_memory, watched
from .networks import Networks
from .output import Output
from .progress import Progress
from .project_files import files_in, find_again, same_models
from .recorder import Recorder, Result
from .records import settings_of
from .run_dir import FINISHED, RunDir, read_distance, read_losses
from .session import Session

# The settings that a run can't change once it has begun.
FIXED = fields_with("fixed")


def resume(
    folder: str | Path,
    changes: Mapping[str, Any],
    output: Output,
    *,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Result:
    """Go on with a run from its last checkpoint, to the bytes that it would have ended with.

    changes: settings for the steps to come; those that decide the start and the shapes can't change. output: `out`,
    `overwrite` and `fit` count, checked; the rest is as it was. A run that is done, and of which nothing changes, is
    left as it is; one that goes on with other settings than before keeps the image that it had, as final-STEPS.png.

    Raises what `generate` raises, RunLocked, and IntegrityError if no checkpoint is sound.
    """
    with RunDir.open(expand(folder)) as directory:
        record = directory.read_json()
        settings = settings_of(directory.path, record)
        changes = {key: value for key, value in changes.items() if value is not None}
        files = files_in(change(settings, changes), changes)
        changed = _changed(find_again(directory.path, record, settings, files), changes) if changes else {}
        if record.get("status") in FINISHED and is_whole(directory.path / "final.png"):
            if record["status"] == "done":
                _check_counts(settings, changed)
            if not changed:
                return _as_it_is(directory.path, record, settings, output)
            if any(name != "steps" and not facts(name).finishing for name in changed):
                directory.keep_final(int(record.get("steps_done", 0)))
        with watched(settings, fit=output.fit):
            run = reopen(directory, record, changed, output, files=files, device=device, networks=networks)
        return run.optimize(progress or Progress())


def reopen(
    directory: RunDir,
    record: dict[str, Any],
    changed: dict[str, Any],
    output: Output,
    *,
    files: Mapping[str, Any] = {},
    device: str = "auto",
    networks: Networks | None = None,
) -> Run:
    """Return a run that has begun, ready to go on; what differs from its run.json, `record`, becomes a note.

    files: settings that say where the files are by now that it was begun with (project_files.py).

    Raises InputError if the run was begun with other models or images, IntegrityError for a state of another shape.
    """
    path, plan = directory.path, output.following(record)
    state, fault = load_state(path)
    before = find_again(path, record, settings_of(path, record), {**changed, **files})
    settings = before.model_copy(update=changed)
    if state is None and record.get("status") in FINISHED and before.steps:
        raise InputError(f"{path} is done and has no state to go on from", "make it anew: vqclip rerun")
    if state and settings.steps < state.step:
        raise UsageError(f"steps: {state.step} are done already", "give more, or make a new run: vqclip rerun")
    session = Session.load(settings, device, networks)
    changed = changed | fit_memory(session, fit=output.fit)
    _check_inputs(path, record, session, changed)
    _check_state(path, state, session)
    changes = record.get("changes", [])
    same = record | {"models": session.models}  # as was checked, but for those that are changed
    session.notes += filter(None, [fault, *_gaps(state, changes), *differences(same, session.record())])
    if state and (stepping := {name: value for name, value in changed.items() if not facts(name).finishing}):
        changes = [*changes, {"after": state.step, "settings": stepping}]
        state = replace(state, held_out=None)  # distances to other prompts are no measure
    before_seconds = float(record.get("seconds", 0.0))
    return Run(Recorder(session, directory, plan, changes=changes, before=before_seconds), state)


def _as_it_is(path: Path, record: dict[str, Any], settings: Settings, output: Output) -> Result:
    """Return a run that is done, its image written once more where that is asked. Raises OutputError, OutputExists."""
    final, done = path / "final.png", int(record.get("steps_done", settings.steps))
    image = load_image(final)
    if output.out:
        write_atomic(output.out, copied(final, output.out), replace=output.overwrite)
    distance = read_distance(record, read_losses(path))
    return Result(image, settings, done, math.nan if distance is None else distance, 0.0, path, output.out or final)


def _check_counts(settings: Settings, changed: Mapping[str, Any]) -> None:
    """Refuse changes of a run that is done, if no step is left for them. Raises UsageError."""
    if changed.get("steps", 0) > settings.steps:
        return
    if vain := [name for name in changed if not facts(name).finishing and name != "steps"]:
        what = f"all {settings.steps} steps are done: {vain[0].replace('_', '-')} would count in none"
        raise UsageError(what, "give more --steps, or make a new run: vqclip rerun")


def _changed(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the settings whose value really changes. Raises UsageError for one that can't change."""
    asked = change(settings, dict(changes))
    alike = {key for key in type(settings).model_fields if getattr(asked, key) == getattr(settings, key)}
    beside = {"image_prompts": "image_prompt_weights"}  # what one of them is given with
    real = {key: value for key, value in changes.items() if not {key, beside.get(key, key)} <= alike}
    changed = {key: value for key, value in change(settings, real) if value != getattr(settings, key)}
    for key in FIXED:
        if key in changed:
            what = f"{key.replace('_', '-')} can't change in a run that has begun"
            same = " with the file that it was begun with" if facts(key).names else ""
            raise UsageError(what, f"make a new one{same and f', or go on{same}'}")
    return changed


def _check_inputs(path: Path, record: dict[str, Any], session: Session, changed: Mapping[str, Any]) -> None:
    """Refuse to go on with other models or images than those the run began with. Raises InputError."""
    models = record.get("models", {})
    kinds = [kind for kind in ("vqgan", "clips", "dalle", "head") if kind not in changed]
    kinds += ["upscaler"] * (not changed.keys() & set(fields_with("upscaling")))
    differ = [kind for kind in kinds if not same_models(models.get(kind), session.models.get(kind))]
    if differ:
        what = f"{path} was begun with other files: {', '.join(differ)}"
        raise InputError(what, "put those back, or start anew: vqclip rerun")


def _check_state(path: Path, state: State | None, session: Session) -> None:
    """Refuse a state that is of neither the full nor the coarse size of the run's latent. Raises IntegrityError."""
    batch, channels, height, width = session.shape
    coarse = batch, channels, -(-height // 2), -(-width // 2)
    fits = state is None or tuple(state.ema.shape) in (session.shape, coarse)
    if state and not (fits and state.z.shape[1] == session.moved_shape[1]):
        shape = "x".join(map(str, state.z.shape))
        what = f"{path}: its state belongs to another image: a latent of {shape}"
        raise IntegrityError(what, "start anew: vqclip rerun")


def _gaps(state: State | None, changes: list[Any]) -> Iterator[str]:
    """Yield a note if there is no state, or if settings were changed after the state was saved."""
    if state is None:
        yield "there is no checkpoint yet: starting from the beginning"
    after = [change["after"] for change in changes if isinstance(change, dict) and isinstance(change.get("after"), int)]
    if state and any(step > state.step for step in after):
        yield f"steps {state.step + 1} to {max(after)} are made again with settings that were changed after them"


def differences(record: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what may keep an image from being what `record` says: other versions, machine or models than now."""
    if not same_models(record.get("models"), now["models"]):
        yield "the models are not those it was made with: the image will differ"
    versions = record.get("versions")
    before = {**(versions if isinstance(versions, dict) else {}), **{k: record.get(k) for k in ("device", "threads")}}
    here = {**now["versions"], **{key: now[key] for key in ("device", "threads")}}
    for key, value in here.items():
        if before.get(key) != value:
            yield f"it was made with {key} {str(before.get(key))[:80]}, now it is {value}: pixels may differ"
