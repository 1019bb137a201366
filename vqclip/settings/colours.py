"""Colours as people write them: names of CSS, #c00, #cc0000, rgb(204, 0, 0)."""

import re
from typing import Any

from ..errors import UsageError
from ..text import brief, nearest

MOST = 256  # colours of a palette
OF_IMAGE = "@"  # before a file: its colours (config/palette.py)
HINT = 'write a name ("teal") or a number ("#c00", "#cc0000"), separated by commas'


def as_colour(value: Any) -> Any:
    """Return a colour as `#rrggbb`; what is no text, and "", as it is. Raises UsageError for a text that names none."""
    if not isinstance(value, str) or not value:
        return value
    from PIL import ImageColor  # not for commands that read no colour

    try:
        red, green, blue, *_ = ImageColor.getrgb(value.strip().lower())
    except ValueError:
        close = nearest(re.sub("[-_ ]", "", value.lower()), ImageColor.colormap, 1)
        raise UsageError(f"{brief(value)} is no colour", f"did you mean {close[0]!r}?" if close else HINT) from None
    return f"#{red:02x}{green:02x}{blue:02x}"


def as_palette_colour(value: Any) -> Any:
    """Return a colour as `as_colour` does; "@FILE" as it is. Raises UsageError."""
    if isinstance(value, str) and re.search(r"\.\w+$", value) and not value.startswith(OF_IMAGE):
        raise UsageError(f"{brief(value)} is no colour", f"the colours of an image are {OF_IMAGE}{value}")
    return value if isinstance(value, str) and value.startswith(OF_IMAGE) else as_colour(value)


def rgb(colour: str) -> tuple[float, float, float]:
    """Return the red, green and blue of `#rrggbb`, 0..1."""
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue
