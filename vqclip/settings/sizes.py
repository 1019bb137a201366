"""Sizes of images, as people write them: 128, "128x96", [128, 96]; or by a name or a ratio, resolved later."""

import math
import re
from typing import Any

from ..errors import UsageError
from ..text import brief

MAX_SIDE = 8192
MAX_PIXELS = 64_000_000  # of an enlarged image: as many as are read again
PATTERN = re.compile(r"\s*(\d{1,6})(?:\s*[x×]\s*(\d{1,6}))?\s*", re.IGNORECASE)

SHAPES = {"square": (1, 1), "portrait": (2, 3), "landscape": (3, 2), "wide": (16, 9)}  # of as many pixels as before
FINISHED = {"icon": (256, 256), "720p": (1280, 720), "1080p": (1920, 1080)}  # as the image is shown in the end
AUTO = "auto"  # the init image's shape
RATIO = re.compile(r"\s*(\d{1,3}):(\d{1,3})\s*")
NAMES = f"{', '.join([*SHAPES, *FINISHED])}, a ratio such as 3:2, or auto"
MULTIPLE = 16  # of sides that are chosen: what most VQGANs draw
SMALLEST = 128  # px of the short side of a named size as it is drawn, before it is enlarged


def named_size(value: Any) -> str:
    """Return a size that is a name, a ratio or "auto"; "" for one in pixels, and for what is none."""
    name = value.strip().lower() if isinstance(value, str) else ""
    ratio = RATIO.fullmatch(name)
    return name if name in {*SHAPES, *FINISHED, AUTO} or (ratio and all(map(int, ratio.groups()))) else ""


def shaped(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return sides of the shape of one (width, height), and of about as many pixels as another. Raises UsageError."""
    ratio = shape[0] / shape[1]
    if not 1 / 16 <= ratio <= 16:
        raise UsageError(f"the shape {shape[0]}:{shape[1]} is over 16 times as long as it is wide", "give a --size")
    height = math.sqrt(size[0] * size[1] / ratio)
    width, height = (max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (height * ratio, height))
    return as_size((width, height))


def size_of_name(name: str, size: tuple[int, int], upscale: int) -> tuple[tuple[int, int], int]:
    """Return the size that a name stands for, and how many times as large the image is made afterwards.

    size, upscale: without that name. A finished size is drawn smaller by the largest factor, up to `upscale`, that
    leaves SMALLEST pixels.
    """
    if finished := FINISHED.get(name):
        factors = [k for k in range(1, upscale + 1) if min(finished) / k >= SMALLEST]
        factor = max(factors, default=1)
        return as_size([math.ceil(side / factor) for side in finished]), factor if factor > 1 else 0
    ratio = RATIO.fullmatch(name)
    return shaped((int(ratio[1]), int(ratio[2])) if ratio else SHAPES[name], size), upscale


def as_size(value: Any) -> tuple[int, int]:
    """Return (width, height) in pixels of a text, of one whole number or of two. Raises UsageError."""
    if isinstance(value, str):
        match = PATTERN.fullmatch(value)
        sides = [int(match[1]), int(match[2] or match[1])] if match else []
    else:
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(map(_is_whole, sides)):
        raise UsageError(f"{brief(value)} is not a size", f"write WIDTHxHEIGHT in pixels, e.g. 192x128; or {NAMES}")
    if not all(1 <= side <= MAX_SIDE for side in sides):
        size = "x".join(map(brief, sides))
        raise UsageError(f"the size {size} is out of range", f"use 1 to {MAX_SIDE} pixels a side")
    return int(sides[0]), int(sides[1])


def _is_whole(value: Any) -> bool:
    """Return whether a side is a whole number; True, which Python takes for 1, is not."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
