"""Tensors by name: out of a checkpoint of any format, checked to be a network's, and into a safetensors file."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...errors import IntegrityError, ModelError
from .flax import load_flax
from .pickles import load_pickle
from .sniff import NotACheckpoint, check_format
from .torchscript import load_torchscript

DEEPEST_GROUP = 3  # dots in where a group lies
MOST_TENSORS = 100_000  # of a file; the largest networks have some thousands
NESTS = ("state_dict", "model")  # where Lightning and LlamaGen keep the model's tensors


def read_tensors(path: Path, nests: tuple[str, ...] = NESTS) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, on the CPU, in the types it has; nothing else of it.

    nests: the names under which a model's tensors may lie one level further in. Those of zips and safetensors are
    memory-mapped: what is not used costs no memory. Raises ModelError for what is no checkpoint, or one that could run
    code, IntegrityError for one that is damaged.
    """
    contents = READERS[check_format(path)](path)
    for nest in nests:
        if isinstance(contents, Mapping) and isinstance(contents.get(nest), Mapping):
            contents = contents[nest]
    tensors = _tensors_in(contents)
    if not tensors:
        raise ModelError(f"{path} holds no tensors with names", "give a checkpoint of a model")
    return _checked(path, tensors)


def read_groups(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return every group of named tensors in a checkpoint, by the dotted name of where it lies; "" is the whole.

    Raises as `read_tensors` does.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    nodes, seen = [("", READERS[check_format(path)](path))], set()
    for where, node in nodes:  # which grows meanwhile
        if not isinstance(node, Mapping) or id(node) in seen or where.count(".") > DEEPEST_GROUP:
            continue
        seen.add(id(node))
        if tensors := _tensors_in(node):
            groups[where] = _checked(path, tensors)
        nodes += [(f"{where}.{name}".lstrip("."), inner) for name, inner in node.items() if isinstance(name, str)]
    if not groups:
        raise ModelError(f"{path} holds no tensors with names", "give a checkpoint of a model")
    return groups


def _tensors_in(node: Any) -> dict[str, Tensor]:
    items = node.items() if isinstance(node, Mapping) else ()
    return {
        name: value.detach()
        for name, value in items
        if isinstance(name, str) and isinstance(value, Tensor) and _plain(value)
    }


def sound(path: Path, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's named tensors. Raises IntegrityError for one that holds NaN or an infinity."""
    for name, value in tensors:
        # the sum first: looking at each number takes memory
        value = value.half() if value.element_size() == 1 and value.is_floating_point() else value  # float8 has no sum
        if value.is_floating_point() and not value.sum().isfinite() and not value.isfinite().all():
            raise IntegrityError(f"{path} is damaged: {name[:80]} holds what is no number", "get the file again")
        yield name, value


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that have all of their numbers in the file. Raises IntegrityError for others."""
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    if sum(stored.values()) > path.stat().st_size:
        raise IntegrityError(f"{path} is damaged: its tensors have more numbers than it", "get the file again")
    for name, value in tensors.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # one number, expanded to a million
            raise IntegrityError(f"{path} is damaged: {name[:80]} has fewer numbers than it says", "get the file again")
    return tensors


def read_plain(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as vqclip keeps one, memory-mapped.

    Raises IntegrityError if it is anything else, since only vqclip writes it; ModelError if it is missing.
    """
    try:
        kind = check_format(path)
    except NotACheckpoint as error:
        raise IntegrityError(error.what, error.hint) from None
    if kind != "safetensors":
        raise IntegrityError(f"{path} is no safetensors file", "vqclip models convert FILE makes one of a checkpoint")
    return read_tensors(path)


def rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Return a name after all substitutions `(pattern, replacement)`, in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def check_complete(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors have the names and shapes of a network's, all of them and no others, and are floats.

    Raises ModelError that names what is missing, left over or wrong.
    """
    shared = [name for name in expected if name in tensors]
    wrong = {
        "lacks": [name for name in expected if name not in tensors],
        "has besides": [name for name in tensors if name not in expected],
        "has in other shapes": [name for name in shared if tensors[name].shape != expected[name].shape],
        "has as whole numbers": [name for name in shared if not tensors[name].is_floating_point()],
    }
    problems = []
    for what, names in wrong.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"it {what} {', '.join(name[:80] for name in names[:3])}{more}")
    if problems:
        raise ModelError("; ".join(problems), "it is cut off, or of a kind that is not supported")


def save_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, with `about` in its metadata. Raises OSError."""
    plain, written = {}, set()
    for name, value in tensors.items():
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        tied = value.data_ptr() in written  # safetensors refuses shared memory: tied tensors are written twice
        plain[name] = (value if whole and not tied else value.clone()).contiguous()
        written.add(value.data_ptr())
    try:
        save_file(plain, path, metadata={"format": "pt", **(about or {})})
    except SafetensorError as error:  # a full disk, for instance
        raise OSError(str(error)) from error
    path.chmod(0o644)  # safetensors lets nobody but the owner read it


def _plain(value: Tensor) -> bool:
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            if (count := len(file.keys())) > MOST_TENSORS:
                raise ValueError(f"it names {count:,} tensors")
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
