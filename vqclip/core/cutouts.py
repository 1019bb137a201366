"""Cutouts: many differently seen views of a picture, made by one warp.

Each view is a random square of the picture, at least one of them the whole of it, and kornia draws
how it is turned, bent and coloured. Where Crowson's MakeCutouts and its heirs resample once a crop and
once an augmentation, the crop's and kornia's geometric matrices are multiplied and the picture
is sampled once, from that level of a mean pyramid which fits the view's scale (against aliasing).
"""

import math
from functools import cache
from typing import Any

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings.augmentations import AUGMENTS
from .seeding import fold_in, generator

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
    only: slice = slice(None),
) -> Tensor:
    """Cut `count` views of each picture, or `only` some of them.

    image: `[N, 3, H, W]`; the result is `[N * count, 3, size, size]`, a picture's views side by side.
    seeds: one a picture; with `step` they decide everything random, whatever stands beside a picture.
    overview: share of the views that show the whole picture (at least one does).
    smallest: the side of the smallest crop, as a share of the picture's short side.
    margin: an overview shows the picture within a frame of up to this width, of the picture's longer side, and what
    any view shows of the outside is a flat colour of its own: a thing that overflows is then seen to be cut off.
    With 0 the picture's border goes on instead.
    augments: names from AUGMENTS. noise: largest standard deviation of the noise added to a view.
    only: a view is the same whichever others are made.
    """
    height, width = image.shape[-2:]
    parts = []
    for picture, seed in zip(image.split(1), seeds, strict=True):
        with fold_in(seed, "cutouts", step):
            boxes, sides = draw_boxes(width, height, count, overview, smallest, margin)
            frames = torch.rand(count, 3, 1, 1) if margin else None
            views = boxes @ draw_geometry(count, size, augments)
            colours = draw_colours(count, augments)
        sides, order = sides.sort(descending=True, stable=True)  # views of one scale stand together, overviews first
        part = warp(picture, views[order][only], sides[only], size, None if frames is None else frames[only])
        part = recolour(part, *(one[only] for one in colours))
        part = change_pixels(part, augments, range(count)[only], seed, step)
        if noise:
            part += draw_noise(part, range(count)[only], noise, seed, step)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def change_pixels(part: Tensor, augments: tuple[str, ...], which: range, seed: int, step: int) -> Tensor:
    """Let kornia work on the pixels of views `[n, 3, size, size]`, each by itself: it may come in any chunk."""
    layers = [_build(name) for name in augments if AUGMENTS[name].kind == "pixels"]
    if not layers:
        return part
    changed = []
    for number, view in zip(which, part.split(1), strict=True):
        with fold_in(seed, "pixels", step, number):
            for layer in layers:
                view = layer(view)
        changed.append(view)
    return torch.cat(changed)


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
    blank = torch.empty(()).expand(count, 3, size, size)  # of which kornia asks the shape
    for name in augments:
        if AUGMENTS[name].kind != "geometry":
            continue
        augment = _build(name)
        params = augment.forward_parameters(blank.shape)
        forward = augment.generate_transformation_matrix(blank, params, augment.flags)  # input to output, in pixels
        total = total @ unit @ torch.linalg.inv(unit @ forward)
    return total


def warp(image: Tensor, views: Tensor, sides: Tensor, size: int, frames: Tensor | None = None) -> Tensor:
    """Sample a picture `[1, 3, H, W]` through homographies `[n, 3, 3]`: `[n, 3, size, size]`.

    sides: the views' sides in pixels of the picture; a view more than 1.5 times larger than `size` is
    taken from a halved picture, and so on. Outside the picture lies a view's own colour of `frames` `[n, 3, 1, 1]`,
    or, without them, its border goes on.
    """
    height, width = image.shape[-2:]
    deepest = max(0, max(height, width).bit_length() - 2)
    level = (sides / (1.5 * size)).log2().ceil().clamp(0, deepest).long()
    pyramid = [image]
    while len(pyramid) <= int(level.max()):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    parts, places = [], []
    for depth in reversed(range(len(pyramid))):
        rows = (level == depth).nonzero().flatten()
        if not len(rows):
            continue
        source = pyramid[depth]
        high, wide = (length * 2**depth for length in source.shape[-2:])  # an odd edge is overhung
        matrix = _onto(width / wide, height / high) @ views[rows]
        grid = _grid(matrix.to(image), size)
        part = _sample(source, grid, "border" if frames is None else "zeros")
        if frames is not None:
            inside = _sample(torch.ones_like(source[:, :1]), grid, "zeros")
            part = torch.addcmul(part, frames[rows].to(image), 1 - inside)
        parts.append(part)
        places.append(rows)
    if len(parts) == 1:
        return parts[0]
    found, order = torch.cat(parts), torch.cat(places)
    return found if order.equal(torch.arange(len(order))) else found[order.argsort().to(image.device)]


