"""The one door for files from outside: regular, of limited size, decoded and parsed; every fault is an InputError."""

import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import InputError
from ..text import fault_of
from .paths import open_regular

MAX_DIGITS = 400  # of a number: Python needs quadratic time for longer ones
MAX_DEPTH = 64  # lists and tables in each other: what comes after the parser calls itself for each
SMALL = 1_000_000  # bytes
MAX_TOML = 1_000_000  # characters; its parser takes ten seconds for them
MAX_PARTS = 2_000_000  # lists and tables of JSON: each takes up to 232 bytes
# The longer mark first: that of UTF-32 begins as that of UTF-16.
BOMS = (
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip

# A dotted name of TOML, outside or inside of strings, where so many words in a row with dots are no prose.
DOTTED = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")

Model = TypeVar("Model", bound=BaseModel)


class LineError(ValueError):
    """What is wrong with a text, and on which line."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


class YamlList(list[Any]):
    """A list that was read from YAML, with the line on which each item begins."""

    lines: tuple[int, ...] = ()


def read_bytes(path: Path, limit: int, hint: str = "check the path", *, pipes: bool = False) -> bytes:
    """Return the contents of a regular file, or with `pipes` of a pipe, of at most `limit` bytes. Raises InputError."""
    try:
        with open_regular(path, pipes=pipes) as file:
            size = max(path.stat().st_size, SMALL)  # of a pipe, and of some files of the system, it is 0
            data = file.read((limit if pipes else min(limit, size)) + 1)  # which makes room for so much
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"{path} can't be read: {reason}", hint) from None
    if len(data) > limit:
        raise InputError(f"{path} can't be read: it is over {limit:,} bytes", hint)
    return data


def decode(data: bytes, name: str) -> str:
    """Return text by its byte order mark, else as UTF-8, with line ends as newlines.

    name: what messages call the source. Raises InputError with the line of what is no text.
    """
    encoding = next((encoding for mark, encoding in BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line, kind = data[: error.start].count(b"\n") + 1, encoding.removesuffix("-sig").upper()
        raise InputError(f"{name}:{line}: the text is not {kind}", "save it as UTF-8") from None
    if "\0" in text:  # UTF-16 without a mark has one for each Latin letter
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{name}:{line}: NUL is no text: is it UTF-16 without a mark?", "save it as UTF-8")
    return text


def parse_json(text: str, name: str, hint: str = "", *, unique: bool = False) -> Any:
    """Return what JSON text says; NaN and infinities are refused, and with `unique` a name that is given twice.

    Raises InputError, also for what is nested deeper than MAX_DEPTH.
    """

    def parse() -> Any:
        pairs, parts = _unique if unique else None, text.count("[") + text.count("{")
        if parts > MAX_PARTS:
            raise ValueError(f"it has over {MAX_PARTS:,} lists and tables")
        value = json.loads(
            text, parse_int=_integer, parse_float=_finite, parse_constant=_finite, object_pairs_hook=pairs
        )
        if parts > MAX_DEPTH:
            _check_extent(value)
        return value

    return _parsed(parse, name, hint)


def parse_toml(text: str, name: str, hint: str = "") -> dict[str, Any]:
    """Return what TOML text says. Raises InputError, also for what is long or deep: its parser's time is quadratic."""

    def parse() -> Any:
        if len(text) > MAX_TOML:
            raise ValueError(f"it is over {MAX_TOML:,} characters; JSON may have more")
        if dots := DOTTED.search(text):
            raise LineError("a name has over 64 parts", text.count("\n", 0, dots.start()) + 1)
        try:
            value = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            what, _, line = str(error).rstrip(")").partition(" (at line ")
            raise (LineError(what, int(line.split(",")[0])) if line else error) from None
        _check_extent(value)
        return value

    return _parsed(parse, name, hint)


def parse_yaml(text: str, name: str, hint: str = "", *, unique: bool = False) -> Any:
    """Return what YAML text says: plain values only, lists as YamlList; with `unique` no name may be given twice.

    Aliases, which can grow without bound, are refused. Raises InputError.
    """
    from .plain_yaml import load_yaml  # PyYAML is not loaded for commands that read none

    return _parsed(lambda: load_yaml(text, unique=unique), name, hint)


def read_json(path: Path, limit: int, hint: str = "check the path") -> Any:
    """Return what a JSON file of at most `limit` bytes says. Raises InputError."""
    return parse_json(decode(read_bytes(path, limit, hint), str(path)), str(path), hint)


def read_toml(path: Path, limit: int, hint: str = "check the path") -> dict[str, Any]:
    """Return what a TOML file of at most `limit` bytes says. Raises InputError."""
    return parse_toml(decode(read_bytes(path, limit, hint), str(path)), str(path), hint)


def read_record(path: Path, model: type[Model], limit: int, hint: str = "it must be as vqclip wrote it") -> Model:
    """Return one of vqclip's own JSON files as its pydantic model. Raises InputError."""
    return validate(model, read_json(path, limit, hint), str(path), hint)


def validate(model: type[Model], data: Any, name: str, hint: str = "it must be as vqclip wrote it") -> Model:
    """Return `data` as a pydantic model; an error names the first field that is wrong. Raises InputError."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))[:80]
        what = f"{field}: {fault_of(first)}" if field else fault_of(first)
        raise InputError(f"{name} can't be read: {what}", hint) from None


def _parsed(parse: Callable[[], Any], name: str, hint: str) -> Any:
    try:
        return parse()
    except (ValueError, RecursionError) as error:
        line = f":{error.line}" if isinstance(error, LineError) else ""
        deep = isinstance(error, RecursionError)
        reason = f"it is nested over {MAX_DEPTH} deep" if deep else " ".join(str(error).split())[:200]
        raise InputError(f"{name}{line} can't be read: {reason}", hint) from None


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has over {MAX_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not a number")
    return number


def _check_extent(value: Any) -> None:
    """Raise ValueError for lists and tables in each other, deeper than MAX_DEPTH, and for numbers that are too long."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(item, int) and item.bit_length() > 4 * MAX_DIGITS for item in level):
            raise ValueError(f"a number has over {MAX_DIGITS} digits")
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    raise ValueError(f"it is nested over {MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice")
    return values
