"""Frames to a video: one at a time through a pipe into ffmpeg, to a file that is decoded again and put in its place.

A new format is one row of ENCODERS.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePath
from types import TracebackType

from PIL import Image

from ..errors import InputError, UsageError
from ..files.atomic import appearing
from .ffmpeg import INSTALL, OTHER, Facts, Ffmpeg, Running, read_back
from .sound import Sound

# Said in full, since players guess: full RGB to the limited range of BT.709.
YUV = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
# A palette of each frame's own: better colours than one for all, and no frame waits in memory for the last.
PALETTE = (
    "split[a][b];[a]palettegen=stats_mode=single:reserve_transparent=0[p];[b][p]paletteuse=new=1:dither=sierra2_4a"
)


@dataclass(frozen=True)
class Encoder:
    """How one format is made. options holds {crf}, {quality} and {lossless} (1 at quality 100)."""

    about: str
    muxers: dict[str, str]  # ending -> ffmpeg's options; the first ending is the usual one
    options: dict[str, str]  # ffmpeg's encoder -> its options; the first that is there is used
    chain: str  # filters from RGB
    crf: tuple[int, int] = (0, 0)  # at quality 0 and at quality 100
    even: bool = False  # sides must be even
    fastest: float = 240.0  # frames a second
    delays: bool = False  # a picture format: frames have delays, and pillow reads it


MP4, WEBM = "-f mp4 -movflags +faststart", "-f webm"
ENCODERS: dict[str, Encoder] = {
    "h264": Encoder(
        "plays everywhere", {".mp4": MP4}, {"libx264": "-preset medium -crf {crf}"}, YUV, crf=(43, 11), even=True
    ),
    "vp9": Encoder(
        "for the web", {".webm": WEBM}, {"libvpx-vp9": "-b:v 0 -crf {crf} -row-mt 1 -cpu-used 2"}, YUV,
        crf=(63, 8), even=True,
    ),
    "av1": Encoder(
        "small; newer players", {".mp4": MP4, ".webm": WEBM},
        {"libsvtav1": "-preset 6 -crf {crf}", "libaom-av1": "-b:v 0 -crf {crf} -row-mt 1 -cpu-used 6"}, YUV,
        crf=(63, 8), even=True,
    ),
    "gif": Encoder("large; 256 colours a frame",
        {".gif": "-f gif -loop 0"}, {"gif": ""}, PALETTE, fastest=50, delays=True),
    "webp": Encoder(
        "an animated picture", {".webp": "-f webp -loop 0"},
        {"libwebp_anim": "-quality {quality} -lossless {lossless}"}, "null", delays=True,
    ),
    "apng": Encoder("lossless", {".apng": "-f apng -plays 0", ".png": "-f apng -plays 0"}, {"apng": "-pred up"},
                    "format=rgb24", delays=True),
}  # fmt: skip


def choose(target: PurePath | None, codec: str | None) -> tuple[str, str]:
    """Return (codec, ending) for an output and a codec, of which either may be left open. Raises UsageError."""
    if codec is not None and codec not in ENCODERS:
        raise UsageError(f"unknown codec {codec!r}", f"use {', '.join(ENCODERS)}")
    ending = target.suffix.lower() if target else next(iter(ENCODERS[codec or "h264"].muxers))
    fitting = [name for name, encoder in ENCODERS.items() if ending in encoder.muxers]
    if not fitting:
        known = " ".join(sorted({ending for encoder in ENCODERS.values() for ending in encoder.muxers}))
        raise UsageError(f"unknown video format {ending or '(no ending)'!r}", f"use {known}")
    if codec and codec not in fitting:
        endings = " or ".join(ENCODERS[codec].muxers)
        raise UsageError(f"{codec} does not go into {ending}", f"name the output {endings}, or leave --codec out")
    return codec or fitting[0], ending


def check_codec(ffmpeg: Ffmpeg, codec: str) -> str:
    """Return ffmpeg's name of the encoder to use. Raises InputError, which says what there is, where it has none."""
    for name in ENCODERS[codec].options:
        if name in ffmpeg.encoders:
            return name
    there = [name for name, row in ENCODERS.items() if ffmpeg.encoders.intersection(row.options)]
    lacks = f"{ffmpeg.path} has no {' or '.join(ENCODERS[codec].options)} for {codec}"
    raise InputError(f"{lacks}; it has what {', '.join(there)} need" if there else lacks, INSTALL)


def check_rate(codec: str, fps: float) -> None:
    """Refuse more frames a second than a format plays. Raises UsageError."""
    if fps > ENCODERS[codec].fastest:
        raise UsageError(f"{codec} plays at most {ENCODERS[codec].fastest:g} frames a second", "use a lower --fps")


