"""Make a video of frames: find them, plan when each is shown, and encode them.

Sources are joined or stand side by side; frames are scaled and captioned, and there may be frames between them.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from ..errors import InputError, UsageError
from ..files.atomic import check_free
from ..files.images import fit, load_image, tile
from ..files.metadata import tags
from ..files.paths import expand
from ..runs.metadata import settings_of
from .captions import CaptionStyle
from .ffmpeg import Ffmpeg, find_ffmpeg
from .frames import IMAGE_ENDINGS, SKIP, OnFrame, Source, find_sources, measure_changes, select_frames
from .interpolate import blend_images, check_motion, follow_motion, motion_factor
from .timing import MAX_FPS, Timing, frame_order, timeline
from .writer import Sound, VideoWriter, check_codec, choose


@dataclass(frozen=True)
class VideoOptions:
    """How frames are shown and encoded."""

    codec: str | None = None  # of ENCODERS; None: as the output's ending says
    quality: int = 80  # 0 to 100
    timing: Timing = field(default_factory=Timing)
    size: tuple[int, int] | None = None  # scale to (width, height), cropped to its shape; of a cell in a grid
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
    size: tuple[int, int] | None
    grid: bool
    captions: tuple[str, ...]  # one a source; may be empty
    caption_style: CaptionStyle

    def __len__(self) -> int:
        counts = [len(source.frames) for source in self.sources]
        return max(counts) if self.grid else sum(counts)

    def images(self, order: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with the numbers in `order`. Raises InputError for one that is damaged."""
        if self.grid:
            yield from self._grids(order)
            return
        frames = [(k, path) for k, source in enumerate(self.sources) for path in source.frames]
        for number in order:
            yield self._read(*frames[number])

    def _grids(self, order: Sequence[int]) -> Iterator[Image.Image]:
        """Yield grids; the last frame of a source that is shorter stays, and is read once."""
        shown: list[Path | None] = [None] * len(self.sources)
        cells = [Image.new("RGB", (1, 1))] * len(self.sources)
        for number in order:
            for k, source in enumerate(self.sources):
                path = source.frames[min(number, len(source.frames) - 1)]
                if path != shown[k]:
                    shown[k], cells[k] = path, self._read(k, path)
            yield tile(cells, background="black")

    def _read(self, source: int, path: Path) -> Image.Image:
        try:
            image = load_image(path)
        except InputError as error:
            raise InputError(error.what, SKIP) from None
        if self.size and image.size != self.size:
            image = fit(image, self.size)
        return self.caption(image, source)

    def caption(self, image: Image.Image, source: int) -> Image.Image:
        """Return an image with the caption of a source, if it has one."""
        text = self.captions[source]
        return self.caption_style.draw_on(image, text) if text else image


def make_video(
    names: Sequence[str],
    out: str | Path | None = None,
    options: VideoOptions | None = None,
    *,
    on_frame: OnFrame | None = None,
) -> Video:
    """Make a video of runs, folders of frames, patterns and images.

    out: where to; without it `video` and the codec's ending, in the run if one run is given, else here. on_frame is
    called with (frames done, frames in all) each time that the frames are gone through: when they are checked, compared
    (ease) and encoded.

    Raises UsageError, InputError (frames, fonts, a missing ffmpeg or codec), OutputError, OutputExists.
    """
    options = options or VideoOptions()
    codec, ending = choose(expand(out) if out else None, options.codec)
    ffmpeg, caption_style = _check_tools(names, codec, options)
    sources = find_sources(names, skip_bad=options.skip_bad)
    if not sources:
        raise UsageError("there is nothing to make a video of", "give a run directory, a folder or a pattern")
    target = expand(out) if out else _default_folder(sources) / f"video{ending}"
    check_free(target, options.overwrite)
    _check_apart(target, sources)
    frames = _select(sources, options, caption_style, on_frame)
    timing, fps, positions = _plan(frames, options.timing, on_frame)

    writer = VideoWriter(
        target, fps, ffmpeg, codec=codec, quality=options.quality, overwrite=options.overwrite, sound=options.sound
    )
    first = frames.sources[0]
    writer.tags = tags(first.record if options.metadata and first.plan.get("metadata", True) is True else None)
    with writer, contextlib.closing(_shown(frames, timing, positions, ffmpeg)) as shown:
        for image in _counted(shown, len(positions), on_frame):
            writer.add(image)
        size = image.size
    notes = [*_notes(sources, frames)]
    if size != writer.size:
        notes.append(f"the size {size[0]}x{size[1]} was made even: {writer.size[0]}x{writer.size[1]}")
    return Video(target, writer.frames, writer.size, writer.info.seconds, fps, tuple(notes))


