"""Where models are that are not bundled: a folder each, below VQCLIP_MODELS or the user's cache. Loads no torch.

<root>/vqgan/imagenet_f16_16384/
  model.safetensors  config.json   what is loaded; a CLIP's are open_clip_model.safetensors and open_clip_config.json
  model.json                       its name, sha256 and size, and where it came from
<root>/parts/                      unfinished downloads
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

from ..errors import InputError, OutputError
from ..files.atomic import sync, sync_folder
from ..files.paths import expand
from ..files.reading import read_json

WEIGHTS = dict.fromkeys(("vqgan", "dalle", "upscaler", "head"), "model.safetensors")
WEIGHTS |= {"clip": "open_clip_model.safetensors"}
RECORD = "model.json"
LONGEST = 1_000_000  # bytes of a model.json
CLIP_CONFIG = "open_clip_config.json"
TEXT_CONFIG = "config.json"  # of a text encoder of transformers, and of what some tokenizers belong to


def root() -> Path:
    """Return the folder of all installed models, which need not exist."""
    given = os.environ.get("VQCLIP_MODELS")
    return expand(given).absolute() if given else platformdirs.user_cache_path("vqclip", appauthor=False) / "models"


def own_catalogue() -> Path:
    """Return the path of the user's own entries: VQCLIP_CATALOGUE, or models.toml in the user's config folder."""
    given = os.environ.get("VQCLIP_CATALOGUE")
    return expand(given) if given else platformdirs.user_config_path("vqclip", appauthor=False) / "models.toml"


def folder(kind: str, name: str) -> Path:
    """Return a model's own folder, which need not exist."""
    return root() / kind / re.sub(r"[^\w.\-]", "--", name).lstrip(".")


def read_record(path: Path) -> dict[str, Any]:
    """Return a folder's model.json; an empty dict if it has none, or a damaged one."""
    try:
        record = read_json(path / RECORD, LONGEST)
    except InputError:
        return {}
    return record if isinstance(record, dict) else {}


def write_record(path: Path, **facts: Any) -> None:
    """Write a folder's model.json."""
    (path / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def installed(kind: str) -> list[str]:
    """Return the names of the installed models."""
    try:
        records = [read_record(path) for path in sorted((root() / kind).iterdir()) if not path.name.startswith(".")]
    except OSError:  # nothing was ever installed, or the folder belongs to another user
        return []
    return [str(record["name"]) for record in records if "name" in record]


@contextlib.contextmanager
def new_folder(kind: str, name: str) -> Iterator[Path]:
    """Yield a folder to fill, which becomes the model's once that has succeeded. Raises OutputError.

    The caller holds the model's lock. A damaged or unfinished folder of the model is replaced.
    """
    path = folder(kind, name)
    with appearing_folder(path) as draft:
        yield draft
        _clear(path)


@contextlib.contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to fill; at the end flush it to disk and rename it to `path`. Raises OutputError."""
    draft = _draft(path)
    with writing(path):
        _clear(draft)  # of a killed process
        draft.mkdir(parents=True)
        try:
            yield draft
            for file_path in draft.iterdir():
                with file_path.open("rb+") as file:
                    sync(file.fileno())
            sync_folder(draft)
            draft.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def remove(kind: str, name: str) -> None:
    """Delete a model's folder: renamed first, so that no half of it is ever a model. Raises OutputError."""
    path = folder(kind, name)
    draft = _draft(path)
    with writing(path):
        _clear(draft)
        path.rename(draft)
        _clear(draft)


def _clear(path: Path) -> None:
    """Delete what is there: a folder with all in it, a file, or a link and not what it points at."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def part_path(kind: str, name: str) -> Path:
    """Return the path of a model's unfinished download; its folder is made. Raises OutputError."""
    parts = root() / "parts"
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    return parts / f"{kind}-{folder(kind, name).name}.part"


@contextlib.contextmanager
def lock(kind: str, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a model's lock; call `on_wait` once if another process has it, and wait. Raises OutputError."""
    path = part_path(kind, name).with_suffix(".lock")
    held = FileLock(path)
    with writing(path):
        try:
            held.acquire(timeout=0)
        except Timeout:
            on_wait()
            held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one line. Raises OutputError."""
    try:
        yield
    except OSError as error:
        hint = "free some space, or set VQCLIP_MODELS to another folder"
        raise OutputError(f"{path} cannot be written: {error.strerror or error}", hint) from error
