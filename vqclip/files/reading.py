"""The one door for files from outside: regular, of limited size, decoded and parsed; every fault is an InputError."""

import json
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import InputError

MAX_DIGITS = 400  # of a number in JSON: Python needs quadratic time for longer ones
BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

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
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise OSError("it is a folder, not a file")
        if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
            raise OSError("it is not a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
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
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: the text is not UTF-8", "save it as UTF-8") from None


def parse_json(text: str, name: str, hint: str = "", *, unique: bool = False) -> Any:
    """Return what JSON text says; NaN and infinities are refused, and with `unique` a name that is given twice.

    Raises InputError.
    """
    pairs = _unique if unique else None
    return _parsed(
        lambda: json.loads(text, parse_int=_integer, parse_constant=_no_constant, object_pairs_hook=pairs), name, hint
    )


def parse_toml(text: str, name: str, hint: str = "") -> dict[str, Any]:
    """Return what TOML text says. Raises InputError."""
    return _parsed(lambda: tomllib.loads(text), name, hint)


def parse_yaml(text: str, name: str, hint: str = "", *, unique: bool = False) -> Any:
    """Return what YAML text says: plain values only, lists as YamlList; with `unique` no name may be given twice.

    Aliases, which can grow without bound, are refused. Raises InputError.
    """
    from .plain_yaml import load_yaml  # PyYAML is not loaded for commands that read none

    return _parsed(lambda: load_yaml(text, unique=unique), name, hint)


def read_json(path: Path, limit: int, hint: str = "check the path") -> Any:
    """Return what a JSON file of at most `limit` bytes says. Raises InputError."""
    return parse_json(decode(read_bytes(path, limit, hint), str(path)), str(path), hint)


def read_record(path: Path, model: type[Model], limit: int, hint: str = "it must be as vqclip wrote it") -> Model:
    """Return one of vqclip's own JSON files as its pydantic model. Raises InputError."""
    return validate(model, read_json(path, limit, hint), str(path), hint)


def validate(model: type[Model], data: Any, name: str, hint: str = "it must be as vqclip wrote it") -> Model:
    """Return `data` as a pydantic model; an error names the first field that is wrong. Raises InputError."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:80]
        what = f"{field}: {first['msg']}" if field else first["msg"]
        raise InputError(f"{name} can't be read: {what}", hint) from None


def _parsed(parse: Callable[[], Any], name: str, hint: str) -> Any:
    try:
        return parse()
    except (ValueError, RecursionError) as error:
        line = f":{error.line}" if isinstance(error, LineError) else ""
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}{line} can't be read: {reason}", hint) from None


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has over {MAX_DIGITS} digits")
    return int(text)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice")
    return values
