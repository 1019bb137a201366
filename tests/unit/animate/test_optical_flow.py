"""Optical flow, on pictures whose moves are known."""

import pytest
import torch
import torch.nn.functional as F

from vqclip.animate.optical_flow import confidence, optical_flow, warp

INSIDE = (slice(None), slice(None), slice(20, -20), slice(20, -20))


def scene(seed=0, size=(96, 128)):
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("by", [(0, 0), (3, 0), (0, -5), (8, 4), (-12, 0)], ids=str)
def test_a_picture_that_moves_is_followed(by):
    """Each place was `by` pixels back."""
    image = scene()
    found = optical_flow(image, torch.roll(image, (by[1], by[0]), (2, 3)))[INSIDE]
    assert found.mean((0, 2, 3)).tolist() == pytest.approx([-by[0], -by[1]], abs=0.05)
    assert float(found.std((2, 3)).max()) < 0.3


def test_a_part_that_moves_is_followed_alone():
    ground, thing = scene(), scene(1)
    before, after = ground.clone(), ground.clone()
    before[..., 30:62, 40:72] = thing[..., 30:62, 40:72]
    after[..., 30:62, 44:76] = thing[..., 30:62, 40:72]
    found = optical_flow(before, after)
    assert found[0, 0, 40:52, 54:66].mean() == pytest.approx(-4, abs=0.5)
    assert found[0, :, 75:, :].abs().mean() < 0.2


def test_a_picture_is_carried_along():
    image = scene()
    moves = torch.zeros(1, 2, 96, 128)
    moves[:, 0], moves[:, 1] = -3, 2
    torch.testing.assert_close(
        warp(image, moves)[INSIDE], torch.roll(image, (-2, 3), (2, 3))[INSIDE], atol=1e-4, rtol=0
    )


def test_what_is_the_same_is_trusted_and_what_is_new_is_not():
    image, other = scene(), torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    assert float(confidence(image, image).min()) == pytest.approx(1)
    assert float(confidence(warp(image, optical_flow(image, other)), other).mean()) < 0.1


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (3, 40)], ids=str)
def test_small_and_flat_pictures_are_no_fault(size):
    image = scene()[..., : size[0], : size[1]]
    assert optical_flow(image, image).abs().max() < 1e-3
    flat = torch.ones_like(image) * 0.5
    assert optical_flow(flat, flat).shape == (1, 2, *size)
    assert torch.isfinite(optical_flow(flat, image)).all()
