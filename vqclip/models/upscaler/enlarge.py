"""Any factor from 2 to 8 with a network of any scale, tile by tile: memory is that of a tile, whatever the size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.interfaces import Upscaler
from ...errors import UsageError
from . import FACTORS, TILE

SMALLEST_TILE = 16
KERNEL = 4  # pixels that a resize looks further
BLUR = 4  # input pixels around each over which colours are compared, twice


@dataclass(frozen=True)
class Span:
    """A stretch of one axis: what is looked at, and the part of it that is kept."""

    start: int
    stop: int
    first: int
    last: int


def enlarge(image: Tensor, factor: int, upscaler: Upscaler, tile: int = TILE) -> Tensor:
    """Return an image `[N, 3, H, W]` enlarged to `[N, 3, H*factor, W*factor]`, on the same device, in the same type.

    The type is a floating one in 0..1, or uint8. tile: the side of the squares that are enlarged one after the other,
    each with as much around it as the network looks at, so that no seam is to be seen; 0: all at once. Equal images
    and tiles give equal numbers, and an image's do not depend on its neighbours. Raises UsageError.
    """
    check_factor(factor)
    check_tile(tile)
    number, channels, height, width = image.shape
    whole = image.new_empty(number, channels, height * factor, width * factor)
    around = margin(factor, upscaler)
    for row in _spans(height, tile, around, upscaler.step):
        for column in _spans(width, tile, around, upscaler.step):
            for k in range(number):
                seen = _as_float(image[k : k + 1, :, row.start : row.stop, column.start : column.stop])
                large = _whole(seen, factor, upscaler)
                top, left = (row.first - row.start) * factor, (column.first - column.start) * factor
                bottom, right = (row.last - row.start) * factor, (column.last - column.start) * factor
                whole[k, :, row.first * factor : row.last * factor, column.first * factor : column.last * factor] = _as(
                    image.dtype, large[0, :, top:bottom, left:right]
                )
    return whole


def check_factor(factor: int) -> None:
    """Refuse a factor that is not from 2 to 8. Raises UsageError."""
    low, high = FACTORS
    if not low <= factor <= high:
        raise UsageError(f"a factor of {factor} is out of range", f"use {low} to {high}")


def check_tile(tile: int) -> None:
    """Refuse tiles so small that most of the work is done around them. Raises UsageError."""
    if tile and tile < SMALLEST_TILE:
        raise UsageError(f"tile: {tile} is out of range", f"use {SMALLEST_TILE} or more, or 0 for none")


def margin(factor: int, upscaler: Upscaler) -> int:
    """Return how many input pixels around a tile its enlargement may depend on."""
    seen = passes(factor, upscaler.scale)
    reach = sum(upscaler.radius / before for before in seen) + KERNEL * (len(seen) + 1) + 2 * BLUR
    return math.ceil(reach / upscaler.step) * upscaler.step


def passes(factor: int, scale: int) -> list[int]:
    """Return how large the image is, as a multiple of the input, before each time that the network sees it.

    All but the last are the network's own powers; before the last it is made as small as suffices for the factor, so
    that the network and no resize makes the edges: for 8 by a network of 4, 1 and 2 (and not 1 and 4, which takes four
    times as long, nor once and a resize, which is softer).
    """
    sizes = []
    size = 1
    while size * scale < factor:
        sizes.append(size)
        size *= scale
    return [*sizes, math.ceil(factor / scale)]


def _whole(image: Tensor, factor: int, upscaler: Upscaler) -> Tensor:
    """Enlarge `[1, 3, H, W]` all at once."""
    height, width = image.shape[-2:]
    large = image
    for before in passes(factor, upscaler.scale):
        large = upscaler(_resized(large, height * before, width * before))
    return _recoloured(_resized(large, height * factor, width * factor), image.to(large.device))


def _recoloured(large: Tensor, image: Tensor) -> Tensor:
    """Give an enlargement the colours of its original, smoothly: edges stay as the network has drawn them.

    Networks shift colours a little; the bundled one makes images lighter by 1 to 5 of 255, which shows on a ground,
    and twice as much where it sees one twice.
    """
    apart = image - F.avg_pool2d(large, large.shape[-1] // image.shape[-1])
    for _ in range(2):
        apart = F.avg_pool2d(F.pad(apart, (BLUR,) * 4, mode="replicate"), 2 * BLUR + 1, stride=1)
    return (large + F.interpolate(apart, large.shape[-2:], mode="bilinear", align_corners=False)).clamp(0, 1)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize with an antialiased bicubic kernel: the same image where the size is the same."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _spans(length: int, tile: int, around: int, step: int) -> Iterator[Span]:
    """Cut an axis into stretches of at most `tile`, about equally long, that begin at multiples of `step`."""
    parts = math.ceil(length / tile) if tile else 1
    cuts = [round(length * k / parts / step) * step for k in range(parts)] + [length]
    for first, last in pairwise(cuts):
        if last > first:
            yield Span(max(0, first - around), min(length, last + around), first, last)


def _as_float(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _as(kind: torch.dtype, image: Tensor) -> Tensor:
    return (image * 255).round().to(kind) if kind == torch.uint8 else image.to(kind)
