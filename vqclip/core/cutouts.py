"""Cutouts: many differently seen parts of an image, made by one warp.

Each cutout is a random square of the image, at least one of them the whole of it, and kornia draws how it is turned,
bent and coloured. Where Crowson's MakeCutouts and its heirs resample once for the crop and once for each
augmentation, here the crop's and kornia's geometric matrices are multiplied and the image is sampled once, from that
level of a mean pyramid which fits the cutout's scale (against aliasing).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings.augmentations import parse_augment
from ..settings.cutout_methods import CUTOUT_METHODS
from ..settings.schema import Settings
from .seeding import fold_in, generator

HELD_OUT_STEP = -1  # whose cutouts no step of the loop sees
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: what red, green and blue add to brightness


@dataclass(frozen=True)
class CutoutConfig:
    """How cutouts are made.

    overview: share of the cutouts that show the whole image (at least one does). smallest: the side of the smallest
    crop, in units of the image's short side. margin: an overview shows the image within a frame of up to this width,
    in units of the image's longer side, and what a cutout shows of the outside is a flat colour of its own: an object
    that leaves the image is then seen to be cut off. With 0 the image's border is repeated instead.
    augments: as settings/augmentations.py reads them. noise: largest standard deviation of the noise added to a cutout.
    """

    count: int
    overview: float = 0.0
    smallest: float = 1.0
    margin: float = 0.0
    augments: tuple[str, ...] = ()
    noise: float = 0.0
    method: str = "own"  # of CUTOUT_METHODS
    power: float = 1.0  # exponent of the sides of its squares

    @classmethod
    def of(cls, settings: Settings) -> "CutoutConfig":
        """Return what the settings say of cutouts."""
        return cls(
            count=settings.cutouts,
            overview=settings.overview,
            smallest=settings.smallest_cutout,
            margin=settings.margin,
            augments=settings.augments,
            noise=settings.noise,
            method=settings.cutout_method,
            power=settings.cut_power,
        )


@cache
def _augmentation(name: str) -> Any:
    spec = parse_augment(name)
    return getattr(K, spec.kornia)(**spec.arguments, same_on_batch=False)


def make_cutouts(
    image: Tensor, size: int, config: CutoutConfig, *, seeds: list[int], step: int, only: slice = slice(None)
) -> Tensor:
    """Cut `config.count` cutouts of each image, or `only` some: a cutout is the same whether others are made or not.

    image: `[N, 3, H, W]`; the result is `[N * count, 3, size, size]`, an image's cutouts side by side.
    seeds: one an image; with `step` they decide everything random, whatever other images are in the batch.
    """
    method = CUTOUT_METHODS[config.method]
    image = pool(image, size) if method.pooled else image
    height, width = image.shape[-2:]
    numbers = range(config.count)[only]
    cutouts = []
    for one_image, seed in zip(image.split(1), seeds, strict=True):
        drawn = draw_cutouts(width, height, size, config, seed, step)
        outside = None if drawn.outside is None else drawn.outside[only]
        cutout = warp(one_image, drawn.transforms[only], drawn.sides[only], size, outside)
        cutout = transform_colours(cutout, drawn.colours[only], drawn.shifts[only])
        cutout = augment_pixels(cutout, config.augments, numbers, seed, step)
        if config.noise:
            cutout += draw_noise(cutout, numbers, config.noise, seed, step)
        cutouts.append(cutout)
    return cutouts[0] if len(cutouts) == 1 else torch.cat(cutouts)


@dataclass(frozen=True)
class Drawn:
    """What is drawn of all cutouts of an image, beside noise and what kornia does to pixels; not to be changed.

    transforms `[count, 3, 3]`, from the cutout's -1..1 to the image's; sides in pixels of the image; outside
    `[count, 3, 1, 1]`, the colour beyond the image, None for none; colours and shifts as `draw_colours` returns them.
    """

    transforms: Tensor
    sides: Tensor
    outside: Tensor | None
    colours: Tensor
    shifts: Tensor


@lru_cache(maxsize=64)  # chunks of one image's cutouts, and masks that are seen through them, share what is drawn
def draw_cutouts(width: int, height: int, size: int, config: CutoutConfig, seed: int, step: int) -> Drawn:
    """Draw the cutouts of an image of a size in pixels: where they lie, how they are turned, bent and coloured."""
    count, augments, method = config.count, config.augments, CUTOUT_METHODS[config.method]
    width, height = (size, size) if method.pooled else (width, height)  # what the cutouts are cut from
    with fold_in(seed, "cutouts", step):
        boxes, sides = BOXES[method.boxes](width, height, size, config)
        outside = _outside(method.outside, config)
        transforms = boxes @ draw_geometry(count, size, augments)
        colours, shifts = draw_colours(count, augments)
    sides, order = sides.sort(descending=True, stable=True)  # one scale side by side, overviews first
    return Drawn(transforms[order], sides, outside, colours, shifts)


def augment_pixels(cutouts: Tensor, augments: tuple[str, ...], numbers: range, seed: int, step: int) -> Tensor:
    """Let kornia work on the pixels of cutouts `[n, 3, size, size]`, each by itself: chunks may be of any size."""
    layers = [_augmentation(name) for name in augments if parse_augment(name).kind == "pixels"]
    if not layers:
        return cutouts
    changed = []
    for number, cutout in zip(numbers, cutouts.split(1), strict=True):
        with fold_in(seed, "pixels", step, number):
            for layer in layers:
                cutout = layer(cutout)
        changed.append(cutout)
    return torch.cat(changed)


def pool(image: Tensor, size: int) -> Tensor:
    """Bring an image `[N, 3, H, W]` to a square of CLIP's size: the mean of average and maximum of each part."""
    return (F.adaptive_avg_pool2d(image, size) + F.adaptive_max_pool2d(image, size)) / 2


