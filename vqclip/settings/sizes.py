"""Sizes of pictures, as people write them: 128, "128x96", [128, 96]. Loads no torch."""

import re
from typing import Any

from ..errors import UsageError
from ..text import brief

MAX_SIDE = 8192
SPELT = "write WIDTHxHEIGHT in pixels, e.g. 192x128"
WRITTEN = re.compile(r"\s*(\d{1,6})(?:\s*[x×]\s*(\d{1,6}))?\s*", re.IGNORECASE)


def as_size(value: Any) -> tuple[int, int]:
    """Return a size as (width, height) in pixels: of text, of one whole number, of two. Raises UsageError."""
    if isinstance(value, str):
        match = WRITTEN.fullmatch(value)
        sides = [int(match[1]), int(match[2] or match[1])] if match else []
    else:
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(map(_is_whole, sides)):
        raise UsageError(f"{brief(value)} is not a size", SPELT)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        told = "x".join(map(brief, sides))
        raise UsageError(f"the size {told} is out of range", f"use 1 to {MAX_SIDE} pixels a side")
    return int(sides[0]), int(sides[1])


def _is_whole(value: Any) -> bool:
    """Say whether a side is a number of pixels; true, which Python takes for 1, is none."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
