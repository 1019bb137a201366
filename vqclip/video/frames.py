"""Find the frames of a video: runs, folders, patterns, single images. Only names and sizes are read here."""

import collections
import glob
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from ..errors import InputError, VqclipError
from ..files.images import REASONS, load_image, opened, shown_size
from ..files.paths import expand, is_within
from ..runs import records
from ..text import pasted
from .writer import ENDINGS as VIDEO_ENDINGS

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SYSTEM_FILES = ("thumbs.db", "desktop.ini")
IGNORED_ENDINGS = VIDEO_ENDINGS.difference(IMAGE_ENDINGS)  # a video may lie beside the frames that it was made of
SKIP = "repair it, or leave it out: --skip-bad"
THUMBNAIL = 32  # pixels a side of the thumbnails that are compared

OnFrame = Callable[[int, int], None]  # frames done, frames in all


@dataclass(frozen=True)
class Source:
    """The frames of one run, folder or pattern, in their order, and what is recorded of them."""

    name: str  # as it was given
    frames: tuple[Path, ...]
    record: dict[str, Any] | None = None  # as run.json or the first frame has it; never trusted
    run: Path | None = None

    @property
    def prompt(self) -> str:
        """Return the prompt of the record, or nothing."""
        settings = (self.record or {}).get("settings")
        return str(settings.get("prompt") or "") if isinstance(settings, dict) else ""

    @property
    def plan(self) -> dict[str, Any]:
        """Return the plan of the record, or nothing."""
        plan = (self.record or {}).get("plan")
        return plan if isinstance(plan, dict) else {}


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names as people count: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name.casefold(), flags=re.ASCII)
    return tuple((0, int(part), "") if k % 2 else (1, 0, part) for k, part in enumerate(parts))


def find_sources(names: Sequence[str], *, skip_bad: bool = False) -> list[Source]:
    """Return the sources that are named: run directories, folders, patterns such as "out/*.png", and images.

    Images that are named one after the other are one source. skip_bad: leave out files that are no images, and accept
    gaps. Raises InputError naming the file that is wrong.
    """
    sources: list[Source] = []
    for are_files, group in itertools.groupby(names, key=lambda name: expand(name).is_file()):
        if are_files:
            paths = [expand(name) for name in group]
            if paths == sorted(paths):  # as a shell sorts what a pattern matches: by letters
                paths.sort(key=natural_key)
            sources.append(Source(str(paths[0]), tuple(paths), _read_record(paths[0])))
        else:
            sources += [_find_source(name, expand(name), skip_bad) for name in group]
    return sources


def _find_source(name: str, path: Path, skip_bad: bool) -> Source:
    """Return the frames of a run, a folder or a pattern. Raises InputError."""
    if (path / "run.json").is_file():
        frames = _list_images(path / "frames", skip_bad) if (path / "frames").is_dir() else []
        if outside := [frame for frame in frames if not is_within(path, frame)]:
            raise InputError(f"{outside[0]} is a link out of the run", "put the frame itself in its place")
        if not frames:
            raise InputError(f"{path} has no frames", "make the run with --frames-every 1 or more")
        _check_gaps(frames, skip_bad)
        return Source(name, tuple(frames), _read_record(path), run=path)
    if records.is_sample(path):
        hint = f"its candidates can be filmed: vqclip video {pasted(f'{path}/*-candidate-*.png')}; or a run's frames"
        raise InputError(f"{path} is a sample's folder, which has no frames", hint)
    if path.is_dir():
        frames = _list_images(path, skip_bad)
    elif glob.has_magic(name):
        folder = path.parent  # a name may have brackets, which are none of the pattern's
        pattern = str(Path(glob.escape(str(folder)), path.name) if folder.is_dir() else path)
        frames = sorted(map(Path, glob.glob(pattern)), key=natural_key)  # noqa: PTH207 - absolute patterns too
    else:
        raise InputError(f"{path} does not exist", "give a run directory, a folder of frames, or a pattern in quotes")
    if not frames:
        raise InputError(f"{name} has no frames", f"known endings: {' '.join(IMAGE_ENDINGS)}")
    _check_gaps(frames, skip_bad)
    return Source(name, tuple(frames), _read_record(frames[0]))