def _outside(kind: str, config: CutoutConfig) -> Tensor | None:
    """Return the colours of what is beyond the image, as `warp` takes them."""
    if kind == "black":
        return torch.zeros(config.count, 3, 1, 1)
    return torch.rand(config.count, 3, 1, 1) if kind == "margin" and config.margin else None


def count_overviews(config: CutoutConfig) -> int:
    """Return how many cutouts show the whole image: at least one does."""
    return max(1, round(config.count * config.overview))


def draw_boxes(width: int, height: int, config: CutoutConfig) -> tuple[Tensor, Tensor]:
    """Draw where cutouts lie: matrices `[count, 3, 3]` from the cutout's -1..1 to the image's, and sides in pixels.

    The first are overviews: the whole image, centred where there is no margin, else anywhere in the cutout. The
    others are squares of `smallest`..1 of the short side.
    """
    count, smallest, margin = config.count, config.smallest, config.margin
    overviews = count_overviews(config)
    short, long = min(width, height), max(width, height)
    side = short * (smallest + (1 - smallest) * torch.rand(count))
    side[:overviews] = long * (1 + margin * torch.rand(overviews))
    room = torch.tensor([width, height]) - side[:, None]  # negative where a cutout overhangs: then centred
    centre = (torch.rand(count, 2) * 2 - 1) * (room.abs() if margin else room.clamp(min=0))
    return _matrices(width, height, side, side, centre), side


def _matrices(width: int, height: int, across: Tensor, down: Tensor, centre: Tensor) -> Tensor:
    """Return matrices `[count, 3, 3]` of boxes of these sides and twice these centres `[count, 2]`, in pixels."""
    matrix = torch.zeros(len(across), 3, 3)
    matrix[:, 0, 0] = across / width
    matrix[:, 1, 1] = down / height
    matrix[:, 2, 2] = 1
    matrix[:, :2, 2] = centre / torch.tensor([width, height])
    return matrix


def draw_squares(width: int, height: int, size: int, config: CutoutConfig, overviews: int = 0) -> tuple[Tensor, Tensor]:
    """Draw squares anywhere, of sides between CLIP's size and the short side (Crowson's MakeCutouts).

    overviews: so many, the first, show the whole image (Disco Diffusion's).
    """
    short = min(width, height)
    smallest = min(short, size)
    side = torch.rand(config.count) ** config.power * (short - smallest) + smallest
    side[:overviews] = max(width, height)
    room = torch.tensor([width, height]) - side[:, None]
    centre = (torch.rand(config.count, 2) * 2 - 1) * room.clamp(min=0)
    return _matrices(width, height, side, side, centre), side


