"""Tensors by name out of a checkpoint of any format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import IntegrityError, ModelError
from .flax import load_flax
from .pickles import load_pickle
from .sniff import check_format
from .torchscript import load_torchscript

NESTS = ("state_dict", "model")  # where Lightning and LlamaGen keep the model's tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, on the CPU, in the types it has; nothing else of it.

    Those of zips and safetensors are memory-mapped: what is not used costs no memory. Raises ModelError for what is
    no checkpoint, or one that could run code, IntegrityError for one that is damaged.
    """
    held = READERS[check_format(path)](path)
    for nest in NESTS:
        if isinstance(held, Mapping) and isinstance(held.get(nest), Mapping):
            held = held[nest]
    items = held.items() if isinstance(held, Mapping) else ()
    tensors = {
        name: value.detach()
        for name, value in items
        if isinstance(name, str) and isinstance(value, Tensor) and _plain(value)
    }
    if not tensors:
        raise ModelError(f"{path} holds no tensors with names", "give a checkpoint of a model")
    for name, value in tensors.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # one number told to be a million
            raise IntegrityError(f"{path} is damaged: {name[:80]} has fewer numbers than it says", "get the file again")
    return tensors


def _plain(value: Tensor) -> bool:
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"{path} is cut off or damaged: {error}", "get the file again") from None


READERS: dict[str, Callable[[Path], Any]] = {
    "flax": load_flax,
    "pickle": lambda path: load_pickle(path, zipped=False),
    "safetensors": _load_safetensors,
    "torchscript": load_torchscript,
    "zip": lambda path: load_pickle(path, zipped=True),
}
