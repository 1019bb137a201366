"""When which frame is shown: arithmetic alone, no pictures.

A film is a walk along its frames. `timeline` says where the walk is at each output frame, as numbers that never fall:
2.25 is a quarter of the way from frame 2 to frame 3. With ping-pong the walk goes on past the last frame, back to the
first: `walk` says which frame each whole number stands for.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError

USUAL_S = 5.0  # what a run's frames take when nothing is asked for, within SLOWEST and SMOOTH frames a second
SLOWEST, SMOOTH = 10.0, 30.0
MAX_FPS, MAX_S = 240.0, 86_400.0


@dataclass(frozen=True)
class Timing:
    """What was asked for. Seconds, and frames a second; length is that of the whole film, holds included."""

    fps: float | None = None
    length: float | None = None
    hold_first: float = 0.0
    hold_last: float = 1.0
    ping_pong: bool = False
    ease: Literal["even", "change"] = "even"
    between: Literal["none", "fade", "latent", "motion"] = "none"

    def __post_init__(self) -> None:
        """Check the numbers. Raises UsageError."""
        for name, value, low, high in (
            ("fps", self.fps, 0, MAX_FPS),
            ("length", self.length, 0, MAX_S),
            ("hold-first", self.hold_first, -1, MAX_S),
            ("hold-last", self.hold_last, -1, MAX_S),
        ):
            if value is not None and not (low < value <= high and value >= 0):  # nan is refused too
                least = "more than 0" if low == 0 else "0"
                raise UsageError(f"{name}: {value:g} is out of range", f"use {least}, to {high:g}")
        for name, told, known in (
            ("ease", self.ease, list(EASES)),
            ("between", self.between, ["none", "fade", "latent", "motion"]),
        ):
            if told not in known:
                raise UsageError(f"{name}: {told!r} is unknown", f"use {', '.join(known)}")


def pace(count: int, timing: Timing) -> float:
    """Return the output frames a second: what is asked for, or what shows `count` frames in about five seconds."""
    if timing.fps is not None:
        return timing.fps
    if timing.between != "none":
        return SMOOTH
    return _usual(count, timing.length)


def _usual(count: int, length: float | None) -> float:
    return min(SMOOTH, max(SLOWEST, round(count / (length or USUAL_S))))


def timeline(count: int, timing: Timing, changes: Sequence[float] = ()) -> tuple[float, list[float]]:
    """Return (frames a second, the place in the walk at each output frame) for `count` frames, at least 2.

    changes: how much each frame differs from the next, `count - 1` numbers; only ease="change" needs them.
    Raises UsageError where the length leaves no time for the frames.
    """
    fps = pace(count, timing)
    first, last = round(timing.hold_first * fps), round(timing.hold_last * fps)
    if timing.length is not None:
        moving = round(timing.length * fps) - first - last
        forth = (moving + 2) // 2 if timing.ping_pong else moving
        last += moving - (2 * forth - 2) if timing.ping_pong else 0  # an odd one is shown at the turn
    elif timing.between == "none":
        forth = count
    else:
        forth = round(count * fps / _usual(count, None))
    if forth < 2:
        raise UsageError(
            f"{timing.length:g} s at {fps:g} frames a second leave no time for the frames between the holds",
            "use a longer --length, or a shorter --hold-last",
        )
    ease = EASES[timing.ease](count, changes)
    places = [ease(k / (forth - 1)) * (count - 1) for k in range(forth)]
    if timing.between == "none":
        places = [float(math.floor(place + 0.5)) for place in places]
    turn = float(count - 1)
    back = [2 * turn - place for place in reversed(places[1:-1])] if timing.ping_pong else []
    return fps, [0.0] * first + places + [turn] * last + back


def walk(count: int, timing: Timing) -> list[int]:
    """Return the frame that each whole place of the timeline stands for."""
    return [*range(count), *(range(count - 2, -1, -1) if timing.ping_pong else ())]


def even(count: int, changes: Sequence[float]) -> Callable[[float], float]:
    """Give every frame the same time."""
    return lambda time: time


def change(count: int, changes: Sequence[float]) -> Callable[[float], float]:
    """Give every frame time by how much the picture changes there, so that the change is seen at one speed."""
    gone = [0.0, *itertools.accumulate(changes)]
    if not gone[-1] > 0:
        return lambda time: time

    def place(time: float) -> float:
        told = min(max(time, 0.0), 1.0) * gone[-1]
        k = min(max(bisect.bisect_right(gone, told) - 1, 0), len(gone) - 2)
        step = gone[k + 1] - gone[k]
        return (k + ((told - gone[k]) / step if step else 1.0)) / (len(gone) - 1)

    return place


EASES: dict[str, Callable[[int, Sequence[float]], Callable[[float], float]]] = {"change": change, "even": even}
