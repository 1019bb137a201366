"""vqclip restyle: a clip, drawn anew."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..animate.clip import fit_shape, probe_clip
from ..files.paths import absolute
from ..settings.expansion import check_plain
from ..settings.facts import CONTROLS, START
from ..settings.schema import facts, fields_with
from ..text import plural
from ..video.ffmpeg import find_ffmpeg
from .animation import SharedOptions, draw_animation, takes_shared_options
from .commands import ANIMATE, command
from .options import option, rate, takes_settings
from .progress import progress_bar, say

if TYPE_CHECKING:
    from ..animate.restyle import Restyle

EXAMPLES = """
Examples:

  vqclip restyle clip.mp4 "a red fox" -o fox.mp4

  vqclip restyle clip.mp4 "a castle" --length 2 --fps 10 --frame-steps 10
"""
CLIP = "Clip"
# The clip's frames are what is started from, and have their own steps.
NOT_HERE = ("steps", "coarse", *(name for name in fields_with("fixed") if facts(name).panel in (START, CONTROLS)))
SIZE = "width and height in pixels; otherwise the clip's shape, with about as many pixels as an image has"


@command(ANIMATE, examples=EXAMPLES)
@takes_settings(without=NOT_HERE, texts={"size": SIZE})
@takes_shared_options
def restyle(
    *,
    clip_file: Annotated[Path, typer.Argument(metavar="CLIP", help="A video: mp4, mov, mkv, webm, avi, gif, ...", show_default=False)],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='What to draw it as: "text[:weight] | text[:weight]".', show_default=False)],
    fps: Annotated[float | None, option(CLIP, "--fps", "Frames a second; fewer take less time (> 0, <= 240). Otherwise the clip's.", parser=rate, metavar="N", show_default=False)] = None,
    length: Annotated[float | None, option(CLIP, "--length", "Only so many seconds, to try (> 0).", show_default=False)] = None,
    frame_steps: Annotated[int, option(CLIP, "--frame-steps", "Updates a frame: more are less like the clip (>= 1).")] = 8,
    blend: Annotated[float, option(CLIP, "--blend", "Weight of the drawing before, moved along with what moves, in where a frame begins; 0 to 0.95.")] = 0.6,
    smooth: Annotated[float, option(CLIP, "--smooth", "Weight of that drawing's latent in the one that is shown, against flicker; 0 to 0.95.")] = 0.3,
    values: dict[str, Any],
    shared: SharedOptions,
) -> None:  # fmt: skip
    """Draw a clip anew, frame by frame, as a prompt says; its pace and its sound are kept. Print the video's path.

    The clip may be of any length, and is only read. Stopped by anything, it goes on with `vqclip resume`.
    """
    values = {"init": "grey"} | values | {"prompt": check_plain(prompt)}  # it has starts of its own
    settings, origins = shared.gather(values)
    with progress_bar("frame of the clip", quiet=shared.quiet) as bar:
        clip = probe_clip(find_ffmpeg(shared.ffmpeg), Path(absolute(clip_file)), fps, length, bar.at)
    if origins["size"] == "default" or origins["size"].startswith("preset "):
        settings = settings.model_copy(update={"size": fit_shape(clip.size, settings.size)})
    if not shared.quiet:
        sound = f", sound {clip.sound}" if clip.sound else ""
        say(f"{plural(clip.frames, 'frame')} of {clip.size[0]}x{clip.size[1]}, {float(clip.fps):.5g} a second{sound}")

    def make() -> "Restyle":
        from ..animate.restyle import Restyle

        return Restyle(footage=clip, frame_steps=frame_steps, blend=blend, smooth=smooth)

    draw_animation(make, settings, shared)
