"""Prompt files: rows of a prompt and settings, from .txt, .csv, .jsonl, .yaml or .toml, each row with its line."""

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..files.reading import YamlList, decode, parse_json, parse_toml, parse_yaml, read_bytes
from ..settings.schema import Settings, meant
from ..text import brief, nearest, split_list

MAX_FILE = 50_000_000  # bytes
MAX_ROWS = 100_000  # of a batch: each takes some kB of memory
MAX_VALUES = 100_000  # of a name that rows are crossed with
SECTIONS = ("rows", "prompts", "cross", "defaults")  # the second another name for the first
SEPARATORS = (",", ";", "\t")
QUOTE = '"\u201c\u201d\u201e'
QUOTED = re.compile(rf"^[{QUOTE}]([^{QUOTE}]*[^{QUOTE}\s][^{QUOTE}]*)[{QUOTE}]$")  # a whole line
# What a line of text may be meant as -> what it is read as.
LOOKS = (
    (r"#[^\W\d_]", r"a comment; a prompt begins with \#"),
    (r"//|\[[\w ]+\]$|![A-Z_]+\s*=", "a prompt; a comment begins with #"),
    (r"[-*\u2022] |\d+[.)] |```", "a prompt, with all of its signs: a file has a prompt a line"),
    (r"(?i)negative prompt:|steps: \d", "a prompt; settings are columns of a .csv, and what is not wanted is text:-1"),
)
PLACEHOLDER = re.compile(r"\{(\w+)\}")
NAMES = (*Settings.model_fields, "preset")
HINT = "correct it, or say what it is: --format"


