"""vqclip story: a zoom through one or more prompts."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .moving import Preset, Quality, Replace, Video, report_moving, settle
from .options import PICTURE, AsJson, Changes, Config, Device, NoMetadata, Quiet, Runs, given_settings, setting
from .video import Ffmpeg

if TYPE_CHECKING:
    from ..motion import Moved
    from .moving import Moving

EXAMPLES = """
Examples:

  vqclip story "an owl on a white background"

  vqclip story "a castle" "a forest" "the sea" --frames 180 --fade 20 --zoom 1.03 --turn "0.5 * sin(t / 10)"

  vqclip story "a rose" --zoom 1 --pan-x "0: 0, 30: 0.02, 60: 0" --border edge -o rose.webm

zoom, turn and the pans are what the camera does from one frame to the next: a number, an expression of t (the frame's \
number: + - * / %, sin, cos, abs, min, max, sqrt, exp, pi), or keyframes, FRAME: EXPRESSION joined by commas, \
with a straight passage between them.
"""
SCENES, CAMERA = "Scenes", "Camera"


def _in(panel: str, flag: str, help_text: str, **more: Any) -> Any:
    return typer.Option(flag, *more.pop("short", ()), help=help_text, rich_help_panel=panel, **more)


def story(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw, one scene after the other.", show_default=False)],
    frames: Annotated[int, _in(SCENES, "--frames", "Frames in all.")] = 60,
    fps: Annotated[float, _in(SCENES, "--fps", "Frames a second.")] = 15.0,
    at: Annotated[str | None, _in(SCENES, "--at", "The frame at which each scene begins, as 0,24,60; otherwise they are equally long.", metavar="N,N", show_default=False)] = None,
    fade: Annotated[int, _in(SCENES, "--fade", "Frames in which a scene passes into the next.")] = 12,
    frame_steps: Annotated[int, _in(SCENES, "--frame-steps", "Updates of each frame after the first; more draw more, and hold on to the picture where the camera moves.")] = 6,
    zoom: Annotated[str, _in(CAMERA, "--zoom", "Times a frame: 1.05 goes in, 0.95 out.", metavar="CURVE")] = "1.04",
    turn: Annotated[str, _in(CAMERA, "--turn", "Degrees a frame, clockwise.", metavar="CURVE")] = "0",
    pan_x: Annotated[str, _in(CAMERA, "--pan-x", "To the right, in shares of the width a frame.", metavar="CURVE")] = "0",
    pan_y: Annotated[str, _in(CAMERA, "--pan-y", "Down, in shares of the height a frame.", metavar="CURVE")] = "0",
    border: Annotated[str, _in(CAMERA, "--border", "What comes into view from outside.", metavar="reflect|edge|black")] = "reflect",
    seed: Annotated[int | None, setting("seed", "--seed", PICTURE, "-S", show=False)] = None,
    size: Annotated[str | None, setting("size", "--size", PICTURE, "-s", metavar="WxH")] = None,
    steps: Annotated[int | None, _in(PICTURE, "--steps", "Updates of the first frame.", short=["-n"], show_default=False)] = None,
    init_image: Annotated[Path | None, setting("init_image", "--init-image", PICTURE, metavar="FILE")] = None,
    preset: Preset = None,
    config: Config = None,
    vqgan: Annotated[str | None, setting("vqgan", "--vqgan", PICTURE)] = None,
    clip: Annotated[list[str] | None, setting("clips", "--clip", PICTURE)] = None,
    changes: Changes = None,
    out: Video = None,
    overwrite: Replace = False,
    quality: Quality = 80,
    runs: Runs = Path("runs"),
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    ffmpeg: Ffmpeg = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw a video: a camera zooms, turns and pans, and the picture grows on from frame to frame; print its path.

    Stopped by anything, it goes on with `vqclip resume`.
    """
    given = {
        "prompt": prompts[0],
        "seed": seed,
        "size": size,
        "steps": steps,
        "init_image": init_image,
        "vqgan": vqgan,
        "clip": clip,
    }
    settings, _ = settle(given_settings(given), changes, config, preset, os.environ)

    def make(moving: "Moving") -> "Moved":
        from ..motion import Output, play
        from ..story import Story

        told = Story(
            tuple(prompts), frames, read_frames(at) if at else (), fade if len(prompts) > 1 else 0, zoom, turn, pan_x,
            pan_y, border, frame_steps, fps,
        )  # fmt: skip
        return play(
            told, settings, runs=runs, output=Output(out, overwrite, quality, ffmpeg), metadata=not no_metadata,
            device=device, on_start=moving.start, on_step=moving.step, on_frame=moving.frame,
        )  # fmt: skip

    report_moving(make, out, as_json=as_json, quiet=quiet)


def read_frames(text: str) -> tuple[int, ...]:
    """Read "0,24,60". Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 8 for part in parts):
        raise UsageError(f"at: {text!r} is no list of frames", "write numbers joined by commas: --at 0,24,60")
    return tuple(map(int, parts))
