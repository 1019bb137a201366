"""Make a video of frames: find them, plan when each is shown, and encode them.

Sources are joined or stand side by side; frames are scaled and captioned, and there may be frames between them.
"""

import contextlib
import io
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import Field

from ..errors import InputError, UsageError
from ..files.atomic import check_free
from ..files.images import fit, load_image, tile
from ..files.metadata import tags
from ..files.paths import expand
from ..models.upscaler import BUNDLED
from ..runs.project_files import find_again
from ..runs.records import settings_of
from ..settings.checked import Checked
from .captions import CaptionStyle
from .ffmpeg import Ffmpeg, find_ffmpeg
from .frames import IMAGE_ENDINGS, SKIP, OnFrame, Source, find_sources, measure_changes, select_frames
from .interpolate import check_motion, follow_motion, interpolate, motion_factor
from .timing import MAX_FPS, Timing, frame_order, timeline
from .writer import Sound, VideoWriter, check_codec, choose

if TYPE_CHECKING:
    from ..runs.upscale import Enlarger


MB = 1_000_000
LARGE_GIF = 10 * MB  # which many sites and mail servers refuse
SMALLER = "a name in .webp or .mp4, a smaller --size, a lower --fps, a shorter --length"


class VideoOptions(Checked):
    """How frames are shown and encoded."""

    codec: str | None = None  # of ENCODERS; None: as the output's ending says
    quality: int = Field(default=80, ge=0, le=100)
    timing: Timing = Timing()
    upscale: int | None = Field(default=None, ge=0, le=8)  # times as large; 0: not at all, None: as the run was made
    size: tuple[int, int] | None = None  # then scale to (width, height), cropped to its shape; of a cell in a grid
    grid: bool = False  # sources side by side instead of one after the other
    caption: str | None = None  # for the foot of every frame
    show_prompt: bool = False  # each run's own prompt there
    font: Path | None = None  # of the caption
    skip_bad: bool = False  # leave out frames that are damaged, of another size or no images
    overwrite: bool = False
    metadata: bool = True  # write prompt and settings into formats that hold them, unless the run was made without
    ffmpeg: str | Path | None = None  # the program
    sound: Sound | None = None  # for formats that have it


@dataclass(frozen=True)
class Video:
    """A video that was written and decoded again."""

    path: Path
    frames: int
    size: tuple[int, int]
    seconds: float
    fps: float
    notes: tuple[str, ...] = ()  # what was done otherwise than asked, a line each