def _onto(across: float, down: float) -> Tensor:
    """Return the matrix from a picture's -1..1 to a canvas's in whose corner it lies; it is these shares of it."""
    return torch.tensor([[across, 0, across - 1], [0, down, down - 1], [0, 0, 1]])


def _sample(image: Tensor, grid: Tensor, outside: str) -> Tensor:
    """Sample `[1, C, H, W]` at `[n, s, s, 2]`: `[n, C, s, s]`.

    On the CPU views stand side by side in one wide row a thread: the gradient that is added up is then as large as
    the picture, not as that of every view.
    """
    n, size = grid.shape[:2]
    apart = math.gcd(n, torch.get_num_threads()) if image.device.type == "cpu" else n
    rows = grid.view(apart, -1, size * size, 2)
    found = F.grid_sample(image.expand(apart, -1, -1, -1), rows, padding_mode=outside, align_corners=False)
    return found.transpose(1, 2).reshape(n, -1, size, size)


def _grid(matrix: Tensor, size: int) -> Tensor:
    """Map the pixels of square views through homographies `[n, 3, 3]`: `[n, size, size, 2]`, the picture's -1..1."""
    line = ((torch.arange(size) * 2 + 1) / size - 1).to(matrix)
    a, b, c = matrix[..., None, None].unbind(2)  # each `[n, 3, 1, 1]`: x, y and the depth are a * across + b * down + c
    across, down = a * line, b * line[:, None] + c
    scale = (across[:, 2] + down[:, 2]).clamp_(min=1e-3).reciprocal_()
    grid = matrix.new_empty(len(matrix), size, size, 2)
    for axis in (0, 1):
        torch.mul(across[:, axis] + down[:, axis], scale, out=grid[..., axis])
    return grid


def draw_colours(count: int, augments: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Let kornia draw how views are coloured, as one matrix and shift each: `[count, 3, 3]` and `[count, 1, 1]`.

    They brighten, contrast and saturate. kornia's own ColorJiggle goes through HSV and costs several times as much.
    Differs from it in multiplying brightness (it adds), contrast about mid-grey (about black), saturation about the
    luma (in HSV), a fixed order and no clamp; hue is left out.
    """
    total, shift = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 1, 1)
    for name in augments:
        if AUGMENTS[name].kind != "colour":
            continue
        params = _build(name).forward_parameters(torch.Size((count, 3, 1, 1)))
        chosen = params["batch_prob"] > 0.5
        bright, contrast, saturation = (
            torch.where(chosen, params[key].float(), torch.ones(count))[:, None, None]
            for key in ("brightness_factor", "contrast_factor", "saturation_factor")
        )
        grey = torch.tensor(LUMA).expand(3, 3)
        matrix = (saturation * torch.eye(3) + (1 - saturation) * grey) * (bright * contrast)
        total = matrix @ total
        shift = bright * contrast * shift + (1 - contrast) * 0.5  # grey stays grey, so one number does for all channels
    return total, shift


def recolour(views: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Map the colours of each view `[M, 3, s, s]` by its matrix `[M, 3, 3]` and shift `[M, 1, 1]`."""
    flat = views.flatten(2)
    return torch.baddbmm(shift.to(flat), matrix.to(flat), flat).view(views.shape)


def draw_noise(like: Tensor, numbers: range, most: float, seed: int, step: int) -> Tensor:
    """Draw noise for views `[M, 3, s, s]`, on their device; a view's own follows from its number."""
    noise = torch.empty_like(like, requires_grad=False)
    for grain, number in zip(noise, numbers, strict=True):
        dice = generator(seed, "noise", step, number, device=like.device)
        strength = torch.rand((), generator=dice, device=like.device) * most
        grain.normal_(generator=dice).mul_(strength)
    return noise
