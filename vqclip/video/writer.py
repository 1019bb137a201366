"""Encode frames to a video: one at a time through a pipe into ffmpeg, to a file that is decoded again and checked.

A new format is one row of ENCODERS, at the end of this module.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePath
from typing import BinaryIO, Self

from PIL import Image

from ..errors import InputError, UsageError
from ..files.atomic import claim, part_beside, put_in_place, sweep_unclaimed, writing
from ..files.images import opened
from .ffmpeg import INSTALL, OTHER, Ffmpeg, FfmpegProcess, VideoInfo, decode

PART = ".video"  # the ending of what is not whole yet


@dataclass(frozen=True)
class Container:
    """A file format: ffmpeg's options for it, and the sound that fits into it."""

    options: str
    sound_encoder: str = ""  # of ffmpeg; none: the format has no sound
    sound_codecs: tuple[str, ...] = ()  # that are copied as they are


@dataclass(frozen=True)
class Encoder:
    """How one codec is encoded. Options may hold {crf}, {quality} and {lossless} (1 at quality 100)."""

    about: str
    containers: dict[str, Container]  # by the file's ending; the first ending is the usual one
    options: dict[str, str]  # ffmpeg's encoder -> its options; the first that this ffmpeg has is used
    filters: str  # from RGB
    crf: tuple[int, int] = (0, 0)  # at quality 0 and at quality 100
    even: bool = False  # width and height must be even
    max_fps: float = 240.0
    delays: bool = False  # an image format whose frames have delays; pillow reads it


@dataclass(frozen=True)
class Sound:
    """The first sound track of a file, for a video: copied if its codec fits the format, else encoded."""

    path: Path
    codec: str
    seconds: float  # as long as the images

    def options(self, container: Container) -> tuple[list[str], list[str]]:
        """Return ffmpeg's options for the input and for the output; none for a format without sound."""
        if not container.sound_encoder:
            return [], []
        encoder = "copy" if self.codec in container.sound_codecs else container.sound_encoder
        source = ["-protocol_whitelist", "file", "-t", f"{self.seconds:.6f}", "-i", f"file:{self.path.absolute()}"]
        return source, ["-map", "0:v:0", "-map", "1:a:0", "-c:a", encoder]

    def check(self, ffmpeg: Ffmpeg, ending: str) -> None:
        """Refuse an ffmpeg that can't encode it for a format. Raises InputError."""
        container = next(row.containers[ending] for row in ENCODERS.values() if ending in row.containers)
        needed = container.sound_encoder
        if needed and self.codec not in container.sound_codecs and needed not in ffmpeg.encoders:
            raise InputError(f"{ffmpeg.path} has no {needed}, for the sound of {ending}", INSTALL)


def choose(target: PurePath | None, codec: str | None) -> tuple[str, str]:
    """Return (codec, ending) for an output and a codec; either may be left open. Raises UsageError."""
    if codec is not None and codec not in ENCODERS:
        raise UsageError(f"unknown codec {codec!r}", f"use {', '.join(ENCODERS)}")
    ending = target.suffix.lower() if target else next(iter(ENCODERS[codec or "h264"].containers))
    codecs = [name for name, encoder in ENCODERS.items() if ending in encoder.containers]
    if not codecs:
        raise UsageError(f"unknown video format {ending or '(no ending)'!r}", f"use {' '.join(sorted(ENDINGS))}")
    if codec and codec not in codecs:
        endings = " or ".join(ENCODERS[codec].containers)
        raise UsageError(f"{codec} does not go into {ending}", f"name the output {endings}, or leave --codec out")
    return codec or codecs[0], ending


def check_codec(ffmpeg: Ffmpeg, codec: str) -> str:
    """Return ffmpeg's name of the encoder to use. Raises InputError, which says what it has, if it has none."""
    for name in ENCODERS[codec].options:
        if name in ffmpeg.encoders:
            return name
    available = [name for name, row in ENCODERS.items() if ffmpeg.encoders.intersection(row.options)]
    what = f"{ffmpeg.path} has no {' or '.join(ENCODERS[codec].options)} for {codec}"
    raise InputError(f"{what}; it has what {', '.join(available)} need" if available else what, INSTALL)


