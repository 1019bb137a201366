"""results.csv and results.jsonl: a line for every row of a batch."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..batch.manifest import Entry
from ..files.atomic import write_atomic

COLUMNS = (
    "index", "name", "prompt", "seed", "status", "steps", "distance", "score", "rank", "kept", "seconds", "source",
    "place", "error",
)  # fmt: skip


def rows_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return what the tables say of each row; `source` counts prompts from 1."""
    more = [{"prompt": entry.settings.prompt, "seed": entry.settings.seed} for entry in entries]
    return [
        {column: (vars(entry) | told | {"source": entry.source + 1})[column] for column in COLUMNS}
        for entry, told in zip(entries, more, strict=True)
    ]


def write_tables(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write both tables into a folder. Raises OutputError."""
    rows = list(rows)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    table.writerows(rows)
    write_atomic(folder / "results.csv", text.getvalue().encode())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(folder / "results.jsonl", lines.encode())
