"""Words at the foot of a picture, on a band that lets the picture through."""

import functools
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import InputError

MAX_TEXT, MAX_LINES = 300, 3
BAND = (0, 0, 0, 150)
NOBODYS = "\uffff"  # no letter, so no font has it


@dataclass(frozen=True)
class Lettering:
    """A font: a file, or the one that pillow brings, which has few letters beyond ASCII."""

    font: Path | None = None

    def __post_init__(self) -> None:
        """Open the font, so that a bad one is found before any work. Raises InputError."""
        self._sized(12)

    def lacks(self, text: str) -> str:
        """Return the letters of a text that the font does not have: it draws all of these alike, as a box."""
        font = self._sized(24)
        box = bytes(font.getmask(NOBODYS))
        return "".join(c for c in dict.fromkeys(_clean(text)) if bytes(font.getmask(c)) == box)

    def draw(self, picture: Image.Image, text: str) -> Image.Image:
        """Return an RGB picture with up to three lines of text at its foot."""
        band = _band(self, picture.size, _clean(text))
        written = picture.copy()
        written.paste(band, (0, picture.height - band.height), band)
        return written

    def _sized(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        try:
            return ImageFont.truetype(str(self.font), size) if self.font else ImageFont.load_default(size)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.font} is no font: {error}", "give a .ttf or .otf file") from None


def _clean(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT]


@functools.lru_cache(maxsize=16)
def _band(lettering: Lettering, size: tuple[int, int], text: str) -> Image.Image:
    """Return the band as RGBA, as wide as the picture and as high as its lines."""
    letters = max(9, min(size) // 13)
    font, space = lettering._sized(letters), letters // 2
    lines = _lines(text, font, size[0] - 2 * space)
    height = round(letters * 1.3)
    band = Image.new("RGBA", (size[0], min(size[1], len(lines) * height + space)), BAND)
    pen = ImageDraw.Draw(band)
    for k, line in enumerate(lines):
        left = (size[0] - font.getlength(line)) / 2
        pen.text((max(left, 0), space / 2 + k * height), line, fill="white", font=font)
    return band


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break text into lines that fit; what is too much ends in dots."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += [word] if lines[-1] else []
            lines[-1] = lines[-1] or word
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1] + " ..."]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    short = line
    while len(short) > 1 and font.getlength(short) > width:
        short = short.removesuffix("...")[:-1].rstrip() + "..."
        if short == "...":
            break
    return short
