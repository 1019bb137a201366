"""The files that a run was begun with, found again where its project was moved or copied.

A record keeps the path of a file that lies near it relative to its own folder, and that folder as it was: the file is
looked for there, then where it was, then by its hash at the end of its old path, below the run's folder and each folder
above it. Records of 0.1.0 have absolute paths alone.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.resolve import change
from ..errors import InputError, UsageError, VqclipError
from ..files.paths import sha256_once
from ..models.catalogue import is_name, model_entry
from ..settings.schema import Settings, facts, fields_with, files_of, with_files

LONGEST = 16  # parts of an old path that are looked for
LEVELS = 3  # folders above a record's own that its project reaches to, at most: that of a batch's runs/NAME
RELATIVE = ("./", "../")  # begin a relative path in a record; a model's name begins so never


def to_relative(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a record with the paths near its folder relative to that, and if there are any the folder itself."""
    base = str(folder.resolve())

    def shorten(path: str) -> str:
        if not Path(path).is_absolute():
            return path
        try:
            below = os.path.relpath(path, base).replace(os.sep, "/")
        except ValueError:  # on another drive
            return path
        levels = below.split("/").count("..")
        return path if levels > LEVELS else below if levels else f"./{below}"

    shortened = _with_paths(record, shorten)
    return record if shortened == record else {**shortened, "folder": base}


