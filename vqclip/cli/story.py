"""vqclip story: a zoom through one or more prompts."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..settings.expansion import check_plain
from ..settings.prompts import prompt_notes
from .animation import SharedOptions, draw_animation, takes_shared_options
from .commands import ANIMATE, command
from .options import option, rate, takes_settings
from .progress import say_all

if TYPE_CHECKING:
    from ..animate.story import Story

EXAMPLES = """
Examples:

  vqclip story "an owl on a white background"

  vqclip story "a rose" "a strawberry" "a pumpkin" --turn "0.5 * sin(t / 10)"

  vqclip story "a rose" --pan-x "0: 0, 30: 0.02, 60: 0" -o rose.webm

zoom, turn and the pans are what the camera does from one frame to the next: a number, an expression of t (the frame's \
number: + - * / %, sin, cos, abs, min, max, sqrt, exp, floor, pi), or keyframes, FRAME: EXPRESSION joined by commas, \
with a straight passage between them.
"""
SCENES, CAMERA = "Scenes", "Camera"
ZOOM, CALM_ZOOM = "1.04", "1.01"  # a drawn thing soon leaves the image
STEPS, CALM_STEPS = 6, 2  # and with more of them it dissolves


@command(ANIMATE, examples=EXAMPLES)
@takes_settings(texts={"steps": "updates of the first frame"})
@takes_shared_options
def story(
    *,
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw, one scene after the other.", show_default=False)],
    frames: Annotated[int, option(SCENES, "--frames", "Frames in all (>= 2).")] = 60,
    fps: Annotated[float, option(SCENES, "--fps", "Frames a second (> 0, <= 240).", parser=rate, metavar="N")] = 15.0,
    at: Annotated[str | None, option(SCENES, "--at", "The frame at which each scene begins, as 0,24,60; otherwise they are equally long.", metavar="N,N", show_default=False)] = None,
    fade: Annotated[int | None, option(SCENES, "--fade", "Frames in which a scene passes into the next; otherwise 12, within the shortest scene (>= 0).", show_default=False)] = None,
    frame_steps: Annotated[int | None, option(SCENES, "--frame-steps", f"Updates of each frame after the first; more draw more, and hold on to the image where the camera moves (>= 1). Otherwise {STEPS}, or {CALM_STEPS} where each scene is drawn.", metavar="N", show_default=False)] = None,
    zoom: Annotated[str | None, option(CAMERA, "--zoom", f"Times a frame: 1.05 goes in, 0.95 out. Otherwise {ZOOM}, or {CALM_ZOOM} where each scene is drawn.", metavar="CURVE", show_default=False)] = None,
    turn: Annotated[str, option(CAMERA, "--turn", "Degrees a frame, clockwise.", metavar="CURVE")] = "0",
    pan_x: Annotated[str, option(CAMERA, "--pan-x", "To the right, in fractions of the width a frame.", metavar="CURVE")] = "0",
    pan_y: Annotated[str, option(CAMERA, "--pan-y", "Down, in fractions of the height a frame.", metavar="CURVE")] = "0",
    border: Annotated[str, option(CAMERA, "--border", "What comes into view from outside.", metavar="reflect|edge|black")] = "reflect",
    values: dict[str, Any],
    shared: SharedOptions,
) -> None:  # fmt: skip
    """Draw a video: a camera zooms, turns and pans, and the image grows on from frame to frame; print its path.

    Stopped by anything, it goes on with `vqclip resume`.
    """
    prompts = list(map(check_plain, prompts))
    settings, _ = shared.gather(values | {"prompt": prompts[0]})
    drawn = settings.starts_from_candidates()
    for prompt in prompts[1:]:  # of the first a run says it
        say_all(prompt_notes(prompt), quiet=shared.quiet)

    def make() -> "Story":
        from ..animate.story import Story

        return Story(
            prompts=tuple(prompts), frames=frames, at=read_frames(at) if at else (), fade=fade,
            zoom=zoom or (CALM_ZOOM if drawn else ZOOM), turn=turn, pan_x=pan_x, pan_y=pan_y, border=border,
            frame_steps=frame_steps or (CALM_STEPS if drawn else STEPS), fps=fps, arrive=drawn,
        )  # fmt: skip

    draw_animation(make, settings, shared)


def read_frames(text: str) -> tuple[int, ...]:
    """Read "0,24,60". Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 8 for part in parts):
        raise UsageError(f"at: {text!r} is no list of frames", "write numbers joined by commas: --at 0,24,60")
    return tuple(map(int, parts))
