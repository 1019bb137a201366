"""What an image file says of itself, carried over into one that was made of it, with a word about what was done."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import __version__
from ..errors import UsageError
from .metadata import SOURCE, XMP, writer_for

RECORD, PARAMETERS, XMP_KEY = "vqclip", "parameters", "XML:com.adobe.xmp"  # of a PNG's texts
PROCESSED_BY, DETAILS, COMMENT = 0x000B, 0x8769, 0x9286  # of EXIF: a tag, the part with a tag more, that tag
UNICODE = b"UNICODE\0"  # what a comment of EXIF begins with
MAX_RECORD = 1_000_000  # characters
MAX_SEGMENT = 65_000  # bytes that JPEG has for EXIF, and for XMP
NO_TEXT = ("compression",)  # told by Pillow, of TIFF


def enlarged(
    image: Image.Image, info: Mapping[str, Any], target: PurePath, upscaler: Mapping[str, str], factor: int
) -> bytes:
    """Encode an enlarged RGB or RGBA image for a file name's ending, with what the original said.

    info: the original's, as Pillow has it. upscaler: its `name` and `sha256`. It stands in the PNG texts `vqclip` (as
    `upscale`), `parameters` (as other galleries read it) and `Upscaler`, or in EXIF. Raises UsageError for an ending
    that is unknown, or whose format holds no image of this size.
    """
    done = f"vqclip {__version__}: {upscaler['name']} ({upscaler['sha256'][:10]}), {factor}x"
    texts = {key: str(value) for key, value in info.items() if isinstance(value, str) and key not in NO_TEXT}
    if RECORD in texts:
        texts[RECORD] = _recorded(texts[RECORD], {"factor": factor, "upscaler": dict(upscaler)})
    if PARAMETERS in texts:
        texts[PARAMETERS] += f", Postprocess upscale by: {factor}, Postprocess upscaler: {upscaler['name']}"
    xmp = info.get("xmp") or texts.get(XMP_KEY) or XMP.format(source=SOURCE + "algorithmicallyEnhanced")
    exif = Image.Exif()
    exif.load(info.get("exif") or b"")
    exif[PROCESSED_BY] = done
    if PARAMETERS in texts and target.suffix.lower() != ".png":
        exif.get_ifd(DETAILS)[COMMENT] = UNICODE + texts[PARAMETERS].encode("utf-16-be", "replace")
    texts |= {XMP_KEY: xmp if isinstance(xmp, str) else bytes(xmp).decode("utf-8", "replace"), "Upscaler": done}
    return _encode(image, target, info.get("icc_profile"), texts, exif)


def bare(image: Image.Image, info: Mapping[str, Any], target: PurePath) -> bytes:
    """Encode an image with nothing of what the original said but its colour profile. Raises UsageError as above."""
    return _encode(image, target, info.get("icc_profile"), {}, None)


def _recorded(text: str, done: dict[str, Any]) -> str:
    """Return a `vqclip` record with one more entry; one that can't be read stays as it is: it may be anybody's."""
    try:
        record = json.loads(text) if len(text) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return text
    return json.dumps(record | {"upscale": done}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _encode(
    image: Image.Image, target: PurePath, profile: bytes | None, texts: Mapping[str, str], exif: Image.Exif | None
) -> bytes:
    writer_for(target)
    buffer = io.BytesIO()
    try:
        ENCODERS[target.suffix.lower()](image, buffer, {"icc_profile": profile} if profile else {}, texts, exif)
    except (OSError, ValueError) as error:  # WebP has 16,383 pixels a side, JPEG 65,500
        size = f"{image.width}x{image.height}"
        raise UsageError(f"{target.name} holds no {size} pixels: {error}", "name it .png") from None
    return buffer.getvalue()


def _png(
    image: Image.Image, file: io.BytesIO, options: dict[str, Any], texts: Mapping[str, str], exif: Image.Exif | None
) -> None:
    info = PngInfo()
    for key, value in texts.items():
        if 0 < len(key) < 80 and key.isascii():
            info.add_itxt(key, value)
    image.save(file, "PNG", pnginfo=info, compress_level=6, exif=exif or b"", **options)


def _jpeg(
    image: Image.Image, file: io.BytesIO, options: dict[str, Any], texts: Mapping[str, str], exif: Image.Exif | None
) -> None:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    told = {key: value for key, value in _told(texts, exif).items() if len(value) < MAX_SEGMENT}
    image.convert("RGB").save(file, "JPEG", quality=95, subsampling=0, **told, **options)


def _webp(
    image: Image.Image, file: io.BytesIO, options: dict[str, Any], texts: Mapping[str, str], exif: Image.Exif | None
) -> None:
    image.save(file, "WEBP", lossless=True, exact=True, **_told(texts, exif), **options)


def _told(texts: Mapping[str, str], exif: Image.Exif | None) -> dict[str, bytes]:
    found = {"exif": exif.tobytes()} if exif is not None else {}
    return found | ({"xmp": texts[XMP_KEY].encode()} if XMP_KEY in texts else {})


ENCODERS: dict[str, Callable[..., None]] = {".jpeg": _jpeg, ".jpg": _jpeg, ".png": _png, ".webp": _webp}


def suffix_for(path: Path) -> str:
    """Return the ending that an image made of this one gets: its own where that can be written, else .png."""
    return path.suffix if path.suffix.lower() in ENCODERS else ".png"
