"""Paths as people type them, and the hash of what lies there."""

import errno
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

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


def sha256_once(path: Path) -> str:
    """Hash a file, once in a process as long as it stays the same by its inode, size and time. Raises OSError."""
    stat = path.stat()
    return _hash_again(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=1024)  # a batch's rows may all name one image
def _hash_again(path: Path, identity: tuple[int, ...]) -> str:
    return sha256(path)


def copy(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy a file's bytes. Raises OSError."""
    with target.open("wb") as file:
        for chunk in _chunks(source, progress):
            file.write(chunk)


def _chunks(path: Path, progress: Progress | None) -> Iterator[memoryview]:
    done, whole, room = 0, path.stat().st_size, memoryview(bytearray(CHUNK))
    with open_regular(path) as file:
        while count := file.readinto(room):  # type: ignore[attr-defined]
            yield room[:count]
            done += count
            if progress:
                progress(done, whole)


def check_regular(path: Path, *, pipes: bool = False) -> None:
    """Refuse what is no regular file, nor with `pipes` a pipe: who reads a device may read for ever. Raises OSError."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
        raise OSError("it is not a regular file")


def open_regular(path: Path, *, pipes: bool = False) -> BinaryIO:
    """Open a regular file to be read, without ever waiting for it. Raises OSError, ValueError for an impossible name.

    pipes: a pipe is opened too; who reads that waits for what is written to it.
    """
    check_regular(path, pipes=pipes)
    return open(path, "rb", opener=None if pipes else _without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file so that a pipe, which may have taken its place by now, is empty instead of waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_within(folder: Path, path: Path) -> bool:
    """Say whether a file below a folder is really there, and no link leads out of it."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links that go round in circles
        return False


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
