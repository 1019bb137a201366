"""A batch's folder: its rows, their names and their states.

DIR/
  batch.json            the manifest
  NAME.png              the image of each finished row (of several seeds the best, with --keep)
  runs/NAME/            its run directory
  results.csv, results.jsonl, sheet.png, index.html
"""

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import InputError, OutputExists, UsageError, VqclipError
from ..files.atomic import refused, write_atomic
from ..files.images import is_whole
from ..files.locked_folder import LockedFolder, numbered
from ..files.paths import is_within
from ..files.reading import read_json, validate
from ..runs.project_files import by_content, find_again, named_files, to_absolute, to_relative
from ..runs.records import BATCH
from ..runs.run_dir import FINISHED, read_distance, read_losses, read_run_record, slugify
from ..settings.schema import Settings
from ..text import nearest_of
from .rows import Row

SCHEMA = "vqclip-batch/1"
TEMPLATE = "{index:04d}-{slug}-{seed}"
FIELDS = ("index", "slug", "seed", "source")
REPORTS = ("results.csv", "results.jsonl", "sheet.png", "index.html")
MAX_NAME = 150  # bytes
MAX_FILE = 500_000_000  # bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|runs|results|sheet|index|batch)", re.IGNORECASE)
# The settings of release 0.1.0. A row's key has all of them, and later ones only if they are not the default: so a
# batch of an earlier release is recognised.
FIRST_SETTINGS = (
    "prompt", "image_prompts", "image_prompt_weight", "seed", "size", "steps", "vqgan", "clips", "clip_weights",
    "clip_mix", "long_prompts", "init", "dalle", "candidates", "guidance", "temperature", "top_k", "candidate_weight",
    "init_image", "init_weight", "tries", "step_size", "momentum", "damping", "coarse", "ema", "cutouts", "overview",
    "smallest_cutout", "margin", "augments", "noise", "chunk", "precision", "tv",
)  # fmt: skip


def _run_name(name: str) -> str:
    if not name or name.startswith(".") or "\\" in name or Path(name).name != name:
        raise ValueError(f"{name[:80]!r} is no name of a run")
    return name


class Entry(BaseModel):
    """A row of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, defer_build=True)

    name: Annotated[str, AfterValidator(_run_name)]
    index: int  # from 1
    source: int  # the number of its prompt, from 0
    location: str = Field(validation_alias="place", serialization_alias="place")  # in the prompt file
    key: str  # identifies the row
    settings: Settings
    status: Literal["pending", "stopped", "done", "failed"] = "pending"
    error: str = ""
    steps: int = 0
    distance: float | None = None
    seconds: float = 0.0
    score: float | None = None
    rank: int | None = None  # among the seeds of its prompt, 1 is the best
    kept: bool = True

    def failed(self, error: str, steps: int = 0) -> "Entry":
        """Return the row as one that failed after so many steps."""
        return self.model_copy(
            update={"status": "failed", "error": error, "steps": steps, "distance": None, "seconds": 0.0}
        )


class BatchFile(BaseModel):
    """The contents of batch.json."""

    model_config = ConfigDict(defer_build=True)

    schema_name: Literal["vqclip-batch/1"] = Field(validation_alias="schema")
    rows: list[Entry]


def check_template(template: str) -> None:
    """Raise UsageError for a template that is not understood, or may name a file outside of the folder."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"the template {template!r} is wrong: {error}", f"e.g. {TEMPLATE}") from None
    for text, name, spec, conversion in parts:
        if re.search(r'[/\\:*?"<>|]', text) or not text.isprintable() or any(0xD800 <= ord(c) < 0xE000 for c in text):
            raise UsageError(f"the template {template!r} is no file name", 'leave out / \\ : * ? " < > |')
        if name is not None and name not in FIELDS:
            raise UsageError(f"the template has no {{{name}}}{nearest_of(name, FIELDS)}", f"e.g. {TEMPLATE}")
        if conversion or not re.fullmatch(r"(0?\d{1,2}d?)?" if name != "slug" else r"(\.[1-9]\d?)?", spec or ""):
            raise UsageError(f"the template's {{{name}:{spec}}} is not understood", f"e.g. {TEMPLATE}")
    if not template.strip() or template.lstrip().startswith((".", "-", "~")):
        raise UsageError(f"the template {template!r} is no file name", f"e.g. {TEMPLATE}")


