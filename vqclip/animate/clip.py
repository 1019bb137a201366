"""A clip that is restyled: what it is, read by decoding it once, and its frames, one at a time through a pipe."""

import math
import re
import subprocess
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, UsageError, VqclipError
from ..video.ffmpeg import Ffmpeg, decode
from ..video.timing import MAX_FPS, MAX_S

# A playlist or a text could make ffmpeg read other files, or draw letters.
CONTAINERS = "mov,matroska,webm,avi,gif,apng,mpeg,mpegts,ogg,flv,asf,ivf,nut,yuv4mpegpipe,webp_pipe,webp_anim"
HINT = "give a video file: mp4, mov, mkv, webm, avi, gif, ..."
SQUARE = "scale=round(iw*sar):ih,setsar=1"  # pixels that are not, as of DVDs; others go through as they are


@dataclass(frozen=True)
class Footage:
    """A clip's picture and sound, as far as they are wanted. Equal clips and wishes give equal frames."""

    path: Path
    frames: int
    size: tuple[int, int]  # width, height, as it is shown
    fps: Fraction  # constant: where the clip's is not, frames are repeated or left out
    sound: str = ""  # codec of the first sound track
    wish: Fraction | None = None  # frames a second that were asked for
    length: float | None = None  # seconds that were asked for

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Footage":
        """Read what `told` says. Raises KeyError, TypeError, ValueError or ArithmeticError."""
        width, height = map(int, told["size"])
        fps, wish, length = Fraction(told["fps"]), told["wish"], told["length"]
        if not (0 < fps <= MAX_FPS and int(told["frames"]) >= 2 and Path(told["path"]).is_absolute()):
            raise ValueError("footage out of range")
        return cls(
            Path(told["path"]), int(told["frames"]), (width, height), fps, str(told["sound"]),
            Fraction(wish) if wish else None, float(length) if length else None,
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        plain = {"path": str(self.path), "fps": str(self.fps), "wish": str(self.wish) if self.wish else None}
        return asdict(self) | plain

    @property
    def seconds(self) -> float:
        """Return how long its picture lasts."""
        return float(self.frames / self.fps)


def survey(
    ffmpeg: Ffmpeg,
    path: Path,
    fps: float | None = None,
    length: float | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Footage:
    """Decode a clip once, from its beginning to its end or for `length` seconds, and say what it is.

    fps: take so many frames a second instead of its own. on_frame: hears how many are found so far, and 0.
    Raises UsageError for numbers out of range, InputError for what is no video, has fewer than two frames, or can't be
    decoded to its end.
    """
    for name, value, high in (("fps", fps, MAX_FPS), ("length", length, MAX_S)):
        if value is not None and not 0 < value <= high:
            raise UsageError(f"{name}: {value:g} is out of range", f"use more than 0, to {high:g}")
    wish = Fraction(fps).limit_denominator(1001) if fps else None
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}", HINT) from None
    arguments = [*_input(path, length), "-map", "0:v:0", *_rate(wish), "-c:a", "copy", "-map", "0:a:0?"]
    try:
        info = decode(ffmpeg, arguments, on_frame)
    except VqclipError as error:
        reason = re.sub(r"ffmpeg failed: |\[.*?\] |'.*'", "", error.what)
        raise InputError(f"{path} is no whole video: {reason}", HINT) from None
    if info.frames < 2:
        count = f"{info.frames or 'no'} frame{'' if info.frames == 1 else 's'}"
        raise InputError(f"{path} has {count}: that makes no video", HINT)
    if 1 / info.time_base > MAX_FPS:
        raise InputError(
            f"{path} says that it has {float(1 / info.time_base):g} frames a second", "say how many: --fps 25"
        )
    return Footage(path, info.frames, info.size, 1 / info.time_base, info.sound, wish, length)


def frames(ffmpeg: Ffmpeg, footage: Footage, size: tuple[int, int], first: int = 0) -> Generator[Image.Image]:
    """Yield a clip's frames from the one numbered `first` on, scaled to cover `size` and cropped; none is kept.

    Raises InputError where it does not have what it had.
    """
    width, height = size
    cover = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=lanczos,crop={width}:{height}"
    running = ffmpeg.start(
        ["-xerror", *_input(footage.path, footage.length), "-map", "0:v:0", *_rate(footage.wish, cover),
         "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        running.close_input()
        count = width * height * 3
        for number in range(footage.frames):
            data = running.read(count)
            if len(data) < count:
                running.finish()
                raise InputError(f"{footage.path} has {number} frames, and had {footage.frames}", "put it back")
            if number >= first:
                yield Image.frombytes("RGB", size, data)
    finally:
        running.kill()


def _input(path: Path, length: float | None) -> list[str]:
    limit = ["-t", f"{length:.6f}"] if length else []
    safe = ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    return [*safe, *limit, "-i", f"file:{path.absolute()}"]


def _rate(wish: Fraction | None, then: str = "null") -> list[str]:
    """Return options for square pixels at a constant rate: the one wished for, or the clip's."""
    chain = f"{SQUARE},{then}"
    return ["-vf", f"fps={wish},{chain}" if wish else chain, "-fps_mode:v", "cfr"]


def alike(aspect: tuple[int, int], area: tuple[int, int]) -> tuple[int, int]:
    """Return a (width, height) of one size's shape and the other's area."""
    side = math.sqrt(area[0] * area[1] / (aspect[0] * aspect[1]))
    return max(1, round(aspect[0] * side)), max(1, round(aspect[1] * side))
