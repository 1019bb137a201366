"""The catalogue: models by name, and the presets that pair them. Loads no torch.

Its entries are those of catalogue.toml, with the user's own models.toml over them. Any model, also one that is given
as a file or a folder, becomes a `ModelEntry`: where its files are, and what is known about it.
"""

import contextlib
import itertools
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import InputError, IntegrityError, ModelError
from ..files.paths import absolute, expand, sha256_once
from ..files.reading import read_toml, validate
from ..text import brief, did_you_mean, last_parts
from . import store

PACKAGE = Path(__file__).parent
KINDS = ("vqgan", "clip", "dalle", "upscaler", "head")
LONGEST = 1_000_000  # bytes of a catalogue
CHECKPOINTS = (".ckpt", ".safetensors", ".bin", ".pt", ".pth")
MOST_LOOKED_AT = 1000  # files of a folder that holds no model of ours
TAGGED = re.compile(r"[\w.\-]+:[\w.\-]+|hf-hub:[\w.\-]+/[\w.\-]+")  # open_clip's name:tag, or a repository of the hub
FILE_AT_ARCHITECTURE = re.compile(r"(?P<file>.+)@(?P<architecture>[\w.\-]+(?::[\w.\-]+)?)")  # or its name:tag
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class FileFacts(BaseModel):
    """One file of a model that is published as several."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)
    name: Annotated[str, Field(pattern=r"^\w[\w.\-]*$")]  # which cannot lead out of the model's folder
    mirrors: list[str] = []
    mirror: str = ""  # one more, tried first: all that there was in 0.1
    size: int = 0
    sha256: Sha256 = ""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not (self.mirror or self.mirrors):
            raise ValueError("it does not say where it is")
        return self


class Facts(BaseModel):
    """What the catalogue says about a model: "", 0 or [] for what is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)
    about: str = ""
    licence: str = ""
    data: str = ""
    folder: str = ""  # of a bundled model, inside the package
    path: str = ""  # of a file or folder that is on this machine already
    mirrors: list[str] = []
    files: list[FileFacts] = []
    instead: list[FileFacts] = []  # other files of the same model, for when one of `files` can't be had
    sha256: Sha256 = ""  # of the download; of a bundled model or a `path`, of the weights themselves
    size: int = 0  # bytes of the download
    roughly: int = 0  # the same where it is not known exactly
    f: int = 0
    codes: int = 0
    dim: int = 0
    pixels: Literal["", "signed", "unit"] = ""  # of a VQGAN: its images are in -1..1 or 0..1; "": as its file suggests
    scale: int = 0  # of an upscaler
    check: dict[str, int | float | str] = {}  # what `vqclip models check` measures; {} until somebody reports it
    needs: list[str] = []  # the VQGANs whose codes a Mini DALL-E writes, or the CLIPs whose embeddings a head marks
    guidance: float = 10.0  # that suits a Mini DALL-E; dalle-mini's own condition_scale


class OwnFacts(Facts):
    """An entry of the user's own: not in the package, and it says where the model is."""

    folder: Literal[""] = ""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not (self.path or self.mirrors or self.files):
            raise ValueError("it does not say where it is")
        return self


class OwnPreset(BaseModel):
    """The models of a preset of the user's own; its settings are checked when it is used."""

    vqgan: str = ""
    clips: list[str] = []


@dataclass(frozen=True)
class Catalogue:
    """All entries: kind -> name -> facts, preset -> its settings, alias -> name."""

    models: dict[str, dict[str, Facts]]
    presets: dict[str, dict[str, Any]]
    aliases: dict[str, str]


