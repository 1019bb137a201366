"""Captions: on a dark, translucent band at the foot of an image, or on a strip below it."""

import functools
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError
from ..files.reading import read_bytes

MAX_TEXT, MAX_LINES = 300, 3
MAX_FONT = 100_000_000  # bytes; fonts of Chinese have 20 MB
GIVE = "give a .ttf or .otf file"
BAND = (0, 0, 0, 150)  # RGBA of the band on an image
UNASSIGNED = "\uffff"  # no character, so no font has a glyph for it
# DejaVu Sans, of which the Latin, Greek and Cyrillic letters are kept (fonttools: pyftsubset).
MORE_LETTERS = Path(__file__).parent / "fonts" / "DejaVuSans-subset.ttf"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class CaptionStyle:
    """The font of captions: a file; otherwise pillow's, or DejaVu Sans for a text with letters beyond ASCII."""

    font: Path | None = None

    def __post_init__(self) -> None:
        """Open the font once, so that a bad file is reported before any work. Raises InputError."""
        self.load_font(12, "")

    def load_font(self, size: int, text: str) -> Font:
        """Return the font for a text in a size of pixels. Raises InputError."""
        try:
            if self.font:
                return ImageFont.truetype(io.BytesIO(read_bytes(self.font, MAX_FONT, GIVE)), size)
            usual = ImageFont.load_default(size)
            return ImageFont.truetype(str(MORE_LETTERS), size) if _lacks(usual, text) else usual
        except (OSError, ValueError) as error:
            raise InputError(f"{self.font} is no font: {error}", GIVE) from None

    def missing_characters(self, text: str) -> str:
        """Return the characters of a text that the font does not have."""
        return _lacks(self.load_font(24, _clean(text)), _clean(text))

    def draw_on(self, image: Image.Image, text: str) -> Image.Image:
        """Return an RGB image with up to three lines of text on a band at its foot."""
        band = _render(self, image.size, _clean(text), BAND, "white")
        band = band.crop((0, 0, band.width, min(band.height, image.height)))
        captioned = image.copy()
        captioned.paste(band, (0, image.height - band.height), band)
        return captioned

    def draw_below(self, image: Image.Image, text: str) -> Image.Image:
        """Return an RGB image made higher by a white strip with up to three lines of text."""
        strip = _render(self, image.size, _clean(text), (255, 255, 255, 255), "black")
        captioned = Image.new("RGB", (image.width, image.height + strip.height))
        captioned.paste(image, (0, 0))
        captioned.paste(strip, (0, image.height))
        return captioned


def _lacks(font: Font, text: str) -> str:
    """Return the characters of a text that a font does not have: it draws all of them as the same box."""
    box = bytes(font.getmask(UNASSIGNED))
    return "".join(c for c in dict.fromkeys(text) if bytes(font.getmask(c)) == box)


def _clean(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT]


@functools.lru_cache(maxsize=16)
def _render(
    style: CaptionStyle, image_size: tuple[int, int], text: str, background: tuple[int, int, int, int], color: str
) -> Image.Image:
    """Return a text as RGBA, as wide as the image and as high as its lines. The size of the letters fits the image."""
    letter_size = max(9, min(image_size) // 13)
    font, padding = style.load_font(letter_size, text), letter_size // 2
    width, line_height = image_size[0], round(letter_size * 1.3)
    lines = _break_lines(text, font, width - 2 * padding)
    rendered = Image.new("RGBA", (width, len(lines) * line_height + padding), background)
    draw = ImageDraw.Draw(rendered)
    for k, line in enumerate(lines):
        left = max((width - font.getlength(line)) / 2, 0)
        draw.text((left, padding / 2 + k * line_height), line, fill=color, font=font)
    return rendered


def _break_lines(text: str, font: Font, width: int) -> list[str]:
    """Return a text in at most MAX_LINES lines that fit into a width; a text that is too long ends in dots."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1] + " ..."]
    return [_shorten(line, font, width) for line in lines]


def _shorten(line: str, font: Font, width: int) -> str:
    """Return a line that fits into a width: where it is too long, its beginning and dots."""
    if font.getlength(line) <= width:
        return line
    beginning = line.removesuffix("...")
    while beginning and font.getlength(beginning + "...") > width:
        beginning = beginning[:-1].rstrip()
    return beginning + "..."
