"""Frames between frames: blended, or moved along with what moves. Series go through, none is kept."""

import itertools
import math
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from PIL import Image

from ..errors import InputError
from .ffmpeg import INSTALL, TAKE_S, Ffmpeg

# Both directions, overlapped blocks: as the peers had it. A cut is warped like anything else: runs have none.
MOVING = "minterpolate"
MOTION = MOVING + "=fps={fps}:mi_mode=mci:me_mode=bidir:mc_mode=aobmc:vsbmc=1:scd=none,format=rgb24"
T = TypeVar("T")
DENSEST = 16  # frames that motion puts in the place of one; what is finer is blended


def resample(pictures: Iterator[Image.Image], places: Sequence[float]) -> Iterator[Image.Image]:
    """Yield the picture at each place along a series: the two at its sides, blended. Places never fall."""
    return walked(pictures, places, Image.blend)


def walked(series: Iterator[T], places: Sequence[float], blend: Callable[[T, T, float], T]) -> Iterator[T]:
    """Yield what is at each place along a series of anything that can be blended. Places never fall."""
    before, at = next(series), 0
    after: T | None = None
    for place in places:
        while at < math.floor(place):
            before, after, at = next(series, before) if after is None else after, None, at + 1
        share = place - at
        if share:
            after = next(series, before) if after is None else after
            yield blend(before, after, share)
        else:
            yield before


def moved(pictures: Iterator[Image.Image], times: int, ffmpeg: Ffmpeg) -> Generator[Image.Image]:
    """Yield a series with `times - 1` frames between each two, which follow what moves (ffmpeg's minterpolate)."""
    first = next(pictures)
    width, height = first.size
    fault: list[BaseException] = []
    running = ffmpeg.start(
        [
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "1", "-i", "pipe:0"),
            *("-vf", MOTION.format(fps=times), "-f", "rawvideo", "pipe:1"),
        ],
        stdout=subprocess.PIPE,
    )

    def feed() -> None:
        try:
            last = first
            running.write(last.tobytes(), at_leisure=True)
            for last in pictures:
                running.write(last.tobytes(), at_leisure=True)
            running.write(last.tobytes(), at_leisure=True)  # it holds back the last one
            running.no_more()
        except BaseException as error:
            fault.append(error)
            running.process.kill()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        count = width * height * 3
        while len(data := running.read(count)) == count:
            yield Image.frombytes("RGB", first.size, data)
        feeder.join(TAKE_S)  # where it gives no more and takes no more, `end` ends it
        if fault:
            raise fault[0]
        running.end()
    finally:
        running.kill()
        feeder.join()


def check_moving(ffmpeg: Ffmpeg) -> None:
    """Refuse an ffmpeg that can't move what moves. Raises InputError."""
    if MOVING not in ffmpeg.filters:
        raise InputError(f"{ffmpeg.path} has no filter {MOVING}, for motion", INSTALL)


def density(places: Sequence[float]) -> int:
    """Return how many times as many frames `moved` should make, so that places fall on them, within DENSEST."""
    closest = min((after - before for before, after in itertools.pairwise(places) if after > before), default=1.0)
    return min(DENSEST, max(1, math.ceil(1 / closest - 1e-6)))
