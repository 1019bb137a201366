"""Models into the store and out of it: pull, import, remove. A folder is there whole, or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, ModelError, OutputExists, UsageError
from ..files.paths import expand, sha256
from . import adopt, dalle_files, store
from .adopt import CONFIG, TOKENIZER, TOWER
from .catalogue import TAGGED, Card, card, find
from .download import Fetched, Progress, Wanted, download
from .formats.sniff import check_format
from .hub import named_sha256

WAITING = "another vqclip is at {}: waiting for it"
OFFLINE = ("VQCLIP_OFFLINE", "HF_HUB_OFFLINE")
LARGE = 200_000_000  # bytes that take seconds to read
PLAIN_VQGAN = 320_000_000  # bytes that the largest first stage takes once it is plain tensors


@dataclass(frozen=True)
class Talk:
    """Where progress and remarks of a long task go; whether it may use the network."""

    progress: Progress
    say: Callable[[str], None]
    offline: bool = False

    def fetch(self, wanted: Wanted, part: Path) -> Fetched:
        """Bring a file here. Raises ModelError, IntegrityError, OutputError."""
        return download(wanted, part, self.progress, self.say, offline=self.offline or offline())


def offline() -> bool:
    """Say whether the environment forbids the network."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off") for name in OFFLINE)


def pull(kind: str, name: str, talk: Talk) -> Card:
    """Download a model into the store, checked and as plain tensors; one that is there is left as it is.

    Raises ModelError, IntegrityError, OutputError, and KeyboardInterrupt, after which the next call goes on.
    """
    wanted = card(kind, name)
    if wanted.installed():
        return wanted
    if "path" in wanted.entry:
        return find(kind, name)  # which says that the file is not there
    with store.lock(kind, wanted.name, lambda: talk.say(WAITING.format(wanted.name))):
        if not wanted.installed():
            {"vqgan": _pull_vqgan, "clip": _pull_clip, "dalle": dalle_files.pull}[kind](wanted, talk)
    return wanted


def _pull_vqgan(wanted: Card, talk: Talk) -> None:
    part = store.part_path("vqgan", wanted.name)
    got = talk.fetch(_wanted(wanted, wanted.entry.get("mirrors", []), room=PLAIN_VQGAN), part)
    talk.say(f"{wanted.name} is here and checked; keeping its tensors")
    try:
        adopt.adopt_vqgan(wanted, got.path, None, _origin(got))
    except (ModelError, IntegrityError):  # whole, but not what it should be: a download of it again would be the same
        _drop(part)
        raise
    _drop(part)


def _pull_clip(wanted: Card, talk: Talk) -> None:
    part = store.part_path("clip", wanted.name)
    with store.new_folder("clip", wanted.name) as draft:
        known, repo = _describe(wanted, draft, talk)
        _bring_words(wanted, known["model_cfg"]["text_cfg"], repo, draft, talk)
        got = talk.fetch(_wanted(wanted, known["mirrors"]), part)
        adopt.fill_clip(draft, got.path, known, move=got.path == part)
        adopt.check_clip(wanted.name, draft)
        adopt.record("clip", wanted.name, draft, _origin(got))
    _drop(part)


