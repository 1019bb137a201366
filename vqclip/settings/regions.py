r"""Prompts for a part of the image: "TEXT[:WEIGHT]@PLACE", as `--region "a red heart@left"`.

PLACE is a name of PLACES, four shares of the image, x,y,width,height from its upper left corner ("0.5,0,0.5,1"), or an
image: where it is white the prompt counts. TEXT is as a whole prompt text, of several prompts and with curves if need
be; it ends at the last @.
"""

import re
from dataclasses import dataclass

from ..errors import UsageError
from ..text import brief, nearest
from .prompts import Prompt, parse_prompts

SIGN = "@"  # between text and place
HINT = 'write "a red heart@left", a place of left, right, top, bottom, centre, x,y,width,height in shares, or a file'
SHARES = re.compile(r"\s*(?:[\d.]+\s*,\s*){3}[\d.]+\s*")

Box = tuple[float, float, float, float]  # x, y, width, height, in shares of the image


@dataclass(frozen=True)
class Region:
    """Prompts of a part of the image: of a box, or of what is white in a file."""

    prompts: tuple[Prompt, ...]
    box: Box | None
    file: str = ""


def parse_region(source: str) -> Region:
    """Read a region. Raises UsageError."""
    text, sign, place = source.rpartition(SIGN)
    if not text.strip() or not place.strip():
        lacking = "text" if sign and place.strip() else "place"
        raise UsageError(f"the region {brief(source)} has no {lacking}", HINT)
    prompts, place = tuple(parse_prompts(text)), place.strip()
    if box := PLACES.get(place.lower()):
        return Region(prompts, box)
    if SHARES.fullmatch(place):
        return Region(prompts, _box(source, place))
    if re.fullmatch(r"[A-Za-z][A-Za-z _-]*", place):
        close = nearest(place.lower(), PLACES, 1)
        meant = f": did you mean {close[0]!r}?" if close else " (a file without an ending is written ./NAME)"
        raise UsageError(f"there is no place {brief(place)}{meant}", HINT)
    return Region(prompts, None, place)


def _box(source: str, place: str) -> Box:
    try:
        x, y, width, height = map(float, place.split(","))
    except ValueError:
        raise UsageError(f"the region {brief(source)} has no four numbers", HINT) from None
    if not (width > 0 and height > 0 and x + width <= 1.0001 and y + height <= 1.0001):
        what = f"the region {brief(source)} is not inside the image"
        raise UsageError(what, "x, y, width and height are shares: 0.5,0,0.5,1 is the right half")
    return x, y, width, height


PLACES: dict[str, Box] = {
    "left": (0.0, 0.0, 0.5, 1.0),
    "right": (0.5, 0.0, 0.5, 1.0),
    "top": (0.0, 0.0, 1.0, 0.5),
    "bottom": (0.0, 0.5, 1.0, 0.5),
    "centre": (0.25, 0.25, 0.5, 0.5),
    "center": (0.25, 0.25, 0.5, 0.5),
}
