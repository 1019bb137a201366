"""Where a film's frames come from: runs, folders, patterns, single pictures. Only names and sizes are read here."""

import collections
import glob
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat, UnidentifiedImageError

from ..errors import InputError, VqclipError
from ..files.images import FORMATS, load_image
from ..files.paths import expand
from ..runs import metadata as records
from ..text import pasted

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LITTER = ("thumbs.db", "desktop.ini")
FILMS = (".mp4", ".webm", ".gif", ".apng")  # may lie beside the frames that they were made of
SKIP = "mend it, or leave it out: --skip-bad"
OnFrame = Callable[[int, int], None]  # frames done, frames in all
SIDE = 32  # pixels a side of the thumbnails in which change is measured


@dataclass(frozen=True)
class Source:
    """The frames of one run, folder or pattern, in their order, and what they say of themselves."""

    name: str  # as it was given
    frames: tuple[Path, ...]
    record: dict[str, Any] | None = None  # as run.json or the first picture has it; never trusted
    run: Path | None = None

    @property
    def prompt(self) -> str:
        """Return the prompt of the record, or nothing."""
        settings = (self.record or {}).get("settings")
        return str(settings.get("prompt") or "") if isinstance(settings, dict) else ""


def natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts names as people count: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name.casefold(), flags=re.ASCII)
    return tuple((0, int(part), "") if k % 2 else (1, 0, part) for k, part in enumerate(parts))


def find_sources(names: Sequence[str], *, skip_bad: bool = False) -> list[Source]:
    """Find what is named: run directories, folders, patterns such as "out/*.png", and pictures, which join up.

    skip_bad: leave out what is no picture, and go over gaps. Raises InputError naming the file that is wrong.
    """
    sources: list[Source] = []
    loose: list[Path] = []
    for name in [*names, None]:
        path = expand(name) if name is not None else None
        if path is not None and path.is_file():
            loose.append(path)
            continue
        if loose:  # a shell sorts what a pattern finds by letters
            ordered = sorted(loose, key=natural) if loose == sorted(loose) else loose
            sources.append(_source(str(loose[0]), ordered, skip_bad, checked=False))
            loose = []
        if path is not None:
            sources.append(_find(str(name), path, skip_bad))
    return sources


def _find(name: str, path: Path, skip_bad: bool) -> Source:
    if (path / "run.json").is_file():
        found = _listed(path / "frames", skip_bad) if (path / "frames").is_dir() else []
        if not found:
            raise InputError(f"{path} has no frames", "make the run with --frames-every 1 or more")
        return replace(_source(name, found, skip_bad), record=_record(path), run=path)
    if records.is_sample(path):
        hint = f"its candidates can be filmed: vqclip video {pasted(f'{path}/*-candidate-*.png')}; or a run's frames"
        raise InputError(f"{path} is a sample's folder, which has no frames", hint)
    if path.is_dir():
        found = _listed(path, skip_bad)
    elif glob.has_magic(name):
        found = sorted((Path(found) for found in glob.glob(str(path))), key=natural)  # noqa: PTH207 - any pattern
    else:
        raise InputError(f"{path} does not exist", "give a run directory, a folder of frames, or a pattern in quotes")
    if not found:
        raise InputError(f"{name} has no frames", f"known endings: {' '.join(ENDINGS)}")
    return _source(name, found, skip_bad)


def _listed(folder: Path, skip_bad: bool) -> list[Path]:
    """Return a folder's pictures; anything else in it is refused, or left out."""
    try:
        inside = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror}", "check its permissions") from None
    inside = [p for p in inside if p.name.lower() not in LITTER and p.suffix.lower() not in FILMS]
    foreign = [path for path in inside if path.suffix.lower() not in ENDINGS or not path.is_file()]
    if foreign and not skip_bad:
        raise InputError(f"{foreign[0]} is no frame", "take it out of the folder, or leave it out: --skip-bad")
    return [path for path in inside if path not in foreign]


def _source(name: str, frames: Sequence[Path], skip_bad: bool, *, checked: bool = True) -> Source:
    if checked and not skip_bad and (gap := missing(frames)):
        raise InputError(f"{gap} is missing between the frames", "bring it back, or go over the gap: --skip-bad")
    return Source(name, tuple(frames), _record(frames[0]))


def missing(frames: Sequence[Path]) -> Path | None:
    """Return the first frame that a numbered series lacks. The last step may be short, as a run's is.

    Only where most numbers are equally far apart, and names differ in their last number alone, is it a series.
    """
    split = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.name, re.ASCII) for path in frames]
    if len(frames) < 4 or not all(split) or len({(m[1], m[3]) for m in split if m}) > 1:
        return None
    numbers = [int(m[2]) for m in split if m]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    step, often = collections.Counter(steps[:-1]).most_common(1)[0]
    for k, found in enumerate(steps):
        if step > 0 and often * 2 > len(steps) - 1 and found > step:
            before, number, after = re.fullmatch(r"(.*?)(\d+)(\D*)", frames[k].name, re.ASCII).groups()  # type: ignore[union-attr]
            return frames[k].with_name(f"{before}{numbers[k] + step:0{len(number)}d}{after}")
    return None


def _record(path: Path) -> dict[str, Any] | None:
    try:
        return records.read(path)
    except VqclipError:
        return None


def sift(
    sources: Sequence[Source],
    size: tuple[int, int] | None,
    *,
    skip_bad: bool = False,
    on_frame: OnFrame | None = None,
) -> list[Source]:
    """Check that all frames are pictures of one size (the first's), or leave out those that are not.

    size: what they will be scaled to, which makes any size right. Only headers are read, unless what is bad must be
    known beforehand. Raises InputError naming the first that is wrong.
    """
    wanted: tuple[int, int] | None = None
    sifted: list[Source] = []
    looked, total = 0, sum(len(source.frames) for source in sources)
    for source in sources:
        kept: list[Path] = []
        for path in source.frames:
            if on_frame:
                on_frame(looked := looked + 1, total)
            try:
                found = load_image(path).size if skip_bad else _size(path)
            except InputError:
                if not skip_bad:
                    raise
                continue
            wanted = wanted or size or found
            if size is None and found != wanted and not skip_bad:
                told = f"{path} has {found[0]}x{found[1]} pixels, the frames before it {wanted[0]}x{wanted[1]}"
                raise InputError(told, "scale them all: --size WxH; or leave it out: --skip-bad")
            if size is not None or found == wanted:
                kept.append(path)
        if not kept:
            raise InputError(f"{source.name} has no frames", "none of its files is a picture of the same size")
        sifted.append(replace(source, frames=tuple(kept)))
    return sifted


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            turned = "exif" in picture.info and picture.getexif().get(0x0112, 1) >= 5  # as load_image will
            return picture.size[::-1] if turned else picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, UnidentifiedImageError):
        load_image(path)  # says what is wrong
        raise InputError(f"{path} is damaged", SKIP) from None


def changes(pictures: Iterator[Image.Image]) -> list[float]:
    """Return how much each picture differs from the next: the mean over thumbnails' pixels and colours, 0..255."""
    found: list[float] = []
    before: Image.Image | None = None
    for picture in pictures:
        small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        if before is not None:
            found.append(sum(ImageStat.Stat(ImageChops.difference(before, small)).mean) / 3)
        before = small
    return found
