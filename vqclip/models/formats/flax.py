"""Checkpoints of Flax: msgpack maps of arrays, turned into tensors of torch's shapes under dotted names."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ...errors import IntegrityError, ModelError

ARRAY = 1  # flax.serialization's msgpack extension type: (shape, dtype, bytes)
DTYPES = ("float32", "float16", "int32", "int64")
# The last part of a name -> torch's. Kernels are HWIO there and OIHW here.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def load_flax(path: Path) -> dict[str, Tensor]:
    """Return a Flax checkpoint's tensors. Raises ModelError without the msgpack library, IntegrityError if damaged."""
    try:
        msgpack = importlib.import_module("msgpack")
    except ImportError:
        raise ModelError(f"{path} is a Flax checkpoint", "install what reads it: pip install 'vqclip[flax]'") from None
    try:
        read = msgpack.unpackb(path.read_bytes(), raw=False, strict_map_key=True, ext_hook=lambda code, data: (
            _array(msgpack.unpackb(data, raw=False)) if code == ARRAY else None
        ))  # fmt: skip
        return dict(_flatten(read.get("params", read), ()))
    except Exception as error:  # bytes of any origin make msgpack and numpy raise anything
        raise IntegrityError(f"{path} is cut off or damaged: {error}", "get the file again") from None


def _array(parts: Any) -> Tensor:
    shape, dtype, data = parts
    if dtype not in DTYPES:
        raise ValueError(f"an array of type {dtype!r}")
    return torch.from_numpy(numpy.frombuffer(bytearray(data), dtype=dtype).reshape(shape))


def _flatten(node: dict[str, Any], place: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, (*place, name))
        elif isinstance(value, Tensor):
            value = value.permute(3, 2, 0, 1).contiguous() if name == "kernel" and value.ndim == 4 else value
            yield ".".join((*place, LEAVES.get(name, name))), value
