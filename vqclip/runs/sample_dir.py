"""A sample's folder: its record, the codes so far, the kept images and the grid; one process at a time writes to it.

DIR/
  sample.json                what is drawn, by which models; status; once ranked every candidate's distance
  candidates.json            the codes of the candidates, after every few of them (candidates.py)
  NN-candidate-NN.png        the kept ones, 01 the nearest; grid.png: all, the nearest first (enlarged up to a number)
  latest.png                 while they are drawn
  .lock                      held by the process that writes here
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, OutputExists, UsageError
from ..files.atomic import require_space, write_atomic, writing
from ..files.locked_folder import LockedFolder
from ..files.metadata import check_no_file
from ..files.reading import read_json, validate
from ..settings.schema import Settings, fields_with, flag, make_settings
from ..text import brief
from .candidates import FILE
from .project_files import files_in, find_again, locate, to_absolute, to_relative
from .records import BATCH, is_sample
from .records import SAMPLE as NAME
from .records import SAMPLE_SCHEMA as SCHEMA

MAX_RECORD = 2_000_000  # bytes; 4,096 candidates take a fifth
PICTURE = re.compile(r"\d{2,}-candidate-\d{2,}\.png")
SAMPLE_SETTINGS = frozenset(fields_with("sample") + fields_with("dalle"))  # those that count here
MODELS = tuple(name for name in fields_with("names") if name in SAMPLE_SETTINGS)
# Those of release 0.1.0, which every record has; a later one may be missing, and then it is the default.
FIRST_SETTINGS = SAMPLE_SETTINGS.difference(fields_with("upscaling"))
SPACE = 20_000_000  # bytes


class SamplePlan(BaseModel):
    """What is written of a sample."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True)

    keep: int = Field(ge=1)  # how many of the best candidates
    metadata: bool = True  # into the images


class Ranked(BaseModel):
    """A candidate of a sample that is done."""

    candidate: int
    distance: float


class SampleRecord(BaseModel):
    """A sample.json."""

    schema_version: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    settings: dict[str, Any]
    plan: SamplePlan
    models: dict[str, Any]
    versions: dict[str, Any]
    device: Any = None
    threads: Any = None
    status: Any = None
    candidates: list[Ranked] = []

    def make_settings(self) -> Settings:
        """Return the settings; those that the vqclip that wrote them did not know yet are the defaults.

        Raises InputError.
        """
        try:
            if not FIRST_SETTINGS <= self.settings.keys() <= SAMPLE_SETTINGS:
                raise UsageError("its settings are not a sample's", "")
            settings = make_settings(**self.settings)
            if not settings.starts_from_candidates():
                raise UsageError(f"init: {settings.init} draws no candidates", "")
            return settings
        except UsageError as error:
            raise InputError(f"{NAME}: {error.what}", "it must be as vqclip wrote it") from None


def facts(settings: Settings) -> dict[str, Any]:
    """Return those settings that decide which candidates there are, and their order."""
    return {name: value for name, value in settings.model_dump(mode="json").items() if name in SAMPLE_SETTINGS}


