"""Where other tools cut their cutouts, by the names that they have there; as data. core/cutouts.py draws them.

A method's own augmentations and noise count where none are given.
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class CutoutMethod:
    """One way to cut.

    boxes: how their places are drawn, a function of core/cutouts.py. pooled: whether the image is first brought to
    CLIP's size, the mean of average and maximum of each part. outside: what a cutout shows beyond the image.
    """

    boxes: Literal["overviews", "squares", "whole", "zooms", "inner"]
    augments: tuple[str, ...]
    noise: float
    pooled: bool = False
    outside: Literal["margin", "border", "black"] = "border"

    def settings(self) -> dict[str, Any]:
        """Return the settings that go with it."""
        return {"augments": self.augments, "noise": self.noise, "margin": 0.0}


UPDATED = ("flip", "colour:0.01:0.7", "sharpness:0.3:0.4", "affine:30:0.8", "perspective:0.2:0.4")
POOLED = ("affine:15:0.7", "perspective:0.7:0.7", "colour:0.1:0.7", "hue:0.1:0.7", "erasing:0.4:0.7")
CUTOUT_METHODS: dict[str, CutoutMethod] = {
    "own": CutoutMethod("overviews", (), 0.0, outside="margin"),
    # Crowson's notebook; nerdyrodent and rkhamilton call it so
    "original": CutoutMethod("squares", (), 0.0),
    "sg3": CutoutMethod("squares", (), 0.0),  # rkhamilton's: averaged where others sample, which here all are
    "kornia": CutoutMethod("squares", UPDATED, 0.1),  # rkhamilton's default
    # nerdyrodent's
    "updated": CutoutMethod("squares", UPDATED, 0.1),
    "nrupdated": CutoutMethod("squares", POOLED, 0.1),
    "updatedpooling": CutoutMethod("whole", (*POOLED[:2], "colour:0.1:0.7", *POOLED[3:]), 0.1, pooled=True),
    "latest": CutoutMethod("whole", POOLED, 0.1, pooled=True, outside="black"),
    "pixray": CutoutMethod("zooms", ("perspective:0.4:0.7", "colour:0.1:0.8", "hue:0.1:0.8"), 0.1, pooled=True),
    # Disco Diffusion's overviews and inner cuts
    "inner": CutoutMethod("inner", ("flip", "affine:10:1", "grey:1:0.1", "colour:0.1:1", "hue:0.1:1"), 0.01),
}
