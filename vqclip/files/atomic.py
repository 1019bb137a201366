"""Files that appear whole or not at all, and what is said where the disk refuses."""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError, OutputExists
from .paths import open_regular

CLAIM_S = 1.0  # in which who makes a file has claimed it
PARTS = "." + "[0-9a-f]" * 16 + ".part"  # what appearing writes before it is whole


def part_beside(path: Path) -> Path:
    """Return a new name for a file that is written beside `path`, to be put in its place when it is whole."""
    return path.parent / f".{secrets.token_hex(8)}.part"


def put_in_place(part: Path, path: Path, *, replace: bool = True) -> None:
    """Flush a file written beside `path` to the disk, and give it that name.

    Once this has ended, a cut of power leaves the new file. Raises OutputError where it can't be written, OutputExists
    where `path` is there already and not to be replaced.
    """
    try:
        with part.open("rb+") as file:
            sync(file.fileno())
        if replace:
            part.replace(path)
        else:
            _publish_new(part, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise OutputExists(f"{path} exists already", "give another name, or --overwrite") from error
    except OSError as error:
        raise refused(path, error) from error


@contextlib.contextmanager
def appearing(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give the name of a file beside `path` to write to; put it in its place at the end.

    What fails, or is killed, leaves `path` as it was. Raises what `put_in_place` raises.
    """
    part = part_beside(path)
    try:
        yield part
        put_in_place(part, path, replace=replace)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise refused(path, error) from error
        raise


def write_atomic(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file whole or not at all: beside it, flushed to disk, then put in its place.

    Raises OutputError where it can't be written, OutputExists where it is there already and not to be replaced.
    """
    with appearing(path, replace=replace) as part, part.open("xb") as file:
        file.write(data)


def claim(path: Path) -> BinaryIO:
    """Make a file that `sweep_unclaimed` leaves alone as long as the handle is open: a killed process holds none."""
    handle = path.open("xb")
    if os.name == "nt":  # where nobody can delete what another has open, as ffmpeg has this, nor move it
        handle.close()
    else:
        _lock(handle)
    return handle


def sweep_unclaimed(folder: Path, pattern: str) -> None:
    """Delete those of a folder's files whose process was killed before it had them in their place."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > CLAIM_S:
                with open_regular(path) as file:
                    if _lock(file):
                        path.unlink()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; return False where another has, or it can't be known."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # on Windows
        return True
    except OSError:
        return False
    return True


def check_here() -> None:
    """Refuse to begin in a folder that is gone, where torch would end the process. Raises OutputError."""
    try:
        Path.cwd()
    except OSError:
        raise OutputError("the folder you are in is not there any more", "change to another (cd)") from None


def check_folder(folder: Path) -> None:
    """Refuse a folder, there or to be made, that can't be written to, before any work is done. Raises OutputError."""
    check_here()
    place = folder
    with writing(folder):
        while not (place.exists() or place.is_symlink()) and place != place.parent:
            place = place.parent
        _probe(place)


def _probe(folder: Path) -> None:
    part = folder / f".{secrets.token_hex(8)}.part"
    part.touch(exist_ok=False)
    part.unlink()


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output file that can't be written, before any work is done; make its folder where that is missing.

    Raises OutputExists, OutputError.
    """
    if str(path).startswith("~"):  # which would be made as a folder of that name
        raise OutputError(f"{path}: there is no such user", "check the spelling")
    with writing(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder", f"give a file name, e.g. {path / 'out'}")
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise OutputExists(f"{path} exists already", "give another name, or --overwrite")
        check_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)


def sync(handle: int) -> None:
    """Flush a file to the disk, where the disk can. Raises OSError."""
    try:
        os.fsync(handle)
    except OSError as error:  # some network disks can't, and say so; the file is written all the same
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def sync_folder(path: Path) -> None:
    """Flush a folder's names to the disk: else a file put in its place may be gone after a cut of power.

    Nothing where the system can't, or the folder may not be read. Raises OSError.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (AttributeError, PermissionError):  # the first on Windows
        return
    try:
        sync(handle)
    finally:
        os.close(handle)


def _publish_new(part: Path, path: Path) -> None:
    """Put a file in a place that must be free: by a hard link, which can't race, where the disk knows them."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # FAT and some network disks have no links
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from None
        part.replace(path)
        return
    part.unlink()


def refused(path: Path, error: OSError) -> OutputError:
    """Say in one line why something could not be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"the disk is full: {path} could not be written", "free some space, or choose another folder"
        )
    return OutputError(f"{path} can't be written: {error.strerror or error}", "choose another folder or name")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one line. Raises OutputError."""
    try:
        yield
    except OSError as error:
        raise refused(path, error) from error


def require_space(folder: Path, count: int, purpose: str) -> None:
    """Refuse to go on where the disk has less than so many bytes free. Raises OutputError."""
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if free < count:
        raise OutputError(
            f"the disk of {folder} has {free / 1e3:,.0f} kB free; {purpose} takes about {count / 1e3:,.0f} kB",
            "free some space, choose another folder (--runs), or make fewer frames",
        )
