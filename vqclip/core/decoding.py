"""From a quantised latent to an image: as a step sees it, and as it is shown."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings.schema import Settings
from .interfaces import Kept, LoopInputs
from .losses import DIMS
from .seeding import generator

OVERLAP = 4  # positions of the other side that the decoder sees beyond each edge of a tile that is shown


def decode_for_step(inputs: LoopInputs, z_q: Tensor, seeds: Sequence[int], step: int) -> Tensor:
    """Decode `[N, C, h, w]` as a step sees it: `[N, 3, H, W]`, about 0..1, not clamped.

    A tile is turned in itself by whole positions, another number in each step, so that every place is inside the image
    as often as at its edge (pixray's `wallpaper`).
    """
    settings = inputs.settings
    if settings.tile != "none":
        z_q = torch.cat([turn(z, settings.tile, seed, step) for z, seed in zip(z_q.split(1), seeds, strict=True)])
    image = inputs.vqgan.decode(z_q)
    return keep(mirror(image, settings.symmetry) if step < mirrored_steps(settings) else image, inputs.kept)


def turn(z: Tensor, axes: str, seed: int, step: int) -> Tensor:
    """Shift a latent in itself by a random number of positions along some axes."""
    rng = generator(seed, "tile", step)
    dims = DIMS[axes]
    shifts = [int(torch.randint(z.shape[dim], (), generator=rng)) for dim in dims]
    return z.roll(shifts, dims)


def decode_to_show(inputs: LoopInputs, z_q: Tensor, step: int | None = None) -> Tensor:
    """Decode `[N, C, h, w]` as it is shown: `[N, 3, H, W]`, about 0..1; a tile with its other side beyond its edges.

    step: how many steps are done; None: all.
    """
    settings, f = inputs.settings, inputs.vqgan.f
    tile, mirrored = settings.tile, mirrored_steps(settings)
    if tile == "none":
        image = inputs.vqgan.decode(z_q)
        copied = mirrored and (settings.steps if step is None else step) <= mirrored
        return keep(mirror(image, settings.symmetry) if copied else image, inputs.kept)
    height, width = z_q.shape[2:]
    rows = min(OVERLAP, height) if 2 in DIMS[tile] else 0
    columns = min(OVERLAP, width) if 3 in DIMS[tile] else 0
    image = inputs.vqgan.decode(F.pad(z_q, (columns, columns, rows, rows), mode="circular"))
    return image[..., rows * f : (rows + height) * f, columns * f : (columns + width) * f]


def mirrored_steps(settings: Settings) -> int:
    """Return in how many steps, the first, one half of the image is copied onto the other."""
    return round(settings.steps * settings.symmetry_until) if settings.symmetry != "none" else 0


def mirror(image: Tensor, axes: str) -> Tensor:
    """Copy the left half of an image `[N, 3, H, W]`, mirrored, onto the right one (x), the upper onto the lower (y)."""
    for dim in DIMS[axes]:
        length = image.shape[dim]
        half = image.narrow(dim, 0, length - length // 2)
        image = torch.cat([half, half.narrow(dim, 0, length // 2).flip(dim)], dim)
    return image


def keep(image: Tensor, kept: Kept | None) -> Tensor:
    """Return an image `[N, 3, H, W]`, of whatever stage, that is the original where it is not to change."""
    if kept is None:
        return image
    original, change = kept.original, kept.change
    if original.shape[2:] != image.shape[2:]:  # the coarse stage's
        original, change = (F.interpolate(part, image.shape[2:], mode="area") for part in (original, change))
    return image * change + original * (1 - change)


def perturb(z: Tensor, std: float, seeds: Sequence[int], step: int) -> Tensor:
    """Add noise to a latent `[N, C, h, w]`, each image's of its own seed; without any, z itself."""
    if not std:
        return z
    noise = [torch.randn(z.shape[1:], generator=generator(seed, "latent noise", step)) for seed in seeds]
    return z + std * torch.stack(noise).to(z)
