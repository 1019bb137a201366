"""Models into the store and out of it: pull, import, remove. A model is installed whole, or not at all.

What is installed is plain tensors: of a published checkpoint nothing else is kept. No torch is loaded before there is
something to install.
"""

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import InputError, IntegrityError, ModelError, OutputExists, UsageError
from ..files.paths import copy, expand, sha256
from ..files.reading import decode, parse_json, read_bytes
from ..text import without_secrets
from . import store
from .catalogue import TAGGED, FileFacts, ModelEntry, catalogue, checkpoints_in, find, model_entry
from .download import LONGEST_TEXT, Fetched, Progress, RemoteFile, download, named_sha256, note_of
from .formats.sniff import check_format
from .store import CLIP_CONFIG, TEXT_CONFIG

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
OFFLINE = ("VQCLIP_OFFLINE", "HF_HUB_OFFLINE")
LARGE = 200_000_000  # bytes that take seconds to read
PLAIN_VQGAN = 320_000_000  # bytes that the largest first stage takes as plain tensors


@dataclass(frozen=True)
class InstallContext:
    """Where progress and messages of an installation go; whether it may use the network."""

    progress: Progress
    say: Callable[[str], None]
    offline: bool = False

    def fetch(self, remote: RemoteFile, part: Path, adopt: Callable[[Fetched], None] = lambda fetched: None) -> Fetched:
        """Download a file that `adopt` takes. Raises ModelError, IntegrityError, OutputError."""
        return download(remote, part, self.progress, self.say, adopt=adopt, offline=self.offline or offline())

    def lock(self, entry: ModelEntry) -> contextlib.AbstractContextManager[None]:
        """Hold a model's lock. Raises OutputError."""
        message = f"another vqclip is at {entry.name}: waiting for it"
        return store.lock(entry.kind, entry.name, lambda: self.say(message))


