"""What a run that was stopped must agree with to go on, and what is to be said where it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.loop import State
from ..errors import InputError, IntegrityError
from ..settings.schema import fields_with
from .recorder import Plan, Recording
from .run_dir import RunDir
from .session import Session

# What a run can't change on its way.
BEGUN = fields_with("fixed")


def take_up(
    run: RunDir,
    record: dict[str, Any],
    plan: Plan,
    session: Session,
    state: State | None,
    *,
    fault: str = "",
    changed: dict[str, Any] | None = None,
    target: Path | None = None,
    overwrite: bool = False,
) -> Recording:
    """Make ready to record on in a run that has begun; what differs from then is noted in the session.

    fault: what was wrong with a newer state; changed: settings that change now. Raises InputError where the run was
    begun with other networks or pictures, IntegrityError for a state of another shape.
    """
    told, changed = record.get("changes", []), changed or {}
    _check_inputs(run.path, record, session, changed)
    _check_state(run.path, state, session)
    session.notes += tuple(filter(None, [fault, *_gaps(state, told), *differences(record, session)]))
    if state and changed:
        told = [*told, {"after": state.step, "settings": changed}]
    seconds = record.get("seconds", 0)
    before = float(seconds) if isinstance(seconds, int | float) else 0.0
    return Recording(session, run, plan, target=target, overwrite=overwrite, changes=told, before=before)


def _check_inputs(path: Path, record: dict[str, Any], session: Session, changed: dict[str, Any]) -> None:
    """Refuse to go on with other networks or pictures than those the run began with. Raises InputError."""
    now, before = session.record(), record.get("models", {})
    kinds = [kind for kind in ("vqgan", "clips", "dalle") if kind not in changed]
    differ = [kind for kind in kinds if before.get(kind) != now["models"].get(kind)]
    pictures = record.get("pictures", {})
    differ += [name for name, found in session.pictures.items() if pictures.get(name, found) != found]
    if differ:
        raise InputError(
            f"{path} was begun with other files: {', '.join(differ)}", "put those back, or start anew: vqclip rerun"
        )


def _check_state(path: Path, state: State | None, session: Session) -> None:
    """Refuse a state that is of neither the full nor the coarse size of the run's latent. Raises IntegrityError."""
    batch, channels, height, width = session.shape
    coarse = batch, channels, -(-height // 2), -(-width // 2)
    if state and tuple(state.z.shape) not in (session.shape, coarse):
        told = "x".join(map(str, state.z.shape))
        raise IntegrityError(f"{path}: its state is of another picture: a latent of {told}", "start anew: vqclip rerun")


def _gaps(state: State | None, changes: list[Any]) -> Iterator[str]:
    """Say where a run can't go on as it was: no state, or one from before settings were changed."""
    if state is None:
        yield "there is no checkpoint yet: starting from the beginning"
    after = [change["after"] for change in changes if isinstance(change, dict) and isinstance(change.get("after"), int)]
    if state and any(step > state.step for step in after):
        yield f"steps {state.step + 1} to {max(after)} are made again with settings that were changed after them"


def differences(record: dict[str, Any], session: Session) -> Iterator[str]:
    """Say what may keep a run from being what `record` tells of: other versions, machine or models."""
    now = session.record()
    if record.get("models") != now["models"]:
        yield "the models are not those it was made with: the picture will differ"
    versions = record.get("versions")
    told = {**(versions if isinstance(versions, dict) else {}), **{k: record.get(k) for k in ("device", "threads")}}
    here = {**now["versions"], **{key: now[key] for key in ("device", "threads")}}
    for key, value in here.items():
        if told.get(key) != value:
            yield f"it was made with {key} {str(told.get(key))[:80]}, now it is {value}: pixels may differ"
