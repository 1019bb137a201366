"""How alike two pictures are: PSNR and SSIM."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(a: Tensor, b: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of two pictures `[..., H, W]` in 0..1; infinite if they are equal."""
    return float(-10 * torch.log10((a - b).square().mean()))


def ssim(a: Tensor, b: Tensor) -> float:
    """Return the structural similarity of two pictures `[1, C, H, W]` in 0..1; 1 if they are equal.

    Wang et al. 2004: a Gaussian window of 11 pixels (fewer in a smaller picture), its whole placements alone; the mean
    over them and over the channels.
    """
    side = min(WINDOW, *a.shape[-2:])
    axis = torch.arange(side, device=a.device) - (side - 1) / 2
    line = torch.exp(-axis.square() / (2 * SIGMA**2))
    channels = a.shape[1]
    window = (line[:, None] * line / line.sum() ** 2).expand(channels, 1, side, side)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    both = blur(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * both + C2)
    return float((likeness / ((mean_a.square() + mean_b.square() + C1) * (var_a + var_b + C2))).mean())