@dataclass(frozen=True)
class Frames:
    """The images of all sources, one source after the other or side by side. They are read one at a time."""

    sources: tuple[Source, ...]
    options: VideoOptions
    caption_style: CaptionStyle
    enlarger: "Enlarger | None" = None

    def __len__(self) -> int:
        counts = [len(source.frames) for source in self.sources]
        return max(counts) if self.options.grid else sum(counts)

    def images(self, order: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with the numbers in `order`. Raises InputError for one that is damaged."""
        if self.options.grid:
            yield from self._grids(order)
            return
        frames = [(source, path) for source in self.sources for path in source.frames]
        for number in order:
            yield self._read(*frames[number])

    def _grids(self, order: Sequence[int]) -> Iterator[Image.Image]:
        """Yield grids; the last frame of a source that is shorter stays, and is read once."""
        shown: dict[int, tuple[Path, Image.Image]] = {}  # source -> its frame in the grid
        for number in order:
            for k, source in enumerate(self.sources):
                path = source.frames[min(number, len(source.frames) - 1)]
                if k not in shown or shown[k][0] != path:
                    shown[k] = path, self._read(source, path)
            yield tile([image for _, image in shown.values()], background="black")

    def _read(self, source: Source, path: Path) -> Image.Image:
        try:
            image = load_image(path)
        except InputError as error:
            raise InputError(error.what, SKIP) from None
        image = self.enlarger.image(image, str(path)) if self.enlarger else image
        if self.options.size and image.size != self.options.size:
            image = fit(image, self.options.size)
        return self.with_caption(image, source)

    def with_caption(self, image: Image.Image, source: Source) -> Image.Image:
        """Return an image with the caption of its source, if it has one."""
        text = self.caption(source)
        return self.caption_style.draw_on(image, text) if text else image

    def caption(self, source: Source) -> str:
        """Return the text at the foot of a source's frames."""
        return " - ".join(filter(None, [self.options.caption, source.prompt if self.options.show_prompt else None]))


def make_video(
    names: Sequence[str],
    out: str | Path | None = None,
    options: VideoOptions | None = None,
    *,
    on_frame: OnFrame | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Video:
    """Make a video of runs, folders of frames, patterns and images.

    out: where to; without it `video` and the codec's ending, in the run if one run is given, else here. on_frame is
    called with (frames done, frames in all) each time that the frames are gone through: when they are checked, compared
    (ease) and encoded; on_note with what is to be known before the work.

    Raises UsageError, InputError (frames, fonts, a missing ffmpeg or codec), OutputError, OutputExists.
    """
    options = options or VideoOptions()
    codec, ending = choose(expand(out) if out else None, options.codec)
    ffmpeg, caption_style = _check_tools(names, codec, options)
    sources = find_sources(names, skip_bad=options.skip_bad)
    if not sources:
        raise UsageError("there is nothing to make a video of", "give a run directory, a folder or a pattern")
    run = sources[0].run if len(sources) == 1 else None
    target = expand(out) if out else (run or Path()) / f"video{ending}"
    check_free(target, options.overwrite)
    _check_apart(target, sources)
    selected = select_frames(sources, options.size, skip_bad=options.skip_bad, on_frame=on_frame)
    frames = Frames(tuple(selected), options, caption_style, _enlarger(selected[0], options))
    if len(frames) < 2:
        raise InputError(f"{sources[0].name} has one frame: that makes no video", "give two or more")

    timing, fps, positions = _plan(frames, on_frame)
    if codec == "gif" and (size := gif_bytes(frames, len(positions))) > LARGE_GIF:
        on_note(f"this GIF will have about {size / MB:.0f} MB; smaller: {SMALLER}")
    writer = VideoWriter(
        target, fps, ffmpeg, codec=codec, quality=options.quality, overwrite=options.overwrite, sound=options.sound
    )
    first = frames.sources[0]
    writer.tags = tags(first.record if options.metadata and first.plan.get("metadata", True) is True else None)
    with writer, contextlib.closing(_shown(frames, timing, positions, ffmpeg)) as shown:
        for image in _counted(shown, len(positions), on_frame):
            writer.add(image)
    notes = tuple(_notes(sources, frames, writer))
    return Video(target, writer.frames, writer.size, writer.info.seconds, fps, notes)


def gif_bytes(frames: Frames, count: int) -> int:
    """Return about how many bytes a GIF of so many frames takes, by three of the frames that there are.

    Measured on nine: 0.9 to 1.8 times what they came to.
    """
    numbers = sorted({len(frames) * k // 4 for k in (1, 2, 3)})
    small = replace(frames, enlarger=None)
    sizes = []
    for image in small.images(numbers):
        buffer = io.BytesIO()
        image.quantize(256).save(buffer, "GIF")
        factor = frames.enlarger.factor if frames.enlarger and not frames.options.size else 1
        sizes.append(buffer.tell() * factor**2)
    return round(count * sum(sizes) / len(sizes))


def _check_tools(names: Sequence[str], codec: str, options: VideoOptions) -> tuple[Ffmpeg, CaptionStyle]:
    """Return what a video needs beside its frames. Raises InputError, UsageError if the frames can't be made."""
    ffmpeg, caption_style = find_ffmpeg(options.ffmpeg), CaptionStyle(options.font)
    check_codec(ffmpeg, codec)
    if options.timing.between == "motion":
        check_motion(ffmpeg)
    if options.timing.between == "latent" and (options.grid or len(names) != 1):
        raise UsageError("latents are of one run", "give one run, without --grid, or use --between fade")
    return ffmpeg, caption_style


def _enlarger(first: Source, options: VideoOptions) -> "Enlarger | None":
    """Return what enlarges the frames of all sources: by the factor asked for, else as the first one's run was made.

    Raises UsageError, and ModelError for an upscaler that is not here.
    """
    factor, name = 0, BUNDLED
    if first.run and first.record:
        with contextlib.suppress(InputError):  # frames can be shown whatever their record says
            settings = settings_of(first.run, first.record)
            factor, name = settings.upscale, settings.upscaler
    factor = factor if options.upscale is None else options.upscale
    if not factor:
        return None
    from ..runs.upscale import Enlarger  # torch

    return Enlarger(name, factor, hint="use a smaller --upscale, or 0 for none")


def _check_apart(target: Path, sources: Sequence[Source]) -> None:
    """Refuse an animated image in a folder of frames: it would be one of them the next time. Raises UsageError."""
    for source in sources:
        listed = source.run or expand(source.name).is_dir()
        beside = target.parent.resolve() == source.frames[0].parent.resolve()
        if listed and beside and target.suffix.lower() in IMAGE_ENDINGS:
            raise UsageError(f"{target} would lie between its frames", "name another folder: -o")


def _plan(frames: Frames, on_frame: OnFrame | None) -> tuple[Timing, float, list[float]]:
    """Return (timing, frames a second, position at each output frame). Raises UsageError."""
    timing = _keep_pace(frames.options.timing, frames.sources)
    changes: Sequence[float] = ()
    if timing.ease == "change":
        small = replace(frames, enlarger=None)
        changes = measure_changes(_counted(small.images(range(len(frames))), len(frames), on_frame))
    return timing, *timeline(len(frames), timing, changes)


def _keep_pace(timing: Timing, sources: Sequence[Source]) -> Timing:
    """Return a timing with the pace of a story or restyled clip of which one video more is made, if none is asked."""
    if len(sources) > 1 or timing.between != "none" or timing.fps or timing.length:
        return timing
    fps = sources[0].plan.get("fps")
    return timing.model_copy(update={"fps": fps}) if isinstance(fps, int | float) and 0 < fps <= MAX_FPS else timing


def _shown(frames: Frames, timing: Timing, positions: list[float], ffmpeg: Ffmpeg) -> Generator[Image.Image]:
    """Yield the image at each position."""
    order = frame_order(len(frames), timing)
    if timing.between == "latent":
        yield from _decoded(frames, order, positions)
    elif timing.between == "motion":
        factor = motion_factor(positions)
        with contextlib.closing(follow_motion(frames.images(order), factor, ffmpeg)) as dense:
            yield from interpolate(dense, [position * factor for position in positions], Image.blend)
    else:
        yield from interpolate(frames.images(order), positions, Image.blend)


def _decoded(frames: Frames, order: Sequence[int], positions: list[float]) -> Iterator[Image.Image]:
    """Yield the images that a run's VQGAN decodes from its latents and between them. Raises InputError."""
    from .latents import find_latents, interpolate_latents  # torch: no other video needs it

    source = frames.sources[0]
    if source.run is None or not source.record:
        raise InputError(f"{source.name} is no run: it has no latents", "use --between fade or motion")
    latents = find_latents(source.frames)
    settings = settings_of(source.run, source.record)
    vqgan = find_again(source.run, source.record, settings, settings.model_dump()).vqgan  # other files may be gone
    size, enlarger = frames.options.size, frames.enlarger
    for image in interpolate_latents(vqgan, [latents[k] for k in order], positions, size):
        yield frames.with_caption(enlarger.image(image) if enlarger and not size else image, source)


def _counted(images: Iterator[Image.Image], total: int, on_frame: OnFrame | None) -> Iterator[Image.Image]:
    """Pass images on, and report each when it has been used."""
    for k, image in enumerate(images, 1):
        yield image
        if on_frame:
            on_frame(k, total)


def _notes(sources: Sequence[Source], frames: Frames, writer: VideoWriter) -> Iterator[str]:
    """Yield what was done otherwise than asked."""
    for before, after in zip(sources, frames.sources, strict=True):
        if left_out := len(before.frames) - len(after.frames):
            yield f"{before.name}: {left_out} of {len(before.frames)} frames are left out"
    captions = "".join(frames.caption(source) for source in frames.sources)
    if missing := frames.caption_style.missing_characters(captions):
        yield f"the font has no {' '.join(missing)}: give another with --font"
    if writer.frame_size != writer.size:
        (width, height), (even_width, even_height) = writer.frame_size, writer.size
        yield f"the size {width}x{height} was made even: {even_width}x{even_height}"
