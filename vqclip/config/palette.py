"""Palettes from images: "@picture.png" among colours stands for the colours of that image.

It is read where settings are given, so that settings hold colours alone: a record needs no file, and reads none.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from ..files.images import load_image
from ..files.paths import absolute
from ..settings.colours import OF_IMAGE
from ..settings.schema import from_text

FEW = 64  # colours: an image with no more is a palette itself
CHOSEN = 16  # colours that stand for those of any other image


def with_colours(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each "@FILE" of a palette replaced by that image's colours. Raises InputError."""
    given = values.get("palette")
    if not isinstance(given, list | tuple | str):
        return dict(values)
    parts = from_text("palette", given) if isinstance(given, str) else given
    return {**values, "palette": tuple(colour for part in parts for colour in _colours(part))}


def _colours(part: Any) -> Iterator[Any]:
    if not isinstance(part, str) or not part.startswith(OF_IMAGE):
        yield part
        return
    for red, green, blue in colours_of(load_image(absolute(part.removeprefix(OF_IMAGE)))):
        yield f"#{red:02x}{green:02x}{blue:02x}"


def colours_of(image: Image.Image) -> list[tuple[int, int, int]]:
    """Return the colours of an RGB image, the most frequent first: all if they are few, else the means of clusters."""
    counted: Any = image.getcolors(FEW)
    if counted is None:
        reduced = image.quantize(CHOSEN, Image.Quantize.MEDIANCUT, kmeans=CHOSEN)
        counted = reduced.convert("RGB").getcolors(CHOSEN)
    return [colour for _, colour in sorted(counted, reverse=True)]
