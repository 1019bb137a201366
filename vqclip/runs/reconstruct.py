"""The VQGAN by itself: an image through encoder, codebook and decoder, and how much of it is left."""

from dataclasses import dataclass

import kornia.metrics
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..core.interfaces import Vqgan
from ..core.quantize import lookup, nearest
from ..errors import OutOfMemory, is_out_of_memory
from ..files.images import tile, to_picture, to_tensor

SSIM_WINDOW = 11  # pixels a side, as of Wang et al. 2004


@dataclass(frozen=True)
class Reconstruction:
    """What a VQGAN makes of an image, in the image's size."""

    image: Image.Image
    psnr: float  # dB, of the 8-bit images; infinite if they are equal
    ssim: float  # 1 if they are equal
    positions: int  # of the latent
    used: int  # different codes in them
    codes: int  # that the model has


def reconstruct(vqgan: Vqgan, image: Image.Image) -> Reconstruction:
    """Encode, quantise and decode an RGB image of any size: padded with its edge to multiples of f, and cropped back.

    Raises OutOfMemory.
    """
    device, f = vqgan.codebook.device, vqgan.f
    original = to_tensor(image).to(device)
    try:
        with torch.no_grad():
            padded = F.pad(original, (0, -image.width % f, 0, -image.height % f), mode="replicate")
            codes = nearest(vqgan.encode(padded), vqgan.codebook)
            decoded = vqgan.decode(lookup(codes, vqgan.codebook))[..., : image.height, : image.width]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"there is too little memory for {image.width}x{image.height} pixels"
        raise OutOfMemory(what, "make it smaller") from error
    reconstructed = to_picture(decoded)
    rounded = to_tensor(reconstructed).to(device)
    return Reconstruction(
        reconstructed,
        float(kornia.metrics.psnr(rounded, original, 1.0)),
        _ssim(rounded, original),
        codes.numel(),
        int(codes.unique().numel()),
        len(vqgan.codebook),
    )


def _ssim(a: Tensor, b: Tensor) -> float:
    """Return the structural similarity of two images `[1, C, H, W]` in 0..1: its mean over pixels and channels."""
    side = min(SSIM_WINDOW, *a.shape[-2:])
    window = side - 1 + side % 2  # kornia's has a middle
    return float(kornia.metrics.ssim(a, b, window, padding="valid").mean())


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two images of one size on one: the first on the left, a narrow white bar, the second."""
    return tile([left, right], columns=2, gap=max(2, left.width // 64))