def row_key(row: Row, count: int, files: Mapping[str, Any] | None = None) -> str:
    """Return what identifies a row in later calls: its settings as given, and its number among equal rows.

    Files count by what is in them, not by where they are. files: settings that name files, with what stands for these
    instead.
    """
    fields = type(row.settings).model_fields
    values = row.settings.model_dump(mode="json")
    values = {
        name: value
        for name, value in values.items()
        if name in FIRST_SETTINGS or getattr(row.settings, name) != fields[name].default
    }
    values |= by_content(row.settings) if files is None else files
    if row.random_seed:
        values["seed"] = None
    return hashlib.sha256(json.dumps([values, count], sort_keys=True).encode()).hexdigest()[:16]


class Manifest:
    """The rows of a folder, in the order in which they came."""

    def __init__(self, path: Path, member: str = "") -> None:
        """Hold a folder, new or begun; member: as of LockedFolder.

        Raises RunLocked, OutputError, InputError; OutputExists for files of our names that are not a batch's.
        """
        try:
            foreign = [name for name in REPORTS if (path / name).exists()]
            if foreign and not (path / BATCH).exists():
                raise OutputExists(f"{path / foreign[0]} exists already", "give the batch a folder of its own (-o)")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(path, error) from error
        self._folder = LockedFolder(path, "runs", member=member)
        try:
            self._read_rows(path)
        except VqclipError:
            self.close()
            raise

    @classmethod
    def unheld(cls, path: Path) -> Self:
        """Return the rows of a folder to be looked at, and not to be saved: nothing is written. Raises InputError."""
        manifest = cls.__new__(cls)
        manifest._read_rows(path)
        return manifest

    def _read_rows(self, path: Path) -> None:
        self.path, self.runs = path, path / "runs"
        self.entries = key_by_content(read_manifest(path), self.runs)
        self._taken = {name.casefold() for name in self.entries}  # some disks ignore case

    def add(self, rows: Iterable[Row], template: str) -> list[Entry]:
        """Return the entries of rows: known ones, and new ones under new names."""
        check_template(template)
        known = {entry.key: entry for entry in self.entries.values()}
        equal_rows: Counter[str] = Counter()
        added = []
        for row in rows:
            first_key = row_key(row, 0)
            key = row_key(row, equal_rows[first_key])
            entry = known.get(key)
            if not entry and known and row.earlier:
                entry = known.get(row_key(replace(row, settings=row.earlier()), equal_rows[first_key]))
            equal_rows[first_key] += 1
            entry = entry or self._new_entry(row, key, template)
            files = {name: getattr(row.settings, name) for name in named_files(row.settings)}  # where they are by now
            settings = entry.settings.model_copy(update=files)
            entry = entry.model_copy(update={"source": row.source, "location": row.location, "settings": settings})
            self.entries[entry.name] = entry
            added.append(entry)
        return added

    def _new_entry(self, row: Row, key: str, template: str) -> Entry:
        index = len(self.entries) + 1
        slug, seed = slugify(row.settings.title()), row.settings.seed
        values = {"index": index, "slug": slug, "seed": seed, "source": row.source + 1}
        name = template.format(**values).encode()[:MAX_NAME].decode(errors="ignore").strip().rstrip(". ")
        if RESERVED.fullmatch(name.split(".")[0]):
            name += "-"
        name = next(filter(self._is_free, numbered(name)))
        self._taken.add(name.casefold())
        return Entry(name=name, index=index, source=row.source, location=row.location, key=key, settings=row.settings)

    def _is_free(self, name: str) -> bool:
        paths = (self.path / f"{name}.png", self.runs / name)
        return name.casefold() not in self._taken and not any(path.exists() for path in paths)

    def update(self, name: str, **changes: Any) -> Entry:
        """Change an entry in memory, and return it."""
        self.entries[name] = self.entries[name].model_copy(update=changes)
        return self.entries[name]

    def refresh(self) -> None:
        """Update the states from the run directories: a process may have been killed before it wrote batch.json."""
        for entry in list(self.entries.values()):
            self.update(entry.name, **run_status(self.runs / entry.name, entry))

    def publish(self, entry: Entry) -> None:
        """Copy a finished row's image into the folder, or delete the image of a row that is not kept.

        Raises InputError, OutputError.
        """
        copy = self.path / f"{entry.name}.png"
        final = self.runs / entry.name / "final.png"
        if entry.status != "done":
            return
        if not entry.kept:
            try:
                copy.unlink(missing_ok=True)
            except OSError as error:
                raise refused(copy, error) from error
        elif not is_whole(copy):
            try:
                data = final.read_bytes()
            except OSError as error:
                hint = "the same command makes it again"
                raise InputError(f"{final} can't be read: {error.strerror}", hint) from None
            write_atomic(copy, data)

    def save(self) -> None:
        """Write batch.json. Raises OutputError."""
        self._folder.check()
        rows = [entry.model_dump(mode="json", by_alias=True) for entry in self.entries.values()]
        record = to_relative({"schema": SCHEMA, "rows": rows}, self.path)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        write_atomic(self.path / BATCH, (text + "\n").encode())

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()


