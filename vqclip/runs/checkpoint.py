"""The loop's state on disk: one safetensors file that carries its own hash, replaced whole; the last two are kept."""

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..core.held_out import HeldOut
from ..core.loop import StageName, State
from ..core.optimizers import Moments
from ..errors import InputError, IntegrityError
from ..files.atomic import write_atomic, writing
from ..files.paths import check_regular
from ..files.reading import parse_json, validate
from ..settings.schema import MAX_STEPS

SCHEMA = "vqclip-state/1"
KEY = "vqclip"
TENSORS = ("z", "average", "moment1", "moment2")  # their order, and that of EXTRA, is that of the hash
SHOWN = ("average", "best")  # latents; what is moved may be logits, with a channel for each code
EXTRA = ("gradient", "best")  # where the optimiser or the settings ask for it
NAME = "state.safetensors"
PREVIOUS = NAME + ".prev"
# Of a file to be read.
FAULTS = (InputError, OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError)


def save_state(folder: Path, state: State) -> None:
    """Write `folder/state.safetensors`; the one before, if it is read whole, becomes `.prev`. Raises OutputError."""
    # Copies, since safetensors refuses tensors that share memory, as those of a first state do.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.tensors().items()
    }
    numbers: dict[str, Any] = {"schema": SCHEMA, "step": state.step, "updates": state.moments.t, "stage": state.stage}
    if held_out := state.held_out:
        numbers["held_out"] = HeldOutNumbers(
            **{name: getattr(held_out, name) for name in HeldOutNumbers.model_fields}
        ).model_dump()
    header = json.dumps(numbers | {"sha256": _digest(numbers, tensors)})
    data = save(tensors, metadata={KEY: header})  # one key: safetensors writes several in any order
    with contextlib.suppress(*FAULTS):
        _read(folder / NAME)
        with writing(folder / PREVIOUS):
            (folder / NAME).replace(folder / PREVIOUS)
    write_atomic(folder / NAME, data)


def latent_to_bytes(latent: Tensor) -> bytes:
    """Return a latent `[1, C, h, w]` as safetensors."""
    return save({"z": latent.detach().cpu().float().contiguous()})


def load_state(folder: Path) -> tuple[State | None, str]:
    """Return the newest sound state, on the CPU, and what was wrong with a newer one.

    None if none has been written yet. Raises IntegrityError if none of the files is sound.
    """
    faults: list[str] = []
    for path in (folder / NAME, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return _read(path), "; ".join(faults)
        except FAULTS as error:
            faults.append(f"{path.name} is damaged: {error}")
    if faults:
        what = f"{folder}: {'; '.join(faults)}"
        raise IntegrityError(what, "the run can't go on from there; start it anew: vqclip rerun")
    return None, ""


class HeldOutNumbers(BaseModel):
    """What a state file says of the held-out cutouts, beside the tensor `best`."""

    model_config = ConfigDict(defer_build=True, strict=True, allow_inf_nan=False)

    distance: float
    step: int = Field(ge=0, le=MAX_STEPS)
    gained: float
    gained_at: int = Field(ge=0, le=MAX_STEPS)
    looked_at: int = Field(ge=0, le=MAX_STEPS)


class Header(BaseModel):
    """What a state file says beside its tensors: step, updates of the moments, the stage, and the hash of all of it."""

    model_config = ConfigDict(defer_build=True, strict=True)

    schema_version: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    step: int = Field(ge=0, le=MAX_STEPS)
    updates: int = Field(ge=0, le=MAX_STEPS)
    stage: StageName = "unknown"  # release 0.1 wrote none
    held_out: HeldOutNumbers | None = None
    sha256: str


def _read(path: Path) -> State:
    check_regular(path)
    with safe_open(path, framework="pt") as file:
        numbers = parse_json((file.metadata() or {}).get(KEY, "{}"), "its header")
        header = validate(Header, numbers, "its header")
        present = set(file.keys())
        names = (*TENSORS, *(name for name in EXTRA if name in present))
        tensors = {name: file.get_tensor(name) for name in names}
    del numbers["sha256"]
    if header.sha256 != _digest(numbers, tensors):
        raise ValueError("its hash is wrong")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("its tensors hold what is no number")
    if not _fit_together(tensors):
        raise ValueError("its tensors do not fit together")
    moments = Moments(tensors["moment1"], tensors["moment2"], header.updates, tensors.get("gradient"))
    held_out = HeldOut(tensors["best"], **header.held_out.model_dump()) if header.held_out else None
    return State(header.step, header.stage, tensors["z"], tensors["average"], moments, held_out)


def _fit_together(tensors: dict[str, Tensor]) -> bool:
    """Say whether what is moved has one shape, and the latents that are shown another, of the same height and width."""
    if any(tensor.dtype != torch.float32 or tensor.ndim != 4 for tensor in tensors.values()):
        return False
    shown = {tensor.shape for name, tensor in tensors.items() if name in SHOWN}
    moved = {tensor.shape for name, tensor in tensors.items() if name not in SHOWN}
    return len(shown) == len(moved) == 1 and len({(shape[0], *shape[2:]) for shape in shown | moved}) == 1


def with_stage(state: State, full_shape: tuple[int, ...]) -> State:
    """Return a state whose stage is known: that of release 0.1's follows from the shape of the run's full latent."""
    if state.stage != "unknown":
        return state
    return replace(state, stage="full" if state.ema.shape == full_shape else "coarse")


def _digest(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    digest = hashlib.sha256(json.dumps([numbers, shapes], sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
