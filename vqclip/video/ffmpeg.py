"""The ffmpeg program: find it, ask what it can do, and run it through pipes, without a shell or files of frames.

It is a program of its own, so its licence (the wheel's build is GPL 3) does not touch ours.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

from ..errors import InputError, OutOfMemory, OutputError, VqclipError, speaks_of_memory
from ..files.paths import expand

INSTALL = "pip install imageio-ffmpeg brings one that has everything; or name another: VQCLIP_FFMPEG=FILE"
OTHER = "try another format, or another ffmpeg: VQCLIP_FFMPEG=FILE"
LIST_S = 30  # seconds in which ffmpeg must list its encoders or filters
FRAME_S = 120  # seconds in which it must take a frame, or give one
FINISH_S = 600  # seconds in which it must end after the last frame
TICKS = 100  # a time limit is waited for in so many parts
NEEDED = 1_000_000_000  # bytes of address space; measured: 700 MB for the smallest video
MORE_MEMORY = "let this process have more (ulimit -v), or make the images smaller"
DISK_FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a file found: its first video track, and the codec of its sound."""

    frames: int  # as stored: formats with delays store equal frames as one
    size: tuple[int, int]  # width, height
    seconds: float
    time_base: Fraction = Fraction(0)  # seconds in which the file counts time
    sound: str = ""


@dataclass(frozen=True)
class Ffmpeg:
    """One ffmpeg, and the encoders and filters it has."""

    path: str
    encoders: frozenset[str]
    filters: frozenset[str]

    def start(self, arguments: Sequence[str], *, stdout: int = subprocess.DEVNULL) -> "FfmpegProcess":
        """Start it with a list of arguments; its input comes through `FfmpegProcess.write`."""
        return FfmpegProcess([self.path, "-hide_banner", "-nostats", "-loglevel", "error", *arguments], stdout)


class FfmpegProcess:
    """A running ffmpeg: bytes go in and may come out; its complaints are kept for the error that is raised."""

    def __init__(self, command: list[str], stdout: int) -> None:
        self._timed_out = False
        try:
            self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that is not read could fill up
        except OSError as error:
            hint = "free some space there, or name another folder: TMPDIR"
            raise OutputError(f"no temporary file can be written: {error.strerror or error}", hint) from None
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=self._stderr,
                env=os.environ | {"SVT_LOG": "1"},  # errors alone
                start_new_session=True,  # Ctrl-C goes to vqclip alone, which then ends ffmpeg
            )
        except OSError as error:
            self._stderr.close()
            if error.errno == errno.ENOMEM:
                raise OutOfMemory("ffmpeg has too little memory", MORE_MEMORY) from None
            raise InputError(f"{command[0]} does not run: {error.strerror or error}", INSTALL) from None

    def write(self, data: bytes, *, limited: bool = True) -> None:
        """Give it bytes. Raises InputError or OutputError if it has ended.

        limited: end it if it does not take them in FRAME_S. Without, it may wait as long as the reader of its output.
        """
        assert self.process.stdin is not None
        try:
            with self._time_limit(FRAME_S) if limited else contextlib.nullcontext():
                self.process.stdin.write(data)
        except OSError:  # a broken pipe: ffmpeg has ended, and its messages say why
            self._kill_group()
            self.process.wait()
            raise self._failure() from None

    def close_input(self) -> None:
        """Say that all bytes have been given."""
        _close(self.process.stdin)

    def finish(self) -> None:
        """Say that all bytes have been given, and wait for the end. Raises InputError or OutputError if it failed."""
        with self._time_limit(FINISH_S):
            self.close_input()
            self.process.wait()
        _close(self.process.stdout)
        if self.process.returncode:
            raise self._failure()
        self._stderr.close()

    def read(self, count: int) -> bytes:
        """Return so many bytes of its output; fewer if it has ended, and then `finish` says why."""
        assert self.process.stdout is not None
        with self._time_limit(FRAME_S):
            return self.process.stdout.read(count)

    def read_lines(self) -> Iterator[list[str]]:
        """Yield the words of each line of its output; it gets no further input."""
        assert self.process.stdout is not None
        self.close_input()
        while True:
            with self._time_limit(FRAME_S):
                line = self.process.stdout.readline()
            if not line:
                return
            if words := line.decode(errors="replace").split():
                yield words

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._kill_group()
        _close(self.process.stdin)
        _close(self.process.stdout)
        self.process.wait()
        self._stderr.close()

    @contextlib.contextmanager
    def _time_limit(self, seconds: float) -> Iterator[None]:
        """Kill ffmpeg if the body of the context takes longer, since it might wait for ever."""
        done = threading.Event()

        def watch() -> None:
            for _ in range(TICKS):  # not one long wait: the time in which vqclip is stopped (Ctrl-Z) would count
                if done.wait(seconds / TICKS):
                    return
            self._timed_out = True
            self._kill_group()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _kill_group(self) -> None:
        """Kill it and, if it is a script, the programs that it has started: they hold its pipes."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg") and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def _failure(self) -> VqclipError:
        """Return the error that says why it ended."""
        if self._timed_out:
            return InputError("ffmpeg stood still, and was ended", OTHER)
        self._stderr.seek(0)
        complaint = self._stderr.read()[-20_000:].decode(errors="replace")
        if any(text in complaint for text in DISK_FULL):
            return OutputError("the disk is full: the video could not be written", "free some space")
        if speaks_of_memory(complaint) or _is_confined():
            return OutOfMemory("ffmpeg has too little memory", MORE_MEMORY)
        lines = [line.strip() for line in complaint.splitlines() if line.strip()]
        reason = lines[0][:300] if lines else f"exit code {self.process.returncode}"
        return InputError(f"ffmpeg failed: {reason}", OTHER)


def _is_confined() -> bool:
    """Say whether a shell leaves so little address space that whatever ffmpeg says is for want of it."""
    try:
        import resource
    except ImportError:  # on Windows
        return False
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit != resource.RLIM_INFINITY and limit < NEEDED


def _close(pipe: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError):  # a broken pipe: what was not yet read is lost, and an error is on its way
        if pipe is not None:
            pipe.close()


def find_ffmpeg(name: str | Path | None = None) -> Ffmpeg:
    """Return the ffmpeg that is named, or VQCLIP_FFMPEG, or the one of imageio-ffmpeg, or the one on PATH.

    Raises InputError if there is none, or it does not answer as an ffmpeg.
    """
    name = str(name or os.environ.get("VQCLIP_FFMPEG") or "")
    if name:  # a bare name is looked for on PATH
        path = shutil.which(name) if Path(name).name == name else str(expand(name))
    else:
        path = _bundled_ffmpeg() or shutil.which("ffmpeg")
    if not path or not Path(path).is_file():
        raise InputError(f"there is no ffmpeg at {name}" if name else "there is no ffmpeg", INSTALL)
    path = os.path.abspath(path)  # noqa: PTH100 - a link stays what it is called
    return Ffmpeg(path, _list_names(path, "-encoders"), _list_names(path, "-filters"))


def _bundled_ffmpeg() -> str | None:
    """Return the program that imageio-ffmpeg brings; its source package, for rare machines, brings none."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    try:
        return shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:  # it has none, or one that did not run just now: who runs it hears why
        brought = Path(imageio_ffmpeg.__file__).parent.glob("binaries/ffmpeg-*")
        return next((str(path) for path in brought if os.access(path, os.X_OK)), None)