def offline() -> bool:
    """Return whether the environment forbids the network."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off") for name in OFFLINE)


def pull(kind: str, name: str, context: InstallContext) -> ModelEntry:
    """Download a model and install it, checked and as plain tensors; an installed one is left as it is.

    Raises ModelError, IntegrityError, OutputError, and KeyboardInterrupt, after which the next call goes on.
    """
    entry = model_entry(kind, name)
    if entry.installed():
        return entry
    if entry.facts.path:
        return find(kind, name)  # raises: the file is gone
    with context.lock(entry):
        if not entry.installed():
            PULL[kind](entry, context)
    return entry


def import_file(
    kind: str, name: str, source: str, context: InstallContext, config: Path | bool = True, *, pixels: str = ""
) -> ModelEntry:
    """Install a model of this machine: a VQGAN's or upscaler's file, a CLIP's FILE[@ARCHITECTURE], a DALL-E's folder.

    A name of the catalogue takes only that very file; an installed model is not replaced. config: the VQGAN's .yaml;
    True: one beside it, if there is any. pixels: the range of its images, if it is not what the file suggests.

    Raises ModelError, IntegrityError, OutputError, OutputExists, UsageError.
    """
    target = _new_entry(kind, name)
    _check_free(target)
    path = expand(source)
    if kind == "dalle":
        install = functools.partial(_install_dalle, target, path, {"folder": path.name})
    else:
        architecture = target.name if TAGGED.fullmatch(target.name) else ""
        if kind == "clip" and not path.exists() and "@" in source:
            file, _, architecture = source.rpartition("@")
            path = expand(file)
        origin, progress = _inspect(target, path, context)
        if kind == "vqgan":
            install = functools.partial(
                _install_vqgan, target, path, origin, config, progress, pixels=pixels, note=context.say
            )
        elif kind == "clip":
            install = functools.partial(_import_clip, target, path, architecture, origin, progress)
        else:
            install = functools.partial(_install_plain, target, path, origin, progress)
    with context.lock(target):
        _check_free(target)  # another process may have been first
        install()
    return model_entry(kind, target.name)


def kind_of(name: str, source: str) -> str:
    """Return what kind of model a file or folder is to be: by the name that it gets, else by what is in it.

    Raises ModelError for what can't be told, or is no model.
    """
    known = [kind for kind, models in catalogue().models.items() if name in models]
    path = expand(source)
    if known:
        return known[0]
    if TAGGED.fullmatch(name) or ("@" in source and not path.exists()):
        return "clip"
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def _kind_of_folder(folder: Path) -> str:
    names = sorted(str(path.relative_to(folder)) for path in (*folder.glob("*"), *folder.glob("*/*")))
    if any(fnmatch(name, "vocab*.json") for name in names):
        return "dalle"
    checkpoints = checkpoints_in(folder)
    hint = f"give its file: {checkpoints[0]}" if checkpoints else "give a checkpoint"
    if store.CLIP_CONFIG in names:
        hint = f"use it as it is: --clip {folder}"
    elif {store.WEIGHTS["vqgan"], store.TEXT_CONFIG} <= {*names}:
        hint = f"use it as it is: --vqgan {folder}"
    raise ModelError(f"{folder} holds no Mini DALL-E, the only model that is imported as a folder", hint)


def _kind_of_file(path: Path) -> str:
    from .formats.read import NESTS, read_tensors
    from .upscaler import load

    names = "\n".join(read_tensors(path, (*NESTS, *load.NESTS)))
    kind = next((kind for pattern, kind in MARKS.items() if re.search(pattern, names, re.MULTILINE)), "upscaler")
    if kind == "dalle":
        raise ModelError(f"{path} is half of a Mini DALL-E", f"give the folder with all of its files: {path.parent}")
    return kind


def remove(entry: ModelEntry, say: Callable[[str], None] = lambda text: None) -> None:
    """Delete an installed model, and what a stopped download left. Raises UsageError, ModelError, OutputError."""
    if entry.bundled or entry.folder != store.folder(entry.kind, entry.name):
        raise UsageError(f"{entry.name} was not installed by vqclip models", "delete your own files yourself")
    with InstallContext(lambda done, total: None, say).lock(entry):
        parts = [part for part in _possible_parts(entry) if part.exists()]
        if not os.path.lexists(entry.folder) and not parts:
            raise ModelError(f"the {entry.kind} {entry.name!r} is not installed", "see: vqclip models list")
        for part in parts:
            _delete(part)
        if os.path.lexists(entry.folder):
            store.remove(entry.kind, entry.name)


def _new_entry(kind: str, name: str) -> ModelEntry:
    """Return the entry of a model to be installed under a name. Raises UsageError for an impossible one."""
    try:
        entry = model_entry(kind, name)
    except ModelError:
        entry = ModelEntry(kind, name, store.folder(kind, name))
    in_store = entry.folder == store.folder(kind, entry.name) and not entry.file
    if entry.bundled or not in_store or not entry.name.strip("-. "):
        raise UsageError(f"{name!r} can't be a name for a model", "use letters, digits and dashes, and no file's name")
    return entry


def _check_free(entry: ModelEntry) -> None:
    if entry.installed():
        raise OutputExists(f"{entry.name} is installed already", f"vqclip models remove {entry.name}, or rename it")


def _inspect(target: ModelEntry, path: Path, context: InstallContext) -> tuple[dict[str, Any], Progress | None]:
    """Return a file's origin for the record, and where progress goes if it is large.

    Raises ModelError for what is not a checkpoint, IntegrityError for another file than the catalogue's.
    """
    check_format(path)
    size = path.stat().st_size
    progress = context.progress if size > LARGE else None
    if progress:
        context.say(f"reading {path.name}, {size / 1e6:,.0f} MB")
    digest, known = sha256(path, progress), target.facts.sha256
    if known and digest not in (known, *map(named_sha256, target.facts.mirrors)):
        what = f"{path} is not the catalogue's {target.name}: its sha256 is another"
        raise IntegrityError(what, "import it under a name of your own")
    if progress:
        context.say("keeping its tensors")
    return {"file": path.name, "sha256": digest, "size": size}, progress


@contextlib.contextmanager
def _draft(entry: ModelEntry, origin: dict[str, Any], progress: Progress | None = None) -> Iterator[Path]:
    """Yield a folder to fill with a model's files; then write its record and put it into the store."""
    with store.new_folder(entry.kind, entry.name) as draft:
        yield draft
        weights = draft / store.WEIGHTS[entry.kind]
        digest, size = sha256(weights, progress), weights.stat().st_size
        store.write_record(draft, kind=entry.kind, name=entry.name, sha256=digest, size=size, source=origin)


