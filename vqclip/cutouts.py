"""Cutouts: many differently seen views of a picture, made by one warp.

Each view is a random square of the picture, at least one of them the whole of it, and kornia draws
how it is turned, bent and coloured. Where Crowson's MakeCutouts and its heirs resample once a crop and
once an augmentation, the crop's and kornia's geometric matrices are multiplied and the picture
is sampled once, from that level of a mean pyramid which fits the view's scale (against aliasing).
"""

from functools import cache
from typing import Any

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import AUGMENTS
from .seeding import fold_in

LUMA = (0.299, 0.587, 0.114)


@cache
def _build(name: str) -> Any:
    spec = AUGMENTS[name]
    return getattr(K, spec.kornia)(**spec.arguments, same_on_batch=False)


def make_cutouts(
    image: Tensor,
    size: int,
    count: int,
    *,
    seeds: list[int],
    step: int,
    overview: float,
    smallest: float,
    augments: tuple[str, ...],
    noise: float,
    margin: float,
) -> Tensor:
    """Cut `count` views of each picture.

    image: `[N, 3, H, W]`; the result is `[N * count, 3, size, size]`, a picture's views side by side.
    seeds: one a picture; with `step` they decide everything random, whatever stands beside a picture.
    overview: share of the views that show the whole picture (at least one does).
    smallest: the side of the smallest crop, as a share of the picture's short side.
    margin: an overview shows the picture within a frame of up to this width, of the picture's longer side, and what
    any view shows of the outside is a flat colour of its own: a thing that overflows is then seen to be cut off.
    With 0 the picture's border goes on instead.
    augments: names from AUGMENTS. noise: largest standard deviation of the noise added to a view.
    """
    height, width = image.shape[-2:]
    views, scales, grains, frames = [], [], [], []
    for seed in seeds:
        with fold_in(seed, "cutouts", step):
            boxes, sides = draw_boxes(width, height, count, overview, smallest, margin)
            frames.append(torch.rand(count, 3, 1, 1))
            views.append(boxes @ draw_geometry(count, size, augments))
            scales.append(sides)
            grains.append(torch.rand(count, 1, 1, 1) * noise * torch.randn(count, 3, size, size) if noise else None)
    cutouts = warp(image, torch.cat(views), torch.cat(scales), size, torch.cat(frames) if margin else None)
    rows = []
    for index, seed in enumerate(seeds):
        part = cutouts[index * count : (index + 1) * count]
        with fold_in(seed, "pixels", step):
            part = recolour(part, augments)
            for name in augments:
                if AUGMENTS[name].kind == "pixels":
                    part = _build(name)(part)
        grain = grains[index]
        rows.append(part if grain is None else part + grain.to(part))
    return torch.cat(rows)