class VideoWriter:
    """Takes frames one by one; the file appears when all are in, and decode as what went in.

    As a context manager: what leaves it by an error, or a kill, leaves the target as it was. The first frame decides
    the size.
    """

    def __init__(
        self,
        target: Path,
        fps: float,
        ffmpeg: Ffmpeg,
        *,
        codec: str | None = None,
        quality: int = 80,
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
        sound: Sound | None = None,
    ) -> None:
        """Check what can be checked. quality: 0 to 100. Raises UsageError; InputError where the codec is missing."""
        name, ending = choose(target, codec)
        check_rate(name, fps)
        if not 0 <= quality <= 100:
            raise UsageError(f"quality: {quality} is out of range", "use 0 to 100")
        self.target, self.encoder, self.overwrite = target, ENCODERS[name], overwrite
        self.fps = Fraction(fps).limit_denominator(1001)
        self.frames, self.size, self.facts = 0, (0, 0), Facts(0, (0, 0), 0.0)
        self.tags = dict(tags or {})  # until the first frame
        self._ffmpeg, self._quality, self._ending = ffmpeg, quality, ending
        self._given = (0, 0)  # of a picture, until it is made even
        self._codec = check_codec(ffmpeg, name)
        self._sound = sound.options(ending) if sound else ([], [])
        self._stack = contextlib.ExitStack()
        self._running: Running | None = None
        self._part = target

    def add(self, picture: Image.Image, times: int = 1) -> None:
        """Show an RGB picture for so many frames. Raises InputError for one of another size, OutputError."""
        if self._running is None:
            self.size = made_even(picture.size) if self.encoder.even else picture.size
            self._given = picture.size
            self._part = self._stack.enter_context(appearing(self.target, replace=self.overwrite))
            self._running = self._ffmpeg.start(self._command())
        if picture.size != self._given:
            raise InputError(f"a frame has {picture.size} pixels, the first had {self._given}", "scale them: --size")
        data = grown(picture, self.size).tobytes()
        for _ in range(times):
            self._running.write(data)
        self.frames += times

    def _command(self) -> list[str]:
        low, high = self.encoder.crf
        crf = round(low + (high - low) * self._quality / 100)
        options = self.encoder.options[self._codec].format(
            crf=crf, quality=self._quality, lossless=int(self._quality == 100)
        )
        width, height = self.size
        tags = [part for key, value in self.tags.items() for part in ("-metadata", f"{key}={value}")]
        source, track = self._sound
        return [
            "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps), "-i", "pipe:0",
            *source, *(track or ["-an"]),
            "-vf", self.encoder.chain, "-c:v", self._codec, *options.split(),
            "-map_metadata", "-1", *tags, "-fflags", "+bitexact", "-flags:v", "+bitexact",  # equal runs, equal bytes
            *self.encoder.muxers[self._ending].split(), f"file:{self._part.absolute()}",
        ]  # fmt: skip

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.abort()

    def finish(self) -> None:
        """End the file, decode it, and put it in its place. Raises InputError, OutputError, OutputExists."""
        if self._running is None:
            raise InputError("there are no frames for a video", "give a run with frames: --frames-every 1 or more")
        try:
            with self._stack:
                self._running.end()
                self.facts = self._check()
        finally:
            self._running.kill()  # nothing, where it has ended

    def abort(self) -> None:
        """Stop at once; the target stays as it was."""
        if self._running:
            self._running.kill()
        with contextlib.suppress(_Aborted), self._stack:
            raise _Aborted

    def _check(self) -> Facts:
        """Decode what was written, and compare. Formats with delays store equal frames as one."""
        found = _seen(self._part) if self.encoder.delays else read_back(self._ffmpeg, self._part)
        seconds = float(self.frames / self.fps)
        if self.encoder.delays and found.frames == 1:  # equal frames may become a still picture
            found = replace(found, seconds=seconds)
        near = max(0.5 / float(self.fps), 0.02)
        count = found.frames <= self.frames if self.encoder.delays else found.frames == self.frames
        if not count or found.size != self.size or not math.isclose(found.seconds, seconds, abs_tol=near, rel_tol=1e-3):
            told = f"{found.frames} frames of {found.size[0]}x{found.size[1]} in {found.seconds:.2f} s"
            meant = f"{self.frames} of {self.size[0]}x{self.size[1]} in {seconds:.2f} s"
            raise InputError(f"ffmpeg wrote {told} instead of {meant}", OTHER)
        return found


class _Aborted(Exception):
    """Passes through `appearing`, so that it takes its part of a file away."""


def _seen(path: Path) -> Facts:
    """Count the frames and delays of a GIF, WebP or APNG with pillow."""
    try:
        milliseconds = 0.0
        with Image.open(path, formats=("GIF", "WEBP", "PNG")) as film:
            count = getattr(film, "n_frames", 1)
            for k in range(count):
                film.seek(k)
                film.load()
                milliseconds += float(film.info.get("duration", 0))
            return Facts(count, film.size, milliseconds / 1000)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"ffmpeg wrote a damaged file: {error}", OTHER) from None


def made_even(size: tuple[int, int]) -> tuple[int, int]:
    """Return the next even width and height."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def grown(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Make a picture up to one pixel wider and higher: the last column and row are there twice, about."""
    if picture.size == size:
        return picture
    canvas = picture.resize(size, Image.Resampling.NEAREST)
    canvas.paste(picture, (0, 0))
    return canvas
