"""Where models lie that are not bundled: one folder each, below VQCLIP_MODELS or the user's cache. Loads no torch.

<root>/vqgan/imagenet_f16_16384/
  model.safetensors  config.json   what is loaded; a CLIP's are open_clip_model.safetensors and open_clip_config.json
  model.json                       its name, sha256 and size, and where it came from
<root>/parts/                      downloads that are not done
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from ..errors import OutputError
from ..files.atomic import sync, sync_folder
from ..files.paths import expand

WEIGHTS = {"vqgan": "model.safetensors", "clip": "open_clip_model.safetensors", "dalle": "model.safetensors"}
RECORD = "model.json"


def root() -> Path:
    """Return the folder of all installed models, which need not be there."""
    given = os.environ.get("VQCLIP_MODELS")
    return expand(given).absolute() if given else platformdirs.user_cache_path("vqclip", appauthor=False) / "models"


def own_catalogue() -> Path:
    """Return the place of the user's own entries: VQCLIP_CATALOGUE, or models.toml in the user's config folder."""
    given = os.environ.get("VQCLIP_CATALOGUE")
    return expand(given) if given else platformdirs.user_config_path("vqclip", appauthor=False) / "models.toml"


def folder(kind: str, name: str) -> Path:
    """Return a model's own folder, which need not be there."""
    return root() / kind / re.sub(r"[^\w.\-]", "--", name).lstrip(".")


def record(place: Path) -> dict[str, Any]:
    """Return a folder's model.json; nothing of it where there is none, or a damaged one."""
    try:
        found = json.loads((place / RECORD).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def installed(kind: str) -> list[str]:
    """Return the names of the models that are installed."""
    try:
        records = [record(place) for place in sorted((root() / kind).iterdir()) if not place.name.startswith(".")]
    except OSError:  # nothing was ever installed there, or somebody else's, who lets nobody look
        return []
    return [str(found["name"]) for found in records if "name" in found]


@contextlib.contextmanager
def new_folder(kind: str, name: str) -> Iterator[Path]:
    """Make a folder to fill; once that is done without an error it becomes the model's, whole. Raises OutputError.

    For whoever holds the model's lock: what is there of it already, damaged or half, makes room.
    """
    place = folder(kind, name)
    with appearing_folder(place) as draft:
        yield draft
        if place.exists():
            shutil.rmtree(place)


@contextlib.contextmanager
def appearing_folder(place: Path) -> Iterator[Path]:
    """Make a folder beside `place` to fill; at the end flush it to disk and put it there, whole. Raises OutputError."""
    draft = place.with_name(f".{place.name}.draft")
    with writing(place):
        shutil.rmtree(draft, ignore_errors=True)  # of one that was killed
        draft.mkdir(parents=True)
        try:
            yield draft
            for path in draft.iterdir():
                with path.open("rb+") as file:
                    sync(file.fileno())
            sync_folder(draft)
            draft.rename(place)
            sync_folder(place.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def write_record(place: Path, **facts: Any) -> None:
    """Write a folder's model.json."""
    (place / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def remove(kind: str, name: str) -> None:
    """Take a model's folder away, at once and then its contents. Raises OutputError."""
    place = folder(kind, name)
    old = place.with_name(f".{place.name}.draft")
    with writing(place):
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        shutil.rmtree(old)


def part_path(kind: str, name: str) -> Path:
    """Return where a model's download is kept until it is done; its folder is made. Raises OutputError."""
    parts = root() / "parts"
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    return parts / f"{kind}-{folder(kind, name).name}.part"


@contextlib.contextmanager
def lock(kind: str, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a model for this process; another that wants it waits, and on_wait() is called once. Raises OutputError."""
    path = part_path(kind, name).with_suffix(".lock")
    held = FileLock(path)
    with writing(path):
        try:
            held.acquire(timeout=0)
        except Timeout:
            if on_wait:
                on_wait()
            held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk may refuse into one line. Raises OutputError."""
    try:
        yield
    except OSError as error:
        hint = "free some space, or set VQCLIP_MODELS to another folder"
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", hint) from error
