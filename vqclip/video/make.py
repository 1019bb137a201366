"""Frames to a film: sources joined or side by side, scaled, lettered, timed, with frames between; then encoded."""

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, UsageError
from ..files.atomic import check_free
from ..files.images import fit, load_image, tile
from ..files.metadata import tags
from ..files.paths import expand
from ..runs.metadata import settings_of
from .captions import CaptionStyle
from .ffmpeg import Ffmpeg, find_ffmpeg
from .frames import ENDINGS, SKIP, OnFrame, Source, changes, find_sources, sift
from .interpolate import check_moving, density, moved, resample
from .sound import Sound
from .timing import MAX_FPS, Timing, timeline, walk
from .writer import VideoWriter, check_codec, choose


@dataclass(frozen=True)
class Film:
    """Pictures in their order: one source after the other, or all side by side. Read one at a time, and again."""

    sources: tuple[Source, ...]
    size: tuple[int, int] | None = None  # of a frame, of a cell in a grid
    grid: bool = False
    captions: tuple[str, ...] = ()  # one a source
    caption_style: CaptionStyle = field(default_factory=CaptionStyle)

    def __len__(self) -> int:
        counts = [len(source.frames) for source in self.sources]
        return max(counts) if self.grid else sum(counts)

    def pictures(self, order: Sequence[int] | None = None) -> Iterator[Image.Image]:
        """Yield the pictures numbered in `order`, or all. Raises InputError for one that is damaged."""
        read = functools.lru_cache(maxsize=len(self.sources))(self._read)  # a short run's last stays in its grid
        steps = [(k, n) for k, source in enumerate(self.sources) for n in range(len(source.frames))]
        for number in range(len(self)) if order is None else order:
            if self.grid:
                cells = [read(k, min(number, len(s.frames) - 1)) for k, s in enumerate(self.sources)]
                yield tile(cells, background="black")
            else:
                yield read(*steps[number])

    def _read(self, source: int, number: int) -> Image.Image:
        try:
            picture = load_image(self.sources[source].frames[number])
        except InputError as error:
            raise InputError(error.what, SKIP) from None
        if self.size and picture.size != self.size:
            picture = fit(picture, self.size)
        text = self.captions[source] if self.captions else ""
        return self.caption_style.draw_on(picture, text) if text else picture


@dataclass(frozen=True)
class Made:
    """A video that was written and decoded again."""

    path: Path
    frames: int
    size: tuple[int, int]
    seconds: float
    fps: float
    notes: tuple[str, ...] = ()  # what was done otherwise than asked, a line each


def make_video(
    names: Sequence[str],
    out: str | Path | None = None,
    *,
    codec: str | None = None,
    timing: Timing | None = None,
    size: tuple[int, int] | None = None,
    grid: bool = False,
    caption: str | None = None,
    show_prompt: bool = False,
    font: Path | None = None,
    quality: int = 80,
    skip_bad: bool = False,
    overwrite: bool = False,
    metadata: bool = True,
    ffmpeg: str | Path | None = None,
    sound: Sound | None = None,
    on_frame: OnFrame | None = None,
) -> Made:
    """Make a video of runs, folders of frames, patterns and pictures, one after the other or side by side (`grid`).

    out: where to; without it `video` and the codec's ending, in the run if one run is given, else here. size: scale
    to (width, height), cropping what overhangs; of a cell in a grid. caption: words for the foot of every frame;
    show_prompt: each run's own prompt there. skip_bad: leave out frames that are damaged, of another size or no
    pictures. metadata: write prompt and settings into formats that hold them, unless the run was made without.
    sound: a sound track for formats that have one. on_frame: hears of each frame, and of how many, every time that all
    are gone through: when they are checked, compared (ease) and shown.

    Raises UsageError, InputError (frames, fonts, a missing ffmpeg or codec), OutputError, OutputExists.
    """
    timing, target = timing or Timing(), expand(out) if out else None
    codec, ending = choose(target, codec)
    program, caption_style = find_ffmpeg(ffmpeg), CaptionStyle(font)
    check_codec(program, codec)
    if timing.between == "motion":
        check_moving(program)
    if timing.between == "latent" and (grid or len(names) != 1):
        raise UsageError("latents are of one run", "give one run, without --grid, or use --between fade")
    found = find_sources(names, skip_bad=skip_bad)
    if not found:
        raise UsageError("there is nothing to make a video of", "give a run directory, a folder or a pattern")
    alone = found[0].run if len(found) == 1 else None
    target = target or (alone or Path()) / f"video{ending}"
    check_free(target, overwrite)
    _check_apart(target, found)
    sources = tuple(sift(found, size, skip_bad=skip_bad, on_frame=on_frame))
    captions = tuple(" - ".join(filter(None, [caption, s.prompt if show_prompt else None])) for s in sources)
    film = Film(sources, size, grid, captions if any(captions) else (), caption_style)
    if len(film) < 2:
        raise InputError(f"{sources[0].name} has one frame: that makes no video", "give two or more")
    timing = paced(timing, sources)
    compared = _counted(film.pictures(), len(film), on_frame)
    fps, places = timeline(len(film), timing, changes(compared) if timing.ease == "change" else ())
    told = sources[0].record if metadata and wanted_by(sources[0]) else None
    notes = list(_notes(found, sources, caption_style, captions))
    with (
        VideoWriter(
            target, fps, program, codec=codec, quality=quality, tags=tags(told), overwrite=overwrite, sound=sound
        ) as writer,
        contextlib.closing(_played(film, timing, places, program)) as played,
    ):
        for picture in _counted(played, len(places), on_frame):
            writer.add(picture)
        given = picture.size
    if given != writer.size:
        notes.append(f"the size {given[0]}x{given[1]} was made even: {writer.size[0]}x{writer.size[1]}")
    return Made(target, writer.frames, writer.size, writer.facts.seconds, fps, tuple(notes))


