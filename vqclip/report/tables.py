"""results.csv and results.jsonl: a line for every row of a batch."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..batch.manifest import Entry
from ..files.atomic import write_atomic

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def table_row(entry: Entry) -> dict[str, Any]:
    """Return what the tables say of a row; `source` counts prompts from 1."""
    return {
        "index": entry.index,
        "name": entry.name,
        "prompt": entry.settings.prompt,
        "seed": entry.settings.seed,
        "status": entry.status,
        "steps": entry.steps,
        "distance": entry.distance,
        "score": entry.score,
        "rank": entry.rank,
        "kept": entry.kept,
        "seconds": entry.seconds,
        "source": entry.source + 1,
        "place": entry.location,
        "error": entry.error,
    }


def _inert(value: Any) -> Any:
    """Return a cell of CSV that no spreadsheet runs: a text that would begin a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def write_tables(folder: Path, entries: Iterable[Entry]) -> None:
    """Write both tables into a folder. Raises OutputError."""
    rows = [table_row(entry) for entry in entries]
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, rows[0] if rows else ())
    table.writeheader()
    table.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    write_atomic(folder / "results.csv", text.getvalue().encode())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(folder / "results.jsonl", lines.encode())
