"""An image in the terminal: by kitty's, iTerm2's or sixel graphics, else in half-blocks, two pixels a character.

By hand, since of the libraries tried in 2026 none fits: textual-image asks the terminal through stdin and writes to
stdout, which is the result's; term-image needs a Pillow with known flaws; chafa's binding needs the system's glib.
"""

import base64
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from PIL import Image

CELL = (10, 20)  # pixels of a character, where the terminal does not say
COLOURS = 48  # of a sixel image
RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)  # in a line of sixels
CHUNK = 4096  # bytes of kitty's protocol
KITTY_ID = 0x76710000 + os.getpid() % 0x10000  # an image of this number replaces the one before it


def protocol_of(environ: Mapping[str, str]) -> str:
    """Return how a terminal shows images, by its variables: a name in PROTOCOLS, or "" if it shows none.

    It is not asked: the answer would come by stdin, between what is typed.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if term in ("", "dumb") and "WT_SESSION" not in environ:
        return ""
    if "TMUX" in environ or "STY" in environ or term.startswith(("screen", "tmux")):  # which pass no graphics on
        return "blocks"
    if "KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if term.startswith(("foot", "mlterm", "contour", "yaft")) or "sixel" in term else "blocks"


def fit_cells(image: Image.Image, columns: int, rows: int, cell: tuple[int, int] = CELL) -> tuple[int, int]:
    """Return how many columns and rows an image takes, its aspect kept, of at most so many."""
    aspect = image.width / image.height * cell[1] / cell[0]
    rows = max(1, min(rows, int(columns / aspect)))
    return max(1, min(columns, round(rows * aspect))), rows


def _blocks(image: Image.Image, columns: int, rows: int, cell: tuple[int, int], *, true_colour: bool = True) -> str:
    pixels = np.asarray(image.resize((columns, 2 * rows), Image.Resampling.LANCZOS))
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        line, before = [], ""
        for over, under in zip(upper.tolist(), lower.tolist(), strict=True):
            colours = f"38;{_colour(over, true_colour)};48;{_colour(under, true_colour)}"
            line.append((f"\x1b[{colours}m" if colours != before else "") + "\u2580")
            before = colours
        lines.append("".join(line) + "\x1b[0m")
    return "\r\n".join(lines)


def _colours_256(image: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> str:
    return _blocks(image, columns, rows, cell, true_colour=False)


def _colour(pixel: list[int], true_colour: bool) -> str:
    """Return a colour of the terminal; without true colours the nearest of a cube of six levels."""
    if true_colour:
        return "2;{};{};{}".format(*pixel)
    red, green, blue = (round(value / 51) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _kitty(image: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> str:
    data = base64.b64encode(_png(image)).decode()
    parts = [data[k : k + CHUNK] for k in range(0, len(data), CHUNK)]
    first = f"a=T,f=100,C=1,q=2,i={KITTY_ID},p=1,c={columns},r={rows},"
    return "".join(
        f"\x1b_G{'' if k else first}m={int(k < len(parts) - 1)};{part}\x1b\\" for k, part in enumerate(parts)
    )


def _iterm(image: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> str:
    data = _png(image)
    size = f"size={len(data)};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(data).decode()}\x07"


def _sixel(image: Image.Image, columns: int, rows: int, cell: tuple[int, int]) -> str:
    size = columns * cell[0], rows * cell[1] // 6 * 6  # whole bands: a part of one would scroll the screen
    few = image.resize((64, 64)).quantize(COLOURS)  # of all pixels it takes a quarter of a second
    reduced = image.resize(size, Image.Resampling.LANCZOS).quantize(palette=few, dither=Image.Dither.NONE)
    palette = np.asarray(reduced.getpalette()).reshape(-1, 3)
    colours = "".join("#{};2;{};{};{}".format(k, *(rgb * 100 // 255)) for k, rgb in enumerate(palette))
    return f'\x1bPq"1;1;{size[0]};{size[1]}{colours}{"".join(_bands(np.asarray(reduced)))}\x1b\\'


def _bands(pixels: np.ndarray) -> Iterator[str]:
    """Yield the rows of pixels, six at a time: of each colour a character for six pixels, runs of them counted."""
    places = np.arange(pixels.shape[1])
    for top in range(0, len(pixels), 6):
        colours, numbers = np.unique(pixels[top : top + 6], return_inverse=True)
        codes = np.full((len(colours), len(places)), 63, np.uint8)
        for bit, row in enumerate(numbers.reshape(-1, len(places))):
            codes[row, places] += 1 << bit
        layers = (RUN.sub(_counted, line.tobytes().rstrip(b"?")) for line in codes)
        yield "$".join(f"#{colour}{line.decode()}" for colour, line in zip(colours, layers, strict=True)) + "-"


def _counted(run: re.Match[bytes]) -> bytes:
    return b"!%d%c" % (len(run[0]), run[0][0])


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


Draw = Callable[[Image.Image, int, int, tuple[int, int]], str]
PROTOCOLS: dict[str, Draw] = {
    "kitty": _kitty, "iterm": _iterm, "sixel": _sixel, "blocks": _blocks, "blocks-256": _colours_256
}  # fmt: skip


def forget(protocol: str) -> str:
    """Return what takes the image off the screen, where erasing its characters does not."""
    return f"\x1b_Ga=d,d=i,i={KITTY_ID},q=2\x1b\\" if protocol == "kitty" else ""
