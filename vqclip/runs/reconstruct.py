"""The VQGAN by itself: a picture through encoder, codebook and decoder, and how much of it is left."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from ..core.interfaces import Vqgan
from ..core.quantize import lookup, nearest
from ..errors import OutOfMemory, is_out_of_memory
from ..files.images import tile, to_picture, to_tensor
from .similarity import psnr, ssim


@dataclass(frozen=True)
class Reconstruction:
    """What a VQGAN makes of a picture, in the picture's size."""

    picture: Image.Image
    psnr: float  # dB, of the 8-bit pictures
    ssim: float
    places: int  # of the latent
    used: int  # different codes in them
    codes: int  # that the model has


def reconstruct(vqgan: Vqgan, picture: Image.Image) -> Reconstruction:
    """Encode, quantise and decode an RGB picture of any size: padded with its edge to multiples of f, and cropped back.

    Raises OutOfMemory.
    """
    device, f = vqgan.codebook.device, vqgan.f
    image = to_tensor(picture).to(device)
    try:
        with torch.no_grad():
            padded = F.pad(image, (0, -picture.width % f, 0, -picture.height % f), mode="replicate")
            found = nearest(vqgan.encode(padded), vqgan.codebook)
            decoded = vqgan.decode(lookup(found, vqgan.codebook))[..., : picture.height, : picture.width]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"there is too little memory for {picture.width}x{picture.height} pixels", "make it smaller"
        ) from error
    back = to_picture(decoded)
    again = to_tensor(back).to(device)
    return Reconstruction(
        back, psnr(again, image), ssim(again, image), found.numel(), int(found.unique().numel()), len(vqgan.codebook)
    )


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two images of one size on one: the first on the left, a narrow white bar, the second."""
    return tile([left, right], columns=2, gap=max(2, left.width // 64))
