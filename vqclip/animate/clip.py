"""The clip that is restyled: decoded once to learn its length, size and pace, then read frame by frame."""

import contextlib
import math
import re
import subprocess
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BeforeValidator, Field, field_validator

from ..errors import InputError, UsageError, VqclipError
from ..files.archives import UNPACK, archive_at
from ..files.images import REASONS, opened
from ..files.paths import open_regular
from ..settings.checked import Checked
from ..video.ffmpeg import Ffmpeg, decode
from ..video.timing import MAX_FPS, MAX_S
from ..video.writer import Sound

# Others, such as playlists and text, could make ffmpeg read further files, or draw letters.
CONTAINERS = "mov,matroska,webm,avi,gif,apng,mpeg,mpegts,ogg,flv,asf,ivf,nut,yuv4mpegpipe,webp_pipe,webp_anim"
MAX_FRAMES = 5_000_000  # 23 hours at the highest pace
HINT = "give a video file: mp4, mov, mkv, webm, avi, gif, ..."
SQUARE = "scale=round(iw*sar):ih,setsar=1"  # pixels that are not square, as of DVDs; others stay as they are

FPS = re.compile(r"\d{1,9}(/0*[1-9]\d{0,8})?")  # as run.json has it: a power of ten could have a billion digits


def _check_fps(fps: Any) -> Any:
    if not isinstance(fps, Fraction) and not FPS.fullmatch(str(fps)):
        raise ValueError("it is no fraction")
    return fps


Fps = Annotated[Fraction, BeforeValidator(_check_fps), Field(gt=0, le=MAX_FPS)]


class SourceClip(Checked):
    """A clip's images and sound, as far as they are used. The same values and file give the same frames."""

    path: Path  # absolute
    frames: int = Field(ge=2, le=MAX_FRAMES)
    size: tuple[int, int]  # width, height, with square pixels
    fps: Fps  # constant: if the clip's is not, frames are repeated or left out
    sound: str = ""  # codec of the first sound track
    wish: Fps | None = None  # requested frames a second
    length: float | None = Field(default=None, gt=0, le=MAX_S)  # requested seconds

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("the path is not absolute")
        return path

    @property
    def seconds(self) -> float:
        """Return how long its frames last."""
        return float(self.frames / self.fps)

    def track(self) -> Sound | None:
        """Return its sound, for the video."""
        return Sound(self.path, self.sound, self.seconds) if self.sound else None


def probe_clip(
    ffmpeg: Ffmpeg,
    path: Path,
    fps: float | None = None,
    length: float | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> SourceClip:
    """Decode a clip once, from its beginning to its end or for `length` seconds, and return what it is.

    fps: take so many frames a second instead of its own. on_frame is called with the frames so far, and 0.
    Raises UsageError for numbers out of range, InputError for a file that is no video, has fewer than two frames, or
    can't be decoded to its end.
    """
    for name, value, most in (("fps", fps, MAX_FPS), ("length", length, MAX_S)):
        if value is not None and not 0 < value <= most:
            raise UsageError(f"{name}: {value:g} is out of range", f"use more than 0, to {most:g}")
    wish = Fraction(fps).limit_denominator(1001) if fps else None
    try:
        with open_regular(path):
            pass
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}", HINT) from None
    arguments = [*_input(path, length), *_track(path), *_filters(wish), "-c:a", "copy", "-map", "0:a:0?"]
    try:
        info = decode(ffmpeg, arguments, on_frame)
    except VqclipError as error:
        if archive := archive_at(path):
            raise InputError(f"{path} is {archive}, not a video", UNPACK) from None
        reason = re.sub(r"ffmpeg failed: |\[.*?\] |'.*'", "", error.what)
        fault = "is no video" if "whitelist" in reason else f"is no whole video: {reason}"
        raise InputError(f"{path} {fault}", HINT) from None
    if info.frames < 2:
        count = "1 frame" if info.frames == 1 else "no frames"
        asked = " in what is asked for" if fps or length else ""
        hint = "take more of it: --length, --fps" if asked else HINT
        raise InputError(f"{path} has {count}{asked}: that makes no video", hint)
    rate = 1 / info.time_base
    if rate > MAX_FPS:
        raise InputError(f"{path} says that it has {float(rate):g} frames a second", "say how many: --fps 25")
    return SourceClip(
        path=path.absolute(), frames=info.frames, size=info.size, fps=rate, sound=info.sound, wish=wish, length=length
    )


def read_frames(ffmpeg: Ffmpeg, clip: SourceClip, size: tuple[int, int], first: int = 0) -> Generator[Image.Image]:
    """Yield a clip's frames from the one numbered `first` on, scaled to cover `size` and cropped; none is kept.

    Raises InputError if the file has fewer frames than it had.
    """
    width, height = size
    cover = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=lanczos,crop={width}:{height}"
    arguments = ["-xerror", *_input(clip.path, clip.length), *_track(clip.path), *_filters(clip.wish, cover)]
    process = ffmpeg.start([*arguments, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"], stdout=subprocess.PIPE)
    try:
        process.close_input()
        count = width * height * 3
        for number in range(clip.frames):
            data = process.read(count)
            if len(data) < count:
                process.finish()
                raise InputError(f"{clip.path} has {number} frames, and had {clip.frames}", "put it back")
            if number >= first:
                yield Image.frombytes("RGB", size, data)
    finally:
        process.kill()


def _input(path: Path, length: float | None) -> list[str]:
    limit = ["-t", f"{length:.6f}"] if length else []
    safe = ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    return [*safe, *limit, "-i", f"file:{path.absolute()}"]


def _track(path: Path) -> list[str]:
    """Return options for a file's images: an animated AVIF has a still one before them, and perhaps its alpha."""
    with contextlib.suppress(*REASONS), opened(path, ("AVIF",)) as file:
        if getattr(file, "n_frames", 1) > 1:
            return ["-map", f"0:v:{1 + file.has_transparency_data}"]
    return ["-map", "0:v:0"]


def _filters(wish: Fraction | None, last: str = "null") -> list[str]:
    """Return options for square pixels at a constant rate: the one that was asked for, or the clip's."""
    chain = f"{SQUARE},{last}"
    return ["-vf", f"fps={wish},{chain}" if wish else chain, "-fps_mode:v", "cfr"]


def fit_shape(shape: tuple[int, int], area: tuple[int, int]) -> tuple[int, int]:
    """Return a (width, height) with the shape of one size and about as many pixels as another."""
    scale = math.sqrt(area[0] * area[1] / (shape[0] * shape[1]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