def _check_tools(names: Sequence[str], codec: str, options: VideoOptions) -> tuple[Ffmpeg, CaptionStyle]:
    """Return what a video needs beside its frames. Raises InputError, UsageError if the frames can't be made."""
    ffmpeg, caption_style = find_ffmpeg(options.ffmpeg), CaptionStyle(options.font)
    check_codec(ffmpeg, codec)
    if options.timing.between == "motion":
        check_motion(ffmpeg)
    if options.timing.between == "latent" and (options.grid or len(names) != 1):
        raise UsageError("latents are of one run", "give one run, without --grid, or use --between fade")
    return ffmpeg, caption_style


def _default_folder(sources: Sequence[Source]) -> Path:
    return (sources[0].run if len(sources) == 1 else None) or Path()


def _check_apart(target: Path, sources: Sequence[Source]) -> None:
    """Refuse an animated image in a folder of frames: it would be one of them the next time. Raises UsageError."""
    for source in sources:
        listed = source.run or expand(source.name).is_dir()
        beside = target.parent.resolve() == source.frames[0].parent.resolve()
        if listed and beside and target.suffix.lower() in IMAGE_ENDINGS:
            raise UsageError(f"{target} would lie between its frames", "name another folder: -o")


def _select(
    sources: Sequence[Source], options: VideoOptions, caption_style: CaptionStyle, on_frame: OnFrame | None
) -> Frames:
    """Return the frames to show, checked. Raises InputError."""
    selected = tuple(select_frames(sources, options.size, skip_bad=options.skip_bad, on_frame=on_frame))
    captions = tuple(
        " - ".join(filter(None, [options.caption, source.prompt if options.show_prompt else None]))
        for source in selected
    )
    frames = Frames(selected, options.size, options.grid, captions, caption_style)
    if len(frames) < 2:
        raise InputError(f"{selected[0].name} has one frame: that makes no video", "give two or more")
    return frames


def _plan(frames: Frames, timing: Timing, on_frame: OnFrame | None) -> tuple[Timing, float, list[float]]:
    """Return (timing, frames a second, position at each output frame). Raises UsageError."""
    timing = _keep_pace(timing, frames.sources)
    changes: Sequence[float] = ()
    if timing.ease == "change":
        changes = measure_changes(_counted(frames.images(range(len(frames))), len(frames), on_frame))
    return timing, *timeline(len(frames), timing, changes)


def _keep_pace(timing: Timing, sources: Sequence[Source]) -> Timing:
    """Return a timing with the pace of a story or restyled clip of which one video more is made, if none is asked."""
    if len(sources) > 1 or timing.between != "none" or timing.fps or timing.length:
        return timing
    fps = sources[0].plan.get("fps")
    return replace(timing, fps=fps) if isinstance(fps, int | float) and 0 < fps <= MAX_FPS else timing


def _shown(frames: Frames, timing: Timing, positions: list[float], ffmpeg: Ffmpeg) -> Generator[Image.Image]:
    """Yield the image at each position."""
    order = frame_order(len(frames), timing)
    if timing.between == "latent":
        yield from _decoded(frames, order, positions)
    elif timing.between == "motion":
        factor = motion_factor(positions)
        with contextlib.closing(follow_motion(frames.images(order), factor, ffmpeg)) as dense:
            yield from blend_images(dense, [position * factor for position in positions])
    else:
        yield from blend_images(frames.images(order), positions)


def _decoded(frames: Frames, order: Sequence[int], positions: list[float]) -> Iterator[Image.Image]:
    """Yield the images that a run's VQGAN decodes from its latents and between them. Raises InputError."""
    from .latents import find_latents, interpolate_latents  # torch: no other video needs it

    source = frames.sources[0]
    if source.run is None or not source.record:
        raise InputError(f"{source.name} is no run: it has no latents", "use --between fade or motion")
    latents = find_latents(source.frames)
    vqgan = settings_of(source.run, source.record).vqgan
    for image in interpolate_latents(vqgan, [latents[k] for k in order], positions, frames.size):
        yield frames.caption(image, 0)


def _counted(images: Iterator[Image.Image], total: int, on_frame: OnFrame | None) -> Iterator[Image.Image]:
    """Pass images on, and report each when it has been used."""
    for k, image in enumerate(images, 1):
        yield image
        if on_frame:
            on_frame(k, total)


def _notes(sources: Sequence[Source], frames: Frames) -> Iterator[str]:
    for before, after in zip(sources, frames.sources, strict=True):
        if left_out := len(before.frames) - len(after.frames):
            yield f"{before.name}: {left_out} of {len(before.frames)} frames are left out"
    if missing := frames.caption_style.missing_characters("".join(frames.captions)):
        yield f"the font has no {' '.join(missing)}: give another with --font"
