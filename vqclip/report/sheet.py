"""A contact sheet: many pictures on one, each with its words."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ..files.atomic import write_atomic
from ..files.images import load_image
from ..video.captions import Lettering

CELL, WIDEST = 256, 8192  # pixels
GAP = 4


def make_sheet(pictures: Sequence[tuple[Path, str]], lettering: Lettering | None = None) -> Image.Image:
    """Return (file, caption) pairs as one picture, line by line, about square; each fits a cell, aspect kept.

    Raises InputError for a picture that can't be read.
    """
    lettering, columns = lettering or Lettering(), max(1, math.ceil(math.sqrt(len(pictures))))
    side = min(CELL, WIDEST // columns - GAP)
    cell, lines = side + GAP, math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell + GAP, lines * cell + GAP), "white")
    for k, (path, caption) in enumerate(pictures):
        picture = ImageOps.contain(load_image(path), (side, side), Image.Resampling.LANCZOS)
        whole = ImageOps.pad(picture, (side, side), color="white")
        if caption:  # on the cell, so that letters are of one size whatever the picture's shape
            whole = lettering.draw(whole, caption)
        sheet.paste(whole, (GAP + k % columns * cell, GAP + k // columns * cell))
    return sheet


def write_sheet(path: Path, pictures: Sequence[tuple[Path, str]]) -> None:
    """Write a contact sheet as PNG. Raises OutputError, InputError."""
    buffer = io.BytesIO()
    make_sheet(pictures).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
