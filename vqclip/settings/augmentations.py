"""The augmentations of a cutout, before CLIP sees it: kornia's, as data, and how people write them.

Geometric ones give a matrix each: core/cutouts.py multiplies them and warps once. Colour ones become one 3x4 matrix a
cutout. The others change the pixels, in the order given. Written as NAME, NAME:STRENGTH or NAME:STRENGTH:PROBABILITY.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import UsageError
from ..text import brief, nearest_of

PATTERN = re.compile(r"\s*([\w-]+)(?::(\d{1,4}(?:\.\d{1,6})?|\.\d{1,6})(?::([01](?:\.\d{1,6})?|\.\d{1,6}))?)?\s*")


@dataclass(frozen=True)
class Augment:
    """The name of a class of kornia.augmentation, its arguments, and how core/cutouts.py applies it.

    strength: from a number of 0 to `most` to the arguments that change with it; None: there is none.
    """

    kornia: str
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "pixels"  # or "geometry" or "colour"
    strength: Callable[[float], dict[str, Any]] | None = None
    most: float = 1.0


def _jitter(x: float) -> dict[str, Any]:
    return {"brightness": x, "contrast": x, "saturation": x}


AUGMENTS: dict[str, Augment] = {
    "affine": Augment(
        "RandomAffine", {"degrees": 12.0, "translate": (0.08, 0.08), "shear": 4.0, "p": 0.8}, "geometry",
        lambda x: {"degrees": x}, 180,
    ),
    "blur": Augment(
        "RandomGaussianBlur", {"kernel_size": (5, 5), "sigma": (0.3, 1.5), "p": 0.3},
        strength=lambda x: {"sigma": (min(0.3, x / 2), x)}, most=10,
    ),
    "colour": Augment(
        "ColorJiggle", {"brightness": 0.1, "contrast": 0.1, "saturation": 0.15, "hue": 0.0, "p": 0.7}, "colour",
        _jitter,
    ),
    "elastic": Augment("RandomElasticTransform", {"p": 0.4}, strength=lambda x: {"alpha": (x, x)}, most=10),
    "erasing": Augment(
        "RandomErasing", {"scale": (0.02, 0.15), "ratio": (0.3, 3.3), "p": 0.4},
        strength=lambda x: {"scale": (x / 4, x)},
    ),
    "flip": Augment("RandomHorizontalFlip", {"p": 0.5}, "geometry"),
    "grey": Augment("RandomGrayscale", {"p": 0.1}),
    "hue": Augment(
        "ColorJiggle", {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.1, "p": 0.7}, "colour",
        lambda x: {"hue": x}, 0.5,
    ),
    "perspective": Augment(
        "RandomPerspective", {"distortion_scale": 0.2, "p": 0.5}, "geometry", lambda x: {"distortion_scale": x},
    ),
    "rotation": Augment("RandomRotation", {"degrees": 15.0, "p": 0.7}, "geometry", lambda x: {"degrees": x}, 180),
    "sharpness": Augment(
        "RandomSharpness", {"sharpness": 0.3, "p": 0.4}, strength=lambda x: {"sharpness": x}, most=10,
    ),
}  # fmt: skip


def parse_augment(text: str) -> Augment:
    """Return an augmentation with its strength and its probability. Raises UsageError."""
    if text in AUGMENTS:
        return AUGMENTS[text]
    match = PATTERN.fullmatch(text)
    name = match[1] if match else text.partition(":")[0].strip()
    if name not in AUGMENTS:
        raise UsageError(f"unknown augmentation {brief(name)}{nearest_of(name, AUGMENTS)}", "see: vqclip settings")
    if not match:
        raise UsageError(f"{brief(text)} is no augmentation", "write NAME, NAME:STRENGTH or NAME:STRENGTH:PROBABILITY")
    row = AUGMENTS[name]
    changed: dict[str, Any] = {}
    if match[2] is not None:
        strength = float(match[2])
        if row.strength and not 0 <= strength <= row.most:
            raise UsageError(f"{brief(text)}: the strength is out of range", f"use 0 to {row.most:g}")
        if not row.strength and strength != 1:
            raise UsageError(f"{brief(text)}: {name} has no strength", f"write {name}, or {name}:1:PROBABILITY")
        changed |= row.strength(strength) if row.strength else {}
    if match[3] is not None:
        if float(match[3]) > 1:
            raise UsageError(f"{brief(text)}: the probability is out of range", "use 0 to 1")
        changed["p"] = float(match[3])
    return replace(row, arguments=row.arguments | changed)
