"""A part of a batch's rows, for several processes or machines that share its folder.

All seeds of a prompt are in one part. Each process updates its own rows in batch.json, and holds the folder only while
it does.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from ..errors import RunLocked, UsageError
from ..files.atomic import refused
from .manifest import Entry, Manifest, key_by_content, read_manifest
from .rows import Row

PAUSE_S = 0.1
WAIT_S = 60.0  # for another process to update batch.json
MOST = 100_000
Numbered = TypeVar("Numbered", Entry, Row, Entry | Row)  # what knows the number of its prompt
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str]) -> "Shard":
        """Read "2/8"; "slurm" is the task of a Slurm array. Raises UsageError."""
        if text.strip().lower() == "slurm":
            if not all(environ.get(name, "").isdecimal() for name in SLURM):
                raise UsageError(f"there is no Slurm array here: {' and '.join(SLURM)} are not set", "write it: 2/8")
            task, count = (int(environ[name]) for name in SLURM)
            first = environ.get("SLURM_ARRAY_TASK_MIN", "")
            step = environ.get("SLURM_ARRAY_TASK_STEP", "")  # --array=0-14:2
            task = (
                (task - int(first)) // (int(step) if step.isdecimal() and int(step) else 1)
                if first.isdecimal()
                else task % count
            )
            number = task + 1
        else:
            match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
            if not match:
                raise UsageError(f"shard: {text[:40]!r} is not understood", "write which of how many, 2/8, or slurm")
            number, count = int(match[1]), int(match[2])
        if not 1 <= number <= count <= MOST:
            raise UsageError(f"shard: there is no part {number} of {count}", "count from 1: 1/8 to 8/8")
        return cls(number, count)

    def of(self, entries: Iterable[Numbered]) -> list[Numbered]:
        """Return the rows of this part."""
        return [entry for entry in entries if entry.source % self.count == self.number - 1]


def check_seeds(rows: Sequence[Row]) -> None:
    """Refuse rows whose seeds were drawn: each process would draw others. Raises UsageError."""
    if drawn := [row for row in rows if row.random_seed]:
        raise UsageError(f"{drawn[0].location}: parts of a batch need the same seeds", "give them: --seed 1")


class SharedManifest(Manifest):
    """The manifest of a folder that several processes fill, each with rows of its own."""

    def __init__(self, path: Path, shard: Shard) -> None:
        """Open a folder, new or begun. Raises RunLocked, OutputError, InputError, OutputExists."""
        self._shard = shard
        self._own: set[str] = set()
        until = time.monotonic() + WAIT_S
        while True:
            try:
                super().__init__(path)
                break
            except RunLocked:  # another process is beginning too
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSE_S)
        self._folder.close()

    def add(self, rows: Iterable[Row], template: str) -> list[Entry]:
        """Return the entries of this part's rows; all rows get their names, the same in every process."""
        with self._held(self.path):
            self.entries = self._read()
            self._taken = {name.casefold() for name in self.entries}
            mine = self._shard.of(super().add(rows, template))
            self._write()
        self._own = {entry.name for entry in mine}
        return mine

    def save(self) -> None:
        """Write what this process knows of its own rows, and keep what others wrote of theirs."""
        with self._held(self.path):
            self.entries = self._read() | {name: self.entries[name] for name in self._own}
            self._write()

    def _read(self) -> dict[str, Entry]:
        return key_by_content(read_manifest(self.path), self.runs)

    @contextlib.contextmanager
    def _held(self, path: Path) -> Iterator[None]:
        try:
            with FileLock(path / ".lock").acquire(timeout=WAIT_S):
                yield
        except Timeout:
            raise RunLocked(f"{path} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(path, error) from error
