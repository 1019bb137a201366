"""Sizes of images, as people write them: 128, "128x96", [128, 96]."""

import re
from typing import Any

from ..errors import UsageError
from ..text import brief

MAX_SIDE = 8192
MAX_PIXELS = 64_000_000  # of an enlarged image: as many as are read again
PATTERN = re.compile(r"\s*(\d{1,6})(?:\s*[x×]\s*(\d{1,6}))?\s*", re.IGNORECASE)


def as_size(value: Any) -> tuple[int, int]:
    """Return (width, height) in pixels of a text, of one whole number or of two. Raises UsageError."""
    if isinstance(value, str):
        match = PATTERN.fullmatch(value)
        sides = [int(match[1]), int(match[2] or match[1])] if match else []
    else:
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(map(_is_whole, sides)):
        raise UsageError(f"{brief(value)} is not a size", "write WIDTHxHEIGHT in pixels, e.g. 192x128")
    if not all(1 <= side <= MAX_SIDE for side in sides):
        size = "x".join(map(brief, sides))
        raise UsageError(f"the size {size} is out of range", f"use 1 to {MAX_SIDE} pixels a side")
    return int(sides[0]), int(sides[1])


def _is_whole(value: Any) -> bool:
    """Return whether a side is a whole number; True, which Python takes for 1, is not."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