def check_fps(codec: str, fps: float) -> None:
    """Refuse more frames a second than a format plays. Raises UsageError."""
    if fps > ENCODERS[codec].max_fps:
        raise UsageError(f"{codec} plays at most {ENCODERS[codec].max_fps:g} frames a second", "use a lower --fps")


class VideoWriter:
    """Takes frames one by one; the file appears when all are in, and decode as what went in.

    As a context manager: an error in it, or a kill, leaves the target as it was. The first frame decides the size.
    """

    def __init__(
        self,
        target: Path,
        fps: float,
        ffmpeg: Ffmpeg,
        *,
        codec: str | None = None,
        quality: int = 80,
        overwrite: bool = False,
        sound: Sound | None = None,
    ) -> None:
        """Check codec, pace and quality, 0 to 100. Raises UsageError; InputError if the codec is missing."""
        name, ending = choose(target, codec)
        check_fps(name, fps)
        if not 0 <= quality <= 100:
            raise UsageError(f"quality: {quality} is out of range", "use 0 to 100")
        self.target, self.overwrite = target, overwrite
        self.fps = Fraction(fps).limit_denominator(1001)
        self.tags: Mapping[str, str] = {}  # metadata of the file; may be set until the first frame
        self.frames = 0
        self.size = (0, 0)  # of the video
        self.info = VideoInfo(0, (0, 0), 0.0)  # of the finished file
        self._encoder, self._container = ENCODERS[name], ENCODERS[name].containers[ending]
        self._ffmpeg, self._ffmpeg_encoder = ffmpeg, check_codec(ffmpeg, name)
        self._quality, self._sound = quality, sound
        self.frame_size = (0, 0)  # of the frames that are given, before they are made even
        self._part = part_beside(target).with_suffix(PART)
        self._claim: BinaryIO | None = None
        self._process: FfmpegProcess | None = None

    def add(self, image: Image.Image, times: int = 1) -> None:
        """Show an RGB image for so many frames. Raises InputError for one of another size, OutputError."""
        if self._process is None:
            self.frame_size = image.size
            self.size = _even_size(image.size) if self._encoder.even else image.size
            self._begin()
            self._process = self._ffmpeg.start(self._command())
        if image.size != self.frame_size:
            raise InputError(f"a frame has {image.size} pixels, the first had {self.frame_size}", "scale them: --size")
        data = _extend(image, self.size).tobytes()
        for _ in range(times):
            self._process.write(data)
        self.frames += times

    def _begin(self) -> None:
        """Make the file that ffmpeg writes to, and delete those that killed processes left beside it."""
        sweep_unclaimed(self.target.parent, f".*{PART}")
        with writing(self.target):
            self._claim = claim(self._part)

    def _command(self) -> list[str]:
        low, high = self._encoder.crf
        options = self._encoder.options[self._ffmpeg_encoder].format(
            crf=round(low + (high - low) * self._quality / 100),
            quality=self._quality,
            lossless=int(self._quality == 100),
        )
        width, height = self.size
        tags = [part for key, value in self.tags.items() for part in ("-metadata", f"{key}={value}")]
        sound_input, sound_output = self._sound.options(self._container) if self._sound else ([], [])
        return [
            *("-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.fps)),
            *("-i", "pipe:0", *sound_input, *(sound_output or ["-an"])),
            *("-vf", self._encoder.filters, "-c:v", self._ffmpeg_encoder, *options.split()),
            *("-map_metadata", "-1", *tags, "-fflags", "+bitexact", "-flags:v", "+bitexact"),  # equal runs, equal bytes
            *(*self._container.options.split(), f"file:{self._part.absolute()}"),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def finish(self) -> None:
        """End the file, decode it, and put it in its place. Raises InputError, OutputError, OutputExists."""
        if self._process is None:
            raise InputError("there are no frames for a video", "give a run with frames: --frames-every 1 or more")
        try:
            self._process.finish()
            self.info = self._verify()
            put_in_place(self._part, self.target, replace=self.overwrite)
            if self._claim:
                self._claim.close()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stop at once and delete what was written; the target stays as it was."""
        if self._process:
            self._process.kill()
        if self._claim:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
            self._claim.close()

    def _verify(self) -> VideoInfo:
        """Decode what was written and compare it with what went in. Raises InputError.

        Formats with delays store equal frames as one.
        """
        if self._encoder.delays:
            info = _read_animation(self._part)
        else:
            arguments = ["-protocol_whitelist", "file", "-i", f"file:{self._part}", "-map", "0:v:0"]
            info = decode(self._ffmpeg, arguments)
        seconds = float(self.frames / self.fps)
        if self._encoder.delays and info.frames == 1:  # equal frames may become a still image
            info = replace(info, seconds=seconds)
        tolerance = max(0.5 / float(self.fps), 0.02)
        count_fits = info.frames <= self.frames if self._encoder.delays else info.frames == self.frames
        time_fits = math.isclose(info.seconds, seconds, abs_tol=tolerance, rel_tol=1e-3)
        if not count_fits or info.size != self.size or not time_fits:
            written = f"{info.frames} frames of {info.size[0]}x{info.size[1]} in {info.seconds:.2f} s"
            meant = f"{self.frames} of {self.size[0]}x{self.size[1]} in {seconds:.2f} s"
            raise InputError(f"ffmpeg wrote {written} instead of {meant}", OTHER)
        return info


def _read_animation(path: Path) -> VideoInfo:
    """Count the frames and add up the delays of a GIF, WebP or APNG with pillow. Raises InputError."""
    try:
        milliseconds = 0.0
        with opened(path, ("GIF", "WEBP", "PNG")) as animation:
            count = getattr(animation, "n_frames", 1)
            for k in range(count):
                animation.seek(k)
                animation.load()
                milliseconds += float(animation.info.get("duration", 0))
            return VideoInfo(count, animation.size, milliseconds / 1000)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"ffmpeg wrote a damaged file: {error}", OTHER) from None


def _even_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the next even width and height."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def _extend(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image made up to one pixel wider and higher: about the last column and row, twice."""
    if image.size == size:
        return image
    extended = image.resize(size, Image.Resampling.NEAREST)
    extended.paste(image, (0, 0))
    return extended


# Stated in full, because players guess otherwise: full-range RGB to limited-range BT.709.
YUV = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
# A palette for each frame: better colours than one for all, and no frame waits in memory for the last.
PALETTE = (
    "split[a][b];[a]palettegen=stats_mode=single:reserve_transparent=0[p];[b][p]paletteuse=new=1:dither=sierra2_4a"
)
MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
MP4 = {".mp4": Container("-f mp4 -movflags +faststart", "aac", MP4_SOUND)}
WEBM = {".webm": Container("-f webm", "libopus", ("opus", "vorbis"))}
GIF, WEBP = {".gif": Container("-f gif -loop 0")}, {".webp": Container("-f webp -loop 0")}
APNG = dict.fromkeys((".apng", ".png"), Container("-f apng -plays 0"))
X264, VPX = {"libx264": "-preset medium -crf {crf}"}, {"libvpx-vp9": "-b:v 0 -crf {crf} -row-mt 1 -cpu-used 2"}
AV1 = {"libsvtav1": "-preset 6 -crf {crf}", "libaom-av1": "-b:v 0 -crf {crf} -row-mt 1 -cpu-used 6"}
LIBWEBP = {"libwebp_anim": "-quality {quality} -lossless {lossless}"}
ENCODERS: dict[str, Encoder] = {
    "h264": Encoder("plays everywhere", MP4, X264, YUV, crf=(43, 11), even=True),
    "vp9": Encoder("for the web", WEBM, VPX, YUV, crf=(63, 8), even=True),
    "av1": Encoder("small; newer players", MP4 | WEBM, AV1, YUV, crf=(63, 8), even=True),
    "gif": Encoder("large; 256 colours a frame", GIF, {"gif": ""}, PALETTE, max_fps=50, delays=True),
    "webp": Encoder("an animated image", WEBP, LIBWEBP, "null", delays=True),
    "apng": Encoder("lossless", APNG, {"apng": "-pred up"}, "format=rgb24", delays=True),
}
ENDINGS = frozenset(ending for encoder in ENCODERS.values() for ending in encoder.containers)
USUAL_ENDINGS = tuple(dict.fromkeys(next(iter(encoder.containers)) for encoder in ENCODERS.values()))
FORMATS = f"{', '.join(USUAL_ENDINGS[:-1])} or {USUAL_ENDINGS[-1]}"  # for the help of commands
FFMPEG_ENCODERS = frozenset(name for encoder in ENCODERS.values() for name in encoder.options)
