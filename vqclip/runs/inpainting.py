"""A mask: where an image may change; elsewhere it stays as it was given, to the last bit."""

from dataclasses import dataclass
from typing import Self

import torch
from PIL import Image, ImageFilter, ImageOps

from ..core.interfaces import Kept
from ..errors import InputError
from ..files.images import fit, load_image, to_tensor
from ..settings.schema import Settings

SHAPES_ALIKE = 0.02  # of width to height: what rounding to whole pixels makes of one shape


@dataclass(frozen=True)
class Inpainting:
    """The image as it was given, and its mask: white may change. Both of any size, and of one shape."""

    original: Image.Image
    mask: Image.Image
    feather: int  # pixels of the drawn image over which a change fades in, inside the white
    size: tuple[int, int]  # of the drawn image

    @classmethod
    def load(cls, settings: Settings, original: Image.Image | None) -> Self | None:
        """Read the mask of settings, if they have one. Raises InputError."""
        if not settings.mask or original is None:
            return None
        mask = load_image(settings.mask).convert("L")
        if not mask.getbbox():
            raise InputError(f"nothing in the mask {settings.mask} is white", "make white what may change")
        shapes = [picture.width / picture.height for picture in (mask, original)]
        if abs(shapes[0] / shapes[1] - 1) > SHAPES_ALIKE:
            what = (
                f"the mask {settings.mask} is {mask.width}x{mask.height}, the image {original.width}x{original.height}"
            )
            raise InputError(what, "make both of one shape")
        return cls(original, mask, settings.mask_feather, settings.size)

    def kept(self, device: torch.device) -> Kept:
        """Return what the loop is given of it."""
        original = to_tensor(fit(self.original, self.size)).to(device)
        change = to_tensor(self._soft(self.size).convert("RGB"))[:, :1].to(device)
        return Kept(original, change)

    def paste(self, image: Image.Image) -> Image.Image:
        """Return an image of any size with the original where it is not to change."""
        return Image.composite(image, fit(self.original, image.size), self._soft(image.size))

    def _soft(self, size: tuple[int, int]) -> Image.Image:
        """Return the mask in a size: 0 wherever it is black, and rising to its white over the feather."""
        mask = ImageOps.fit(self.mask, size, Image.Resampling.BOX)  # which leaves black what is black
        feather = round(self.feather * size[0] / self.size[0])
        if not feather:
            return mask
        inner = mask.filter(ImageFilter.MinFilter(2 * (feather // 2) + 1)).filter(ImageFilter.GaussianBlur(feather / 3))
        return Image.composite(inner, mask, mask.point(lambda value: 255 if value else 0))
