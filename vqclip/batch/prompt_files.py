"""Files of rows: a prompt and settings each, from .txt, .csv, .jsonl, .yaml or .toml, with their lines."""

import csv
import io
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, UsageError

MAX_FILE = 50_000_000  # bytes
TABLES = ("rows", "cross", "defaults")


@dataclass(frozen=True)
class Raw:
    """A row as it stands in a file: where, and its values; `fault` is what is wrong with it already."""

    place: str
    values: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class RowFile:
    """What a file holds: rows, and of .yaml and .toml what crosses them all and what they have in common."""

    rows: list[Raw]
    cross: dict[str, list[Any]] = field(default_factory=dict)


class _At(ValueError):
    """What is wrong with a file, and on which line."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.lineno = line


def read_rows(name: str, data: bytes, kind: str) -> RowFile:
    """Read a file's contents; name: what to call it. kind: a key of READERS.

    Raises InputError for what is no such file at all; what is wrong with one row is in that row.
    """
    if kind not in READERS:
        raise InputError(f"{name}: unknown kind of prompt file {kind!r}", f"use {', '.join(READERS)}, or --format")
    if len(data) > MAX_FILE:
        raise InputError(f"{name} is over {MAX_FILE // 10**6} MB", "split it")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: the text is not UTF-8", "save it as UTF-8") from None
    try:
        found = READERS[kind](name, text)
    except (ValueError, RecursionError, csv.Error, yaml.YAMLError) as error:
        mark, reason = getattr(error, "problem_mark", None), " ".join(str(error).split())[:200]
        line = mark.line + 1 if mark else getattr(error, "lineno", 0)
        if at := re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", reason):  # TOML's own words
            line, reason = int(at[1] or text.count("\n") + 1), reason[: at.start()]
        place, reason = f"{name}:{line}" if line else name, getattr(error, "problem", None) or reason
        raise InputError(
            f"{place}: it can't be read as {kind}: {reason}", "mend it, or say what it is: --format"
        ) from None
    if not found.rows:
        raise InputError(f"{name} has no rows", "write a prompt a line")
    return found


def load_rows(path: Path) -> bytes:
    """Return a file's bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} can't be read: {reason}", "give a file of prompts, or - for stdin") from None


def _txt(name: str, text: str) -> RowFile:
    r"""Read a prompt a line; blank lines and those that begin with # are none. `\#` begins a prompt with #."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            rows.append(Raw(f"{name}:{number}", {"prompt": line[1:] if line.startswith(r"\#") else line}))
    return RowFile(rows)


def _csv(name: str, text: str) -> RowFile:
    """Read names of settings in the first line, and values below; an empty field is not given."""
    reader = csv.reader(io.StringIO(text), strict=True)
    begun = 1
    try:
        header = [column.strip() for column in next(reader, [])]
        if "prompt" not in header and "image_prompts" not in header:
            other = [sign for sign in (";", "\t") if sign in "".join(header)]
            raise ValueError("its first line has no column 'prompt'" + ("; columns end in commas" if other else ""))
        if len(set(header)) < len(header):
            raise ValueError("two columns have the same name")
        rows, begun = [], reader.line_num + 1
        records = []
        for cells in reader:
            records.append((begun, cells))
            begun = reader.line_num + 1
    except (ValueError, csv.Error) as error:
        raise _At(str(error), begun) from None
    for begun, cells in records:
        place = f"{name}:{begun}"
        if not any(cell.strip() for cell in cells):
            continue
        fault = f"it has {len(cells)} fields, the first line {len(header)}" if len(cells) > len(header) else ""
        given = {key: cell for key, cell in zip(header, cells, strict=False) if cell.strip()}
        rows.append(Raw(place, given, fault))
    return RowFile(rows)


def _jsonl(name: str, text: str) -> RowFile:
    """Read an object a line, or a string: a prompt."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(f"{name}:{number}", json.loads(line, object_pairs_hook=_once_each)))
        except (ValueError, RecursionError) as error:
            rows.append(Raw(f"{name}:{number}", {}, f"it is no JSON: {error}"))
    return RowFile(rows)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} is given twice")
        found[name] = value
    return found


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases, by which a small file can grow without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, "it has an alias; what rows share goes into 'defaults'", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key.value[:80]!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _yaml(name: str, text: str) -> RowFile:
    """Read a list of rows, or a mapping of `rows`, `cross` and `defaults`."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return RowFile([])
        whole = loader.construct_document(node)
    finally:
        loader.dispose()
    if isinstance(whole, dict):
        node = next((value for key, value in node.value if key.value == "rows"), None)
    lines = [item.start_mark.line + 1 for item in node.value] if isinstance(node, yaml.SequenceNode) else []
    return _tables(name, {"rows": whole} if isinstance(whole, list) else whole, lines)


def _toml(name: str, text: str) -> RowFile:
    """Read `[[rows]]` tables, or `rows = [...]`, and the tables `cross` and `defaults`."""
    heads = [number for number, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*rows\s*\]\]", line)]
    return _tables(name, tomllib.loads(text), heads)


def _tables(name: str, whole: Any, lines: list[int]) -> RowFile:
    if not isinstance(whole, dict) or not isinstance(whole.get("rows"), list):
        raise ValueError("it is no list of rows, and has no 'rows'")
    if unknown := [key for key in whole if key not in TABLES]:
        raise ValueError(f"unknown {str(unknown[0])[:80]!r}; known: {', '.join(TABLES)}")
    defaults, cross = whole.get("defaults") or {}, whole.get("cross") or {}
    if not isinstance(defaults, dict) or not isinstance(cross, dict):
        raise ValueError("'defaults' and 'cross' are tables")
    places = [f"{name}:{line}" for line in lines] if len(lines) == len(whole["rows"]) else []
    rows = [_row(places[k] if places else f"{name}: row {k + 1}", row) for k, row in enumerate(whole["rows"])]
    rows = [Raw(row.place, defaults | row.values, row.fault) for row in rows]
    return RowFile(rows, {str(key): listed(value) for key, value in cross.items()})


def _row(place: str, value: Any) -> Raw:
    if isinstance(value, str):
        return Raw(place, {"prompt": value})
    if not isinstance(value, dict):
        return Raw(place, {}, "it is neither a prompt nor a table of settings")
    return Raw(place, {str(key): item for key, item in value.items() if item is not None})


def listed(value: Any) -> list[Any]:
    """Return a cross's values: of a list its items, of "1-8" the whole numbers, of other text its parts at commas."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    return [item for part in value.split(",") if part.strip() for item in _numbers(part.strip())]


def _numbers(part: str) -> Iterator[Any]:
    match = re.fullmatch(r"(\d{1,18})\s*-\s*(\d{1,18})", part)
    if not match:
        yield part
        return
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + 1_000_000:
        raise UsageError(f"{part!r} is no range", "write the smaller number first, e.g. 1-8")
    yield from range(first, last + 1)


READERS = {
    "csv": _csv,
    "jsonl": _jsonl,
    "toml": _toml,
    "txt": _txt,
    "yaml": _yaml,
    "yml": _yaml,
}
