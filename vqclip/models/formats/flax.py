"""Checkpoints of Flax: msgpack maps of arrays, turned into tensors of torch's shapes under dotted names."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ...errors import IntegrityError, ModelError
from ...files.reading import read_bytes

MAX_FILE = 10_000_000_000  # bytes
ARRAY = 1  # flax.serialization's msgpack extension type: (shape, dtype, bytes)
MOST_DIMENSIONS = 64  # of an array; msgpack makes room for a list before it reads it
MOST_NODES = 100_000  # maps, lists and what is in them; an empty map is a byte of the file and 64 of memory
DTYPES = ("float32", "float16", "int32", "int64")
# The last part of a name -> torch's. Convolution kernels are HWIO in Flax, OIHW in torch.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def load_flax(path: Path) -> dict[str, Tensor]:
    """Return a Flax checkpoint's tensors. Raises ModelError without the msgpack library, IntegrityError if damaged."""
    try:
        msgpack = importlib.import_module("msgpack")
    except ImportError:
        raise ModelError(f"{path} is a Flax checkpoint", "install what reads it: pip install 'vqclip[flax]'") from None
    seen = 0

    def counted(node: Any) -> Any:
        nonlocal seen
        seen += 1 + len(node)
        if seen > MOST_NODES:
            raise ValueError(f"it has over {MOST_NODES:,} parts")
        return node

    limits = {
        "raw": False, "max_array_len": MOST_DIMENSIONS, "max_map_len": MOST_NODES, "object_hook": counted,
        "list_hook": counted,
    }  # fmt: skip

    def unpack(code: int, data: bytes) -> Tensor | None:
        return _array(msgpack.unpackb(data, **limits)) if code == ARRAY else None

    try:
        data = read_bytes(path, MAX_FILE)
        tree = msgpack.unpackb(data, strict_map_key=True, ext_hook=unpack, **limits)
        return dict(_flatten(tree.get("params", tree), ""))
    except MemoryError:
        raise
    except Exception as error:  # bytes of any origin make msgpack and numpy raise anything
        raise IntegrityError(f"{path} is cut off or damaged: {error}", "get the file again") from None


def _array(parts: Any) -> Tensor:
    shape, dtype, data = parts
    if dtype not in DTYPES:
        raise ValueError(f"an array of type {dtype!r}")
    return torch.from_numpy(numpy.frombuffer(bytearray(data), dtype=dtype).reshape(shape))


def _flatten(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            is_kernel = name == "kernel" and value.ndim == 4
            yield prefix + LEAVES.get(name, name), value.permute(3, 2, 0, 1).contiguous() if is_kernel else value
