"""A folder that one process at a time writes to."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from ..errors import OutputError, RunLocked
from .atomic import PARTS, refused, sync_folder


class LockedFolder:
    """A folder held by a lock file in it; what a killed process left half-written there is swept.

    The lock is on the folder that was opened, and files are written by name: `check` before each write refuses a
    folder that has been moved away, or replaced, since.
    """

    def __init__(self, path: Path, *inner: str) -> None:
        """Hold a folder that exists; folders `inner` are made in it and watched too. Raises RunLocked, OutputError."""
        self.path = path
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunLocked(f"{path} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(path, error) from error
        try:
            for name in inner:
                (path / name).mkdir(exist_ok=True)
            self.sweep(*inner)
            self._identities = {folder: _identity(folder) for folder in (path, *(path / name for name in inner))}
        except OSError as error:
            self.close()
            raise refused(path, error) from error

    @classmethod
    def create(cls, parent: Path, name: str, *inner: str) -> Self:
        """Make and hold `parent/name`, or `name-2`, `name-3`, ... where that exists. Raises OutputError."""
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in numbered(name):
                path = parent / attempt
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    break
            folder = cls(path, *inner)
            sync_folder(path)
            sync_folder(parent)
        except OSError as error:
            raise refused(parent, error) from error
        return folder

    def sweep(self, *inner: str) -> None:
        """Delete the half-written files of a killed process, here and in the folders `inner`. Raises OSError."""
        for folder in (self.path, *(self.path / name for name in inner)):
            for part in folder.glob(PARTS):
                part.unlink(missing_ok=True)

    def check(self) -> None:
        """Refuse to write where the folder is not the one that was opened any more. Raises OutputError."""
        try:
            changed = [folder for folder, identity in self._identities.items() if _identity(folder) != identity]
        except OSError:
            changed = [self.path]
        if changed:
            raise OutputError(f"{changed[0]} is gone, or another folder by now", "leave the folder until vqclip ends")

    def close(self) -> None:
        """Let the folder go."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name-2`, `name-3`, ..., to take the first that is free."""
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _identity(folder: Path) -> tuple[int, int]:
    """Return device and inode, which tell a folder from another of the same name; of a link its own."""
    found = folder.lstat()
    return found.st_dev, found.st_ino
