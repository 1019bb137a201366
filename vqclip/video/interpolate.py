"""Frames between frames: blended, or moved along with the motion. Series pass through; none is kept in memory."""

import itertools
import math
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from PIL import Image

from ..errors import InputError
from .ffmpeg import FRAME_S, INSTALL, Ffmpeg

MOTION_FILTER = "minterpolate"
# Motion in both directions, in overlapping blocks. A cut would be warped like anything else: runs have none.
MOTION = MOTION_FILTER + "=fps={fps}:mi_mode=mci:me_mode=bidir:mc_mode=aobmc:vsbmc=1:scd=none,format=rgb24"
MAX_FACTOR = 16  # frames that motion makes of one; positions between these are blended

T = TypeVar("T")


def interpolate(series: Iterator[T], positions: Sequence[float], blend: Callable[[T, T, float], T]) -> Iterator[T]:
    """Yield what is at each position along a series of anything that can be blended. Positions never fall.

    The series is read no further than needed: an item after the last position is not.
    """
    before, index = next(series), 0
    after: T | None = None
    for position in positions:
        while index < math.floor(position):
            before, after, index = next(series, before) if after is None else after, None, index + 1
        weight = position - index
        if weight:
            after = next(series, before) if after is None else after
            yield blend(before, after, weight)
        else:
            yield before


def follow_motion(images: Iterator[Image.Image], factor: int, ffmpeg: Ffmpeg) -> Generator[Image.Image]:
    """Yield a series with `factor - 1` frames between each two, which follow the motion (ffmpeg's minterpolate)."""
    first = next(images)
    width, height = first.size
    faults: list[BaseException] = []
    process = ffmpeg.start(
        [
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "1", "-i", "pipe:0"),
            *("-vf", MOTION.format(fps=factor), "-f", "rawvideo", "pipe:1"),
        ],
        stdout=subprocess.PIPE,
    )

    def feed() -> None:
        try:
            last = first
            process.write(last.tobytes(), limited=False)
            for last in images:
                process.write(last.tobytes(), limited=False)
            process.write(last.tobytes(), limited=False)  # the filter holds back the last one
            process.close_input()
        except BaseException as error:
            faults.append(error)
            process.process.kill()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        count = width * height * 3
        while len(data := process.read(count)) == count:
            yield Image.frombytes("RGB", first.size, data)
        feeder.join(FRAME_S)  # if ffmpeg gives no more and takes no more, `finish` ends it
        if faults:
            raise faults[0]
        process.finish()
    finally:
        process.kill()
        feeder.join()


def check_motion(ffmpeg: Ffmpeg) -> None:
    """Refuse an ffmpeg that can't follow motion. Raises InputError."""
    if MOTION_FILTER not in ffmpeg.filters:
        raise InputError(f"{ffmpeg.path} has no filter {MOTION_FILTER}, for motion", INSTALL)


def motion_factor(positions: Sequence[float]) -> int:
    """Return how many frames `follow_motion` should make of one, so that positions fall on them, within MAX_FACTOR."""
    closest = min((b - a for a, b in itertools.pairwise(positions) if b > a), default=1.0)
    return min(MAX_FACTOR, max(1, math.ceil(1 / closest - 1e-6)))
