"""Checkpoints that are pickles, read without running any code of theirs.

torch's own reader with weights_only=True knows only tensors and plain containers. Old checkpoints name a few more
classes, above all Lightning's ModelCheckpoint: a class that does nothing is put in their place. A file that names
anything else is refused.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...errors import IntegrityError, ModelError
from ...files.paths import open_regular

ROOTS = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy")  # libraries of training code
NAMES = ("builtins.dict", "builtins.list", "builtins.int", "builtins.str", "typing.Any", "argparse.Namespace",
         "collections.defaultdict", "pathlib.PosixPath", "pathlib.Path")  # fmt: skip
LEGACY = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)
DICTS = ("AttributeDict", "defaultdict", "dict")  # pickle fills these item by item
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
# What torch's reader would call, that makes much of little: zeros, or copies of one number to a given size.
SWELLING = re.compile(r"(builtins|__builtin__)\.bytearray|torch\._utils\._rebuild_(device|sparse|nested|wrapper|q).*")
MOST_STEPS = 5_000_000  # of a file's pickles, which torch's reader takes in Python
FEW_CALLS, MOST_COPIED = 1000, 4_000_000_000  # bytes that calls could make by copying the longest of its parts
LONGEST_PICKLE = 200_000_000  # bytes, without the tensors
LONGEST_BEGINNING = 50_000_000  # bytes of a file of before 1.6 that its pickles are in
LEGACY_PICKLES = 5  # one after the other in files of before 1.6: number, version, machine, contents, tensors' keys


class Inert:
    """Replaces a class that a checkpoint names: takes any arguments and any state, and keeps none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class InertDict:
    """The same for a class that is filled like a dict: an instance is a plain dict."""

    def __new__(cls, *args: Any) -> Any:
        """Return an empty dict."""
        return {}


def _stand_in(name: str) -> Any:
    """Return what replaces a class of training code; None for any other name."""
    if name.split(".")[0] in ROOTS or name in NAMES:
        return InertDict if name.split(".")[-1] in DICTS else Inert
    return None


def load_pickle(
    path: Path, *, zipped: bool, data: io.BytesIO | None = None, stand_in: Callable[[str], Any] = _stand_in
) -> Any:
    """Return what a checkpoint holds, its tensors on the CPU; those of a zip are memory-mapped.

    data: read instead of the file, into memory. stand_in: a name -> what replaces it, or None if it could run code.
    Raises ModelError if it names what no model needs, IntegrityError if it is damaged.
    """
    _check_steps(path, zipped)
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(data or str(path)) if zipped else list(LEGACY)
    except Exception as error:  # bytes of any origin make torch raise anything
        raise _damaged(path, error) from None
    replacements = {name: stand_in(name) for name in named}
    if unknown := sorted(name for name, replacement in replacements.items() if replacement is None):
        raise _dangerous(path, ", ".join(unknown[:3]))
    allowed: list[Any] = [(replacement, name) for name, replacement in replacements.items()]
    if data:
        data.seek(0)
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(data or path, map_location="cpu", weights_only=True, mmap=zipped and not data)
    except MemoryError:
        raise
    except Exception as error:
        refused = REFUSED.search(str(error))
        raise (_dangerous(path, refused[1]) if refused else _damaged(path, error)) from None


def _check_steps(path: Path, zipped: bool) -> None:
    """Look at a file's pickles step by step, none of which is taken, before torch's reader takes them.

    Raises ModelError for a name that makes much of little, IntegrityError for what is no pickle or has too many steps.
    """
    steps, calls, longest, few, mark = 0, 0, 1, False, 0
    try:
        stream = _pickled(path) if zipped else _beginning(path)
        for _ in range(1 if zipped else LEGACY_PICKLES):
            for opcode, argument, _ in pickletools.genops(stream):
                steps += 1
                if opcode.name in ("REDUCE", "NEWOBJ") and few:  # a call of one or two things, which may copy them
                    calls += 1
                mark = steps if opcode.name == "MARK" else mark
                if "PUT" not in opcode.name:  # a tensor's parts are more, and their tuple is longer
                    few = opcode.name in ("TUPLE1", "TUPLE2") or (opcode.name == "TUPLE" and steps - mark <= 4)
                longest = max(longest, len(argument) if isinstance(argument, str | bytes) else 0)
                if steps > MOST_STEPS or (calls > FEW_CALLS and calls * (longest + 8 * steps) > MOST_COPIED):
                    raise ValueError("its pickle has no end")
                name = str(argument).replace(" ", ".")
                if opcode.name == "GLOBAL" and SWELLING.fullmatch(name):
                    raise _dangerous(path, name, "fill the memory")
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(path, error) from None


def _pickled(path: Path) -> io.BytesIO:
    """Return the pickle in a zip. Raises ValueError for one that is longer than any of a model."""
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
        if entry.file_size > LONGEST_PICKLE:
            raise ValueError("its pickle is too long")
        return io.BytesIO(archive.read(entry))


def _beginning(path: Path) -> io.BytesIO:
    """Return where the pickles of a file of before 1.6 are; from memory, what a length says takes no room."""
    with open_regular(path) as file:
        return io.BytesIO(file.read(min(path.stat().st_size, LONGEST_BEGINNING)))


def _dangerous(path: Path, names: str, could: str = "run code") -> ModelError:
    what = f"{path} is refused: besides tensors it names {names}, which could {could}"
    if all(name.startswith("torch.") for name in names.split(", ")):  # sparse, quantised, distributed tensors
        where = "nothing of it has run; where it was made, save it as safetensors of plain tensors"
        return ModelError(what, f"{where}: x.to_dense(), x.dequantize(), x.full_tensor()")
    return ModelError(what, "nothing of it has run; delete it")


def _damaged(path: Path, error: Exception) -> IntegrityError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return IntegrityError(f"{path} is damaged: {reason}", "get the file again")
