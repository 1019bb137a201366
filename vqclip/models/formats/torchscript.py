"""OpenAI's own CLIP files: TorchScript archives, of which only the tensors are read. The program in them is not run.

torch would run it to load the file. Here its pickle and its numbers are put into an archive without the program, which
is read as any checkpoint is (pickles.py); the program's classes are replaced by ones that keep their fields. Which of
the fields are weights is read from the source, as text: `__parameters__ = ["weight", "bias", ]`.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import IntegrityError, VqclipError
from .pickles import load_pickle

LONGEST_SOURCE = 10_000_000  # bytes of its code
MOST_PARTS = 10_000  # modules in modules; a CLIP has fewer
MOST_FIELDS = 1_000_000  # of all of them
# Numbers that OpenAI saved among the weights, and a mask that the network makes itself.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
# What its pickle may name besides its own classes and torch's tensors.
HELPERS: dict[str, Any] = {
    "torch.jit._pickle.build_intlist": list,
    "torch.jit._pickle.build_doublelist": list,
    "torch.jit._pickle.build_boollist": list,
    "torch.jit._pickle.build_tensorlist": list,
    "torch.jit._pickle.restore_type_tag": lambda value, tag: value,
}
# Its time is linear: no part can run on into the next class.
NAMED = re.compile(
    r"class (\w++)\(Module\):\s++__parameters__ = \[([^\[\]]*+)\]\s++__buffers__ = \[([^\[\]]*+)\]", re.DOTALL
)


class Part:
    """Replaces a module: its fields become attributes."""

    kind = ""  # its class in the program


def load_torchscript(path: Path) -> dict[str, Tensor]:
    """Return a TorchScript archive's parameters and buffers by name, on the CPU. Raises ModelError, IntegrityError."""
    try:
        with zipfile.ZipFile(path) as archive:
            constants = next(name for name in archive.namelist() if name.endswith("constants.pkl"))
            root = constants.removesuffix("constants.pkl")
            names = _names(archive, root)
            plain = _without_program(archive, root)
        module = load_pickle(path, zipped=True, data=plain, stand_in=_stand_in)
        return {name: value for name, value in _weights(module, names) if name not in NO_WEIGHTS}
    except (VqclipError, MemoryError):
        raise
    except Exception as error:  # bytes of any origin make zipfile raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{path} is damaged: {reason}", "get the file again") from None


def _names(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Return the names of each class's parameters and buffers."""
    names, code = {}, f"{root}code/"
    sources = [e for e in archive.infolist() if e.filename.startswith(code) and e.filename.endswith(".py")]
    if sum(entry.file_size for entry in sources) > LONGEST_SOURCE:
        raise ValueError("its program is too long")
    for entry in sources:
        module = entry.filename.removeprefix(code).removesuffix(".py").replace("/", ".")
        with archive.open(entry) as file:  # of which no more is unpacked than it says
            source = file.read(entry.file_size).decode()
        for name, *lists in NAMED.findall(source):
            names[f"{module}.{name}"] = set(re.findall(r'"([^"]+)"', " ".join(lists)))
    return names


def _without_program(archive: zipfile.ZipFile, root: str) -> io.BytesIO:
    """Return the archive's pickle and numbers as one, in memory, that torch takes for a checkpoint."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as plain:
        for name in archive.namelist():
            if name in (f"{root}data.pkl", f"{root}version", f"{root}byteorder") or name.startswith(f"{root}data/"):
                plain.writestr(name, archive.read(name))
    data.seek(0)
    return data


def _stand_in(name: str) -> Any:
    if name.startswith("__torch__."):
        return type("Part", (Part,), {"kind": name})
    return HELPERS.get(name)


def _weights(module: Any, names: dict[str, set[str]]) -> Iterator[tuple[str, Tensor]]:
    parts, fields = [("", module)], 0
    for prefix, part in parts:  # which grows meanwhile
        fields += len(vars(part))
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and name in names.get(part.kind, ()):
                yield prefix + name, value
            elif isinstance(value, Part):
                parts.append((f"{prefix}{name}.", value))
        if len(parts) > MOST_PARTS or fields > MOST_FIELDS:
            raise ValueError("its modules have no end")