def draw_boxes(
    width: int, height: int, count: int, overview: float, smallest: float, margin: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draw where views lie: matrices `[count, 3, 3]` from the view's -1..1 to the picture's, and sides in pixels.

    The first views are overviews: the whole picture, centred where there is no `margin`, else anywhere in the
    view. The others are squares of `smallest`..1 of the short side.
    """
    whole = max(1, round(count * overview))
    short, long = min(width, height), max(width, height)
    side = short * (smallest + (1 - smallest) * torch.rand(count))
    side[:whole] = long * (1 + margin * torch.rand(whole))
    room = torch.tensor([width, height]) - side[:, None]  # negative where a view overhangs: then centred
    centre = (torch.rand(count, 2) * 2 - 1) * (room.abs() if margin else room.clamp(min=0))
    matrix = torch.zeros(count, 3, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = side / width, side / height, 1
    matrix[:, :2, 2] = centre / torch.tensor([width, height])
    return matrix, side


def draw_geometry(count: int, size: int, augments: tuple[str, ...]) -> Tensor:
    """Let kornia draw the geometric augmentations and multiply them: `[count, 3, 3]`, output -1..1 to input -1..1."""
    total = torch.eye(3).repeat(count, 1, 1)
    unit = torch.tensor([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])  # pixel centres to -1..1
    blank = torch.empty(count, 3, size, size)
    for name in augments:
        if AUGMENTS[name].kind != "geometry":
            continue
        augment = _build(name)
        params = augment.forward_parameters(blank.shape)
        forward = augment.generate_transformation_matrix(blank, params, augment.flags)  # input to output, in pixels
        total = total @ unit @ torch.linalg.inv(unit @ forward)
    return total


def warp(image: Tensor, views: Tensor, sides: Tensor, size: int, frames: Tensor | None = None) -> Tensor:
    """Sample each picture `[N, 3, H, W]` through its homographies `[N*n, 3, 3]`: `[N*n, 3, size, size]`.

    sides: the views' sides in pixels of the picture; a view more than 1.5 times larger than `size` is
    taken from a halved picture, and so on. Outside the picture lies a view's own colour of `frames` `[N*n, 3, 1, 1]`,
    or, without them, its border goes on.
    """
    line = (torch.arange(size) * 2 + 1) / size - 1
    points = torch.stack(torch.broadcast_tensors(line[None, :], line[:, None], torch.ones(())), -1).view(-1, 3)
    grid = points @ views.transpose(1, 2)  # [M, size*size, 3], homogeneous
    grid = (grid[..., :2] / grid[..., 2:].clamp(min=1e-3)).view(-1, size, size, 2).to(image)
    owner = torch.arange(len(image)).repeat_interleave(len(views) // len(image))
    level = (sides / (1.5 * size)).log2().ceil().clamp(min=0).long()
    deepest = int(max(image.shape[-2:])).bit_length() - 2
    level = level.clamp(max=max(0, deepest))
    edge = torch.tensor([image.shape[-1], image.shape[-2]]).to(grid)
    parts, places = [], []
    for depth in range(int(level.max()) + 1):
        if depth:
            image = F.avg_pool2d(image, 2, ceil_mode=True)
        rows = (level == depth).nonzero().flatten()
        if len(rows):
            covered = torch.tensor([image.shape[-1], image.shape[-2]]).to(grid) * 2**depth  # an odd edge is overhung
            place = (grid[rows.to(grid.device)] + 1) * (edge / covered) - 1
            source = image[owner[rows].to(image.device)]
            if frames is None:
                parts.append(F.grid_sample(source, place, padding_mode="border", align_corners=False))
            else:
                frame = frames[rows].to(image)
                parts.append(F.grid_sample(source - frame, place, padding_mode="zeros", align_corners=False) + frame)
            places.append(rows)
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts)[torch.cat(places).argsort().to(image.device)]


def recolour(views: Tensor, augments: tuple[str, ...]) -> Tensor:
    """Brighten, contrast and saturate views `[M, 3, s, s]` by one matrix each, with the factors that kornia draws.

    kornia's own ColorJiggle goes through HSV and costs several times as much. Differs from it in multiplying
    brightness (it adds), contrast about mid-grey (about black), saturation about the luma (in HSV), a fixed order
    and no clamp; hue is left out.
    """
    for name in augments:
        if AUGMENTS[name].kind != "colour":
            continue
        params = _build(name).forward_parameters(views.shape)
        chosen = params["batch_prob"] > 0.5
        bright, contrast, saturation = (
            torch.where(chosen, params[key].float(), torch.ones(len(views)))
            for key in ("brightness_factor", "contrast_factor", "saturation_factor")
        )
        grey = torch.tensor(LUMA).expand(3, 3)
        matrix = saturation[:, None, None] * torch.eye(3) + (1 - saturation)[:, None, None] * grey
        matrix = matrix * (bright * contrast)[:, None, None]
        shift = (1 - contrast) * 0.5  # contrast about mid-grey
        flat = views.flatten(2)
        views = torch.baddbmm(shift[:, None, None].to(flat), matrix.to(flat), flat).view(views.shape)
    return views
