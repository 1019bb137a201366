"""The metadata of an image file, carried over into one that was made from it, with a note on what was done."""

import contextlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from .. import __version__
from ..errors import InputError, UsageError
from .images import load_with_alpha
from .metadata import PARAMETERS, RECORD, SOURCE, WRITERS, XMP, XMP_KEY, ImageInfo, writer_for
from .reading import parse_json

EXIF_PROCESSED_BY = 0x000B
MAX_FACTOR = 10_000  # of an image that was enlarged several times
POSTPROCESSED = re.compile(r", Postprocess upscale by: (\d{1,4}), Postprocess upscaler: [^,\n]*")
MAX_RECORD = 1_000_000  # characters
NOT_TEXTS = ("compression",)  # Pillow's, of TIFF


def enlarged(
    image: Image.Image, info: Mapping[str, Any], target: PurePath, upscaler: Mapping[str, str], factor: int
) -> bytes:
    """Encode an enlarged RGB or RGBA image for a file name's ending, with what the original said.

    info: the original's, as Pillow has it. upscaler: its `name` and `sha256`. They go into the PNG texts `vqclip` (as
    `upscale`), `parameters` (as other galleries read it) and `Upscaler`, or into EXIF. Raises UsageError for an ending
    that is unknown, or whose format holds no image of this size.
    """
    note = f"vqclip {__version__}: {upscaler['name']} ({upscaler['sha256'][:10]}), {factor}x"
    texts = {key: str(value) for key, value in info.items() if isinstance(value, str) and key not in NOT_TEXTS}
    if RECORD in texts:
        texts[RECORD] = _with_upscale(texts[RECORD], factor, dict(upscaler))
    if PARAMETERS in texts:
        before = POSTPROCESSED.search(texts[PARAMETERS])  # in all it is as many times as large as it was drawn
        times = factor * (int(before[1]) if before else 1)
        texts[PARAMETERS] = POSTPROCESSED.sub("", texts[PARAMETERS])
        texts[PARAMETERS] += f", Postprocess upscale by: {times}, Postprocess upscaler: {upscaler['name']}"
    xmp = info.get("xmp") or texts.get(XMP_KEY) or XMP.format(source=SOURCE + "algorithmicallyEnhanced")
    texts |= {XMP_KEY: xmp if isinstance(xmp, str) else bytes(xmp).decode("utf-8", "replace"), "Upscaler": note}
    exif = _sound_exif(info.get("exif") or b"")
    exif[EXIF_PROCESSED_BY] = note
    return encode(image, target, ImageInfo(texts, exif, info.get("icc_profile")))


def copied(path: Path, target: PurePath) -> bytes:
    """Encode an image file for another file name's ending, with its texts; for its own ending return its bytes.

    Raises UsageError as above, InputError for what is no image.
    """
    if target.suffix.lower() == path.suffix.lower():
        return path.read_bytes()
    image = load_with_alpha(path)
    return encode(
        image, target, ImageInfo({str(key): text for key, text in image.info.items() if isinstance(text, str)})
    )


def bare(image: Image.Image, info: Mapping[str, Any], target: PurePath) -> bytes:
    """Encode an image with nothing of what the original said but its colour profile. Raises UsageError as above."""
    return encode(image, target, ImageInfo(profile=info.get("icc_profile")))


def _sound_exif(data: bytes) -> Image.Exif:
    """Return EXIF that can be written again; none of what can't be read or written."""
    exif = Image.Exif()
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # bytes of any origin make Pillow raise anything
        warnings.simplefilter("ignore")
        exif.load(data)
        exif.tobytes()
        return exif
    return Image.Exif()


def _with_upscale(text: str, factor: int, upscaler: dict[str, str]) -> str:
    """Return a `vqclip` record with one more entry; one that can't be read stays as it is: it may be anybody's.

    Of an image that was enlarged before, the factor is that of both, and what was said of it stands as `before`.
    """
    try:
        record = parse_json(text, RECORD) if len(text) <= MAX_RECORD else None
    except InputError:
        record = None
    if not isinstance(record, dict):
        return text
    before, upscale = record.get("upscale"), {"factor": factor, "upscaler": upscaler}
    if isinstance(before, dict) and type(before.get("factor")) is int and 1 < before["factor"] < MAX_FACTOR:
        upscale |= {"factor": factor * before["factor"], "before": before}
    return json.dumps(record | {"upscale": upscale}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def encode(image: Image.Image, target: PurePath, info: ImageInfo) -> bytes:
    """Encode an image for a file name's ending. Raises UsageError as above."""
    try:
        return writer_for(target)(image, info)
    except (OSError, ValueError) as error:  # WebP has 16,383 pixels a side, JPEG 65,500
        size = f"{image.width}x{image.height}"
        raise UsageError(f"{target.name} holds no {size} pixels: {error}", "name it .png") from None


def suffix_for(path: Path) -> str:
    """Return the ending that an image made of this one gets: its own if that can be written, else .png."""
    return path.suffix if path.suffix.lower() in WRITERS else ".png"
