"""The catalogue: models by name and the presets that pair them. Loads no torch."""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError, IntegrityError, ModelError
from ..files.paths import absolute, expand, sha256
from ..text import did_you_mean, last_parts
from . import store

PACKAGE = Path(__file__).parent
KINDS = ("vqgan", "clip", "dalle")
TEXTS = ("about", "licence", "data", "sha256", "folder", "path")
FIELDS = {
    **dict.fromkeys(TEXTS, str),
    **dict.fromkeys(("f", "codes", "dim", "size", "roughly"), int),
    "mirrors": list,
    "files": list,
    "needs": list,
    "guidance": float,
}
TAGGED = re.compile(r"[\w.\-]+:[\w.\-]+|hf-hub:[\w.\-]+/[\w.\-]+")  # open_clip's name:tag, or a repository of the hub
AT_FILE = re.compile(r"(?P<file>.+)@(?P<architecture>[\w.\-]+)")  # a CLIP's weights and open_clip's name for its shape


@dataclass(frozen=True)
class Card:
    """Where a model's files are and what is to be said of it."""

    kind: str  # "vqgan", "clip" or "dalle"
    name: str
    folder: Path
    about: str
    licence: str
    expected: str = ""  # sha256 of the weights, where the catalogue knows it
    file: Path | None = None  # the checkpoint itself, where that was given and no folder
    architecture: str = ""  # open_clip's name for what `file` holds
    entry: dict[str, Any] = field(default_factory=dict)  # the catalogue's table

    @property
    def weights(self) -> Path:
        """The one file that holds the tensors."""
        return self.file or self.folder / store.WEIGHTS[self.kind]

    @property
    def bundled(self) -> bool:
        """Whether it comes with the package."""
        return "folder" in self.entry

    def installed(self) -> bool:
        """Say whether its weights are on this machine, where we may read them."""
        try:
            return self.weights.is_file()
        except OSError:
            return False

    def sha256(self) -> str:
        """Hash the weights file; of an installed one the hash that it was installed with, while its size is right."""
        told = store.record(self.folder) if self.file is None else {}
        if told.get("sha256") and told.get("size") == self.weights.stat().st_size:
            return str(told["sha256"])
        return sha256(self.weights)

    def verified(self, *, whole: bool = False) -> Path:
        """Return the folder once the weights are found right. Raises IntegrityError, ModelError.

        A bundled model is hashed, and a file whose catalogue entry has a hash; of an installed one the size is
        compared, and with `whole` the hash.
        """
        again = f"vqclip models remove {self.name}, and pull it again"
        if self.file or self.bundled:
            again = "install vqclip again" if self.bundled else f"mend its entry in {store.own_catalogue()}"
        told = store.record(self.folder) if self.file is None else {}
        try:
            size_right = told.get("size") in (None, self.weights.stat().st_size)
            expected = self.expected or (str(told.get("sha256", "")) if whole else "")
            right = size_right and (not expected or sha256(self.weights) == expected)
        except OSError as error:
            raise ModelError(f"the {self.kind} {self.name!r} cannot be read: {error}", again) from error
        if not right:
            what = "its sha256 is not the one that is known of it" if size_right else "its size is wrong"
            raise IntegrityError(f"{self.weights} is damaged: {what}", again)
        return self.folder


@cache
def catalogue() -> dict[str, Any]:
    """Return the catalogue with the user's own entries over it. Raises InputError for a wrong one of theirs."""
    tables: dict[str, Any] = tomllib.loads((PACKAGE / "catalogue.toml").read_text(encoding="utf-8"))
    path = store.own_catalogue()
    if path.is_file():
        for kind, entries in _read_own(path).items():
            tables[kind] = tables[kind] | entries
    return tables


def _read_own(path: Path) -> dict[str, Any]:
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}", "it must be TOML: see README.md") from None
    for kind, entries in own.items():
        if kind not in (*KINDS, "preset") or not isinstance(entries, dict):
            raise InputError(f"{path}: there is no kind {kind!r}", "write [vqgan.NAME], [clip.NAME] or [preset.NAME]")
        for name, entry in entries.items():
            _check_entry(path, kind, name, entry)
    return own


def _check_entry(path: Path, kind: str, name: str, entry: Any) -> None:
    place = f"{path}: {kind}.{name}"
    if not isinstance(entry, dict):
        raise InputError(f"{place} is no table", f"write [{kind}.{name}]")
    if kind == "preset":
        clips = entry.get("clips", [])
        if not isinstance(entry.get("vqgan", ""), str) or not _is_names(clips):
            raise InputError(f"{place}: that names no models", 'write vqgan = "NAME", clips = ["NAME", "NAME"]')
        return
    for key, value in entry.items():
        if key == "folder" or key not in FIELDS or not isinstance(value, FIELDS[key]):
            raise InputError(f"{place}: {key} = {value!r} is not understood", f"known: {', '.join(sorted(FIELDS))}")
    if not _is_names(entry.get("mirrors", [])):
        raise InputError(f"{place}: mirrors are no addresses", 'write mirrors = ["https://..."]')
    if not _is_names(entry.get("needs", [])):
        raise InputError(f"{place}: needs holds no names", 'write needs = ["imagenet_f16_16384"]')
    if not re.fullmatch("([0-9a-f]{64})?", entry.get("sha256", "")):
        raise InputError(f"{place}: that is no sha256: {entry['sha256'][:80]!r}", "it has 64 digits and letters a to f")
    if not entry.get("path") and not entry.get("mirrors"):
        raise InputError(
            f"{place} says not where it is", 'write path = "FILE", or mirrors = ["https://..."] and sha256'
        )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def card(kind: str, name: str) -> Card:
    """Return the card of a model by name, installed or not, or of a file or folder. Raises ModelError."""
    name = catalogue()["alias"].get(name, name)
    entry = catalogue()[kind].get(name)
    if entry and "path" in entry:
        return _at(kind, name, entry["path"], entry)
    if is_name(kind, name):
        entry = entry or {}
        home = PACKAGE / entry["folder"] if "folder" in entry else store.folder(kind, name)
        about, licence = entry.get("about", f"a {kind} of yours"), entry.get("licence", "unknown")
        return Card(kind, name, home, about, licence, entry.get("sha256", "") if "folder" in entry else "", entry=entry)
    return _at(kind, name, name, {})