def _delete(part: Path) -> None:
    """Delete a part and its note, which vqclip 0.1.0 called .json."""
    with store.writing(part):
        if part.is_dir():
            shutil.rmtree(part)
        for path in (part, note_of(part), part.with_suffix(".json")):
            path.unlink(missing_ok=True)


def _possible_parts(entry: ModelEntry) -> list[Path]:
    """Return the paths of all that a stopped download of a model may have left."""
    texts = (CLIP_CONFIG, *TOKENIZER, TEXT_CONFIG) if entry.kind == "clip" else ()
    part = store.part_path(entry.kind, entry.name)
    return [part, _files_folder(entry), *(_text_part(entry, file) for file in texts)]


def _files_folder(entry: ModelEntry) -> Path:
    """Return the folder of a model's parts, if it is downloaded as several files."""
    return store.part_path(entry.kind, entry.name).with_suffix(".files")


def _text_part(entry: ModelEntry, file: str) -> Path:
    return store.part_path(entry.kind, f"{entry.name}-{file}")


def _remote(entry: ModelEntry, mirrors: list[str], room: int = 0) -> RemoteFile:
    if not mirrors:
        raise _nowhere(entry, "FILE")
    facts = entry.facts
    return RemoteFile(
        entry.name, tuple(mirrors), size=facts.size, roughly=facts.roughly, sha256=facts.sha256, room=room
    )


def _nowhere(entry: ModelEntry, source: str) -> ModelError:
    return ModelError(
        f"no address is known to get {entry.name} from", f"vqclip models import {source} --name {entry.name}"
    )


def _origin(fetched: Fetched) -> dict[str, Any]:
    return {"url": without_secrets(fetched.url), "sha256": fetched.sha256, "size": fetched.size}


# VQGAN


def _pull_file(
    entry: ModelEntry,
    context: InstallContext,
    install: Callable[[ModelEntry, Path, dict[str, Any]], None],
    room: int = 0,
) -> None:
    """Download a model that is one file, and install it. room: bytes that takes beside the file."""

    def adopt(fetched: Fetched) -> None:
        context.say(f"{entry.name} is here; keeping its tensors")
        install(entry, fetched.path, _origin(fetched))

    part = store.part_path(entry.kind, entry.name)
    context.fetch(_remote(entry, entry.facts.mirrors, room=room), part, adopt)
    _delete(part)


def _install_vqgan(
    entry: ModelEntry,
    checkpoint: Path,
    origin: dict[str, Any],
    yaml: Path | bool = True,
    progress: Progress | None = None,
    *,
    pixels: str = "",
    note: Callable[[str], None] = lambda text: None,
) -> None:
    from .vqgan.checkpoints import convert

    with _draft(entry, origin, progress) as draft:
        about = {"source_sha256": str(origin["sha256"])}
        config = convert(checkpoint, draft, yaml, about, pixels=pixels or entry.facts.pixels, note=note)
        facts = {"f": config["f"], "codes": config["n_embed"], "dim": config["embed_dim"]}
        known = {key: getattr(entry.facts, key) for key in facts}
        wrong = [f"{key} is {facts[key]}, not {known[key]}" for key in facts if known[key] not in (0, facts[key])]
        if wrong:
            raise _another(entry, checkpoint, ", ".join(wrong))


def _another(entry: ModelEntry, file: Path, difference: str) -> ModelError:
    what = f"{file} is another model than {entry.name}: {difference}"
    return ModelError(what, "import it under a name of your own")


# CLIP


def _pull_clip(entry: ModelEntry, context: InstallContext) -> None:
    part = store.part_path("clip", entry.name)
    known, repo = _describe(entry, context)
    texts = _fetch_tokenizer(entry, known["model_cfg"]["text_cfg"], repo, context)

    def adopt(fetched: Fetched) -> None:
        with _draft(entry, _origin(fetched)) as draft:
            _fill_clip(draft, known, texts)
            if fetched.path == part and check_format(part) == "safetensors":
                part.replace(draft / store.WEIGHTS["clip"])
            else:
                _write_weights(fetched.path, draft)
            _check_clip(entry.name, draft)

    context.fetch(_remote(entry, known["mirrors"]), part, adopt)
    _delete(part)


