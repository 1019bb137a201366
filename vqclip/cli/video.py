"""vqclip video: a video of runs, folders of frames, or patterns."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..files.paths import expand
from ..settings.sizes import as_size
from ..text import plural
from ..video.make import VideoOptions, make_video
from ..video.timing import MIN_FPS, SMOOTH_FPS, USUAL_S, Timing
from ..video.writer import ENCODERS
from .commands import ANIMATE, command
from .options import OUTPUT, AsJson, Quiet, option, rate
from .progress import progress_bar, put, say_all

EXAMPLES = """
Examples:

  vqclip video runs/a-red-heart-7

  vqclip video runs/a-red-heart-7 --length 6 --between fade -o heart.mp4

  vqclip video runs/an-owl-1 runs/an-owl-2 --grid --ping-pong -o owls.gif

  vqclip video "frames/*.png" --fps 24 -o film.webm
"""
TIME, LOOK = "Time", "Look"
CODECS = "; ".join(f"{name} ({' '.join(row.containers)}): {row.about}" for name, row in ENCODERS.items())
Ffmpeg = Annotated[
    str | None,  # a Path drops the dot of ./ffmpeg: that would be looked for on PATH
    typer.Option(
        "--ffmpeg", metavar="FILE", envvar="VQCLIP_FFMPEG", show_envvar=True, rich_help_panel=OUTPUT,
        help="The ffmpeg to use; otherwise the one that imageio-ffmpeg brings, or the one on PATH.",
    ),
]  # fmt: skip


@command(ANIMATE, examples=EXAMPLES)
def video(
    sources: Annotated[list[str], typer.Argument(metavar="RUN|FOLDER|PATTERN", help="Where the frames are; several are joined, or side by side with --grid.", show_default=False)],
    out: Annotated[Path | None, option(OUTPUT, "--out", "Where to; the ending chooses the format. Otherwise video.mp4 in the run, or here.", "-o", parser=expand, metavar="FILE")] = None,
    codec: Annotated[str | None, option(OUTPUT, "--codec", f"{CODECS}.", metavar="NAME")] = None,
    quality: Annotated[int, option(OUTPUT, "--quality", "0 to 100; webp is lossless at 100, gif and apng have one quality.")] = 80,
    fps: Annotated[float | None, option(TIME, "--fps", f"Frames a second (> 0, <= 240). Otherwise what shows all in {USUAL_S:g} s, within {MIN_FPS:g} and {SMOOTH_FPS:g}.", parser=rate, metavar="N", show_default=False)] = None,
    length: Annotated[float | None, option(TIME, "--length", "Seconds in all: frames are left out or repeated, or put between (> 0).")] = None,
    hold_first: Annotated[float, option(TIME, "--hold-first", "Seconds that the first frame stays (>= 0).")] = 0.0,
    hold_last: Annotated[float, option(TIME, "--hold-last", "Seconds that the last frame stays (>= 0).")] = 1.0,
    ping_pong: Annotated[bool, option(TIME, "--ping-pong", "Go back to the first frame, for a loop.")] = False,
    ease: Annotated[str, option(TIME, "--ease", "even: every frame as long; change: longer where the image changes more.", metavar="even|change")] = "even",
    between: Annotated[str, option(TIME, "--between", "Frames between the frames, up to --fps (30): fade, motion (follows what moves; slow), or latent (of a run with --save-latents: decoded between them, at --size).", metavar="none|fade|motion|latent")] = "none",
    upscale: Annotated[int | None, option(LOOK, "--upscale", "How many times as large a network makes the frames, 2 to 8; 0: not at all. Otherwise as the run was made.", metavar="FACTOR", show_default=False)] = None,
    size: Annotated[str | None, option(LOOK, "--size", "Then scale the frames, cropping what overhangs; with --grid, each of them.", "-s", metavar="WxH")] = None,
    grid: Annotated[bool, option(LOOK, "--grid", "Side by side instead of one after the other; the shorter ones wait at their end.")] = False,
    caption: Annotated[str | None, option(LOOK, "--caption", "A text at the foot of the frames.", metavar="TEXT")] = None,
    show_prompt: Annotated[bool, option(LOOK, "--show-prompt", "Write each run's prompt there.")] = False,
    font: Annotated[Path | None, option(LOOK, "--font", "A font for that, .ttf or .otf; the usual ones have Latin, Greek and Cyrillic letters.", parser=expand, metavar="FILE")] = None,
    skip_bad: Annotated[bool, option(OUTPUT, "--skip-bad", "Leave out frames that are damaged, of another size or no images.")] = False,
    overwrite: Annotated[bool, option(OUTPUT, "--overwrite", "Replace the video that is there.")] = False,
    no_metadata: Annotated[bool, option(OUTPUT, "--no-metadata", "Leave prompt and settings out of it (mp4 and webm have them).")] = False,
    ffmpeg: Ffmpeg = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make a video of a run's progress frames, of several runs or of any images; print its path.

    Every frame is shown once, unless --length or --between ask for more. The video is decoded and counted before it
    takes its place.
    """
    timing = Timing(
        fps=fps, length=length, hold_first=hold_first, hold_last=hold_last, ping_pong=ping_pong,
        ease=ease, between=between,  # type: ignore[arg-type]
    )  # fmt: skip
    options = VideoOptions(
        codec=codec, quality=quality, timing=timing, upscale=upscale, size=as_size(size) if size else None, grid=grid,
        caption=caption, show_prompt=show_prompt, font=font, skip_bad=skip_bad, overwrite=overwrite,
        metadata=not no_metadata, ffmpeg=ffmpeg,
    )  # fmt: skip
    with progress_bar("frame", quiet=quiet) as bar:
        made = make_video(sources, out, options, on_frame=bar.at, on_note=lambda note: say_all([note], quiet=quiet))
    width, height = made.size
    shown = f"{plural(made.frames, 'frame')} of {width}x{height} in {made.seconds:.2f} s, {made.fps:g} a second"
    say_all([*made.notes, shown], quiet=quiet)
    if as_json:
        record = {"path": str(made.path), "frames": made.frames, "size": list(made.size),
                  "seconds": round(made.seconds, 3), "fps": made.fps}  # fmt: skip
        put(json.dumps(record))
    else:
        put(str(made.path))
