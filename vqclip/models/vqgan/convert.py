"""From any checkpoint of a VQGAN to a folder of plain tensors: model.safetensors and config.json."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...errors import VqclipError
from ..formats.read import read_tensors
from .architecture import Architecture, infer
from .config import check_config
from .layouts import to_taming
from .taming import shell


def read_checkpoint(path: Path, config: Path | None = None) -> tuple[Architecture, dict[str, Tensor]]:
    """Return (architecture, tensors under taming's names) of a checkpoint in any layout, checked to be whole.

    config: its .yaml, which must fit if it is given; the one beside the checkpoint, of the same name, counts as
    given. Raises ModelError that names what is missing or does not fit, IntegrityError for a damaged file.
    """
    layout, tensors = to_taming(read_tensors(path))
    beside = path.with_suffix(".yaml")
    config = config or (beside if beside != path and beside.is_file() else None)
    try:
        architecture = infer(tensors, layout)
        if config:
            check_config(config, architecture)
        shell("", architecture.config(), tensors)
    except VqclipError as error:
        if config and str(config) in error.what:
            raise
        raise type(error)(f"{path} does not load: {error.what}", error.hint) from None
    return architecture, tensors


def convert(path: Path, folder: Path, config: Path | None = None, about: dict[str, str] | None = None) -> Architecture:
    """Write a checkpoint's tensors, in the types they have, and its config into a folder that is there.

    about: text that goes into the safetensors' metadata, of its origin. Raises as `read_checkpoint` does, and OSError.
    """
    found, tensors = read_checkpoint(path, config)
    save_plain(tensors, folder / "model.safetensors", about)
    (folder / "config.json").write_text(json.dumps(found.config(), indent=2) + "\n", encoding="utf-8")
    return found


def save_plain(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors. Raises OSError."""
    plain, places = {}, set()
    for name, value in tensors.items():
        alone = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        plain[name] = (
            value if alone and value.data_ptr() not in places else value.clone()
        )  # tied ones are written twice
        plain[name] = plain[name].contiguous()
        places.add(value.data_ptr())
    try:
        save_file(plain, path, metadata={"format": "pt", **(about or {})})
        path.chmod(0o644)  # safetensors leaves it to its owner alone
    except SafetensorError as error:  # a full disk, for instance
        raise OSError(str(error)) from error
