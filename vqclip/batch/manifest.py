"""A batch's folder: its rows with their names and states; what a run's own folder says is believed first.

DIR/
  batch.json            the manifest
  NAME.png              the picture of each row that is done (of several seeds the best, where --keep says so)
  runs/NAME/            its run directory
  results.csv, results.jsonl, sheet.png, index.html
"""

import hashlib
import json
import re
import string
import typing
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InputError, OutputExists, RunLocked, UsageError, VqclipError
from ..files.atomic import PARTS, refused, write_atomic
from ..files.images import is_whole
from ..runs.metadata import BATCH
from ..runs.run_dir import read_losses, read_record, slugify
from ..settings.schema import Settings, make_settings, nearest_of
from .rows import Row

SCHEMA = "vqclip-batch/1"
TEMPLATE = "{index:04d}-{slug}-{seed}"
FIELDS = ("index", "slug", "seed", "source")
REPORTS = ("results.csv", "results.jsonl", "sheet.png", "index.html")
STATES = ("pending", "stopped", "done", "failed")
MAX_NAME = 150  # bytes
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|runs|results|sheet|index|batch)", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A row of the manifest. status: one of STATES."""

    name: str
    index: int  # from 1
    source: int
    place: str
    key: str  # tells rows of later calls apart
    settings: Settings
    status: str = "pending"
    error: str = ""
    steps: int = 0
    distance: float | None = None
    seconds: float = 0.0
    score: float | None = None
    rank: int | None = None  # among the seeds of its prompt, 1 is the best
    kept: bool = True

    def __post_init__(self) -> None:
        """Refuse what no batch.json of ours holds. Raises ValueError."""
        for field, kind in typing.get_type_hints(Entry).items():
            value = getattr(self, field)
            if not isinstance(value, kind) and not (isinstance(value, int) and isinstance(0.0, kind)):
                raise ValueError(f"{field} is {str(value)[:80]!r}")
        if self.status not in STATES:
            raise ValueError(f"status is {self.status[:80]!r}")


def check_template(template: str) -> None:
    """Raise UsageError for a template that is not understood, or may name something outside of the folder."""
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


def key_of(row: Row, count: int) -> str:
    """Return what tells a row from others: its settings as given, and which of equal ones it is."""
    told = row.settings.model_dump(mode="json") | ({"seed": None} if row.drawn else {})
    return hashlib.sha256(json.dumps([told, count], sort_keys=True).encode()).hexdigest()[:16]


class Manifest:
    """The rows of a folder, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        """Take hold of a folder, new or begun.

        Raises RunLocked, OutputError, InputError; OutputExists where files of somebody else have our names.
        """
        self.folder, self.runs = folder, folder / "runs"
        try:
            there = [name for name in REPORTS if (folder / name).exists()]
            if there and not (folder / BATCH).exists():
                raise OutputExists(f"{folder / there[0]} exists already", "give the batch a folder of its own (-o)")
            self.runs.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
            for part in folder.glob(PARTS):  # of a process that was killed
                part.unlink()
        except Timeout:
            raise RunLocked(f"{folder} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(folder, error) from error
        try:
            self.entries = read_manifest(folder)
        except VqclipError:
            self.close()
            raise

    def add(self, rows: Iterable[Row], template: str) -> list[Entry]:
        """Return the entries of rows: those that are there already, and new ones with names of their own."""
        check_template(template)
        known = {entry.key: entry for entry in self.entries.values()}
        taken = {name.casefold() for name in self.entries}
        seen: dict[str, int] = {}
        wanted = []
        for row in rows:
            same = key_of(row, 0)
            seen[same] = seen.get(same, -1) + 1
            key = key_of(row, seen[same])
            entry = known.get(key)
            if entry is None:
                index = len(self.entries) + 1
                entry = Entry(self._name(row, index, template, taken), index, row.source, row.place, key, row.settings)
                taken.add(entry.name.casefold())
            entry = replace(entry, source=row.source, place=row.place)
            self.entries[entry.name] = entry
            wanted.append(entry)
        return wanted

    def _name(self, row: Row, index: int, template: str, taken: set[str]) -> str:
        title = row.settings.prompt.strip() or Path(row.settings.image_prompts[0]).stem
        values = {"index": index, "slug": slugify(title), "seed": row.settings.seed, "source": row.source + 1}
        name = template.format(**values).encode()[:MAX_NAME].decode(errors="ignore").strip().rstrip(". ")
        name = f"{name}-" if RESERVED.fullmatch(name.split(".")[0]) else name
        tried, count = name, 1
        while tried.casefold() in taken or (self.folder / f"{tried}.png").exists() or (self.runs / tried).exists():
            count += 1
            tried = f"{name}-{count}"
        return tried

    def update(self, name: str, **changes: Any) -> Entry:
        """Change an entry, in memory."""
        self.entries[name] = replace(self.entries[name], **changes)
        return self.entries[name]

    def look(self) -> None:
        """Take over what the run directories say: a process may have been killed before it told the manifest."""
        for entry in list(self.entries.values()):
            self.entries[entry.name] = replace(entry, **found_status(self.runs / entry.name, entry))

    def save(self) -> None:
        """Write batch.json. Raises OutputError."""
        rows = [asdict(entry) | {"settings": entry.settings.model_dump(mode="json")} for entry in self.entries.values()]
        text = json.dumps({"schema": SCHEMA, "rows": rows}, indent=1, ensure_ascii=False)
        write_atomic(self.folder / BATCH, (text + "\n").encode())

    def close(self) -> None:
        """Let the folder go."""
        self._lock.release()


def found_status(run: Path, entry: Entry) -> dict[str, Any]:
    """Return the status of an entry, by its run directory where there is one."""
    try:
        record = read_record(run / "run.json")
    except VqclipError:
        return {} if entry.status == "failed" else {"status": "pending"}
    told: dict[str, Any] = {"steps": record.get("steps_done", 0)}
    if record.get("status") != "done":
        return told | {"status": "failed" if entry.status == "failed" else "stopped"}
    if not is_whole(run / "final.png"):
        return told | {"status": "stopped"}
    if entry.status != "done":  # it ended, and its process before it told us
        distances, seconds = read_losses(run).get("prompt"), record.get("seconds")
        told["distance"] = distances[-1] if distances else None
        told["seconds"] = float(seconds) if isinstance(seconds, int | float) else 0.0
    return told | {"status": "done", "error": ""}


def read_manifest(folder: Path) -> dict[str, Entry]:
    """Return the rows of a folder's batch.json, by name; none where there is none. Raises InputError."""
    path = folder / BATCH
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("schema") != SCHEMA:
            raise ValueError(f"this vqclip reads the schema {SCHEMA!r}")
        entries = [Entry(**(row | {"settings": make_settings(**row["settings"])})) for row in told["rows"]]
        for entry in entries:
            if (
                not entry.name
                or Path(entry.name).name != entry.name
                or "\\" in entry.name
                or entry.name.startswith(".")
            ):
                raise ValueError(f"{entry.name[:80]!r} is no name of a run")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, VqclipError) as error:
        raise InputError(f"{path} can't be read: {error}", "put it right, or give another folder (-o)") from None
    return {entry.name: entry for entry in entries}


def counted(entries: Sequence[Entry]) -> dict[str, int]:
    """Return how many rows are in which state."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    return counts