def draw_whole(width: int, height: int, size: int, config: CutoutConfig) -> tuple[Tensor, Tensor]:
    """Return the whole image every time, pressed into a square (nerdyrodent's)."""
    across, down = torch.full((config.count,), float(width)), torch.full((config.count,), float(height))
    return _matrices(width, height, across, down, torch.zeros(config.count, 2)), across.maximum(down)


def draw_zooms(width: int, height: int, size: int, config: CutoutConfig) -> tuple[Tensor, Tensor]:
    """Draw boxes of a quarter to all of the image's area in three cutouts of five; the rest show it 5% smaller.

    pixray's zoom and wide cutouts.
    """
    count = config.count
    zooms = int(0.6 * count)
    area, ratio = torch.empty(count).uniform_(0.25, 0.95), torch.empty(count).uniform_(0.85, 1.2)
    across, down = ((area * ratio).sqrt().clamp(max=1) * width, (area / ratio).sqrt().clamp(max=1) * height)
    across[zooms:], down[zooms:] = width / 0.95, height / 0.95
    room = torch.tensor([width, height]) - torch.stack([across, down], 1)
    return _matrices(width, height, across, down, (torch.rand(count, 2) * 2 - 1) * room.abs()), across.maximum(down)


def draw_geometry(count: int, size: int, augments: tuple[str, ...]) -> Tensor:
    """Let kornia draw the geometric augmentations and multiply them: `[count, 3, 3]`, output -1..1 to input -1..1."""
    total = torch.eye(3).repeat(count, 1, 1)
    unit = torch.tensor([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])  # pixel centres to -1..1
    blank = torch.empty(()).expand(count, 3, size, size)  # kornia asks its shape only
    for name in augments:
        if parse_augment(name).kind != "geometry":
            continue
        augment = _augmentation(name)
        params = augment.forward_parameters(blank.shape)
        forward = augment.generate_transformation_matrix(blank, params, augment.flags)  # input to output, in pixels
        total = total @ unit @ torch.linalg.inv(unit @ forward)
    return total


def warp(image: Tensor, transforms: Tensor, sides: Tensor, size: int, outside: Tensor | None = None) -> Tensor:
    """Sample an image `[1, 3, H, W]` through homographies `[n, 3, 3]`: `[n, 3, size, size]`.

    sides: the cutouts' sides in pixels of the image; a cutout more than 1.5 times larger than `size` is sampled from
    an image of half the size, and so on. outside `[n, 3, 1, 1]`: the colour that a cutout shows outside of the image;
    None repeats its border.
    """
    height, width = image.shape[-2:]
    deepest = max(0, max(height, width).bit_length() - 2)
    level = (sides / (1.5 * size)).log2().ceil().clamp(0, deepest).long()
    pyramid = [image]
    while len(pyramid) <= int(level.max()):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    cutouts, indices = [], []
    for depth in reversed(range(len(pyramid))):
        rows = (level == depth).nonzero().flatten()
        if not len(rows):
            continue
        source = pyramid[depth]
        padded_height, padded_width = (length * 2**depth for length in source.shape[-2:])  # ceil_mode pads odd edges
        matrix = _onto_padded(width / padded_width, height / padded_height) @ transforms[rows]
        grid = sampling_grid(matrix.to(image), size)
        sampled = sample(source, grid, "border" if outside is None else "zeros")
        if outside is not None:
            coverage = sample(torch.ones_like(source[:, :1]), grid, "zeros")
            sampled = torch.addcmul(sampled, outside[rows].to(image), 1 - coverage)
        cutouts.append(sampled)
        indices.append(rows)
    if len(cutouts) == 1:
        return cutouts[0]
    joined, order = torch.cat(cutouts), torch.cat(indices)
    in_order = order.equal(torch.arange(len(order)))
    return joined if in_order else joined[order.argsort().to(image.device)]


def _onto_padded(x_scale: float, y_scale: float) -> Tensor:
    """Return the matrix from an image's -1..1 to those of the image padded at its right and lower edge.

    x_scale, y_scale: the image's width and height divided by the padded image's.
    """
    return torch.tensor([[x_scale, 0, x_scale - 1], [0, y_scale, y_scale - 1], [0, 0, 1]])