@dataclass(frozen=True)
class FileRow:
    """A row as it is written: its location ("prompts.csv:3"), its values, and what is wrong with it, if known."""

    location: str
    values: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class PromptFile:
    """The rows of a file, and the values that the file itself crosses them with."""

    rows: list[FileRow]
    cross: dict[str, list[Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # on what in it is read otherwise than it may be meant


def load_rows(path: Path) -> bytes:
    """Return a prompt file's bytes; it may be a pipe. Raises InputError."""
    return read_bytes(path, MAX_FILE, "give a file of prompts, or - for stdin", pipes=True)


def read_rows(name: str, data: bytes, kind: str) -> PromptFile:
    """Return the rows of a prompt file. name: what messages call it; kind: a key of READERS.

    A row that is wrong carries its fault. Raises InputError for a file that is not of its kind.
    """
    if kind not in READERS:
        raise InputError(f"{name}: unknown kind of prompt file {kind!r}", f"use {', '.join(READERS)}, or --format")
    if len(data) > MAX_FILE:
        raise InputError(f"{name} is over {MAX_FILE // 10**6} MB", "split it")
    file = READERS[kind](name, decode(data, name))
    if not file.rows:
        raise InputError(f"{name} has no rows", "write a prompt a line")
    return _fill_in_words(name, file)


def _fill_in_words(name: str, file: PromptFile) -> PromptFile:
    """Return a file whose rows have settings alone; what else they name is filled in where {name} is in their prompts.

    A name that is in no prompt is noted, and left out; one that is almost a setting's stays, to be refused.
    """
    prompts = [str(value) for row in file.rows for key, value in row.values.items() if _setting(key) == "prompt"]
    used = {word for prompt in prompts for word in PLACEHOLDER.findall(prompt)}
    rows, unused = [], set()
    for row in file.rows:
        values = {_setting(key) if _setting(key) in NAMES else key: value for key, value in row.values.items()}
        words = {key: values.pop(key) for key in [*values] if key in used and key not in NAMES}
        unused |= (left := {key for key in values if key not in NAMES and not meant(_setting(key))})
        settings = {key: value for key, value in values.items() if key not in left}
        if words and isinstance(settings.get("prompt"), str):
            settings["prompt"] = fill_in(settings["prompt"], words)
        rows.append(replace(row, values=settings))
    notes = [
        f"{name}: {brief(key)} is no setting, and {{{key[:40]}}} in no prompt"
        + "".join(f": did you mean {word!r}?" for word in nearest(key, used, 1))
        for key in sorted(unused)
    ]
    return replace(file, rows=rows, notes=file.notes + notes)


def fill_in(prompt: str, words: Mapping[str, Any]) -> str:
    """Return a prompt with words in place of their names in braces."""
    return PLACEHOLDER.sub(lambda match: str(words.get(match[1], match[0])), prompt)


def _setting(name: str) -> str:
    """Return a name as settings are written."""
    return re.sub(r"[-\s]+", "_", name.strip().lower())


def _read_txt(name: str, text: str) -> PromptFile:
    r"""Read a prompt a line, without blank lines and those that begin with #; `\#` begins a prompt with #.

    Quotes around a whole line are taken off.
    """
    rows, notes = [], []
    for number, line in enumerate(io.StringIO(text), 1):
        prompt, location = line.strip(), f"{name}:{number}"
        if why := next((why for pattern, why in LOOKS if re.match(pattern, prompt)), ""):
            notes.append(f"{location}: {brief(prompt)} is read as {why}")
        if prompt and not prompt.startswith("#"):
            prompt = prompt[1:] if prompt.startswith(r"\#") else QUOTED.sub(r"\1", prompt)
            rows.append(FileRow(location, {"prompt": prompt}))
            _check_count(name, rows)
    return PromptFile(rows, notes=notes)


def _read_csv(name: str, text: str) -> PromptFile:
    """Read names of settings in the first line, and values below; an empty field is not given.

    Columns end in commas, semicolons or tabs, whichever gives a column of prompts.
    """
    if declared := re.match(r"sep=[^\n]\n", text):  # as Excel declares its separator
        text = "\n" + text[declared.end() :]  # a blank line in its place: the numbers of lines stay
    for separator in SEPARATORS:
        with contextlib.suppress(InputError):
            header = next(_csv_records(name, text, separator), (1, []))[1]
            if {_setting(column) for column in header} & {"prompt", "image_prompts"}:
                break
    else:
        separator = ","
    records = _csv_records(name, text, separator)
    line, header = next(records, (1, []))
    header = [_setting(column) if _setting(column) in NAMES else column.strip() for column in header]
    while header and not header[-1]:  # as spreadsheets leave behind
        header.pop()
    if "prompt" not in header and "image_prompts" not in header:
        hint = f"name the columns there, one of them prompt; or --format txt: a prompt a line. {HINT}"
        raise InputError(f"{name}:{line}: the first line has no column 'prompt'", hint)
    if len(set(header)) < len(header):
        raise InputError(f"{name}:{line}: two columns have the same name", HINT)
    rows: list[FileRow] = []
    for line, cells in records:
        values = {column: cell for column, cell in zip(header, cells, strict=False) if cell.strip()}
        surplus = any(cell.strip() for cell in cells[len(header) :])
        fault = f"it has {len(cells)} fields, the first line {len(header)}" if surplus else ""
        if any(cell.strip() for cell in cells):
            rows.append(FileRow(f"{name}:{line}", values, fault))
            _check_count(name, rows)
    return PromptFile(rows)


def _check_count(name: str, rows: Sequence[Any]) -> None:
    """Raise InputError for more rows than a batch can have, before more is made of them."""
    if len(rows) > MAX_ROWS:
        raise InputError(f"{name} has over {MAX_ROWS:,} rows", "make several batches")


def _csv_records(name: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of CSV that is no blank line, with the line on which it begins. Raises InputError."""
    reader = csv.reader(io.StringIO(text), strict=True, delimiter=separator)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name}:{line} can't be read: {error}", HINT) from None


def _read_jsonl(name: str, text: str) -> PromptFile:
    """Read one object, or one string that is a prompt, per line."""
    rows: list[FileRow] = []
    for number, line in enumerate(io.StringIO(text), 1):
        location = f"{name}:{number}"
        if not line.strip():
            continue
        _check_count(name, rows)
        try:
            rows.append(_file_row(location, parse_json(line, "the JSON", unique=True)))
        except InputError as error:
            rows.append(FileRow(location, {}, error.what))
    return PromptFile(rows)


def _read_json(name: str, text: str) -> PromptFile:
    """Read a list of rows, or an object of `rows`, `cross` and `defaults`."""
    return _read_sections(name, parse_json(text, name, HINT, unique=True))


def _read_yaml(name: str, text: str) -> PromptFile:
    """Read a list of rows, or a mapping of `rows`, `cross` and `defaults`."""
    content = parse_yaml(text, name, HINT, unique=True)
    if content is None:
        return PromptFile([])
    return _read_sections(name, content)


def _read_toml(name: str, text: str) -> PromptFile:
    """Read `[[rows]]` tables, or `rows = [...]`, and the tables `cross` and `defaults`."""
    heads = [number for number, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*rows\s*\]\]", line)]
    return _read_sections(name, parse_toml(text, name, HINT), heads)


def _read_sections(name: str, content: Any, lines: list[int] | None = None) -> PromptFile:
    """Return the rows of a parsed file, the file's defaults under each; lines: where rows begin, if that is known.

    The content may also be the list of rows, or be the only row.
    """
    if isinstance(content, list) or (isinstance(content, dict) and isinstance(content.get("prompt"), str)):
        content = {"rows": content if isinstance(content, list) else [content]}
    items = content.get("rows", content.get("prompts")) if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise InputError(f"{name} is no list of rows, and has no 'rows'", HINT)
    _check_count(name, items)
    if unknown := [key for key in content if key not in SECTIONS]:
        raise InputError(f"{name}: unknown {str(unknown[0])[:80]!r}; known: {', '.join(SECTIONS)}", HINT)
    defaults = content.get("defaults") or {}
    cross = content.get("cross") or {}
    if not isinstance(defaults, dict) or not isinstance(cross, dict):
        raise InputError(f"{name}: 'defaults' and 'cross' are tables", HINT)
    lines = list(items.lines) if isinstance(items, YamlList) else lines or []
    if len(lines) == len(items):
        locations = [f"{name}:{line}" for line in lines]
    else:
        locations = [f"{name}: row {number}" for number in range(1, len(items) + 1)]
    rows = [_file_row(location, item) for location, item in zip(locations, items, strict=True)]
    rows = [replace(row, values=defaults | row.values) for row in rows]
    try:
        return PromptFile(rows, {key: split_values(value) for key, value in cross.items()})
    except UsageError as error:
        raise InputError(f"{name}: cross: {error.what}", error.hint) from None


def _file_row(location: str, value: Any) -> FileRow:
    if isinstance(value, str):
        return FileRow(location, {"prompt": value})
    if not isinstance(value, dict):
        return FileRow(location, {}, "it is neither a prompt nor a table of settings")
    return FileRow(location, {str(key): item for key, item in value.items() if item is not None})


def split_values(value: Any) -> list[Any]:
    """Return the values to cross with: a list's items, the numbers of "1-8", the parts of other text at commas.

    Raises UsageError for more than MAX_VALUES, before they are made.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    parts = [_number_range(part) for part in map(str.strip, split_list(value)) if part]
    if (count := sum(map(len, parts))) > MAX_VALUES:
        raise UsageError(f"{value[:40]!r} makes {count:,} values, more than {MAX_VALUES:,}", "give fewer")
    return [item for part in parts for item in part]


def _number_range(part: str) -> Sequence[Any]:
    """Return the whole numbers of a range such as "1-8", else the part itself. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,18})\s*-\s*(\d{1,18})", part)
    if not match:
        return [part]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise UsageError(f"{part!r} is no range", "write the smaller number first, e.g. 1-8")
    if last - first >= MAX_VALUES:
        raise UsageError(f"{part!r} makes over {MAX_VALUES:,} values", "give fewer")
    return range(first, last + 1)


READERS: dict[str, Callable[[str, str], PromptFile]] = {
    "csv": _read_csv,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "toml": _read_toml,
    "tsv": _read_csv,
    "txt": _read_txt,
    "yaml": _read_yaml,
    "yml": _read_yaml,
}
