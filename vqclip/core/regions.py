"""Where in the image prompts count: masks, and how much of them each cutout sees."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..files.images import fit, to_tensor
from ..settings.regions import Box, Region
from .cutouts import CutoutConfig, draw_cutouts, sample, sampling_grid
from .interfaces import Target

SIDE = 128  # of a mask, whatever the image's shape
POINTS = 32  # a side, at which a cutout looks at a mask


def make_mask(region: Region, images: Mapping[str, Image.Image], size: tuple[int, int]) -> Tensor:
    """Return a region's mask `[SIDE, SIDE]` in 0..1 for an image of a size. Raises InputError for a black one."""
    if region.box:
        return _box(region.box)
    white = fit(images[region.file].convert("L").convert("RGB"), size).resize((SIDE, SIDE), Image.Resampling.BOX)
    mask = to_tensor(white)[0, 0]
    if not mask.any():
        raise InputError(f"{region.file} is black: its prompt would count nowhere", "make its region white")
    return mask


def _box(box: Box) -> Tensor:
    """Return the mask of a box: of each cell, how much of it lies inside."""
    edges = torch.arange(SIDE + 1) / SIDE

    def inside(first: float, length: float) -> Tensor:
        clamped = edges.clamp(first, first + length)
        return (clamped[1:] - clamped[:-1]) * SIDE

    x, y, width, height = box
    return (inside(y, height)[:, None] * inside(x, width)).clamp(0, 1)


def masks_within(masks: Tensor, part: Box) -> Tensor:
    """Return the masks `[..., s, s]` of an image as they are in a part of it: where its prompts count there."""
    x, y, width, height = part
    rows, columns = (_overlaps(*stretch, masks.shape[-1]) for stretch in ((y, height), (x, width)))
    return (rows @ masks.cpu().double() @ columns.T).clamp(0, 1).to(masks)


def _overlaps(first: float, length: float, cells: int) -> Tensor:
    """Return `[cells, cells]`: how much of each cell of a stretch of an axis lies in each cell of the axis."""
    axis = torch.arange(cells + 1, dtype=torch.float64) / cells
    part = first + length * axis
    inside = torch.minimum(part[1:, None], axis[1:]) - torch.maximum(part[:-1, None], axis[:-1])
    return inside.clamp(min=0) * cells / length


def masks_of(target: Target) -> Tensor:
    """Return the masks `[P, SIDE, SIDE]` of a target's prompts: ones where they count everywhere."""
    if target.region_masks is None:
        return target.weights.new_ones(len(target.weights), SIDE, SIDE)
    return target.region_masks


def region_shares(
    masks: Tensor | None,
    image: Tensor,
    size: int,
    config: CutoutConfig,
    *,
    seeds: Sequence[int],
    step: int,
    only: slice,
) -> Tensor | None:
    """Return how much of what each cutout sees of the image lies in each mask: `[N, M, P]`; None without masks.

    masks: `[P, s, s]`, or `[N, P, s, s]`, as a Target has them. The rest is what `make_cutouts` is given for the same
    cutouts, through whose warps the masks are seen. A mask of ones gives exactly 1.
    """
    if masks is None:
        return None
    height, width = image.shape[-2:]
    shares = []
    for k, seed in enumerate(seeds):
        drawn = draw_cutouts(width, height, size, config, seed, step)
        own = masks if masks.ndim == 3 else masks[k]
        grid = sampling_grid(drawn.transforms[only].to(own), POINTS)
        seen = sample(torch.cat([own, torch.ones_like(own[:1])])[None], grid, "zeros").sum((2, 3))
        shares.append(seen[:, :-1] / seen[:, -1:].clamp(min=1e-9))
    return torch.stack(shares)
