"""The augmentations of a cutout, before CLIP sees it: kornia's, as data.

Geometric ones give a matrix each: core/cutouts.py multiplies them and warps once. Colour ones become one 3x4 matrix a
cutout. The others change the pixels, in the order given.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Augment:
    """The name of a class of kornia.augmentation, its arguments, and how core/cutouts.py applies it."""

    kornia: str
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "pixels"  # or "geometry" or "colour"


AUGMENTS: dict[str, Augment] = {
    "affine": Augment("RandomAffine", {"degrees": 12.0, "translate": (0.08, 0.08), "shear": 4.0, "p": 0.8}, "geometry"),
    "blur": Augment("RandomGaussianBlur", {"kernel_size": (5, 5), "sigma": (0.3, 1.5), "p": 0.3}),
    "colour": Augment(
        "ColorJiggle", {"brightness": 0.1, "contrast": 0.1, "saturation": 0.15, "hue": 0.0, "p": 0.7}, "colour"
    ),
    "elastic": Augment("RandomElasticTransform", {"p": 0.4}),
    "erasing": Augment("RandomErasing", {"scale": (0.02, 0.15), "ratio": (0.3, 3.3), "p": 0.4}),
    "flip": Augment("RandomHorizontalFlip", {"p": 0.5}, "geometry"),
    "grey": Augment("RandomGrayscale", {"p": 0.1}),
    "perspective": Augment("RandomPerspective", {"distortion_scale": 0.2, "p": 0.5}, "geometry"),
    "sharpness": Augment("RandomSharpness", {"sharpness": 0.3, "p": 0.4}),
}