def sample(image: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Sample `[1, C, H, W]` at `[n, s, s, 2]`: `[n, C, s, s]`.

    On the CPU the cutouts are laid side by side in one wide row for each thread: the gradient buffer is then as large
    as the image, not as large as all cutouts' copies of it.
    """
    n, size = grid.shape[:2]
    batch = math.gcd(n, torch.get_num_threads()) if image.device.type == "cpu" else n
    rows = grid.view(batch, -1, size * size, 2)
    sampled = F.grid_sample(image.expand(batch, -1, -1, -1), rows, padding_mode=padding, align_corners=False)
    return sampled.transpose(1, 2).reshape(n, -1, size, size)


def sampling_grid(matrix: Tensor, size: int) -> Tensor:
    """Map the pixels of square cutouts through homographies `[n, 3, 3]`: `[n, size, size, 2]`, the image's -1..1."""
    line = ((torch.arange(size) * 2 + 1) / size - 1).to(matrix)
    a, b, c = matrix[..., None, None].unbind(2)  # each `[n, 3, 1, 1]`: x, y and depth are a * x + b * y + c
    from_x = a * line
    from_y = b * line[:, None] + c
    scale = (from_x[:, 2] + from_y[:, 2]).clamp_(min=1e-3).reciprocal_()
    grid = matrix.new_empty(len(matrix), size, size, 2)
    for axis in (0, 1):
        torch.mul(from_x[:, axis] + from_y[:, axis], scale, out=grid[..., axis])
    return grid


def draw_colours(count: int, augments: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Let kornia draw how cutouts are coloured, as one matrix and shift each: `[count, 3, 3]` and `[count, 1, 1]`.

    They change brightness, contrast and saturation. kornia's own ColorJiggle goes through HSV and costs several times
    as much. This differs from it in multiplying brightness (it adds), contrast about mid-grey (about black),
    saturation about the luma (in HSV), a fixed order and no clamp; hue is left out.
    """
    total, shift = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 1, 1)
    for name in augments:
        if parse_augment(name).kind != "colour":
            continue
        params = _augmentation(name).forward_parameters(torch.Size((count, 3, 1, 1)))
        chosen = params["batch_prob"] > 0.5
        bright, contrast, saturation = (
            torch.where(chosen, params[key].float(), torch.ones(count))[:, None, None]
            for key in ("brightness_factor", "contrast_factor", "saturation_factor")
        )
        grey = torch.tensor(LUMA).expand(3, 3)
        matrix = (saturation * torch.eye(3) + (1 - saturation) * grey) * (bright * contrast)
        if parse_augment(name).arguments.get("hue"):
            matrix = _hue(params["hue_factor"].float() * chosen) @ matrix
        total = matrix @ total
        shift = bright * contrast * shift + (1 - contrast) * 0.5  # grey stays grey: one number serves all channels
    return total, shift


def _hue(turns: Tensor) -> Tensor:
    """Return matrices `[n, 3, 3]` that turn colours about the axis of greys, by so many turns `[n]`."""
    angle = (turns * 2 * math.pi)[:, None, None]
    across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    return angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * across


def transform_colours(cutouts: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Map the colours of each cutout `[M, 3, s, s]` by its matrix `[M, 3, 3]` and shift `[M, 1, 1]`."""
    flat = cutouts.flatten(2)
    return torch.baddbmm(shift.to(flat), matrix.to(flat), flat).view(cutouts.shape)


def draw_noise(like: Tensor, numbers: range, largest_std: float, seed: int, step: int) -> Tensor:
    """Draw noise for cutouts `[M, 3, s, s]`, on their device.

    Each has a generator of its own, seeded with its number: chunks may be of any size.
    """
    noise = torch.empty_like(like, requires_grad=False)
    for cutout_noise, number in zip(noise, numbers, strict=True):
        rng = generator(seed, "noise", step, number, device=like.device)
        std = torch.rand((), generator=rng, device=like.device) * largest_std
        cutout_noise.normal_(generator=rng).mul_(std)
    return noise


# How each of settings/cutout_methods.py draws: (width, height, CLIP's size, config) -> matrices and sides.
BOXES: dict[str, Callable[[int, int, int, CutoutConfig], tuple[Tensor, Tensor]]] = {
    "inner": lambda width, height, size, config: draw_squares(width, height, size, config, count_overviews(config)),
    "overviews": lambda width, height, size, config: draw_boxes(width, height, config),
    "squares": draw_squares,
    "whole": draw_whole,
    "zooms": draw_zooms,
}