def _at(kind: str, name: str, path: str, entry: dict[str, Any]) -> Card:
    """Return the card of a folder, a checkpoint, or for a CLIP FILE@ARCHITECTURE; entry: of one's own catalogue."""
    facts = entry.get("about", "of yours"), entry.get("licence", "unknown")
    try:
        place = file = expand(path)
        architecture, split = "", AT_FILE.fullmatch(path)
        if kind == "clip" and split and not place.exists():
            file, architecture = expand(split["file"]), split["architecture"]
        if file.is_file() or (entry and not file.exists()):
            file = file.resolve()
            label = name if entry else file.name
            expected = entry.get("sha256", "")
            return Card(kind, label, file.parent, *facts, expected, file=file, architecture=architecture, entry=entry)
        found = Card(kind, name if entry else place.name, place.resolve(), *facts, entry=entry)
        if found.weights.is_file() or entry:
            return found
        there = place.exists()
    except (OSError, ValueError, RuntimeError):  # a name that no file could have
        there = False
    if there:
        also = "; vqclip models import takes one as its makers publish it" * (kind == "dalle")
        what = found.weights.name
        raise ModelError(f"{name!r} holds no {what}", f"give a folder with a {kind}'s config and {what}{also}")
    names, last = {*catalogue()[kind], *store.installed(kind), *catalogue()["alias"]}, last_parts(name)
    hint = did_you_mean(last, names, f"known: {', '.join(sorted(catalogue()[kind]))}")
    also = f", nor anything at {name}" if last != name else ""
    raise ModelError(f"there is no {kind} named {last!r}{also}", f"{hint}; or give a file or folder")


def every_card() -> list[Card]:
    """Return the cards of all models that have a name: the catalogue's, one's own, and what else is installed."""
    return [card(kind, name) for kind in KINDS for name in dict.fromkeys([*catalogue()[kind], *store.installed(kind)])]


def is_name(kind: str, name: str) -> bool:
    """Say whether this names a model, and is no path: in the catalogue, installed, or for a CLIP open_clip's."""
    tagged = kind == "clip" and TAGGED.fullmatch(name)
    return bool(tagged) or name in catalogue()[kind] or name in store.installed(kind)


def is_public(kind: str, name: str) -> bool:
    """Say whether a picture from anybody may name this: a model, and no stranger's repository that isn't installed."""
    return is_name(kind, name) and (not name.startswith("hf-hub:") or name in store.installed(kind))


def find(kind: str, name: str) -> Card:
    """Return the card of a model that is on this machine. Raises ModelError for any other."""
    found = card(kind, name)
    if not found.installed() and "path" in found.entry:
        raise ModelError(f"{found.weights} is not there", f"mend the path of {found.name} in {store.own_catalogue()}")
    if not found.installed() and found.bundled:
        other = f"or name another: --{kind} NAME" if kind != "dalle" else "or give another: --dalle FOLDER"
        raise ModelError(f"the {kind} {found.name!r} is not in this copy of vqclip", f"install vqclip again, {other}")
    if not found.installed():
        names = " ".join([found.name, *found.entry.get("needs", ())])
        own = f"vqclip models import FILE --name {found.name} takes a file"
        own = "--dalle FOLDER takes one that you trained" if kind == "dalle" else own
        raise ModelError(
            f"the {kind} {found.name!r} is not installed", f"vqclip models pull {names} downloads it; {own}"
        )
    if kind == "clip" and found.file and not found.architecture:
        hint = f"write {found.file}@ViT-B-32, or another name of open_clip"
        raise ModelError(f"of what shape is the CLIP in {found.file}?", hint)
    return found


def goes_with(vqgan: str) -> str:
    """Return the Mini DALL-E that writes a VQGAN's codes: the first that is here, else the first; "" for none."""
    fitting = [name for name, entry in catalogue()["dalle"].items() if vqgan in entry.get("needs", ())]
    here = [name for name in fitting if card("dalle", name).installed()]
    return (here or fitting or [""])[0]


def known_or_absolute(kind: str, name: str) -> str:
    """Return a model's own name as it is, anything else as an absolute path: settings mean the same anywhere."""
    name = catalogue()["alias"].get(name, name)
    return name if not name or is_name(kind, name) else absolute(name)


def preset(name: str) -> dict[str, Any]:
    """Return a preset's settings. `auto`: `standard` where that is installed, else `tiny`. Raises ModelError."""
    presets = catalogue()["preset"]
    if name == "auto":
        name = "standard" if all(card(kind, model).installed() for kind, model in models_of("standard")) else "tiny"
    if name not in presets:
        hint = did_you_mean(name, presets, f"known: {', '.join(['auto', *sorted(presets)])}")
        raise ModelError(f"there is no preset named {name!r}", hint)
    return {key: value for key, value in presets[name].items() if key != "about"}


def models_of(name: str) -> list[tuple[str, str]]:
    """Return the (kind, name) of a preset's models. Raises ModelError."""
    values = preset(name)
    vqgans = [("vqgan", values["vqgan"])] if "vqgan" in values else []
    return vqgans + [("clip", clip) for clip in values.get("clips", ())]
