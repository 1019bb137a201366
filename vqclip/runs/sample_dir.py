"""A sample's folder: its record, the codes so far, the kept pictures and the grid; held by one process at a time.

DIR/
  sample.json                what is drawn, by which models; status; once ranked every candidate's distance
  candidates.json            the codes of the candidates, after every few of them (candidates.py)
  NN-candidate-NN.png        the kept ones, 01 the nearest; grid.png: all, the nearest first
  latest.png                 while they are drawn
  .lock                      held by the process that writes here
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ..errors import InputError, OutputExists, RunLocked, UsageError
from ..files.atomic import PARTS, check_folder, check_no_file, refused, require_space, write_atomic
from ..files.paths import expand
from ..settings.schema import Settings, fields_with, flag, make_settings
from ..text import brief
from .candidates import FILE
from .metadata import SAMPLE as NAME
from .metadata import SAMPLE_SCHEMA as SCHEMA
from .metadata import is_sample

MAX_RECORD = 2_000_000  # bytes; 4,096 candidates take a fifth
PICTURE = re.compile(r"\d{2,}-candidate-\d{2,}\.png")
# settings that count here
TOLD = tuple({**dict.fromkeys(fields_with("sample")), **dict.fromkeys(fields_with("dalle"))})
SPACE = 20_000_000  # bytes


def facts(settings: Settings) -> dict[str, Any]:
    """Return those settings that decide which candidates there are, and their order."""
    return {name: value for name, value in settings.model_dump(mode="json").items() if name in TOLD}


def _differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what differs, as "candidates 20, not 16": what there is, and what was asked for."""
    names = [name for name in now if before.get(name) != now[name]]
    names = [name for name in names if name != "guidance" or "dalle" not in names]  # which follows from that
    return ", ".join(f"{_option(name)} {_brief(before.get(name))}, not {_brief(now[name])}" for name in names)


def _option(name: str) -> str:
    """Return what a setting or a part of the plan is called on the command line."""
    return (flag(name) if name in Settings.model_fields else name).removeprefix("--")


def _brief(value: Any) -> str:
    return brief(",".join(map(str, value)) if isinstance(value, list) else value)


class SampleDir:
    """A folder that is being filled."""

    def __init__(self, path: Path) -> None:
        """Take hold of a folder that is there. Raises RunLocked, OutputError."""
        self.path, self._lock = path, FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
            for part in path.glob(PARTS):  # of a process that was killed
                part.unlink()
        except Timeout:
            raise RunLocked(f"{path} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, dict[str, Any], Settings]:
        """Take hold of a sample that was begun; return its record and settings. Raises InputError, RunLocked."""
        if not is_sample(folder):
            raise InputError(f"{folder} has no {NAME}", "give a folder of vqclip sample")
        held = cls(folder)
        with contextlib.ExitStack() as stack:
            stack.callback(held.__exit__)
            record = held.read()
            settings = held.settings_in(record)
            stack.pop_all()
        return held, record, settings

    @classmethod
    def new(cls, runs: Path, name: str) -> Self:
        """Make `runs/name`, or `name-2`, `name-3`, ... where that is taken. Raises OutputError."""
        check_folder(runs)
        try:
            runs.mkdir(parents=True, exist_ok=True)
            for folder in _names(runs, name):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    require_space(folder, SPACE, "a sample")
                    return cls(folder)
            raise AssertionError  # there is always another name
        except OSError as error:
            raise refused(runs, error) from error

    @classmethod
    def at(
        cls, out: str | Path, settings: Settings, plan: dict[str, Any], *, seeded: bool, overwrite: bool
    ) -> tuple[Self, Settings]:
        """Take a folder of that name, new or begun by the same command; return it, and the settings to go by.

        seeded: whether the seed was given; one that was drawn is kept. Raises OutputExists where another command's
        candidates are there, or other files of their names; OutputError, RunLocked.
        """
        folder = expand(out)
        check_no_file(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, SPACE, "a sample")
        except OSError as error:
            raise refused(folder, error) from error
        held = cls(folder)
        with contextlib.ExitStack() as stack:
            stack.callback(held.__exit__)
            if overwrite:
                pass
            elif is_sample(folder):
                hint = f"vqclip resume {folder} goes on with them; or give another folder, or --overwrite"
                try:
                    record = held.read()
                    seed = settings.seed if seeded else held.settings_in(record).seed
                except InputError as error:
                    raise OutputExists(error.what, "give another folder, or --overwrite") from None
                kept = settings.model_copy(update={"seed": seed})
                if differ := _differing(record["settings"] | record["plan"], facts(kept) | plan):
                    raise OutputExists(f"{folder} has candidates of another command: {differ}", hint)
                settings = kept
            elif taken := next((path.name for path in folder.iterdir() if _ours(path.name)), ""):
                raise OutputExists(f"{folder} has a {taken} of something else", "give another folder, or --overwrite")
            stack.pop_all()
        return held, settings

    def read(self) -> dict[str, Any]:
        """Return the record. Raises InputError."""
        path = self.path / NAME
        try:
            if path.stat().st_size > MAX_RECORD:
                raise ValueError("it is too large")
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict) or record.get("schema") != SCHEMA:
                raise ValueError(f"this vqclip reads the schema {SCHEMA!r} here")
            keep, metadata = record["plan"]["keep"], record["plan"]["metadata"]
            if not (type(keep) is int and keep >= 1 and isinstance(metadata, bool)):
                raise ValueError("its plan is not as vqclip writes it")
            if not all(isinstance(record.get(key), dict) for key in ("settings", "models", "versions")):
                raise ValueError("it is not whole")
            return record
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise InputError(f"{path} can't be read: {error}", "it must be as vqclip wrote it") from None

    def settings_in(self, record: dict[str, Any]) -> Settings:
        """Return the settings of a record. Raises InputError."""
        told = record["settings"]
        try:
            if sorted(told) != sorted(TOLD):
                raise UsageError("its settings are not a sample's", "")
            settings = make_settings(**told)
            if not settings.drawn():
                raise UsageError(f"init: {settings.init} draws no candidates", "")
            return settings
        except UsageError as error:
            raise InputError(f"{self.path / NAME}: {error.what}", "it must be as vqclip wrote it") from None

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record. Raises OutputError."""
        text = json.dumps({"schema": SCHEMA, **record}, ensure_ascii=False, indent=1)
        write_atomic(self.path / NAME, (text + "\n").encode())

    def write_pictures(self, grid: bytes, kept: dict[str, bytes]) -> list[Path]:
        """Write the grid and the kept pictures, name -> PNG, in place of earlier ones; return the latter's paths."""
        write_atomic(self.path / "grid.png", grid)
        for name, png in kept.items():
            write_atomic(self.path / name, png)
        try:
            for path in (self.path / "latest.png", *self.path.iterdir()):
                if path.name == "latest.png" or (PICTURE.fullmatch(path.name) and path.name not in kept):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise refused(self.path, error) from error
        return [self.path / name for name in kept]

    def preview(self, png: bytes) -> None:
        """Write latest.png. Raises OutputError."""
        write_atomic(self.path / "latest.png", png)

    @property
    def codes(self) -> Path:
        """Where the codes are kept."""
        return self.path / FILE


def _ours(name: str) -> bool:
    """Say whether this is the name of a file that a sample writes."""
    return name in (FILE, "grid.png", "latest.png") or bool(PICTURE.fullmatch(name))


def _names(runs: Path, name: str) -> Iterator[Path]:
    yield runs / name
    for k in range(2, 2**31):
        yield runs / f"{name}-{k}"
