"""What there is to enlarge in images, clips, runs and folders, and the file that each becomes."""

import mimetypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from PIL import UnidentifiedImageError

from ..errors import InputError, OutputExists, UsageError
from ..files.archives import UNPACK, archive_at
from ..files.atomic import check_folder
from ..files.carry_metadata import suffix_for
from ..files.images import REASONS, opened
from ..files.metadata import MOVING, check_no_file
from .records import is_batch, is_motion, is_sample

VIDEOS = (*MOVING, ".png")  # what a clip can become
LITTER = ("thumbs.db", "desktop.ini")
STILLS = ("TIFF", "MPO")  # formats whose further images are no frames: pages, or what a telephone adds to a JPEG
# What lies beside the images of a batch and of a sample, and is no image of its own.
BESIDE = ("batch.json", "results.csv", "results.jsonl", "index.html", "sheet.png", "sample.json", "candidates.json",
          "grid.png", "latest.png")  # fmt: skip
GIVE = "give an image, a run, a folder of images or a clip"


@dataclass(frozen=True)
class Job:
    """One image or clip, and the file that it becomes."""

    source: Path
    target: Path
    clip: bool = False
    optional: bool = False  # from a folder, in which files that are no images are left out


def plan(sources: Sequence[Path], out: Path | None, factor: int, note: Callable[[str], None]) -> list[Job]:
    """Return what there is to do, in order; no two jobs have one target.

    out: a file where there is one image or clip, else a folder; without it files go to the folder one is in.
    note: called with what is left out of a folder. Raises InputError, UsageError.
    """
    folder = out or Path()
    jobs: list[Job] = []
    for source in sources:
        listed = source.is_dir() and not _is_run(source)
        if out and len(sources) == 1 and not listed and out.suffix and not out.is_dir():
            return [replace(_job(source, factor), target=out)]
        if out:
            check_no_file(out)
        if listed:
            inside = folder if out and len(sources) == 1 else folder / _name(source, factor)
            jobs += [replace(job, target=inside / job.target) for job in _listed(source, note)]
        else:
            job = _job(source, factor)
            jobs.append(replace(job, target=folder / job.target))
    return list(_apart(jobs))


def check(jobs: Sequence[Job], *, overwrite: bool) -> None:
    """Refuse targets that can't be written, before any work is done. Raises UsageError, OutputExists, OutputError."""
    for job in jobs:
        if job.target.exists() and job.target.samefile(job.source):
            raise UsageError(f"{job.target} is the original itself", "give another name with -o")
        if not overwrite and (job.target.exists() or job.target.is_symlink()):
            raise OutputExists(f"{job.target} exists already", "give another name with -o, or --overwrite")
    for folder in dict.fromkeys(job.target.parent for job in jobs):
        check_folder(folder)


def _is_run(source: Path) -> bool:
    return (source / "run.json").is_file()


def _name(source: Path, factor: int) -> str:
    return f"{source.resolve().name}-x{factor}"


def _job(source: Path, factor: int) -> Job:
    """Return what a file or a run becomes, by name alone."""
    if _is_run(source):
        clip = is_motion(source)
        names = [f"video{ending}" for ending in MOVING] if clip else ["final.png"]
        image = next((source / name for name in names if (source / name).is_file()), None)
        if image is None:
            what = "video" if clip else "final.png"
            raise InputError(f"{source} has no {what} yet", f"go on with it first: vqclip resume {source}")
        return Job(image, Path(f"{_name(source, factor)}{image.suffix}"), clip)
    if not is_clip(source):
        return Job(source, Path(f"{source.stem}-x{factor}{suffix_for(source)}"))
    suffix = source.suffix.lower() if source.suffix.lower() in VIDEOS else ".mp4"
    return Job(source, Path(f"{source.stem}-x{factor}{suffix}"), clip=True)


def _listed(folder: Path, note: Callable[[str], None]) -> Iterator[Job]:
    """Yield a folder's images under their own names; other files are noted. Raises InputError for an empty one."""
    count = 0
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror or error}", "check its permissions") from None
    beside = BESIDE if is_batch(folder) or is_sample(folder) else ()
    for path in inside:
        if path.name in beside or path.name.startswith(".") or path.name.lower() in LITTER or path.is_dir():
            continue
        if _frames(path) != 1:
            note(f"{path} is left out: it is no image, or a moving one")
            continue
        count += 1
        yield Job(path, Path(f"{path.stem}{suffix_for(path)}"), optional=True)
    if not count:
        raise InputError(f"{folder} holds no images", GIVE)


def is_clip(path: Path) -> bool:
    """Say whether a file is to be read as a video: what moves, and what is no image. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist", GIVE)
    frames, kind = _frames(path), mimetypes.guess_type(path.name)[0] or "video"
    if not frames and not kind.startswith(("video", "image")):  # what may be a video, ffmpeg knows better
        archive = archive_at(path)
        raise InputError(f"{path} is {archive or 'neither an image nor a video'}", UNPACK if archive else GIVE)
    return frames != 1


def _frames(path: Path) -> int:
    """Return how many images an image's file has; 0 where it is of no format of images."""
    try:
        with opened(path) as file:
            return 1 if file.format in STILLS else getattr(file, "n_frames", 1)
    except UnidentifiedImageError:
        return 0
    except tuple(REASONS):  # who reads it says what is wrong
        return 1


def _apart(jobs: Sequence[Job]) -> Iterator[Job]:
    """Give a number to a target that one before it has."""
    taken: set[Path] = set()
    for job in jobs:
        stem, suffix = job.target.stem, job.target.suffix
        names = (job.target.with_name(f"{stem}{number}{suffix}") for number in chain([""], (f"-{k}" for k in count(2))))
        target = next(name for name in names if name not in taken)
        taken.add(target)
        yield replace(job, target=target)
