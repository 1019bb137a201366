"""The camera's moves, by where a dot goes."""

import pytest
import torch

from vqclip.animate.camera import BORDERS, move_camera

STILL = {"zoom": 1.0, "turn": 0.0, "pan_x": 0.0, "pan_y": 0.0}


def moved(x, y, **how):
    """Return where a dot at (x, y) of 41 x 41 pixels is seen, to a tenth."""
    rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    dot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4)
    seen = move_camera(dot.expand(1, 3, 41, 41), **STILL | how, border="black")[0, 0]
    return tuple(float((seen * axis).sum() / seen.sum()) for axis in (columns, rows))


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ({}, (28, 20)),
        ({"zoom": 1.5}, (32, 20)),  # the middle is at 20
        ({"zoom": 0.5}, (24, 20)),
        ({"turn": 90}, (20, 28)),  # what was right is below: clockwise
        ({"turn": -90}, (20, 12)),
        ({"pan_x": 0.1}, (23.9, 20)),  # the camera goes right by 4.1 pixels, what it sees goes left
        ({"pan_y": -0.1}, (28, 24.1)),
    ],
)
def test_where_a_dot_goes(how, place):
    assert moved(28, 20, **how) == pytest.approx(place, abs=0.1)


def test_a_camera_that_does_not_move_changes_nothing():
    image = torch.rand(1, 3, 20, 30)
    torch.testing.assert_close(move_camera(image, **STILL), image, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("border", "edge"), [("black", 0.0), ("edge", 0.9), ("reflect", 0.9)])
def test_what_comes_into_view(border, edge):
    image = torch.full((1, 3, 20, 20), 0.2)
    image[..., 16:] = 0.9
    seen = move_camera(image, **STILL | {"pan_x": 0.15}, border=border)
    assert seen[0, :, 10, 19].tolist() == pytest.approx([edge] * 3, abs=1e-3)


def test_reflection_shows_the_picture_backwards():
    image = torch.linspace(0.1, 0.9, 20).expand(1, 3, 20, 20)
    seen = move_camera(image, **STILL | {"pan_x": 0.25})
    assert seen[0, 0, 10, 19] == pytest.approx(float(image[0, 0, 10, 14]), abs=0.02)


@pytest.mark.parametrize("border", BORDERS)
def test_values_stay_in_range(border):
    image = (torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    seen = move_camera(image, zoom=1.1, turn=5.0, pan_x=0.05, pan_y=0.0, border=border)
    assert seen.shape == image.shape
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
