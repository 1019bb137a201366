"""Enlarge a clip frame by frame, through a pipe from ffmpeg and one to it; one frame is in memory, sound is kept."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import VqclipError
from ..files.metadata import tags
from ..runs import records
from ..runs.upscale import Enlarger
from ..video.ffmpeg import Ffmpeg
from ..video.make import Video
from ..video.writer import VideoWriter
from .clip import probe_clip, read_frames

OnFrame = Callable[[int, int], None]  # frames done, frames in all; 0 where nobody knows


def enlarge_clip(
    source: Path,
    target: Path,
    enlarger: Enlarger,
    ffmpeg: Ffmpeg,
    *,
    fps: float | None = None,
    quality: int = 80,
    overwrite: bool = False,
    metadata: bool = True,
    on_frame: OnFrame = lambda done, total: None,
) -> Video:
    """Enlarge every frame of a clip, which is read twice: once to know it, and to refuse it before any work is done.

    fps: frames a second, instead of the clip's.

    Raises InputError for a clip or an ffmpeg, UsageError for the target's ending, OutputError, OutputExists,
    OutOfMemory.
    """
    clip = probe_clip(ffmpeg, source, fps, on_frame=on_frame)
    sound = clip.track()
    writer = VideoWriter(target, float(clip.fps), ffmpeg, quality=quality, overwrite=overwrite, sound=sound)
    if sound:
        sound.check(ffmpeg, target.suffix.lower())
    writer.tags = _tags(source, enlarger) if metadata else {}
    with writer, contextlib.closing(read_frames(ffmpeg, clip, clip.size)) as images:
        for number, image in enumerate(images, 1):
            writer.add(enlarger.image(image, str(source)))
            on_frame(number, clip.frames)
    width, height = clip.size[0] * enlarger.factor, clip.size[1] * enlarger.factor
    note = f"the size {width}x{height} was made even: {writer.size[0]}x{writer.size[1]}"
    notes = (note,) if writer.size != (width, height) else ()
    return Video(target, writer.frames, writer.size, writer.info.seconds, float(clip.fps), notes)


def _tags(source: Path, enlarger: Enlarger) -> dict[str, str]:
    """Return what a video says of itself: of a run's, its prompt and settings; and what it was enlarged with."""
    record: dict[str, Any] | None = None
    with contextlib.suppress(VqclipError):
        record = records.read(source.parent)
    upscale = {"factor": enlarger.factor, "upscaler": enlarger.tag}
    told = tags(record | {"upscale": upscale} if record else None)
    return told | {"encoded_by": f"{told['encoded_by']}, {enlarger.entry.name} {enlarger.factor}x"}
