"""The ffmpeg program: found, asked what it can do, and run through pipes; no shell, no files of frames.

It is a program of its own, so its licence (the wheel's build is GPL 3) does not touch ours.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, OutputError
from ..files.paths import expand

INSTALL = "pip install imageio-ffmpeg brings one that has everything; or name another: VQCLIP_FFMPEG=FILE"
OTHER = "try another format, or another ffmpeg: VQCLIP_FFMPEG=FILE"
ASK_S = 30  # seconds within which a program must say what it can do
TAKE_S, END_S = 120, 600  # and within which it must take a frame, or give one; and end, when it has all
TICKS = 100  # in which they are counted
FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Facts:
    """What a decoder finds in a video."""

    frames: int  # as stored; formats with delays keep equal frames as one long one
    size: tuple[int, int]  # width, height
    seconds: float


@dataclass(frozen=True)
class Ffmpeg:
    """One ffmpeg, and the encoders and filters it has."""

    path: str
    encoders: frozenset[str]
    filters: frozenset[str]

    def start(self, arguments: Sequence[str], *, stdout: int = subprocess.DEVNULL) -> "Running":
        """Run it with a list of arguments, frames to come through stdin."""
        return Running([self.path, "-hide_banner", "-nostats", "-loglevel", "error", *arguments], stdout)


class Running:
    """An ffmpeg at work: takes bytes, may give bytes, and says what it complained of."""

    def __init__(self, command: list[str], stdout: int) -> None:
        self._late = False
        try:
            self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads could fill
        except OSError as error:
            hint = "free some space there, or name another folder: TMPDIR"
            raise OutputError(f"no temporary file can be written: {error.strerror or error}", hint) from None
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=self._said,
                env=os.environ | {"SVT_LOG": "1"},  # errors alone
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        except OSError as error:
            self._said.close()
            raise InputError(f"{command[0]} does not run: {error.strerror or error}", INSTALL) from None

    def write(self, data: bytes, *, at_leisure: bool = False) -> None:
        """Give it bytes. Raises InputError or OutputError where it has ended.

        at_leisure: wait as long as it takes, where another thread reads what it makes of them, and may be slow.
        """
        try:
            assert self.process.stdin is not None
            with contextlib.nullcontext() if at_leisure else self._within(TAKE_S):
                self.process.stdin.write(data)
        except OSError:  # a broken pipe: it has gone, and its last words say why
            self._slay()
            self.process.wait()
            raise self._failure() from None

    def no_more(self) -> None:
        """Say that all bytes have been given."""
        self._close(self.process.stdin)

    def end(self) -> None:
        """Say that all bytes have been given, and wait. Raises InputError or OutputError where it failed."""
        with self._within(END_S):
            self.no_more()
            self.process.wait()
        self._close(self.process.stdout)
        if self.process.returncode:
            raise self._failure()
        self._said.close()

    def read(self, count: int) -> bytes:
        """Return so many bytes of what it writes; fewer where it has ended, and then `end` says why."""
        assert self.process.stdout is not None
        with self._within(TAKE_S):
            return self.process.stdout.read(count)

    def lines(self) -> Iterator[list[str]]:
        """Yield the words of each line that it writes, of one that is to be given nothing."""
        self.no_more()
        assert self.process.stdout is not None
        while True:
            with self._within(TAKE_S):
                line = self.process.stdout.readline()
            if not line:
                return
            if words := line.decode(errors="replace").split():
                yield words

    def kill(self) -> None:
        """End it at once; nothing, where it has ended."""
        self._slay()
        self._close(self.process.stdin)
        self._close(self.process.stdout)
        self.process.wait()
        self._said.close()

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """End it where what is waited for takes longer: it would never end itself."""
        done = threading.Event()

        def watch() -> None:
            for _ in range(TICKS):  # not one long wait: the time that we are stopped (Ctrl-Z) would count
                if done.wait(seconds / TICKS):
                    return
            self._late = True
            self._slay()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _slay(self) -> None:
        """Kill it and, where it is a script, what it has started: they hold its pipes."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg") and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def _close(self, pipe: IO[bytes] | None) -> None:
        with contextlib.suppress(OSError):  # what it had not yet read is lost, as is known
            if pipe is not None:
                pipe.close()

    def _failure(self) -> InputError | OutputError:
        if self._late:
            return InputError("ffmpeg stood still, and was ended", OTHER)
        self._said.seek(0)
        words = self._said.read()[-20_000:].decode(errors="replace")
        if any(told in words for told in FULL):
            return OutputError("the disk is full: the video could not be written", "free some space")
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        told = lines[0][:300] if lines else f"exit code {self.process.returncode}"
        return InputError(f"ffmpeg failed: {told}", OTHER)


def find_ffmpeg(named: str | Path | None = None) -> Ffmpeg:
    """Return the ffmpeg that is named, or VQCLIP_FFMPEG, or the one of imageio-ffmpeg, or the one on PATH.

    Raises InputError where there is none, or it does not answer as an ffmpeg.
    """
    named = named or os.environ.get("VQCLIP_FFMPEG")
    path = _named(str(named)) if named else _of_the_wheel() or shutil.which("ffmpeg")
    if not path:
        raise InputError("there is no ffmpeg", INSTALL)
    path = os.path.abspath(path)  # noqa: PTH100 - a link stays what it is called
    return Ffmpeg(path, _listed(path, "-encoders"), _listed(path, "-filters"))


def _named(name: str) -> str:
    found = shutil.which(name) if Path(name).name == name else str(expand(name))
    if not found or not Path(found).is_file():
        raise InputError(f"there is no ffmpeg at {name}", INSTALL)
    return found


def _of_the_wheel() -> str | None:
    """Return the program that imageio-ffmpeg brings; its source package, for rare machines, brings none."""
    try:
        import imageio_ffmpeg

        found = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None
    return found if os.sep in found else None  # a bare name is the one on PATH


def _listed(path: str, question: str) -> frozenset[str]:
    """Return the names in `ffmpeg -encoders` or `-filters`: the second column below the legend."""
    try:
        asked: Any = subprocess.run(
            [path, "-hide_banner", question],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, check=True, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{path} does not run as an ffmpeg: {error}", INSTALL) from None
    columns = [line.split() for line in asked.stdout.decode(errors="replace").splitlines()]
    return frozenset(words[1] for words in columns if len(words) > 2 and words[1] != "=")


def read_back(ffmpeg: Ffmpeg, path: Path) -> Facts:
    """Decode a video from its first to its last frame, and count. Raises InputError for one that is damaged."""
    process = ffmpeg.start(
        ["-xerror", "-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:v:0", "-f", "framecrc", "-"],
        stdout=subprocess.PIPE,
    )
    frames, end, base, size = 0, 0, Fraction(0), (0, 0)
    try:
        for words in process.lines():
            if words[:2] == ["#tb", "0:"]:
                base = Fraction(words[2])
            elif words[:2] == ["#dimensions", "0:"]:
                width, height = words[2].split("x")
                size = (int(width), int(height))
            elif not words[0].startswith("#"):
                _, _, stamp, lasts, *_ = (word.rstrip(",") for word in words)
                frames, end = frames + 1, max(end, int(stamp) + int(lasts))
        process.end()
    except BaseException:
        process.kill()
        raise
    return Facts(frames, size, float(end * base))