@dataclass(frozen=True)
class ModelEntry:
    """A model: where its files are, and what is known about it."""

    kind: str  # one of KINDS
    name: str
    folder: Path
    facts: Facts = field(default_factory=Facts)
    file: Path | None = None  # the checkpoint itself, if one was given and not a folder
    architecture: str = ""  # open_clip's name for what `file` holds, if it was given

    @property
    def weights(self) -> Path:
        """The file that holds the tensors."""
        return self.file or self.folder / store.WEIGHTS[self.kind]

    @property
    def bundled(self) -> bool:
        """Whether it comes with the package."""
        return bool(self.facts.folder)

    @property
    def expected_sha256(self) -> str:
        """The hash that the catalogue has of `weights`; "" if it has none."""
        return self.facts.sha256 if self.bundled or self.file else ""

    @property
    def about(self) -> str:
        """One line for a list."""
        return self.facts.about or f"{self.kind} of yours"

    @property
    def licence(self) -> str:
        """The licence of the weights."""
        return self.facts.licence or "unknown"

    @property
    def download_size(self) -> int:
        """Bytes to download, exactly or roughly; 0 if unknown."""
        return self.facts.size or self.facts.roughly

    def installed(self) -> bool:
        """Return whether its weights are on this machine and may be read."""
        try:
            return self.weights.is_file()
        except OSError:
            return False

    def sha256(self) -> str:
        """Return the weights' hash: the recorded one of an installed model whose size is right, else hash the file."""
        record = self._record()
        if record.get("sha256") and record.get("size") == self.weights.stat().st_size:
            return str(record["sha256"])
        return sha256_once(self.weights)

    def verified(self, *, whole: bool = False) -> Path:
        """Return the folder once the weights are found to be right. Raises IntegrityError, ModelError.

        A bundled model is hashed, and so is a file whose entry has a hash. Of an installed model the size is compared,
        and with `whole` the hash too.
        """
        remedy = f"vqclip models remove {self.name}, and pull it again"
        if self.file or self.bundled:
            remedy = "install vqclip again" if self.bundled else f"correct its entry in {store.own_catalogue()}"
        record = self._record()
        expected = self.expected_sha256 or (str(record.get("sha256", "")) if whole else "")
        try:
            if record.get("size") not in (None, self.weights.stat().st_size):
                problem = "its size is wrong"
            elif expected and sha256_once(self.weights) != expected:
                problem = "its sha256 is not the known one"
            else:
                return self.folder
        except OSError as error:
            raise ModelError(f"the {self.kind} {self.name!r} cannot be read: {error}", remedy) from error
        raise IntegrityError(f"{self.weights} is damaged: {problem}", remedy)

    def _record(self) -> dict[str, Any]:
        return store.read_record(self.folder) if self.file is None else {}


@cache
def catalogue() -> Catalogue:
    """Return the catalogue with the user's own entries over it. Raises InputError for a wrong entry of theirs."""
    tables = read_toml(PACKAGE / "catalogue.toml", LONGEST)
    aliases, presets = tables.pop("alias"), tables.pop("preset")
    models = {kind: {name: Facts(**entry) for name, entry in entries.items()} for kind, entries in tables.items()}
    path = store.own_catalogue()
    hint = 'write path = "FILE", or mirrors = ["https://..."] and sha256: see README.md'
    own = read_toml(path, LONGEST, hint) if path.is_file() else {}
    for kind, entries in own.items():
        if kind not in (*KINDS, "preset") or not isinstance(entries, dict):
            raise InputError(f"{path}: there is no kind {kind!r}", "write [vqgan.NAME], [clip.NAME] or [preset.NAME]")
        for name, entry in entries.items():
            if kind == "preset":
                validate(OwnPreset, entry, f"{path}: preset.{name}", 'write vqgan = "NAME", clips = ["NAME", "NAME"]')
                presets[name] = entry
            else:
                models[kind][name] = validate(OwnFacts, entry, f"{path}: {kind}.{name}", hint)
    return Catalogue(models, presets, aliases)


