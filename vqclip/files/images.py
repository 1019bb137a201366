"""Between files, PIL and tensors. The one place where (width, height) and [N, C, H, W] meet."""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, OutOfMemory, UsageError, is_out_of_memory
from .archives import UNPACK, archive_at
from .paths import open_regular

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
OTHERS = {  # how images of other formats begin
    rb"....ftyp(hei|hev|mif1|msf1)": "a HEIC", rb"8BPS\0": "a PSD", rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL",
    rb"\0\0\0\x0cjP  ": "a JPEG 2000", rb"%PDF-": "a PDF", rb"v/1\x01": "an OpenEXR", rb"\0\0\x01\0": "an ICO",
    rb"\s*(<\?xml.*)?<svg\b": "an SVG",
}  # fmt: skip
MAX_PIXELS = 64_000_000
WHITES = {"I": (255, 65535, 2**31 - 1), "F": (1.0, 255.0, 65535.0)}  # of modes without one: 0..1, 8 bits, 16 bits ...
EXIF_ORIENTATION = 0x0112
T = Image.Transpose
TURNS = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270, 7: T.TRANSVERSE,
         8: T.ROTATE_90}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)
DAMAGED = "{path} is damaged: {error}", "save it again from where it came"
# What reading a picture may raise, the special before the general, and how it is told.
REASONS: dict[type[Exception], tuple[str, str]] = {
    **dict.fromkeys((FileNotFoundError, NotADirectoryError), ("{path} does not exist", "check the path")),
    IsADirectoryError: ("{path} is a folder, not an image", "give a file"),
    PermissionError: ("{path} may not be read", "check its permissions"),
    UnidentifiedImageError: ("{path} is not an image", f"known formats: {', '.join(FORMATS)}"),
    Image.DecompressionBombError: ("{path} has over 64 million pixels", "make it smaller first"),
    **dict.fromkeys((OSError, ValueError, SyntaxError, EOFError, struct.error), DAMAGED),
}


def load_image(path: str | Path) -> Image.Image:
    """Read an image as RGB, turned as its EXIF says, transparency over white.

    Raises InputError for what is missing, no image, damaged, or over 64 megapixels.
    """
    picture = load_with_alpha(path)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def load_with_alpha(path: str | Path) -> Image.Image:
    """Read an image as RGB, or RGBA where it is transparent somewhere, turned as its EXIF says.

    Its `info` is the file's: texts, `exif`, `icc_profile`, `xmp`. Raises InputError as `load_image` does.
    """
    kind: str | None = None
    try:
        with opened(Path(path)) as file:
            kind = file.format
            if file.width * file.height > MAX_PIXELS:
                raise InputError(f"{path} has {file.width}x{file.height} pixels, over 64 million", "make it smaller")
            file.load()
            return _to_colours(_upright(file))
    except tuple(REASONS) as error:
        if is_out_of_memory(error) and kind != "GIF":  # whose decoder says the same of a wrong code size
            raise OutOfMemory(f"there is too little memory to read {path}", "let this process have more") from None
        what, hint = next(reason for kind, reason in REASONS.items() if isinstance(error, kind))
        if isinstance(error, FileNotFoundError) and (address := re.search(r"\bhttps?:/.*", str(path))):
            raise InputError(f"{address[0]} is an address, not a file", "download it first") from None
        if isinstance(error, UnidentifiedImageError) and (archive := archive_at(Path(path))):
            raise InputError(f"{path} is {archive}, not an image", UNPACK) from None
        if isinstance(error, UnidentifiedImageError) and (other := _other_format(Path(path))):
            raise InputError(f"{path} is {other}", "save it as PNG or JPEG first; that is not read") from None
        raise InputError(what.format(path=path, error=error), hint) from None


def check_images(paths: Iterable[Path], on_bad: Callable[[str], None] | None = None) -> list[Path]:
    """Return those of the paths that hold images, which are read one at a time and not kept.

    on_bad: hears what is wrong with each that is left out; without it the first is an error. Raises InputError, also
    where no image is left.
    """
    sound: list[Path] = []
    for path in paths:
        try:
            load_image(path)
            sound.append(path)
        except InputError as error:
            if on_bad is None:
                raise InputError(error.what, f"{error.hint}; or leave it out: --skip-bad") from None
            on_bad(error.what)
    if not sound:
        raise InputError("none of the images can be read", "give others")
    return sound


@contextlib.contextmanager
def opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Open a picture of a regular file by Pillow, whose remarks on what it skips nobody needs.

    Raises what is in REASONS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # among them that on many pixels: our own limit comes first
        with open_regular(path) as data, Image.open(data, formats=formats) as file:
            yield file