def _import_clip(
    entry: ModelEntry, file: Path, architecture: str, origin: dict[str, Any], progress: Progress | None
) -> None:
    from .clip import describe, identify
    from .clip_shapes import plain_names
    from .formats.read import read_tensors

    known = describe(*identify(file, architecture, plain_names(read_tensors(file))))
    texts = {}
    if known["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name"):  # of a SigLIP, beside its weights
        paths = [file.parent / name for name in (*TOKENIZER, TEXT_CONFIG)]
        texts = {path.name: read_bytes(path, LONGEST_TEXT) for path in paths if path.is_file()}
    with _draft(entry, origin, progress) as draft:
        _fill_clip(draft, known, texts)
        _write_weights(file, draft, progress)
        _check_clip(entry.name, draft)


def _describe(entry: ModelEntry, context: InstallContext) -> tuple[dict[str, Any], str]:
    """Return a CLIP's configs and mirrors, and its repository if it is of the hub; refuse what could not be loaded."""
    from .clip import check_config, describe

    if not entry.name.startswith("hf-hub:"):
        architecture, _, tag = entry.name.partition(":")
        known = describe(architecture, tag)
        check_config(entry.name, known)
        return known | {"mirrors": entry.facts.mirrors or known["mirrors"]}, ""
    repo = entry.name.removeprefix("hf-hub:")
    try:
        name = f"the {CLIP_CONFIG} of {repo}"
        known = parse_json(decode(_fetch_text(entry, CLIP_CONFIG, (repo,), context), name), name)
    except InputError as error:
        raise ModelError(error.what, "is it a CLIP of open_clip's?") from None
    check_config(entry.name, known)
    files = (store.WEIGHTS["clip"], "open_clip_pytorch_model.bin")
    return known | {"mirrors": [f"hf:{repo}@main/{file}" for file in files]}, repo


def _fetch_tokenizer(entry: ModelEntry, text: dict[str, Any], repo: str, context: InstallContext) -> dict[str, bytes]:
    """Return the files of a tokenizer of transformers, and the config of a text encoder of transformers, by name.

    They are fetched from where the CLIP's config says, or from `repo`. An old tokenizer does not say what it is: that
    is in the config of the model that it belongs to.
    """
    tokenizer, encoder = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    names = TOKENIZER if tokenizer else ()
    texts = {name: _fetch_text(entry, name, (str(tokenizer), repo), context) for name in names}
    if encoder or (tokenizer and b'"tokenizer_class"' not in texts[TOKENIZER[1]]):
        texts[TEXT_CONFIG] = _fetch_text(entry, TEXT_CONFIG, (str(encoder or tokenizer), repo), context)
    return texts


def _fetch_text(entry: ModelEntry, file: str, repos: tuple[str, ...], context: InstallContext) -> bytes:
    """Return a small file from the first repository of the hub that has it."""
    part = _text_part(entry, file)
    mirrors = tuple(f"hf:{repo}@main/{file}" for repo in dict.fromkeys(repos) if repo)
    data = context.fetch(RemoteFile(entry.name, mirrors, text=True), part).path.read_bytes()
    _delete(part)
    return data


