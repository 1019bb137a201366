"""The latents that a run kept beside its frames (--save-latents): read, interpolated and decoded at any size."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..core.init import resample
from ..core.interfaces import Vqgan
from ..core.quantize import quantize
from ..errors import InputError
from ..files.images import fit, round_size, to_picture
from ..models import load_vqgan
from .interpolate import walked

ASK = "make the run with --save-latents; --between fade and motion need none"


def read_latent(path: Path) -> Tensor:
    """Return a latent `[1, C, h, w]`. Raises InputError for what is none."""
    try:
        z = load(path.read_bytes())["z"]
        if z.ndim != 4 or len(z) != 1 or z.dtype != torch.float32 or not z.numel():
            raise ValueError("its shape is no latent's")
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"{path} can't be read: {error}", ASK) from None
    return z


def beside(frame: Path) -> Path:
    """Return where the latent of a run's frame lies."""
    return frame.parent.parent / "latents" / f"{frame.stem}.safetensors"


def find_latents(frames: Sequence[Path]) -> list[Path]:
    """Return the latents of a run's frames. Raises InputError naming the first that is not there."""
    found = [beside(frame) for frame in frames]
    for path in found:
        if not path.is_file():
            raise InputError(f"{path} is not there", ASK)
    return found


def morph(
    vqgan: str, latents: Sequence[Path], places: Sequence[float], size: tuple[int, int] | None = None
) -> Iterator[Image.Image]:
    """Yield the picture at each place along latents: the codes at its sides, mixed, and decoded.

    size: decode at (width, height) instead of the last latent's own; what is not of that size goes over by its
    picture. At whole places, in the run's own size, they are the run's frames. Raises InputError, ModelError.
    """
    model: Vqgan = load_vqgan(vqgan, torch.device("cpu"))
    width, height = round_size(size, model.f) if size else _size(read_latent(latents[-1]), model.f)
    grid = height // model.f, width // model.f

    def codes(path: Path) -> Tensor:
        z = read_latent(path)
        if z.shape[1] != model.codebook.shape[1]:
            raise InputError(f"{path} is no latent of {vqgan}", "put back the one that the run wrote")
        return quantize(z if z.shape[-2:] == grid else resample(model, z, *grid), model.codebook)

    with torch.no_grad():
        for z in walked(map(codes, latents), places, torch.lerp):
            picture = to_picture(model.decode(z))
            yield fit(picture, size) if size and picture.size != size else picture


def _size(z: Tensor, f: int) -> tuple[int, int]:
    return z.shape[-1] * f, z.shape[-2] * f
