"""Paths as people type them, and the hash of what lies there."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import InputError

CHUNK = 2**20  # bytes between two words about progress
Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)


def expand(path: str | Path) -> Path:
    """Replace a leading ~. One of an unknown user stays as it is, where Path.expanduser raises.

    A file of that name, "./~", comes out absolute: a Path drops the dot, and would be expanded next time.
    """
    found = Path(os.path.expanduser(path))  # noqa: PTH111
    named = str(found).startswith("~") and not str(path).startswith("~")
    return found.absolute() if named else found


def sha256(path: Path, progress: Progress | None = None) -> str:
    """Hash a file. Raises OSError."""
    digest = hashlib.sha256()
    for chunk in _chunks(path, progress):
        digest.update(chunk)
    return digest.hexdigest()


def copy(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy a file's bytes. Raises OSError."""
    with target.open("wb") as file:
        for chunk in _chunks(source, progress):
            file.write(chunk)


def _chunks(path: Path, progress: Progress | None) -> Iterator[memoryview]:
    done, whole, room = 0, path.stat().st_size, memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(room):
            yield room[:count]
            done += count
            if progress:
                progress(done, whole)


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
