"""A contact sheet: many images on one, each with its caption below it."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ..files.atomic import write_atomic
from ..files.images import load_image, tile
from ..video.captions import CaptionStyle

CELL, LARGE_CELL, WIDEST = 256, 512, 8192  # pixels; a large cell is for images that have as many
GAP = 4


def make_sheet(images: Sequence[tuple[Path, str]], style: CaptionStyle | None = None) -> Image.Image:
    """Return (file, caption) pairs as one image, row by row, about square, their aspects kept.

    Raises InputError for an image that can't be read.
    """
    style = style or CaptionStyle()
    columns = max(1, math.ceil(math.sqrt(len(images))))
    most = min(LARGE_CELL, WIDEST // columns - GAP)
    reduced = [_reduced(load_image(path), most) for path, _ in images]
    side = min(most, max(CELL, *(max(image.size) for image in reduced)))
    scaled = [ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS) for image in reduced]
    # All cells have one size, whatever the image's shape, so that all captions have letters of one size.
    size = (side, max(image.height for image in scaled))
    cells = []
    for image, (_, caption) in zip(scaled, images, strict=True):
        cell = ImageOps.pad(image, size, color="white")
        cells.append(style.draw_below(cell, caption) if caption else cell)
    return tile(cells, columns=columns, gap=GAP, margin=GAP)


def _reduced(image: Image.Image, side: int) -> Image.Image:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def write_sheet(path: Path, images: Sequence[tuple[Path, str]], *, replace: bool = True) -> None:
    """Write a contact sheet as PNG. Raises OutputError, InputError, OutputExists where none is to be replaced."""
    buffer = io.BytesIO()
    make_sheet(images).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue(), replace=replace)
