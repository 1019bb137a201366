"""Paths as people type them, and the hash of what lies there."""

import hashlib
import os
from pathlib import Path

from .errors import InputError


def expand(path: str | Path) -> Path:
    """Replace a leading ~. One of an unknown user stays as it is, where Path.expanduser raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def sha256(path: Path) -> str:
    """Hash a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def absolute(path: str | Path) -> str:
    """Return a path as settings record it: absolute, so that a run can be made again from elsewhere.

    Raises InputError for a name that is not text.
    """
    found = str(expand(path).resolve())
    if any(0xD800 <= ord(c) < 0xE000 for c in found):
        raise InputError(f"the file name {found!r} is not valid text", "rename the file")
    return found
