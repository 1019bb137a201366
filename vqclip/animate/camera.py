"""A camera that moves over an image: zoom, turn and pan in one warp by kornia."""

import kornia.geometry.transform as KT
import torch
from torch import Tensor

BORDERS = {"black": "zeros", "edge": "border", "reflect": "reflection"}  # ours -> kornia's padding modes


def move_camera(
    image: Tensor, *, zoom: float, turn: float, pan_x: float, pan_y: float, border: str = "reflect"
) -> Tensor:
    """Return what a camera sees after one move over an image `[1, 3, H, W]` in 0..1, in its size and range.

    zoom: larger than 1 goes in, about the middle. turn: degrees by which the image turns clockwise. pan_x, pan_y:
    fractions of width and height by which the camera goes right and down. border: of BORDERS, what comes into view
    from outside. Bicubic, because each frame is sampled from the one before.
    """
    height, width = image.shape[-2:]
    size = torch.tensor([width, height], dtype=image.dtype)
    matrix = KT.get_affine_matrix2d(
        translations=-(torch.tensor([pan_x, pan_y]) * size)[None],
        center=((size - 1) / 2)[None],
        scale=torch.full((1, 2), float(zoom)),
        angle=torch.tensor([float(turn)]),
    )
    matrix = matrix[:, :2].to(image)
    warped = KT.warp_affine(image, matrix, (height, width), mode="bicubic", padding_mode=BORDERS[border])
    return warped.clamp(0, 1)
