"""SRVGGNetCompact, Real-ESRGAN's small network: Wang, Xie, Dong, Shan, ICCVW 2021, https://arxiv.org/abs/2107.10833.

spandrel has it too. This one is here because the bundled upscaler is one: it is read in a few milliseconds, and
importing spandrel takes torchvision, a second or more, at the end of every image.
"""

import math
import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = re.compile(r"body\.(\d{1,3})\.(weight|bias)")
COLOURS = 3


class Compact(nn.Module):
    """Convolutions of 3x3 with a PReLU after each, the last one's channels dealt out to pixels, and the input added."""

    def __init__(self, features: int, depth: int, scale: int) -> None:
        """Build it. depth: convolutions between the first and the last."""
        super().__init__()
        self.scale, self.radius = scale, depth + 2  # a convolution looks one pixel further
        out = COLOURS * scale**2
        self.pixel_bytes = 4 * (max(2 * features, 3 * out) + 2 * out + COLOURS)  # a layer's two ends, or the last sum's
        widths = [COLOURS, *[features] * (depth + 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.PReLU(after)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, COLOURS * scale**2, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge `[N, 3, H, W]` to `[N, 3, H*scale, W*scale]`."""
        base = F.interpolate(image, scale_factor=float(self.scale), mode="nearest")
        return F.pixel_shuffle(self.body(image), self.scale) + base


def build(tensors: dict[str, Tensor]) -> Compact | None:
    """Return the network that tensors belong to, with them in it; None where they are no SRVGGNetCompact of colours."""
    numbers = [int(match[1]) for name in tensors if (match := NAME.fullmatch(name))]
    if len(numbers) != len(tensors):
        return None
    first, last = tensors.get("body.0.weight"), tensors.get(f"body.{max(numbers)}.bias")
    if first is None or last is None or first.dim() != 4 or last.dim() != 1:
        return None
    features, scale = len(first), math.isqrt(len(last) // COLOURS)
    with torch.device("meta"):  # built without numbers: the file's take their places
        network = Compact(features, (max(numbers) - 2) // 2, scale)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes != {name: tuple(value.shape) for name, value in network.state_dict().items()}:
        return None
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return network