def _fill_clip(draft: Path, known: dict[str, Any], texts: dict[str, bytes]) -> None:
    """Write a CLIP's config and its tokenizer's files into a folder."""
    config = {key: known[key] for key in ("model_cfg", "preprocess_cfg") if key in known}
    (draft / CLIP_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, data in texts.items():
        (draft / name).write_bytes(data)


def _write_weights(source: Path, draft: Path, progress: Progress | None = None) -> None:
    """Write a CLIP's weights into a folder as safetensors."""
    weights = draft / store.WEIGHTS["clip"]
    if check_format(source) == "safetensors":
        copy(source, weights, progress)
        return
    from .formats.read import read_tensors, save_tensors

    save_tensors(read_tensors(source), weights)


def _check_clip(name: str, draft: Path) -> None:
    """Load what is about to be installed. Raises ModelError, IntegrityError."""
    import torch

    from .clip import load_clip

    load_clip(draft, name=name, device=torch.device("cpu"))


# Mini DALL-E


def _pull_dalle(entry: ModelEntry, context: InstallContext) -> None:
    possible = [files for files in (entry.facts.files, entry.facts.instead) if files and _readable(files)]
    if not possible:
        raise _nowhere(entry, "FOLDER")
    for files in possible:
        try:
            return _pull_files(entry, files, context)
        except (ModelError, IntegrityError) as error:
            if files is possible[-1]:
                raise
            context.say(f"{error.what}; trying {possible[-1][0].name} instead")


def _readable(files: list[FileFacts]) -> bool:
    """Return whether what reads Flax's files is installed, if that is what they are."""
    return not files[0].name.endswith(".msgpack") or importlib.util.find_spec("msgpack") is not None


def _pull_files(entry: ModelEntry, files: list[FileFacts], context: InstallContext) -> None:
    parts = _files_folder(entry)
    with store.writing(parts):
        parts.mkdir(exist_ok=True)
    origin = {file.name: _origin(_fetch_file(entry, file, parts / file.name, context)) for file in files}
    try:
        _install_dalle(entry, parts, origin)
    except (ModelError, IntegrityError):  # they would be the same the next time
        _delete(parts)
        raise
    _delete(parts)


def _fetch_file(entry: ModelEntry, file: FileFacts, part: Path, context: InstallContext) -> Fetched:
    """Download one of a model's files to `part`, or link it there from Hugging Face's cache."""
    from .dalle.checkpoints import check_file

    text = not file.name.endswith((".pt", ".msgpack"))
    mirrors = (*filter(None, [file.mirror]), *file.mirrors)
    remote = RemoteFile(entry.name, mirrors, file.name, file.size, file.sha256, text=text)
    fetched = context.fetch(remote, part, lambda given: check_file(file.name, given.path))
    if fetched.path != part:
        part.unlink(missing_ok=True)
        part.symlink_to(fetched.path)
    return fetched


def _install_dalle(entry: ModelEntry, folder: Path, origin: dict[str, Any]) -> None:
    """Install what is in a folder, as its makers publish it or as vqclip keeps one."""
    import torch

    from .dalle import load_dalle
    from .dalle.checkpoints import write_plain

    with _draft(entry, origin) as draft:
        write_plain(folder, draft, codes=entry.facts.codes)
        load_dalle(draft, name=entry.name, device=torch.device("cpu"))


# Upscaler and head


def _install_plain(entry: ModelEntry, file: Path, origin: dict[str, Any], progress: Progress | None = None) -> None:
    """Install a model of one file, whose tensors are kept as they are, once it has been loaded."""
    import torch

    from . import head
    from .formats.read import NESTS, read_tensors, save_tensors
    from .upscaler import load as upscaler

    nests: tuple[str, ...] = NESTS
    cpu = torch.device("cpu")
    if entry.kind == "head":
        head.load(file, device=cpu)
    else:
        nests, network = upscaler.NESTS, upscaler.load(file, name=entry.name, device=cpu)
        if entry.facts.scale not in (0, network.scale):
            raise _another(entry, file, f"it enlarges {network.scale} times")
    with _draft(entry, origin, progress) as draft:
        about = {"source_sha256": str(origin["sha256"])}
        save_tensors(read_tensors(file, nests), draft / store.WEIGHTS[entry.kind], about)


# A pattern of tensors' names -> the kind of model that has them; an upscaler's may be called anything else.
MARKS = {
    r"\.glu\.fc0\.|FlaxBart": "dalle",
    r"^(module\.)?visual\.": "clip",
    r"quantize|(en|de)coder\.": "vqgan",
    r"^(layers\.\d+\.)?weight$": "head",
}
PULL: dict[str, Callable[[ModelEntry, InstallContext], None]] = {
    "vqgan": functools.partial(_pull_file, install=_install_vqgan, room=PLAIN_VQGAN),
    "clip": _pull_clip,
    "dalle": _pull_dalle,
    "upscaler": functools.partial(_pull_file, install=_install_plain),
    "head": functools.partial(_pull_file, install=_install_plain),
}