def _differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what differs, as "count 20, not 16": what there is, and what was asked for."""
    unsaid = {name: field.default for name, field in Settings.model_fields.items()}
    before, now = unsaid | before, unsaid | now
    names = [name for name in now if before[name] != now[name]]
    names = [name for name in names if name != "guidance" or "dalle" not in names]  # which follows from that
    return ", ".join(f"{_option(name)} {_brief(before[name])}, not {_brief(now[name])}" for name in names)


def _option(name: str) -> str:
    """Return what a setting, or a part of the plan, is called on the command line of `vqclip sample`."""
    if name == "candidates":
        return "count"
    return flag(name).removeprefix("--") if name in Settings.model_fields else name


def _brief(value: Any) -> str:
    return brief(",".join(map(str, value)) if isinstance(value, list) else value)


class SampleDir(LockedFolder):
    """A folder that is being filled."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Hold a sample's folder. Raises InputError, RunLocked, OutputError."""
        if not is_sample(path):
            raise InputError(f"{path} has no {NAME}", "give a folder of vqclip sample")
        return cls(path)

    @classmethod
    def new(cls, runs: Path, name: str) -> Self:
        """Make and hold `runs/name`, or `name-2`, `name-3`, ... if that exists. Raises OutputError."""
        folder = cls.create(runs, name)
        require_space(folder.path, SPACE, "a sample")
        return folder

    @classmethod
    def at(
        cls, path: Path, settings: Settings, plan: SamplePlan, *, seeded: bool, overwrite: bool
    ) -> tuple[Self, Settings]:
        """Hold a folder of that name, new or begun by the same command; return it, and the settings to go by.

        seeded: whether the seed was given; one that was drawn is kept. Raises OutputExists if another command's
        candidates are in it, or other files of their names; OutputError, RunLocked.
        """
        check_no_file(path)
        if other := next((name for name in ("run.json", BATCH) if (path / name).is_file()), ""):
            raise OutputExists(f"{path} holds something else: a {other}", "give another folder")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        require_space(path, SPACE, "a sample")
        folder = cls(path)
        try:
            return folder, settings if overwrite else folder._taken_up(settings, plan, seeded)
        except BaseException:
            folder.close()
            raise

    def _taken_up(self, settings: Settings, plan: SamplePlan, seeded: bool) -> Settings:
        """Return the settings with the seed that was drawn before. Raises OutputExists."""
        if not is_sample(self.path):
            if taken := next((path.name for path in self.path.iterdir() if _ours(path.name)), ""):
                what = f"{self.path} has a {taken} of something else"
                raise OutputExists(what, "give another folder, or --overwrite")
            return settings
        try:
            record = self.read(settings)
            before = record.make_settings()
        except InputError as error:
            raise OutputExists(error.what, "give another folder, or --overwrite") from None
        settings = settings if seeded else settings.model_copy(update={"seed": before.seed})
        if differ := _differing(facts(before) | record.plan.model_dump(), facts(settings) | plan.model_dump()):
            hint = f"vqclip resume {self.path} goes on with them; or give another folder, or --overwrite"
            raise OutputExists(f"{self.path} has candidates of another command: {differ}", hint)
        return settings

    def read(self, files: Settings | None = None, said: Mapping[str, Any] = {}) -> SampleRecord:
        """Return the record, with its models where they lie now. Raises InputError, UsageError as `locate` does.

        files: settings that name them where they are, if they are the same; said: settings, as typed, that must.
        """
        path = self.path / NAME
        read = read_json(path, MAX_RECORD, "it must be as vqclip wrote it")
        record = validate(SampleRecord, to_absolute(read, self.path) if isinstance(read, dict) else read, str(path))
        before, known = record.make_settings(), {"models": record.models}
        if files:
            now = find_again(self.path, known, before, files_in(files, MODELS))
        else:
            now = locate(self.path, known, before, said)
        moved = {name: value for name in MODELS if (value := getattr(now, name)) != getattr(before, name)}
        return record.model_copy(update={"settings": record.settings | moved})

    def write(self, record: dict[str, Any]) -> None:
        """Replace the record. Raises OutputError."""
        self.check()
        text = json.dumps(to_relative({"schema": SCHEMA, **record}, self.path), ensure_ascii=False, indent=1)
        write_atomic(self.path / NAME, (text + "\n").encode())

    def write_pictures(self, grid: bytes, kept: dict[str, bytes]) -> list[Path]:
        """Write the grid and the kept images, name -> PNG, in place of earlier ones; return the latter's paths."""
        self.check()
        write_atomic(self.path / "grid.png", grid)
        for name, png in kept.items():
            write_atomic(self.path / name, png)
        with writing(self.path):
            for path in (self.path / "latest.png", *self.path.iterdir()):
                if path.name == "latest.png" or (PICTURE.fullmatch(path.name) and path.name not in kept):
                    path.unlink(missing_ok=True)
        return [self.path / name for name in kept]

    def preview(self, png: bytes) -> None:
        """Write latest.png. Raises OutputError."""
        write_atomic(self.path / "latest.png", png)

    @property
    def codes(self) -> Path:
        """The file that keeps the codes."""
        return self.path / FILE


def _ours(name: str) -> bool:
    """Return whether this is the name of a file that a sample writes."""
    return name in (FILE, "grid.png", "latest.png") or bool(PICTURE.fullmatch(name))
