"""Where things move between two frames: dense optical flow, and a picture carried along with it.

Lucas and Kanade 1981, iterated over a pyramid (Bouguet 2001), in plain tensors: small frames, so no further model.
"""

import kornia.filters as KF
import torch
import torch.nn.functional as F
from torch import Tensor

COARSEST = 12  # pixels of the short side, about
ROUNDS = 5  # a level
WINDOW, SIGMA = 9, 2.0
RIDGE = 1e-4  # holds still where nothing is to be seen
DOUBT = 0.12  # difference of colours at which a match is believed by 1/e
LUMA = (0.299, 0.587, 0.114)


def flow(before: Tensor, after: Tensor) -> Tensor:
    """Return `[1, 2, H, W]`, x and y in pixels: from each place of `after` to where it was in `before`.

    Both are pictures `[1, 3, H, W]` in 0..1. Follows moves of up to about an eighth of the picture.
    """
    luma = torch.tensor(LUMA).view(1, 3, 1, 1).to(after)
    levels = [((before * luma).sum(1, True), (after * luma).sum(1, True))]
    while min(levels[-1][0].shape[-2:]) >= 2 * COARSEST:
        levels.append(tuple(F.avg_pool2d(image, 2) for image in levels[-1]))  # type: ignore[arg-type]
    found = torch.zeros_like(levels[-1][0]).repeat(1, 2, 1, 1)
    for old, new in reversed(levels):
        size = new.shape[-2:]
        scale = torch.tensor([size[1] / found.shape[-1], size[0] / found.shape[-2]]).view(1, 2, 1, 1).to(found)
        found = F.interpolate(found, size, mode="bilinear", align_corners=False) * scale
        for _ in range(ROUNDS):
            found = _blur(found + _step(carry(old, found), new), 1.0)
    return found


def _step(old: Tensor, new: Tensor) -> Tensor:
    """Return the move, at most one pixel, that fits the differences around each place best (least squares)."""
    x, y = KF.spatial_gradient((old + new) / 2, normalized=True)[:, 0].unbind(1)
    rest = (new - old)[:, 0]
    xx, xy, yy, xr, yr = _blur(torch.stack([x * x, x * y, y * y, x * rest, y * rest], 1), SIGMA).unbind(1)
    xx, yy = xx + RIDGE, yy + RIDGE
    both = torch.stack([yy * xr - xy * yr, xx * yr - xy * xr], 1) / (xx * yy - xy * xy)[:, None]
    return both.clamp(-1, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    side = min(WINDOW, *(size - 1 + size % 2 for size in image.shape[-2:]))
    return KF.gaussian_blur2d(image, (side, side), (sigma, sigma))


def carry(image: Tensor, moves: Tensor) -> Tensor:
    """Sample a picture `[1, C, H, W]` where `flow` says that each place was; beyond the edge the edge goes on."""
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = (torch.stack([columns, rows]).to(moves) + moves[0]).permute(1, 2, 0)
    size = torch.tensor([width, height]).to(moves)
    return F.grid_sample(image, ((grid * 2 + 1) / size - 1)[None], padding_mode="border", align_corners=False)


def trust(before: Tensor, after: Tensor) -> Tensor:
    """Say how far `before`, carried along, is what `after` shows: `[1, 1, H, W]`, 1 where they agree, towards 0.

    So what was hidden, and all after a cut, begins anew.
    """
    apart = _blur((before - after).square().mean(1, keepdim=True), 1.0)
    return torch.exp(-apart / DOUBT**2)