def model_entry(kind: str, name: str) -> ModelEntry:
    """Return the entry of a model by name, installed or not, or of a file or folder. Raises ModelError."""
    name = catalogue().aliases.get(name, name)
    facts = catalogue().models[kind].get(name, Facts())
    if is_name(kind, name) and not facts.path:
        folder = PACKAGE / facts.folder if facts.folder else store.folder(kind, name)
        return ModelEntry(kind, name, folder, facts)
    exists = False
    try:
        if facts.path:
            return _entry_at(kind, name, facts.path, facts)
        entry = _entry_at(kind, "", name, facts)
        if entry.weights.is_file():
            return entry
        exists = (entry.file or entry.folder).exists()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, links in a circle
        pass
    raise _holds_no_model(kind, name, entry.file or entry.folder) if exists else _unknown(kind, name)


def _entry_at(kind: str, name: str, path: str, facts: Facts) -> ModelEntry:
    """Return the entry of a folder or a checkpoint, which need not exist; a CLIP's may be FILE@ARCHITECTURE.

    name: that of the file, if "". Raises OSError, ValueError, RuntimeError for an impossible path.
    """
    location, architecture = expand(path), ""
    match = FILE_AT_ARCHITECTURE.fullmatch(path)
    if kind == "clip" and match and not location.exists():
        location, architecture = expand(match["file"]), match["architecture"]
    name, resolved = name or location.name, location.resolve()
    if resolved.is_dir():
        inside = checkpoints_in(resolved) if kind == "vqgan" and not (resolved / store.WEIGHTS[kind]).is_file() else []
        if len({path.with_suffix("") for path in inside}) != 1:  # else there is no doubt which is meant
            return ModelEntry(kind, name, resolved, facts)
        resolved = inside[0]
    return ModelEntry(kind, name, resolved.parent, facts, resolved, architecture)


def _holds_no_model(kind: str, name: str, folder: Path) -> ModelError:
    weights = store.WEIGHTS[kind]
    hint = f"give a folder with the {weights} of the {kind} in it"
    if kind == "dalle":
        hint += "; vqclip models import takes one as its makers publish it"
    elif folder.is_dir() and (inside := checkpoints_in(folder)):
        hint = f"give the file in it: {inside[0]}" + "@ARCHITECTURE" * (kind == "clip")
    return ModelError(f"{brief(name)} holds no {weights}", hint)


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder as diffusers or taming's trainer leaves one, the last one first."""
    paths = itertools.islice(itertools.chain(folder.glob("*"), folder.glob("*/*")), MOST_LOOKED_AT)
    with contextlib.suppress(OSError):
        found = [path for path in paths if path.suffix in CHECKPOINTS and path.is_file()]
        return sorted(found, key=lambda path: (path.stem != "last", path.suffix != ".safetensors", path))
    return []


def _unknown(kind: str, name: str) -> ModelError:
    known, last = catalogue().models[kind], last_parts(name)
    hint = did_you_mean(
        last, {*known, *store.installed(kind), *catalogue().aliases}, f"known: {', '.join(sorted(known))}"
    )
    also = f", nor anything at {name[:200]}" if last != name else ""
    hint = f"{hint[:-1]}, or a file or folder?" if hint.endswith("?") else f"{hint}; or give a file or folder"
    return ModelError(f"there is no {kind} named {brief(last)}{also}", hint)


def all_entries() -> list[ModelEntry]:
    """Return the entries of all models that have a name: the catalogue's, the user's own, and all installed ones."""
    return [
        model_entry(kind, name)
        for kind in KINDS
        for name in dict.fromkeys([*catalogue().models[kind], *store.installed(kind)])
    ]


def is_name(kind: str, name: str) -> bool:
    """Return whether this names a model, and is not a path: in the catalogue, installed, or a CLIP of open_clip's."""
    tagged = kind == "clip" and TAGGED.fullmatch(name)
    return bool(tagged) or name in catalogue().models[kind] or name in store.installed(kind)


def is_public(kind: str, name: str) -> bool:
    """Return whether the metadata of an untrusted image may name this: a known name.

    A repository of the hub, which anyone could have made, counts only if it is installed.
    """
    return is_name(kind, name) and (not name.startswith("hf-hub:") or name in store.installed(kind))


