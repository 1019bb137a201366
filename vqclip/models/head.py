"""A head: a number that people would give an image, linear in a CLIP's embedding of it.

Those of LAION: `sa_0_4_vit_l_14_linear.pth` is one linear layer, `sac+logos+ava1-l14-linearMSE.pth` five in a row with
nothing between them that counts once they are trained, which is one linear layer too.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..core.interfaces import Head
from ..errors import ModelError
from .formats.read import read_tensors, sound

MOST_LAYERS = 16
KNOWN = "vqclip reads linear layers in a row, the last of one number, as LAION's aesthetic predictors have them"


def load(file: Path, *, device: torch.device) -> Head:
    """Load a head's file. Raises ModelError for other layers, IntegrityError."""
    weight, bias = folded(file, dict(sound(file, read_tensors(file).items())))
    return Head(weight.to(device), float(bias))


def folded(file: Path, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return linear layers in a row as one: its weight `[D]` and its bias, float32. Raises ModelError."""
    names = sorted((name for name in tensors if name.endswith("weight")), key=_numbers)
    expected = {name for weight in names for name in (weight, weight.removesuffix("weight") + "bias")}
    if not names or len(names) > MOST_LAYERS or expected != tensors.keys():
        raise ModelError(f"{file} is no head: it has {len(tensors)} tensors, {next(iter(tensors))[:80]} first", KNOWN)
    weight, bias = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for name in reversed(names):
        layer, shift = tensors[name].double(), tensors[name.removesuffix("weight") + "bias"].double()
        if layer.ndim != 2 or shift.shape != layer.shape[:1] or layer.shape[0] != weight.shape[1]:
            raise ModelError(f"{file} is no head: {name[:80]} does not fit the layer after it", KNOWN)
        weight, bias = weight @ layer, bias + weight @ shift
    return weight[0].float(), bias[0].float()


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,9}", name)]
