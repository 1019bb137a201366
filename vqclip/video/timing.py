"""When which frame is shown: arithmetic alone, no images.

`timeline` gives a position along the frames for each output frame, numbers that never fall: 2.25 is a quarter of the
way from frame 2 to frame 3. With ping-pong the positions go on past the last frame, back to the first: `frame_order`
says which frame each whole number stands for.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from ..errors import UsageError
from ..settings.checked import Checked

USUAL_S = 5.0  # what a run's frames take if nothing is asked for, within MIN_FPS and SMOOTH_FPS
MIN_FPS, SMOOTH_FPS = 10.0, 30.0
MAX_FPS, MAX_S = 240.0, 86_400.0


class Timing(Checked):
    """What is asked for. Seconds, and frames a second; length is that of the whole video, holds included."""

    fps: float | None = Field(default=None, gt=0, le=MAX_FPS)
    length: float | None = Field(default=None, gt=0, le=MAX_S)
    hold_first: float = Field(default=0.0, ge=0, le=MAX_S)
    hold_last: float = Field(default=1.0, ge=0, le=MAX_S)
    ping_pong: bool = False
    ease: Literal["even", "change"] = "even"
    between: Literal["none", "fade", "latent", "motion"] = "none"


def output_fps(count: int, timing: Timing) -> float:
    """Return the output frames a second: what is asked for, or what shows `count` frames in about five seconds."""
    if timing.fps is not None:
        return timing.fps
    if timing.between != "none":
        return SMOOTH_FPS
    return _usual_fps(count, timing.length)


def _usual_fps(count: int, length: float | None) -> float:
    return min(SMOOTH_FPS, max(MIN_FPS, round(count / (length or USUAL_S))))


def timeline(count: int, timing: Timing, changes: Sequence[float] = ()) -> tuple[float, list[float]]:
    """Return (frames a second, the position at each output frame) for `count` frames, at least 2.

    changes: how much each frame differs from the next, `count - 1` numbers; only ease="change" needs them.
    Raises UsageError if the length leaves no time for the frames.
    """
    fps = output_fps(count, timing)
    first, last = round(timing.hold_first * fps), round(timing.hold_last * fps)  # output frames of the holds
    if timing.length is not None:
        moving = round(timing.length * fps) - first - last
        forward = (moving + 2) // 2 if timing.ping_pong else moving
        last += moving - (2 * forward - 2) if timing.ping_pong else 0  # an odd one is shown at the turn
    elif timing.between == "none":
        forward = count
    else:
        forward = round(count * fps / _usual_fps(count, None))
    if forward < 2:
        raise UsageError(
            f"{timing.length:g} s at {fps:g} frames a second leave no time for the frames between the holds",
            f"use a --length of {math.ceil((first + last + 2) / fps * 100) / 100:g} or more, or a shorter --hold-last "
            f"than {timing.hold_last:g} s",
        )
    ease = _ease_by_change(changes if timing.ease == "change" else ())
    positions = [ease(k / (forward - 1)) * (count - 1) for k in range(forward)]
    if timing.between == "none":
        positions = [float(math.floor(position + 0.5)) for position in positions]
    turn = float(count - 1)
    back = [2 * turn - position for position in reversed(positions[1:-1])] if timing.ping_pong else []
    return fps, [0.0] * first + positions + [turn] * last + back


def frame_order(count: int, timing: Timing) -> list[int]:
    """Return the frame that each whole position of the timeline stands for."""
    return [*range(count), *(range(count - 2, -1, -1) if timing.ping_pong else ())]


def _ease_by_change(changes: Sequence[float]) -> Callable[[float], float]:
    """Return an easing, time 0..1 -> position 0..1, by which the images change at one speed."""
    sums = [0.0, *itertools.accumulate(changes)]
    if not sums[-1] > 0:
        return lambda time: time

    def ease(time: float) -> float:
        wanted = min(max(time, 0.0), 1.0) * sums[-1]
        k = min(max(bisect.bisect_right(sums, wanted) - 1, 0), len(sums) - 2)
        step = sums[k + 1] - sums[k]
        return (k + ((wanted - sums[k]) / step if step else 1.0)) / (len(sums) - 1)

    return ease