def _counted(pictures: Iterator[Image.Image], total: int, on_frame: OnFrame | None) -> Iterator[Image.Image]:
    """Pass pictures on, and say of each when it has been used."""
    for k, picture in enumerate(pictures, 1):
        yield picture
        if on_frame:
            on_frame(k, total)


def _check_apart(target: Path, sources: Sequence[Source]) -> None:
    """Refuse a moving picture in a folder of frames: it would be one of them the next time. Raises UsageError."""
    for source in sources:
        listed = source.run or expand(source.name).is_dir()
        if listed and target.suffix.lower() in ENDINGS and target.parent.resolve() == source.frames[0].parent.resolve():
            raise UsageError(f"{target} would lie between its frames", "name another folder: -o")


def _plan(source: Source) -> dict[str, Any]:
    plan = (source.record or {}).get("plan")
    return plan if isinstance(plan, dict) else {}


def wanted_by(source: Source) -> bool:
    """Say whether a run's plan lets its prompt and settings be written."""
    return _plan(source).get("metadata", True) is True


def paced(timing: Timing, sources: Sequence[Source]) -> Timing:
    """Return a timing with the pace of the one moving picture that is filmed again, where nothing else is asked for."""
    if len(sources) > 1 or timing.between != "none" or timing.fps or timing.length:
        return timing
    fps = _plan(sources[0]).get("fps")
    return replace(timing, fps=fps) if isinstance(fps, int | float) and 0 < fps <= MAX_FPS else timing


def _played(film: Film, timing: Timing, places: list[float], ffmpeg: Ffmpeg) -> Generator[Image.Image]:
    if timing.between == "latent":
        yield from _morphed(film, timing, places)
        return
    pictures = film.pictures(walk(len(film), timing))
    if timing.between != "motion":
        yield from resample(pictures, places)
        return
    times = density(places)
    with contextlib.closing(moved(pictures, times, ffmpeg)) as dense:
        yield from resample(dense, [place * times for place in places])


def _morphed(film: Film, timing: Timing, places: list[float]) -> Iterator[Image.Image]:
    """Decode between the latents of a run."""
    from .latents import find_latents, morph  # torch: no other video needs it

    source = film.sources[0]
    if source.run is None or not source.record:
        raise InputError(f"{source.name} is no run: it has no latents", "use --between fade or motion")
    latents = find_latents(source.frames)
    vqgan = settings_of(source.run, source.record).vqgan
    for picture in morph(vqgan, [latents[k] for k in walk(len(film), timing)], places, film.size):
        yield film.caption_style.draw_on(picture, film.captions[0]) if film.captions else picture


def _notes(
    found: Sequence[Source], sources: Sequence[Source], caption_style: CaptionStyle, captions: Sequence[str]
) -> Iterator[str]:
    for before, after in zip(found, sources, strict=True):
        if gone := len(before.frames) - len(after.frames):
            yield f"{before.name}: {gone} of {len(before.frames)} frames are left out"
    if lacking := caption_style.missing_characters("".join(captions)):
        yield f"the font has no {' '.join(lacking)}: give another with --font"
