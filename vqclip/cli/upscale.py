"""vqclip upscale: images and clips, two to eight times as large."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files.atomic import check_here, writing
from ..files.paths import expand
from ..models.catalogue import find
from ..models.upscaler import BUNDLED, FACTOR, TILE
from ..text import plural
from .commands import DRAW, command
from .options import OUTPUT, AsJson, Device, NoMetadata, Overwrite, Quiet, option, rate
from .progress import loading, progress_bar, put, say, say_all
from .video import Ffmpeg

if TYPE_CHECKING:
    from ..runs.upscale import Enlarger
    from ..runs.upscale_jobs import Job

EXAMPLES = """
Examples:

  vqclip upscale photo.png -o large.png

  vqclip upscale runs/a-red-heart-7 --by 8

  vqclip upscale frames -o frames-large

  vqclip upscale clip.mp4 --by 2 -o clip-large.mp4
"""
WORK = "Upscaling"


@command(DRAW, examples=EXAMPLES)
def upscale(
    sources: Annotated[list[Path], typer.Argument(parser=expand, metavar="IMAGE|RUN|FOLDER|CLIP", help="An image of any format, a run (its result), a folder of images, or a video.", show_default=False)],
    factor: Annotated[int, option(WORK, "--by", "How many times as large, 2 to 8.", "--factor", metavar="FACTOR")] = FACTOR,
    upscaler: Annotated[str, option(WORK, "--upscaler", "An upscaler's name (see: vqclip models list) or file: .safetensors, .pth.", metavar="NAME|FILE")] = BUNDLED,
    tile: Annotated[int, option(WORK, "--tile", "Pixels a side that are enlarged at once: smaller ones take less memory; 0: all. Seams are not to be seen.", metavar="PIXELS")] = TILE,
    out: Annotated[Path | None, option(OUTPUT, "--out", "Where to: a file for one image or clip, else a folder. Otherwise NAME-x4.png here, or of a folder NAME-x4/.", "-o", parser=expand, metavar="FILE|DIR", show_default=False)] = None,
    fps: Annotated[float | None, option(OUTPUT, "--fps", "Of a video: frames a second, instead of its own (> 0, <= 240).", parser=rate, metavar="N", show_default=False)] = None,
    quality: Annotated[int, option(OUTPUT, "--quality", "Of a video, 0 to 100.")] = 80,
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    ffmpeg: Ffmpeg = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make images and clips larger with a super-resolution network, which draws their edges anew; print the paths.

    Transparency, what an image says of itself and a clip's sound are kept.
    """
    check_here()
    find("upscaler", upscaler)  # a wrong name is said before anything is loaded
    loading(quiet=quiet)
    from ..runs.upscale import Enlarger
    from ..runs.upscale_jobs import check, plan

    enlarger = Enlarger(upscaler, factor, tile, device)
    jobs = plan(sources, out, factor, lambda text: None if quiet else say(text))
    check(jobs, overwrite=overwrite)
    video = {"fps": fps, "quality": quality}
    work = Work(enlarger, ffmpeg, video, overwrite=overwrite, metadata=not no_metadata, quiet=quiet)
    done = 0
    with progress_bar("image", quiet=quiet) as bar:
        for number, job in enumerate(jobs):
            if len(jobs) > 1:
                bar.at(number, len(jobs))
            try:
                record = work.do(job)
            except (KeyboardInterrupt, SystemExit):
                count = f"{done} of {plural(len(jobs), 'image')} are done"
                say_all([f"stopped: {count}, and whole; give the others to go on"], quiet=quiet)
                raise
            except InputError as error:
                if not job.optional:
                    raise
                say_all([f"left out: {error.what}"], quiet=quiet)
                continue
            done += 1
            put(json.dumps(record) if as_json else record["path"])
    if not done:
        raise InputError(f"{sources[0]} holds no image that can be read", "give a folder of images")


class Work:
    """Does one job after the other and prints each result."""

    def __init__(
        self, enlarger: "Enlarger", ffmpeg: str | None, video: Any, *, overwrite: bool, metadata: bool, quiet: bool
    ) -> None:
        self.enlarger, self.ffmpeg, self.video = enlarger, ffmpeg, video
        self.overwrite, self.metadata, self.quiet = overwrite, metadata, quiet

    def do(self, job: "Job") -> dict[str, Any]:
        """Enlarge an image or a clip; return what --json prints."""
        with writing(job.target.parent):
            job.target.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        size, more = self._clip(job) if job.clip else self._image(job)
        seconds = time.monotonic() - began
        say_all([f"{job.source}: {size[0]}x{size[1]} in {seconds:.1f} s"], quiet=self.quiet)
        return {"path": str(job.target), "source": str(job.source), "size": list(size), "factor": self.enlarger.factor,
                "upscaler": self.enlarger.entry.name, "took": round(seconds, 2), **more}  # fmt: skip

    def _image(self, job: "Job") -> tuple[tuple[int, int], dict[str, Any]]:
        made = self.enlarger.file(job.source, job.target, overwrite=self.overwrite, metadata=self.metadata)
        return made.after, {}

    def _clip(self, job: "Job") -> tuple[tuple[int, int], dict[str, Any]]:
        from ..animate.upscale import enlarge_clip
        from ..video.ffmpeg import find_ffmpeg

        with progress_bar("frame", quiet=self.quiet) as bar:
            made = enlarge_clip(
                job.source, job.target, self.enlarger, find_ffmpeg(self.ffmpeg), **self.video,
                overwrite=self.overwrite, metadata=self.metadata, on_frame=bar.at,
            )  # fmt: skip
        say_all(made.notes, quiet=self.quiet)
        return made.size, {"frames": made.frames, "seconds": round(made.seconds, 3), "fps": made.fps}
