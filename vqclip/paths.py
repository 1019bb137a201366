"""Paths as people type them, and the hash of what lies there."""

import hashlib
import os
import stat
from pathlib import Path

from .errors import InputError


def expand(path: str | Path) -> Path:
    """Replace a leading ~. One of an unknown user stays as it is, where Path.expanduser raises.

    A file of that name, "./~", comes out absolute: a Path drops the dot, and would be expanded next time.
    """
    found = Path(os.path.expanduser(path))  # noqa: PTH111
    named = str(found).startswith("~") and not str(path).startswith("~")
    return found.absolute() if named else found


def sha256(path: Path) -> str:
    """Hash a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_regular(path: Path) -> None:
    """Refuse a pipe, on which who reads may wait for ever. Raises OSError, also where there is nothing."""
    if stat.S_ISFIFO(path.stat().st_mode):
        raise OSError("it is a pipe")


def absolute(path: str | Path) -> str:
    """Return a path as settings record it: absolute, so that a run can be made again from elsewhere.

    Raises InputError for what no file can be called, and for a relative one where the current folder is gone.
    """
    try:
        found = str(expand(path).resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL; links that go round in circles
        raise InputError(f"{str(path)[:80]!r} can't be a file: {error}", "check the path") from None
    if any(0xD800 <= ord(c) < 0xE000 for c in found):
        raise InputError(f"the file name {found!r} is not valid text", "rename the file")
    return found