def to_absolute(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a record that was read from a folder with absolute paths: what is not there now, as it lay then."""
    base, before = str(folder.resolve()), record.get("folder")

    def place(path: str) -> str:
        if not path.startswith(RELATIVE):
            return path
        here = os.path.normpath(os.path.join(base, path))  # noqa: PTH118 - no path of this system, perhaps
        return here if os.path.lexists(here) or not isinstance(before, str) else os.path.normpath(f"{before}/{path}")

    return _with_paths({key: value for key, value in record.items() if key != "folder"}, place)


def _with_paths(record: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a record with each path changed: in its settings, its rows' and changes', its pictures and its clip.

    It may be anybody's: what is not as it should be is left as it is.
    """

    def each(value: Any) -> Any:
        return change(value) if isinstance(value, str) else [*map(each, value)] if isinstance(value, list) else value

    new = dict(record)
    if isinstance(settings := record.get("settings"), dict):
        named = {name: settings[name] for name in fields_with("names") if name in settings}
        new["settings"] = settings | {
            name: _with_files_changed(name, value, change) if facts(name).behind else each(value)
            for name, value in named.items()
        }
    if isinstance(pictures := record.get("pictures"), dict):
        new["pictures"] = {change(path): sha256 for path, sha256 in pictures.items()}
    for key in ("rows", "changes"):
        if isinstance(parts := record.get(key), list):
            new[key] = [_with_paths(part, change) if isinstance(part, dict) else part for part in parts]
    motion = record.get("motion")
    if isinstance(motion, dict) and isinstance(clip := motion.get("footage"), dict):
        new["motion"] = motion | {"footage": clip | {key: each(clip[key]) for key in ("path",) if key in clip}}
    return new


def _with_files_changed(name: str, value: Any, change: Callable[[str], str]) -> Any:
    """Return a value that holds files with their paths changed; what can't be read as one, as it is."""
    try:
        return list(with_files(name, value, map(change, files_of(name, value))))
    except (UsageError, AttributeError, TypeError):
        return value


def hash_of(kind: str, name: str) -> str:
    """Return the hash of a file, or of the weights of a model that is given by its path; "" if there is none."""
    try:
        if kind != "file":
            return model_entry(kind, name).sha256()
        return sha256_once(Path(name))
    except (VqclipError, OSError, ValueError):
        return ""


def named_files(settings: Settings) -> dict[str, list[str]]:
    """Return the settings that name files, pictures or models by path, with these; models' own names are left out."""
    used = settings.model_dump()
    files = {field: files_of(field, used[field]) for field in fields_with("names") if field in used}
    return {field: names for field, names in files.items() if any(_is_path(field, name) for name in names)}


def _is_path(field: str, name: str) -> bool:
    kind = facts(field).names
    return kind == "file" or not is_name(kind, name)


def files_in(settings: Settings, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named settings that name files or models."""
    return {name: getattr(settings, name) for name in names if facts(name).names}


def recorded_hashes(record: Mapping[str, Any], settings: Settings, field: str) -> list[str]:
    """Return the hashes that a record has of what a setting names; "" for each that it has none of."""
    names = files_of(field, getattr(settings, field))
    if facts(field).names == "file":
        pictures = record.get("pictures")
        return [str(pictures.get(name, "")) if isinstance(pictures, dict) else "" for name in names]
    models = record.get("models")
    listed = models.get(field) if isinstance(models, dict) else None
    listed = listed if isinstance(listed, list) else [listed]
    hashes = [str(model.get("sha256", "")) if isinstance(model, dict) else "" for model in listed]
    return hashes if len(hashes) == len(names) else [""] * len(names)


def find_again(folder: Path, record: Mapping[str, Any], settings: Settings, given: Mapping[str, Any] = {}) -> Settings:
    """Return settings with all files where they lie now, for the run in a folder and its record.

    given: setting -> where its files are said to be; counts where the hashes agree. Raises InputError for a file that
    is gone, unless it was given.
    """
    changes: dict[str, Any] = {}
    for field, names in named_files(settings).items():
        said = files_of(field, given.get(field))
        said = said if len(said) == len(names) else [""] * len(names)
        hashes = recorded_hashes(record, settings, field)
        now = [_find(folder, field, *file) for file in zip(names, hashes, said, strict=True)]
        if None in now and field not in given:
            _gone(folder, field, names[now.index(None)])
        where = tuple(name if path is None else path for name, path in zip(names, now, strict=True))
        changes[field] = with_files(field, getattr(settings, field), where)
    return settings.model_copy(update=changes)


def locate(folder: Path, record: Mapping[str, Any], settings: Settings, said: Mapping[str, Any]) -> Settings:
    """Return settings with all files where they lie now.

    said: settings, as typed, that say where. Raises UsageError for one that is not what the run was begun with,
    InputError for a file that is gone.
    """
    asked = change(settings, dict(said))
    settings = find_again(folder, record, settings, files_in(asked, said))
    if other := [name for name in said if getattr(asked, name) != getattr(settings, name)]:
        what = f"{other[0].replace('_', '-')} can't change in what has begun: it is not what {folder} was begun with"
        raise UsageError(what, "give what it was begun with, wherever that is now, or make a new one")
    return settings


def find_file(folder: Path, path: Path, sha256: str, said: Path | None = None) -> Path | None:
    """Return where a file of this hash is: where it is said to be, where it was, or beside the run in a folder."""
    found = _search(folder, "file", str(path), sha256, str(said or ""))
    return Path(found) if found else None


def _find(folder: Path, field: str, name: str, sha256: str, said: str) -> str | None:
    return _search(folder, facts(field).names, name, sha256, said) if _is_path(field, name) else name


def _search(folder: Path, kind: str, name: str, sha256: str, said: str) -> str | None:
    for candidate in filter(None, (said, name, *_beside(folder, name))):
        if (found := hash_of(kind, candidate)) and found == (sha256 or found):
            return candidate
    return None if sha256 else name  # who opens it says more


def _beside(folder: Path, name: str) -> Iterator[str]:
    """Yield where what had this path may lie: the end of the path, the longest first, at the run and above it."""
    parts = [part for part in re.split(r"[/\\]", name)[-LONGEST:] if part not in ("", ".", "..")]
    for above in (folder.absolute(), *folder.absolute().parents):
        for first in range(len(parts)):
            yield str(above.joinpath(*parts[first:]))


def _gone(folder: Path, field: str, name: str) -> None:
    what = f"{folder} was begun with a file that is gone or changed: {field.replace('_', ' ')} {name[:1000]}"
    raise InputError(what, f"put it back, or say where it is now: --set {field}=FILE")


def same_models(before: Any, now: Any) -> bool:
    """Say whether two descriptions of models, as run.json has them, have the same hashes: names may have changed."""
    return _hashes(before) == _hashes(now)


def _hashes(models: Any) -> Any:
    if isinstance(models, dict):
        return models.get("sha256") or {key: _hashes(value) for key, value in models.items() if key != "name"}
    return list(map(_hashes, models)) if isinstance(models, list) else models


def by_content(settings: Settings, record: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Return the settings that name files, each with the hashes of these instead of their paths.

    record: of the run that these settings were of; what it has no hash of is read.
    """
    contents: dict[str, Any] = {}
    for field, names in named_files(settings).items():
        hashes = zip(names, recorded_hashes(record, settings, field), strict=True)
        kind = facts(field).names
        values = [(_is_path(field, name) and (known or hash_of(kind, name))) or name for name, known in hashes]
        named = with_files(field, getattr(settings, field), values)
        contents[field] = list(named) if isinstance(named, tuple) else named
    return contents
