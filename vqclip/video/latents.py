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
from ..files.reading import read_bytes
from ..models import load_vqgan
from .interpolate import interpolate

MAX_LATENT = 1_000_000_000  # bytes
HINT = "make the run with --save-latents; --between fade and motion need none"


def read_latent(path: Path) -> Tensor:
    """Return a latent `[1, C, h, w]`. Raises InputError for a file that has none."""
    try:
        z = load(read_bytes(path, MAX_LATENT, HINT))["z"]
        if z.ndim != 4 or len(z) != 1 or z.dtype != torch.float32 or not z.numel():
            raise ValueError("its shape is no latent's")
    except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"{path} can't be read: {error}", HINT) from None
    return z


def find_latents(frames: Sequence[Path]) -> list[Path]:
    """Return the latents of a run's frames. Raises InputError naming the first that is missing."""
    paths = [frame.parent.parent / "latents" / f"{frame.stem}.safetensors" for frame in frames]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not there", HINT)
    return paths


def interpolate_latents(
    vqgan: str, latents: Sequence[Path], positions: Sequence[float], size: tuple[int, int] | None = None
) -> Iterator[Image.Image]:
    """Yield the image at each position along latents: the quantised latents beside it, mixed, and decoded.

    size: decode at (width, height) instead of the last latent's own; a latent of another size is decoded, resized and
    encoded again. At whole positions, in the run's own size, they are the run's frames. Raises InputError, ModelError.
    """
    model: Vqgan = load_vqgan(vqgan, torch.device("cpu"))
    last = read_latent(latents[-1])
    width, height = round_size(size, model.f) if size else (last.shape[-1] * model.f, last.shape[-2] * model.f)
    shape = height // model.f, width // model.f

    def quantized(path: Path) -> Tensor:
        z = read_latent(path)
        if z.shape[1] != model.codebook.shape[1]:
            raise InputError(f"{path} is no latent of {vqgan}", "put back the one that the run wrote")
        return quantize(z if z.shape[-2:] == shape else resample(model, z, *shape), model.codebook)

    with torch.no_grad():
        for z in interpolate(map(quantized, latents), positions, torch.lerp):
            image = to_picture(model.decode(z))
            yield fit(image, size) if size and image.size != size else image
