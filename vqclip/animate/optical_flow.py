"""Dense optical flow between two frames, and images warped along it.

Lucas and Kanade 1981, iterated over a pyramid (Bouguet 2001), in plain tensors: frames are small, so no further model.
"""

import kornia.filters as KF
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cutouts import LUMA

COARSEST = 12  # pixels of the short side, about
ITERATIONS = 5  # a level
WINDOW, SIGMA = 9, 2.0
RIDGE = 1e-4  # added to the squared gradients, so that plain areas have no motion
TOLERANCE = 0.12  # difference of colours at which the confidence is 1/e


def optical_flow(before: Tensor, after: Tensor) -> Tensor:
    """Return `[1, 2, H, W]`, x and y in pixels: from each position in `after` to where it was in `before`.

    Both are images `[1, 3, H, W]` in 0..1. Follows motion of up to about an eighth of the image.
    """
    luma = torch.tensor(LUMA).view(1, 3, 1, 1).to(after)
    levels = [((before * luma).sum(1, True), (after * luma).sum(1, True))]
    while min(levels[-1][0].shape[-2:]) >= 2 * COARSEST:
        levels.append(tuple(F.avg_pool2d(image, 2) for image in levels[-1]))  # type: ignore[arg-type]
    flow = torch.zeros_like(levels[-1][0]).repeat(1, 2, 1, 1)
    for old, new in reversed(levels):
        size = new.shape[-2:]
        scale = torch.tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]]).view(1, 2, 1, 1).to(flow)
        flow = F.interpolate(flow, size, mode="bilinear", align_corners=False) * scale
        for _ in range(ITERATIONS):
            flow = _blur(flow + _refinement(warp(old, flow), new), 1.0)
    return flow


def _refinement(old: Tensor, new: Tensor) -> Tensor:
    """Return the motion, at most one pixel, that fits the differences around each position best (least squares)."""
    x, y = KF.spatial_gradient((old + new) / 2, normalized=True)[:, 0].unbind(1)
    rest = (new - old)[:, 0]
    xx, xy, yy, xr, yr = _blur(torch.stack([x * x, x * y, y * y, x * rest, y * rest], 1), SIGMA).unbind(1)
    xx, yy = xx + RIDGE, yy + RIDGE
    motion = torch.stack([yy * xr - xy * yr, xx * yr - xy * xr], 1) / (xx * yy - xy * xy)[:, None]
    return motion.clamp(-1, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    side = min(WINDOW, *(size - 1 + size % 2 for size in image.shape[-2:]))
    return KF.gaussian_blur2d(image, (side, side), (sigma, sigma))


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Return an image `[1, C, H, W]` moved along a flow: each position shows where it was before."""
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = (torch.stack([columns, rows]).to(flow) + flow[0]).permute(1, 2, 0)
    size = torch.tensor([width, height]).to(flow)
    return F.grid_sample(image, ((grid * 2 + 1) / size - 1)[None], padding_mode="border", align_corners=False)


def confidence(warped: Tensor, after: Tensor) -> Tensor:
    """Return how far a warped frame agrees with the one after it: `[1, 1, H, W]`, 1 where it does, towards 0.

    Areas that were hidden before, and everything after a cut, have confidence 0 and are drawn anew.
    """
    difference = _blur((warped - after).square().mean(1, keepdim=True), 1.0)
    return torch.exp(-difference / TOLERANCE**2)
