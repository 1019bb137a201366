"""A VQGAN's files: a checkpoint of any family and layout, and the folder of plain tensors that vqclip keeps of one.

The folder has model.safetensors and config.json, which names the family if it is not taming's. A family of another
network is a row of FAMILIES and the module with its two functions.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...core.interfaces import Vqgan
from ...errors import InputError, ModelError, VqclipError, is_out_of_memory
from ...files.reading import read_bytes, read_json
from ..formats.read import NESTS, read_groups, read_plain, save_tensors, sound
from . import taming
from .config import LIMIT
from .layouts import unwrap

LONGEST_CONFIG = 1_000_000  # bytes
WEIGHTS, CONFIG = "model.safetensors", "config.json"
Tensors = dict[str, Tensor]
Note = Callable[[str], None]
Config = dict[str, Any]  # of every family: f, n_embed, embed_dim, and what its network is built from


@dataclass(frozen=True)
class Family:
    """How VQGANs of one kind of network are read and built."""

    key: str  # a pattern of a tensor's name that only this family has; "" for taming, which is tried last
    # (a checkpoint's tensors, its .yaml or None, what to call with notes)
    # -> (config, tensors under the network's names), checked
    read: Callable[[Tensors, Path | None, Note], tuple[Config, Tensors]]
    # (name, config, tensors for their shapes, the same tensors for their values, device) -> a frozen network
    build: Callable[[str, Config, Tensors, Iterable[tuple[str, Tensor]], torch.device], Vqgan]


def read_checkpoint(
    path: Path, yaml: Path | bool = True, note: Note = lambda text: None
) -> tuple[str, Config, Tensors]:
    """Return (family, config, tensors under the network's names) of a checkpoint, checked to be complete.

    yaml: its own config, which must fit; True: a .yaml of the same name beside it, if there is one. note: called with
    what is left out, or not compared. Raises ModelError that names what is missing or does not fit, IntegrityError for
    a damaged file.
    """

    def say(text: str) -> None:
        note(f"{path.name}: {text}")

    tensors = _network_in(read_groups(path), say)
    beside = path.with_suffix(".yaml")
    there = yaml is True and beside != path and beside.is_file()
    config = beside if there else yaml if isinstance(yaml, Path) else None
    if config and not there:
        read_bytes(config, LIMIT, "give the .yaml that belongs to it")  # it was asked for, so it must be there
    family = next((name for name, row in FAMILIES.items() if row.key and _has(tensors, row.key)), "taming")
    try:
        return family, *FAMILIES[family].read(tensors, config, say)
    except VqclipError as error:
        if config and str(config) in error.what:
            raise
        raise type(error)(f"{path} does not load: {error.what}", error.hint) from None


def _network_in(groups: dict[str, Tensors], note: Note) -> Tensors:
    """Return the tensors of the autoencoder in a checkpoint, of several those of the average; else those of the first.

    The names are without a wrapper's prefix.
    """
    others = [row.key for row in FAMILIES.values() if row.key]
    networks: dict[str, Tensors] = {}
    for where, tensors in groups.items():
        inside = tensors if any(_has(tensors, key) for key in others) else unwrap(tensors, note)
        if inside:
            networks[where] = inside
    joined = {f"{where}.{name}": value for where, tensors in groups.items() for name, value in tensors.items()}
    if not networks and (inside := unwrap(joined, note)):  # each part in a group of its own
        return inside
    if not networks:
        return groups[next((nest for nest in NESTS if nest in groups), next(iter(groups)))]
    best = min(networks, key=lambda where: "ema" not in where)
    if len(networks) > 1:
        note(f"its {best[:80]!r} is taken, not {', '.join(repr(where[:80]) for where in networks if where != best)}")
    return networks[best]


def convert(
    path: Path,
    folder: Path,
    yaml: Path | bool = True,
    about: dict[str, str] | None = None,
    *,
    pixels: str = "",
    note: Note = lambda text: None,
) -> Config:
    """Write a checkpoint's tensors, in the types they have, and its config into a folder; return the config.

    about: text about their origin for the metadata. pixels: the range of its images (taming.PIXELS), if it is not what
    the tensors suggest. yaml, note, errors: as of `read_checkpoint`; also raises OSError.
    """
    family, config, tensors = read_checkpoint(path, yaml, note)
    tensors = dict(sound(path, tensors.items()))
    config |= _known(pixels)
    if family != "taming":
        config["family"] = family
    save_tensors(tensors, folder / WEIGHTS, about)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config


def load_file(path: Path, *, name: str, device: torch.device, pixels: str = "") -> Vqgan:
    """Load a checkpoint, frozen, in float32 and channels_last. pixels: as `convert` takes it.

    Raises as `read_checkpoint` does.
    """
    notes: list[str] = []
    family, config, tensors = read_checkpoint(path, note=notes.append)
    vqgan = FAMILIES[family].build(name, config | _known(pixels), tensors, sound(path, tensors.items()), device)
    vqgan.notes = tuple(notes)
    return vqgan


def load_folder(folder: Path, *, name: str, device: torch.device, pixels: str = "") -> Vqgan:
    """Load a folder of plain tensors, frozen, in float32 and channels_last.

    pixels: the range of its images, if it is not what the config says. Raises ModelError if a
    file is missing or does not fit, IntegrityError if it is damaged.
    """
    config_path, weights = folder / CONFIG, folder / WEIGHTS
    hint = "make the folder again: vqclip models convert FILE"
    try:
        config = read_json(config_path, LONGEST_CONFIG, hint)
    except InputError as error:
        raise ModelError(f"the VQGAN {name!r} cannot be read: {error.what}", error.hint) from error
    mapped = read_plain(weights)  # memory-mapped: only their shapes are looked at
    try:
        family = FAMILIES[config.get("family", "taming")]
        return family.build(name, config | _known(pixels), mapped, sound(weights, _one_by_one(weights)), device)
    except ModelError as error:
        raise ModelError(f"{weights} does not fit its config: {error.what}", "take both from the same place") from error
    except Exception as error:  # a config of any origin makes taming's classes raise anything
        if isinstance(error, VqclipError) or is_out_of_memory(error):
            raise
        raise ModelError(f"{config_path} is not a VQGAN's config: {error!r}", hint) from error


def _known(pixels: str) -> Config:
    return {"pixels": pixels} if pixels else {}


def _has(tensors: Tensors, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in tensors)


def _one_by_one(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's tensors. It is opened anew for each, so that no more than one counts as this process's memory."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(name)


# taming's names (encoder., decoder.) are in other families' checkpoints too: what fits no other key is taming's.
FAMILIES = {"taming": Family("", taming.read, taming.build)}