def _list_images(folder: Path, skip_bad: bool) -> list[Path]:
    """Return a folder's images; any other file in it is refused, or left out."""
    try:
        paths = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror}", "check its permissions") from None
    paths = [p for p in paths if p.name.lower() not in SYSTEM_FILES and p.suffix.lower() not in IGNORED_ENDINGS]
    images = [path for path in paths if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()]
    if len(images) < len(paths) and not skip_bad:
        foreign = next(path for path in paths if path not in images)
        raise InputError(f"{foreign} is no frame", "take it out of the folder, or leave it out: --skip-bad")
    return images


def _check_gaps(frames: Sequence[Path], skip_bad: bool) -> None:
    if not skip_bad and (gap := find_gap(frames)):
        raise InputError(f"{gap} is missing between the frames", "bring it back, or go over the gap: --skip-bad")


def find_gap(frames: Sequence[Path]) -> Path | None:
    """Return the first frame that is missing in a numbered series. The last step may be short, as a run's is.

    It is a series only if most numbers are equally far apart, and the names differ in their last number alone.
    """
    names = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.name, re.ASCII) for path in frames]
    parts = [match.groups() for match in names if match]
    if len(frames) < 4 or len(parts) < len(frames) or len({(before, after) for before, _, after in parts}) > 1:
        return None
    steps = [int(b) - int(a) for (_, a, _), (_, b, _) in itertools.pairwise(parts)]
    step, count = collections.Counter(steps[:-1]).most_common(1)[0]
    too_long = [k for k, found in enumerate(steps) if found > step]
    if step <= 0 or count * 2 <= len(steps) - 1 or not too_long:
        return None
    k = too_long[0]
    before, number, after = parts[k]
    return frames[k].with_name(f"{before}{int(number) + step:0{len(number)}d}{after}")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return records.read(path)
    except VqclipError:
        return None


def select_frames(
    sources: Sequence[Source], size: tuple[int, int] | None, *, skip_bad: bool = False, on_frame: OnFrame | None = None
) -> list[Source]:
    """Check that all frames are images of one size (the first's), or leave out those that are not.

    size: what they will be scaled to, so that frames of any size fit. Only headers are read, unless bad frames are left
    out: these must be known before the timeline is made. Raises InputError naming the first that is wrong.
    """
    first_size: tuple[int, int] | None = None
    selected: list[Source] = []
    checked, total = 0, sum(len(source.frames) for source in sources)
    for source in sources:
        frames: list[Path] = []
        for path in source.frames:
            checked += 1
            if on_frame:
                on_frame(checked, total)
            try:
                frame_size = load_image(path).size if skip_bad else _read_size(path)
            except InputError:
                if not skip_bad:
                    raise
                continue
            first_size = first_size or frame_size
            if size is not None or frame_size == first_size:
                frames.append(path)
            elif not skip_bad:
                sizes = [f"{width}x{height}" for width, height in (frame_size, first_size)]
                what = f"{path} has {sizes[0]} pixels, the frames before it {sizes[1]}"
                raise InputError(what, "scale them all: --size WxH; or leave it out: --skip-bad")
        if not frames:
            raise InputError(f"{source.name} has no frames", "none of its files is an image of the same size")
        selected.append(replace(source, frames=tuple(frames)))
    return selected


def _read_size(path: Path) -> tuple[int, int]:
    """Return the (width, height) that `load_image` would give, from the header. Raises InputError."""
    try:
        with opened(path) as image:
            return shown_size(image)
    except tuple(REASONS):
        load_image(path)  # raises the error that says what is wrong
        raise InputError(f"{path} is damaged", SKIP) from None


def measure_changes(images: Iterable[Image.Image]) -> list[float]:
    """Return how much each image differs from the next: the mean over thumbnails' pixels and colours, 0..255."""
    thumbnails = (image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for image in images)
    return [
        sum(ImageStat.Stat(ImageChops.difference(before, after)).mean) / 3
        for before, after in itertools.pairwise(thumbnails)
    ]
