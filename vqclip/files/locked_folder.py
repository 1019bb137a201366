"""A folder that one process at a time writes to, or several that know of each other."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from ..errors import OutputError, RunLocked
from .atomic import PARTS, refused, sync_folder, writing

WAIT_S = 60.0  # for those who share a folder: each holds it for a moment at a time


class LockedFolder:
    """A folder held by a lock file in it; what a killed process left half-written there is swept.

    The lock is on the folder that was opened, and files are written by name: `check` before each write refuses a
    folder that has been moved away, or replaced, since.
    """

    def __init__(self, path: Path, *inner: str, member: str = "") -> None:
        """Hold a folder that exists; folders `inner` are made in it and watched too.

        member: share it with others, each under a name of its own, and hold it whole only within `held`. While others
        are there nothing is swept. Raises RunLocked, OutputError.
        """
        self.path = path
        self._lock = FileLock(path / ".lock")
        self._member = FileLock(path / f".lock-{member}") if member else None
        with self._refusals():
            self._lock.acquire(timeout=WAIT_S if member else 0)
            try:
                alone = not any(map(_is_locked, path.glob(".lock-*")))
                if self._member:
                    self._member.acquire(timeout=0)
                elif not alone:
                    raise Timeout(str(path))
                for name in inner:
                    (path / name).mkdir(exist_ok=True)
                if alone:
                    self.sweep(*inner)
                self._identities = {folder: _identity(folder) for folder in (path, *(path / name for name in inner))}
            except (OSError, Timeout):
                self.close()
                raise
            if member:
                self._lock.release()

    @classmethod
    def create(cls, parent: Path, name: str, *inner: str) -> Self:
        """Make and hold `parent/name`, or `name-2`, `name-3`, ... where that exists. Raises OutputError."""
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
            for attempt in numbered(name):
                path = parent / attempt
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    break
            folder = cls(path, *inner)
            sync_folder(path)
            sync_folder(parent)
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

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold a folder whole that is shared. Raises RunLocked, OutputError."""
        with self._refusals():
            self._lock.acquire(timeout=WAIT_S)
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Timeout:
            raise RunLocked(f"{self.path} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(self.path, error) from error

    def close(self) -> None:
        """Let the folder go."""
        self._lock.release()
        if self._member:
            self._member.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def numbered(name: str) -> Iterator[str]:
    """Yield `name`, `name-2`, `name-3`, ..., to take the first that is free."""
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _is_locked(path: Path) -> bool:
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False


def _identity(folder: Path) -> tuple[int, int]:
    """Return device and inode, which tell a folder from another of the same name; of a link its own."""
    found = folder.lstat()
    return found.st_dev, found.st_ino
