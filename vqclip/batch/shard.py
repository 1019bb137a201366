"""A part of a batch's rows, for several processes or machines that share its folder.

All seeds of a prompt are in one part. Each process updates its own rows in batch.json, and holds the folder only while
it does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError
from .manifest import Entry, Manifest, key_by_content, read_manifest
from .rows import Row

MOST = 100_000
Numbered = TypeVar("Numbered", Entry, Row, Entry | Row)  # what knows the number of its prompt
SLURM = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX", "STEP")]


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str]) -> "Shard":
        """Read "2/8"; "slurm" is the task of a Slurm array. Raises UsageError."""
        if text.strip().lower() == "slurm":
            number, count = _number_in_array(environ)
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


def _number_in_array(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return which task of a Slurm array this is, from 1, and of how many. Raises UsageError."""
    values = [environ.get(name, "") for name in SLURM]
    if not all(value.isdecimal() for value in values):
        raise UsageError(f"there is no Slurm array here: {', '.join(SLURM)} are not set", "write it: 2/8")
    task, count, first, last, step = map(int, values)
    if not step or (last - first) // step + 1 != count:
        what = f"shard: the Slurm array has {count} tasks from {first} to {last}, with gaps"
        raise UsageError(what, f"number them without: --array=0-{count - 1}; or write which of how many: 2/8")
    return (task - first) // step + 1, count


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
        super().__init__(path, f"{shard.number}-of-{shard.count}")

    def add(self, rows: Iterable[Row], template: str) -> list[Entry]:
        """Return the entries of this part's rows; all rows get their names, the same in every process."""
        with self._folder.held():
            self.entries = self._read()
            self._taken = {name.casefold() for name in self.entries}
            mine = self._shard.of(super().add(rows, template))
            super().save()
        self._own = {entry.name for entry in mine}
        return mine

    def save(self) -> None:
        """Write what this process knows of its own rows, and keep what others wrote of theirs."""
        with self._folder.held():
            self.entries = self._read() | {name: self.entries[name] for name in self._own}
            super().save()

    def _read(self) -> dict[str, Entry]:
        return key_by_content(read_manifest(self.path), self.runs)
