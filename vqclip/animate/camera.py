"""A camera that moves over a picture: zoomed, turned and panned in one warp by kornia."""

import kornia.geometry.transform as KT
import torch
from torch import Tensor

BORDERS = {"black": "zeros", "edge": "border", "reflect": "reflection"}  # ours -> kornia's: what lies outside


def move(image: Tensor, *, zoom: float, turn: float, pan_x: float, pan_y: float, border: str = "reflect") -> Tensor:
    """Return what the camera sees after one move over a picture `[1, 3, H, W]` in 0..1, in its size and range.

    zoom: larger than 1 goes in, about the middle. turn: degrees by which the picture turns clockwise. pan_x, pan_y:
    shares of width and height by which the camera goes right and down. border: of BORDERS, what comes into view
    from outside. Bicubic, since frame after frame is sampled from the one before.
    """
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], dtype=image.dtype)
    matrix = KT.get_affine_matrix2d(
        translations=-(torch.tensor([pan_x, pan_y]) * size)[None],
        center=((size - 1) / 2)[None],
        scale=torch.full((1, 2), float(zoom)),
        angle=torch.tensor([float(turn)]),
    )
    seen = KT.warp_affine(image, matrix[:, :2].to(image), (height, width), mode="bicubic", padding_mode=BORDERS[border])
    return seen.clamp(0, 1)