def key_by_content(entries: dict[str, Entry], runs: Path) -> dict[str, Entry]:
    """Return entries whose keys say what is in their files: those of release 0.1.0 say where these were."""
    given = [Row("", 0, entry.settings) for entry in entries.values() if named_files(entry.settings)]
    equal_rows: Counter[str] = Counter()
    origins: dict[str, Row] = {}  # by the key that says where files were
    for row in (*given, *(replace(row, random_seed=True) for row in given)):
        first_key = row_key(row, 0, {})
        origins.setdefault(row_key(row, equal_rows[first_key], {}), row)
        equal_rows[first_key] += 1
    now = dict(entries)
    for name, entry in entries.items():
        if origin := origins.get(entry.key):
            files = _contents(runs / name, entry.settings)
            first_key = row_key(origin, 0, files)
            now[name] = entry.model_copy(update={"key": row_key(origin, equal_rows[first_key], files)})
            equal_rows[first_key] += 1
    return now


def _contents(run: Path, settings: Settings) -> dict[str, Any]:
    """Return the settings of a run that name files with the hashes of what was in these, or if it has not begun, is."""
    try:
        record = read_run_record(run / "run.json")
    except VqclipError:
        record = {}
    return by_content(find_again(run, record, settings, settings.model_dump()), record)


def run_status(run: Path, entry: Entry) -> dict[str, Any]:
    """Return the changes to an entry that its run directory asks for."""
    try:
        record = read_run_record(run / "run.json")
    except VqclipError:
        return {} if entry.status == "failed" else {"status": "pending"}
    steps = {"steps": record.get("steps_done", 0)}
    if record.get("status") not in FINISHED:
        return steps | {"status": "failed" if entry.status == "failed" else "stopped"}
    if not (is_within(run, run / "final.png") and is_whole(run / "final.png")):  # no link to what is not ours
        return steps | {"status": "stopped"}
    done = steps | {"status": "done", "error": ""}
    if entry.status == "done":
        return done
    seconds = float(record.get("seconds", 0.0))
    return done | {"distance": read_distance(record, read_losses(run)), "seconds": seconds}


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Return the rows of a folder's batch.json, by name; none if there is no such file. Raises InputError."""
    path = folder / BATCH
    if not path.exists():
        return {}
    hint = "correct it, or give another folder (-o)"
    record = read_json(path, MAX_FILE, hint)
    file = validate(BatchFile, to_absolute(record, folder) if isinstance(record, dict) else record, str(path), hint)
    return {entry.name: entry for entry in file.rows}


def count_states(entries: Iterable[Entry]) -> dict[str, int]:
    """Return how many rows are in which state."""
    return dict(Counter(entry.status for entry in entries))
