"""What a picture or a run says of itself: read as data, never trusted."""

from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..config.resolve import change, complete
from ..errors import InputError, UsageError
from ..files.images import opened
from ..files.reading import parse_json
from ..models.catalogue import is_public
from ..settings.schema import Settings, facts, fields_with, files_of, flag, make_settings
from ..text import brief
from .run_dir import MAX_RECORD, MOTION, SCHEMA, read_run_record

KEEP = 4  # of a sample's candidates, to be written
BATCH = "batch.json"  # of a batch's folder (manifest.py)
SAMPLE = "sample.json"  # of a folder of vqclip sample (sample_dir.py)
SAMPLE_SCHEMA = "vqclip-sample/1"
# What a picture's metadata may ask for; more must be typed.
MOST = {"steps": 10_000, "candidates": 256, "tries": 1_000, "cutouts": 512}
OVERLAPS = 0.1, 0.75  # of windows (enlarge.py)
MOST_PIXELS = 2048 * 2048
HINT = "give a PNG that vqclip made, or a run directory"


def read(path: Path) -> dict[str, Any]:
    """Return the record of a run directory or a sample's, or the `vqclip` text of a PNG. Raises InputError."""
    try:
        if path.is_dir():
            if is_sample(path):
                return read_run_record(path / SAMPLE, (SAMPLE_SCHEMA,))
            if is_batch(path):
                raise InputError(f"{path} is a batch's folder", f"give one of its runs: {path / 'runs'}/...")
            if not (path / "run.json").is_file():
                raise InputError(f"{path} is no run directory: it has no run.json", HINT)
            return read_run_record(path / "run.json", (SCHEMA, MOTION))
        with opened(path, ("PNG",)) as picture:  # no pixel is read
            text = picture.info.get("vqclip")
        if text is None:
            raise InputError(f"{path} was not made by vqclip, or lost what it said of itself (its text 'vqclip')", HINT)
        record = parse_json(str(text), f"the 'vqclip' text of {path}", HINT) if len(text) <= MAX_RECORD else None
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", HINT) from None
    except UnidentifiedImageError:
        raise InputError(f"{path} is no PNG: only PNGs carry all settings", HINT) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} can't be read: {reason}", HINT) from None
    if not isinstance(record, dict):
        raise InputError(f"the 'vqclip' text of {path} is no record", HINT)
    return record


def is_motion(folder: Path) -> bool:
    """Say whether a run directory is a moving picture's; of what is none, no."""
    try:
        return read(folder).get("schema") == MOTION
    except InputError:  # who opens it says more
        return False


def is_sample(folder: Path) -> bool:
    """Say whether a folder is a sample's."""
    return _has(folder, SAMPLE)


def is_batch(folder: Path) -> bool:
    """Say whether a folder is a batch's."""
    return _has(folder, BATCH)


def _has(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # a name that no file could have
        return False


def is_of_sample(record: dict[str, Any]) -> bool:
    """Return whether a record is a sample's, or that of one of its images."""
    return "sample" in record or record.get("schema") == SAMPLE_SCHEMA


def kept_of(record: dict[str, Any]) -> int:
    """Return how many candidates a sample keeps; by the record of a kept image at least as many as that one needs."""

    def number(part: str, key: str) -> int:
        value = record[part].get(key) if isinstance(record.get(part), dict) else 0
        return value if type(value) is int and value > 0 else 0

    return number("plan", "keep") or max(KEEP, number("sample", "place"))


def overlap_of(path: Path, record: dict[str, Any]) -> float | None:
    """Return how much the windows of an image of vqclip enlarge overlap; None for any other. Raises InputError."""
    if "enlarge" not in record:
        return None
    overlap = record["enlarge"].get("overlap") if isinstance(record["enlarge"], dict) else None
    if type(overlap) is not float or not OVERLAPS[0] <= overlap <= OVERLAPS[1]:
        raise InputError(f"{path}: it says of no overlap of windows that vqclip has", HINT)
    return overlap


def settings_of(
    path: Path, record: dict[str, Any], changes: dict[str, Any] | None = None, *, sample: bool = False
) -> Settings:
    """Return a record's settings with changes laid over them; sample: whether it is a sample's.

    Raises InputError, and UsageError for a change. An image may come from anybody: it can't make us read a file or a
    folder. What it names beyond the catalogue must be given anew.
    """
    changes = changes or {}
    recorded = record.get("settings")
    if not isinstance(recorded, dict):
        raise InputError(f"{path} has no settings in its record", HINT)
    if is_of_sample(record) and not sample:
        raise InputError(f"{path} was drawn by vqclip sample", f"draw it again: vqclip rerun {path}")
    try:
        settings = complete(make_settings(**recorded))
    except (UsageError, TypeError) as error:
        raise InputError(f"{path}: its settings are not vqclip's: {getattr(error, 'what', error)}", HINT) from None
    if not path.is_dir():
        _check_named(path, settings, changes)
        _check_work(path, settings, changes)
    return change(settings, changes)


def _check_named(path: Path, settings: Settings, changes: dict[str, Any]) -> None:
    """Refuse files and models that a picture names, unless they are public or named anew. Raises InputError."""
    for field in fields_with("names"):
        names, kind = files_of(field, getattr(settings, field)), facts(field).names
        if field in changes or not names or (facts(field).dalle and not settings.starts_from_candidates()):
            continue
        if kind == "file" or not all(is_public(kind, name) for name in names):
            text = field.replace("_", " ") if kind == "file" else f"the {kind}"
            raise InputError(f"{path} was made with {text} {_names(names)}", f"give it: {flag(field)} {kind.upper()}")


def _check_work(path: Path, settings: Settings, changes: dict[str, Any]) -> None:
    """Refuse work beyond reason that nobody but a picture asks for. Raises InputError."""
    for field, most in MOST.items():
        value = getattr(settings.largest(), field)
        if field not in changes and value > most:
            raise InputError(f"{path} asks for {value} {field}", f"if that is meant: {flag(field)} {value}")
    width, height = settings.size
    if "size" not in changes and width * height > MOST_PIXELS:
        raise InputError(f"{path} asks for {width}x{height} pixels", f"if that is meant: --size {width}x{height}")


def _names(names: list[str]) -> str:
    return ", ".join(map(brief, names[:3])) + (", ..." if len(names) > 3 else "")