def _describe(wanted: Card, draft: Path, talk: Talk) -> tuple[dict[str, Any], str]:
    """Return a CLIP's configs and mirrors, and for one of the hub its repository; refuse what could not be loaded."""
    from .clip import check_config, describe

    if not wanted.name.startswith("hf-hub:"):
        architecture, _, tag = wanted.name.partition(":")
        known = describe(architecture, tag)
        check_config(wanted.name, known)
        return known | {"mirrors": wanted.entry.get("mirrors") or known["mirrors"]}, ""
    repo = wanted.name.removeprefix("hf-hub:")
    _small(wanted, CONFIG, (repo,), draft, talk)
    try:
        known = json.loads((draft / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the {CONFIG} of {repo} is no JSON: {error}", "is it a CLIP of open_clip's?") from None
    check_config(wanted.name, known)
    files = (store.WEIGHTS["clip"], "open_clip_pytorch_model.bin")
    return known | {"mirrors": [f"hf:{repo}@main/{file}" for file in files]}, repo


def _bring_words(wanted: Card, text: dict[str, Any], repo: str, draft: Path, talk: Talk) -> None:
    """Fetch a tokenizer of transformers, and the config of a text tower of its, from where they are named, or `repo`.

    Old tokenizers don't say what they are: that is in the config of the model that they belong to.
    """
    tokenizer, tower = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    for file in TOKENIZER if tokenizer else ():
        _small(wanted, file, (str(tokenizer), repo), draft, talk)
    if tower or (tokenizer and b'"tokenizer_class"' not in (draft / TOKENIZER[1]).read_bytes()):
        _small(wanted, TOWER, (str(tower or tokenizer), repo), draft, talk)


def _small(wanted: Card, file: str, repos: tuple[str, ...], draft: Path, talk: Talk) -> None:
    """Bring a config or a word list into the draft, from the first of some repositories of the hub that has it."""
    part = store.part_path("clip", f"{wanted.name}-{file}")
    mirrors = tuple(f"hf:{repo}@main/{file}" for repo in dict.fromkeys(repos) if repo)
    shutil.copyfile(talk.fetch(Wanted(wanted.name, mirrors, text=True), part).path, draft / file)
    _drop(part)


def import_file(kind: str, name: str, source: str, talk: Talk, config: Path | None = None) -> Card:
    """Install a model from a file: a VQGAN's checkpoint, a CLIP's weights as FILE or FILE@ARCHITECTURE.

    Or a Mini DALL-E's folder. A catalogue's name takes only that file; what is installed is not replaced. Raises
    ModelError, IntegrityError, OutputError, OutputExists, UsageError.
    """
    target = _named(kind, name)
    _check_free(target)
    tagged = TAGGED.fullmatch(target.name) and not target.name.startswith("hf-hub:")
    architecture = target.name.partition(":")[0] if tagged else ""
    path = expand(source)
    if kind == "dalle":
        return dalle_files.import_folder(target, path)
    if kind == "clip" and not path.exists() and "@" in source:
        file, _, architecture = source.rpartition("@")
        path = expand(file)
    check_format(path)
    size = path.stat().st_size
    progress = talk.progress if size > LARGE else None
    if progress:
        talk.say(f"reading {path.name}, {size / 1e6:,.0f} MB")
    found = sha256(path, progress)
    if not _published(target, found):
        raise IntegrityError(
            f"{path} is not the catalogue's {target.name}: its sha256 is another", "import it under a name of your own"
        )
    if progress:
        talk.say("keeping its tensors")
    origin = {"file": path.name, "sha256": found, "size": size}
    with store.lock(kind, target.name, lambda: talk.say(WAITING.format(target.name))):
        _check_free(target)  # another may have been here first
        if kind == "vqgan":
            adopt.adopt_vqgan(target, path, config, origin, progress)
        else:
            adopt.adopt_clip(target.name, path, architecture, origin, progress)
    return card(kind, target.name)


def _check_free(target: Card) -> None:
    if target.installed():
        raise OutputExists(f"{target.name} is installed already", f"vqclip models remove {target.name}, or rename it")


def _published(target: Card, found: str) -> bool:
    """Say whether a hash is one that the catalogue has of a model, or it has none."""
    told = target.entry.get("sha256", "")
    return not told or found in (told, *map(named_sha256, target.entry.get("mirrors", ())))


def _named(kind: str, name: str) -> Card:
    """Return the card that a new model's name stands for. Raises UsageError for one that can't be a name."""
    try:
        target = card(kind, name)
    except ModelError:
        target = Card(kind, name, store.folder(kind, name), "", "")
    if (
        target.bundled
        or target.file
        or target.folder != store.folder(kind, target.name)
        or not target.name.strip("-. ")
    ):
        raise UsageError(f"{name!r} can't be a name for a model", "use letters, digits and dashes, and no file's name")
    return target


def remove(found: Card, say: Callable[[str], None] = lambda text: None) -> None:
    """Take a model off the disk, and what a stopped download left. Raises UsageError, ModelError, OutputError."""
    if found.bundled or found.folder != store.folder(found.kind, found.name):
        raise UsageError(f"{found.name} was not installed by vqclip models", "delete your own files yourself")
    part = store.part_path(found.kind, found.name)
    with store.lock(found.kind, found.name, lambda: say(WAITING.format(found.name))):
        if not found.folder.exists() and not part.exists():
            raise ModelError(f"the {found.kind} {found.name!r} is not installed", "see: vqclip models list")
        _drop(part)
        if found.folder.exists():
            store.remove(found.kind, found.name)


def _wanted(wanted: Card, mirrors: list[str], room: int = 0) -> Wanted:
    if not mirrors:
        raise ModelError(
            f"no place is known to get {wanted.name} from", f"vqclip models import FILE --name {wanted.name}"
        )
    return Wanted(wanted.name, tuple(mirrors), wanted.entry.get("size", 0), wanted.entry.get("sha256", ""), room=room)


def _origin(got: Fetched) -> dict[str, Any]:
    return {"url": got.url, "sha256": got.sha256, "size": got.size}


def _drop(part: Path) -> None:
    with store.writing(part):
        for path in (part, part.with_suffix(".json")):
            path.unlink(missing_ok=True)
