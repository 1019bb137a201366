"""The loop's state on disk: one safetensors file that carries its own hash, replaced whole; the last two are kept."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import IntegrityError
from .optimize import TENSORS, State
from .rundir import refused, write_atomic

SCHEMA = "vqclip-state/1"
NAME = "state.safetensors"
PREVIOUS = NAME + ".prev"


def save_state(folder: Path, state: State) -> None:
    """Write `folder/state.safetensors`; the one before becomes `.prev`. Raises OutputError."""
    tensors = {name: getattr(state, name).detach().cpu().contiguous() for name in TENSORS}
    numbers = {"schema": SCHEMA, "step": str(state.step), "updates": str(state.updates)}
    data = save(tensors, metadata=numbers | {"sha256": _digest(numbers, tensors)})
    try:
        if (folder / NAME).exists():
            (folder / NAME).replace(folder / PREVIOUS)
    except OSError as error:
        raise refused(folder / PREVIOUS, error) from error
    write_atomic(folder / NAME, data)


def load_state(folder: Path) -> tuple[State | None, str]:
    """Return the newest sound state, on the CPU, and what was wrong with a newer one.

    None where there is none yet. Raises IntegrityError where files are there and none is sound.
    """
    faults: list[str] = []
    for path in (folder / NAME, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            return _read(path), "; ".join(faults)
        except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
            faults.append(f"{path.name} is damaged: {error}")
    if faults:
        raise IntegrityError(
            f"{folder}: {'; '.join(faults)}", "the run can't go on from there; start it anew: vqclip rerun"
        )
    return None, ""


def _read(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
        if told.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {told.get('schema')!r}, this vqclip reads {SCHEMA!r}")
        tensors = {name: file.get_tensor(name) for name in TENSORS}
    expected = told.pop("sha256", "")
    if _digest(told, tensors) != expected:
        raise ValueError("its hash is wrong")
    return State(int(told["step"]), int(told["updates"]), *tensors.values())


def _digest(numbers: dict[str, str], tensors: dict[str, Tensor]) -> str:
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in tensors.items()}
    digest = hashlib.sha256(json.dumps([numbers, shapes], sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