def find(kind: str, name: str) -> ModelEntry:
    """Return the entry of a model that is on this machine. Raises ModelError for any other, with what to do."""
    entry = model_entry(kind, name)
    if not entry.installed():
        raise _not_installed(entry)
    return entry


def name_by_hash(kind: str, path: Path) -> str:
    """Return the catalogue's name of the very file that is published under it; "" if there is none."""
    size = path.stat().st_size
    possible = {name: facts for name, facts in catalogue().models[kind].items() if facts.size in (0, size)}
    hashed = {name: facts.sha256 for name, facts in possible.items() if facts.sha256 and facts.mirrors}
    return next((name for name, known in hashed.items() if known == sha256_once(path)), "")


def _not_installed(entry: ModelEntry) -> ModelError:
    kind, name = entry.kind, entry.name
    if entry.facts.path:
        return ModelError(f"{entry.weights} is not there", f"correct the path of {name} in {store.own_catalogue()}")
    if entry.bundled:
        other = f"or name another: --{kind} NAME" if kind != "dalle" else "or give another: --dalle FOLDER"
        return ModelError(f"the {kind} {name!r} is not in this copy of vqclip", f"install vqclip again, {other}")
    own = f"vqclip models import FILE --name {name} takes a file"
    own = "--dalle FOLDER takes one that you trained" if kind == "dalle" else own
    pull = " ".join([name, *entry.facts.needs])
    if whole := _preset_lacking(kind, name):
        hint = f"vqclip models pull {whole} downloads all of that preset, vqclip models pull {pull} this alone; {own}"
    else:
        hint = f"vqclip models pull {pull} downloads it; {own}"
    if kind in ("vqgan", "clip"):
        hint += "; --vqgan tiny --clip tiny draws with the bundled ones"
    return ModelError(f"the {kind} {name!r} is not installed", hint)


def _preset_lacking(kind: str, name: str) -> str:
    """Return the preset of which this model is missing and others too; "" if there is none."""
    for preset_name in catalogue().presets:
        missing = [model for model in models_of(preset_name) if not model_entry(*model).installed()]
        if (kind, name) in missing and len(missing) > 1:
            return preset_name
    return ""


def goes_with(vqgan: str) -> str:
    """Return the Mini DALL-E that writes a VQGAN's codes: the first installed one, else the first; "" if none does."""
    fitting = [name for name, facts in catalogue().models["dalle"].items() if vqgan in facts.needs]
    installed = [name for name in fitting if model_entry("dalle", name).installed()]
    return (installed or fitting or [""])[0]


def guidance_of(dalle: str) -> float:
    """Return the guidance scale that suits a Mini DALL-E."""
    return catalogue().models["dalle"].get(dalle, Facts()).guidance


def known_or_absolute(kind: str, name: str) -> str:
    """Return a model's own name, or any other text as an absolute path: settings mean the same in every folder."""
    name = catalogue().aliases.get(name, name)
    return name if not name or is_name(kind, name) else absolute(name)


def preset(name: str) -> dict[str, Any]:
    """Return a preset's settings. `auto` is `standard` if that is installed, else `tiny`. Raises ModelError."""
    presets = catalogue().presets
    if name == "auto":
        name = "standard" if all(model_entry(*model).installed() for model in models_of("standard")) else "tiny"
    if name not in presets:
        hint = did_you_mean(name, presets, f"known: {', '.join(['auto', *sorted(presets)])}")
        raise ModelError(f"there is no preset named {brief(name)}", hint)
    return {key: value for key, value in presets[name].items() if key != "about"}


def models_of(name: str) -> list[tuple[str, str]]:
    """Return the (kind, name) of a preset's models. Raises ModelError."""
    values = preset(name)
    vqgans = [("vqgan", values["vqgan"])] if "vqgan" in values else []
    return vqgans + [("clip", clip) for clip in values.get("clips", ())]