def _list_names(path: str, option: str) -> frozenset[str]:
    """Return the names that `ffmpeg -encoders` or `-filters` lists: the second column below the legend."""
    command = [path, "-hide_banner", option]
    try:
        listing = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIST_S, check=True, start_new_session=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        complaint = getattr(error, "stderr", None) or b""
        short = getattr(error, "errno", 0) == errno.ENOMEM or speaks_of_memory(complaint.decode(errors="replace"))
        if short or _is_confined():
            raise OutOfMemory("ffmpeg has too little memory", MORE_MEMORY) from None
        raise InputError(f"{path} does not run as an ffmpeg: {error}", INSTALL) from None
    rows = [line.split() for line in listing.decode(errors="replace").splitlines()]
    return frozenset(row[1] for row in rows if len(row) > 2 and row[1] != "=")


def decode(ffmpeg: Ffmpeg, arguments: Sequence[str], on_frame: Callable[[int, int], None] | None = None) -> VideoInfo:
    """Decode a file from its first to its last frame, and count.

    arguments: ffmpeg's options for the input and the tracks, video before sound. on_frame is called with the frames so
    far, and 0. Raises InputError for a file that is damaged.
    """
    headers: dict[tuple[str, str], str] = {}  # (name, track) -> value
    frames, end = 0, 0
    process = ffmpeg.start(["-xerror", *arguments, "-f", "framecrc", "-"], stdout=subprocess.PIPE)
    try:
        for first, *rest in process.read_lines():
            if first.startswith("#") and len(rest) > 1:
                headers[first, rest[0]] = rest[1]
            elif first == "0,":  # a frame: track, decoding time, presentation time, duration, size, checksum
                start, duration = (int(word.rstrip(",")) for word in rest[1:3])
                frames, end = frames + 1, max(end, start + duration)
                if on_frame:
                    on_frame(frames, 0)
        process.finish()
    finally:
        process.kill()
    time_base = Fraction(headers.get(("#tb", "0:"), "0"))
    width, height = headers.get(("#dimensions", "0:"), "0x0").split("x")
    sound = headers.get(("#codec_id", "1:"), "")
    return VideoInfo(frames, (int(width), int(height)), float(end * time_base), time_base, sound)