def _other_format(path: Path) -> str:
    """Return what an image is of a format that is not read; "" for any other file."""
    with open_regular(path) as file:
        head = file.read(1000)
    return next((title for pattern, title in OTHERS.items() if re.match(pattern, head, re.DOTALL)), "")


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF says; EXIF that is damaged is left out."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # bytes of any origin make Pillow's reader and writer of EXIF raise anything
        info = {key: value for key, value in picture.info.items() if key not in ("exif", "Raw profile type exif")}
        turn = TURNS.get(_orientation(picture))
        turned = picture.transpose(turn) if turn is not None else picture.copy()
        turned.info = info
        return turned


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of an opened picture as `load_image` would give it, from its header."""
    return picture.size[::-1] if _orientation(picture) in SIDEWAYS else picture.size


def _orientation(picture: Image.Image) -> Any:
    with contextlib.suppress(Exception):  # as in _upright
        return picture.getexif().get(EXIF_ORIENTATION)


def is_whole(path: Path) -> bool:
    """Say whether a picture is there and all of its bytes are sound, without decoding it."""
    try:
        with opened(path) as file:
            file.verify()
        return True
    except tuple(REASONS):
        return False


def _to_colours(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    elif picture.mode in ("I", "F"):  # nor does it scale these: the largest value says what white is
        top: Any = picture.getextrema()[1]
        white = next((limit for limit in WHITES[picture.mode] if top <= limit), top)
        picture = picture.point(lambda value: value * (255 / white)).convert("L")
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def to_tensor(picture: Image.Image) -> Tensor:
    """Turn an RGB picture into float32 `[1, 3, H, W]` in 0..1."""
    import torch  # here, so that who only reads files (vqclip video) does without

    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.view(1, picture.height, picture.width, 3).permute(0, 3, 1, 2).float().div(255)


def to_picture(image: Tensor) -> Image.Image:
    """Turn one picture `[3, H, W]` or `[1, 3, H, W]` into RGB, values clamped to 0..1 and rounded."""
    import torch

    image = image.detach().reshape(image.shape[-3:]).float().clamp(0, 1)
    data = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
    return Image.frombytes("RGB", (data.shape[1], data.shape[0]), data.numpy().tobytes())


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale a picture to cover `size` (width, height) and crop what overhangs, aspect kept."""
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def snap(image: Image.Image, colours: Sequence[str], how: str) -> Image.Image:
    """Return an RGB image in these colours (`#rrggbb`, 256 at most) alone: the nearest, or by how "dither" mixed."""
    numbers = [int(colour[k : k + 2], 16) for colour in colours for k in (1, 3, 5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette((numbers * 256)[: 3 * 256])  # whatever Pillow fills up with would be a colour too
    dither = Image.Dither.FLOYDSTEINBERG if how == "dither" else Image.Dither.NONE
    return image.quantize(palette=palette, dither=dither).convert("RGB")


def wrapped(image: Image.Image, x: int, y: int) -> Image.Image:
    """Return an image with so many pixels of its other side beyond its left and right edges, upper and lower ones."""
    width, height = image.size
    wide = Image.new(image.mode, (width + 2 * x, height + 2 * y))
    for left in (x - width, x, x + width):
        for top in (y - height, y, y + height):
            wide.paste(image, (left, top))
    return wide


def tile(
    images: Sequence[Image.Image], *, columns: int = 0, gap: int = 0, margin: int = 0, background: str = "white"
) -> Image.Image:
    """Return images on one sheet, row by row, each at the top of a cell that would hold any of them.

    columns: 0 makes the sheet about square. gap, margin: pixels between the cells and around all of them.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet_size = (columns * (width + gap) - gap + 2 * margin, rows * (height + gap) - gap + 2 * margin)
    sheet = Image.new("RGB", sheet_size, background)
    for k, image in enumerate(images):
        left = margin + k % columns * (width + gap) + (width - image.width) // 2
        sheet.paste(image, (left, margin + k // columns * (height + gap)))
    return sheet


def round_size(size: tuple[int, int], f: int) -> tuple[int, int]:
    """Round (width, height) to multiples of `f`. Raises UsageError below two places a side."""
    width, height = (max(1, round(side / f)) * f for side in size)
    if min(size) < 2 * f:
        what = f"the size {size[0]}x{size[1]} is too small for this VQGAN"
        raise UsageError(what, f"use at least {2 * f} pixels a side")
    return width, height
