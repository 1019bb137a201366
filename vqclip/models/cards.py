"""The catalogue: models by name and the presets that pair them. Loads no torch."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, ModelError
from ..paths import absolute, expand, sha256

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """Where a model's files are and what is to be said of it."""

    kind: str  # "vqgan" or "clip"
    name: str
    folder: Path
    about: str
    licence: str
    expected: str = ""  # sha256 of the weights, where the catalogue knows it

    @property
    def weights(self) -> Path:
        """The one file that holds the tensors."""
        return self.folder / ("model.safetensors" if self.kind == "vqgan" else "open_clip_model.safetensors")

    def sha256(self) -> str:
        """Hash the weights file."""
        return sha256(self.weights)

    def verified(self) -> Path:
        """Return the folder once the weights' hash is found right. Raises IntegrityError, ModelError."""
        try:
            right = not self.expected or self.sha256() == self.expected
        except OSError as error:
            raise ModelError(
                f"the {self.kind} {self.name!r} cannot be read: {error}", "install vqclip again"
            ) from error
        if not right:
            raise IntegrityError(f"{self.weights} is damaged: its hash is not the catalogue's", "install vqclip again")
        return self.folder


@cache
def catalogue() -> dict[str, Any]:
    """Read catalogue.toml."""
    return tomllib.loads((PACKAGE / "catalogue.toml").read_text(encoding="utf-8"))


def find(kind: str, name: str) -> Card:
    """Return the card of a named model, or of a folder that holds one. Raises ModelError."""
    entry = catalogue()[kind].get(name)
    if entry:
        return Card(kind, name, PACKAGE / entry["folder"], entry["about"], entry["licence"], entry["sha256"])
    folder = expand(name)
    try:
        card = Card(kind, folder.name, folder.resolve(), "a folder of yours", "unknown")
        if card.weights.is_file():
            return card
        there = folder.exists()
    except (OSError, ValueError, RuntimeError):  # a name that no file could have
        there = False
    if there:
        raise ModelError(
            f"{name!r} holds no {card.weights.name}", f"give a folder with a {kind}'s config and {card.weights.name}"
        )
    known = ", ".join(sorted(catalogue()[kind]))
    raise ModelError(f"there is no {kind} named {name!r}", f"known: {known}; or give a folder")


def known_or_absolute(kind: str, name: str) -> str:
    """Return a catalogue name as it is, anything else as an absolute path: settings mean the same anywhere."""
    return name if name in catalogue()[kind] or not name else absolute(name)


def preset(name: str) -> dict[str, Any]:
    """Return a preset's settings. `auto` is `tiny`, the bundled pair. Raises ModelError."""
    name = "tiny" if name == "auto" else name
    try:
        return dict(catalogue()["preset"][name])
    except KeyError:
        known = ", ".join(["auto", *sorted(catalogue()["preset"])])
        raise ModelError(f"there is no preset named {name!r}", f"known: {known}") from None
