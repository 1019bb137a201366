"""An image file's pixels, enlarged: 8 bits in and out, so that a large one takes little memory, alpha included."""

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...core.interfaces import Upscaler
from ...core.torch_private import count_memory
from . import TILE
from .enlarge import enlarge, margin, passes
from .load import Network

LOST = 1.8  # times what tensors take: what convolutions take in passing; 1.5 to 1.7 measured


def enlarge_image(image: Image.Image, factor: int, upscaler: Upscaler, tile: int = TILE) -> Image.Image:
    """Return an RGB or RGBA image enlarged, of the same mode. Raises UsageError.

    Alpha goes through the network too, as a grey image: its edges then lie where those of the colours do. The colours
    of transparent pixels are first replaced by those around them: the network would draw an edge to them.
    """
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, image.height, image.width, -1).permute(0, 3, 1, 2)
    if image.mode == "RGB":
        return _image(enlarge(pixels, factor, upscaler, tile))
    colours, alpha = pixels[:, :3], pixels[:, 3:]
    large = enlarge(_filled(colours, alpha), factor, upscaler, tile)
    return _image(torch.cat([large, _enlarged_alpha(alpha, factor, upscaler, tile)], dim=1))


def _enlarged_alpha(alpha: Tensor, factor: int, upscaler: Upscaler, tile: int) -> Tensor:
    """Enlarge `[1, 1, H, W]`; where all around is equal it stays that: the network makes 254 of 255, which shows."""
    grey = enlarge(alpha.expand(-1, 3, -1, -1), factor, upscaler, tile)[:, 1:2]
    around = F.pad(alpha.float(), (1, 1, 1, 1), mode="replicate")
    low, high = -F.max_pool2d(-around, 3, stride=1), F.max_pool2d(around, 3, stride=1)
    low, high = (F.interpolate(part.to(torch.uint8), scale_factor=factor, mode="nearest") for part in (low, high))
    return grey.clamp(low, high)


def _image(pixels: Tensor) -> Image.Image:
    _, channels, height, width = pixels.shape
    data = pixels[0].permute(1, 2, 0).contiguous().numpy()
    return Image.frombytes("RGBA" if channels == 4 else "RGB", (width, height), data)


def _filled(colours: Tensor, alpha: Tensor) -> Tensor:
    """Give pixels that are transparent the mean colour of what is seen around them, from as near as there is any.

    colours `[1, 3, H, W]`, alpha `[1, 1, H, W]`, uint8. Each level looks twice as far as the one before it.
    """
    seen = alpha.float() / 255
    weighed, filled = colours.float() * seen, colours.float()
    hidden = seen == 0
    while hidden.any() and min(weighed.shape[-2:]) > 1:
        weighed, seen = (F.avg_pool2d(part, 2, ceil_mode=True) for part in (weighed, seen))
        near = F.interpolate(weighed / seen.clamp(min=1e-6), colours.shape[-2:], mode="nearest")
        known = F.interpolate(seen, colours.shape[-2:], mode="nearest") > 0
        filled = torch.where(hidden & known, near, filled)
        hidden = hidden & ~known
    return filled.round().to(torch.uint8)


def bytes_needed(size: tuple[int, int], factor: int, upscaler: Network, tile: int = TILE) -> int | None:
    """Count the bytes that enlarging an image of (width, height) takes at most: its tile, and what becomes of it.

    None for a network that is not known, and that tensors without contents can't follow.
    """
    around = margin(factor, upscaler)
    width, height = (min(length, tile + 2 * around) if tile else length for length in size)
    if upscaler.pixel_bytes:
        peak: int | None = upscaler.pixel_bytes * width * height * max(passes(factor, upscaler.scale)) ** 2
    else:
        peak = _counted(width, height, factor, upscaler)
    images = 4 * size[0] * size[1] * (2 + 2 * factor**2)  # 8 bits, up to four channels, as tensor and as image
    return None if peak is None else int(LOST * peak) + images


def _counted(width: int, height: int, factor: int, upscaler: Network) -> int | None:
    """Enlarge a tensor that has a shape and no contents. That takes a second, most of it torch's imports."""
    try:
        counted = count_memory(
            lambda image: enlarge(image, factor, upscaler, 0), (1, 3, height, width), upscaler.device, backward=False
        )
    except Exception:  # a network may do what shapes alone can't tell; then nothing is known
        return None
    return counted and counted[1]
