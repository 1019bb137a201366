"""The nearest code and the straight-through gradient, against brute force and the one-hot product."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import draw
from vqclip.core.quantize import live_codes, lookup, nearest, quantize

BOOK = draw(40, 6, seed=1)
Z = draw(2, 6, 3, 5, seed=2)


def brute_force(z, book):
    """Measure every distance in float64, one place at a time."""
    places = z.double().permute(0, 2, 3, 1)[..., None, :]
    return (places - book.double()).square().sum(-1).argmin(-1)


def test_the_nearest_code_is_the_one_that_brute_force_finds():
    assert torch.equal(nearest(Z, BOOK), brute_force(Z, BOOK))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True), st.integers(-60, 60))
def test_on_a_line_the_nearest_code_is_at_the_least_distance(codes, place):
    index = nearest(torch.full((1, 1, 1, 1), float(place)), torch.tensor(codes, dtype=torch.float)[:, None]).item()
    assert abs(codes[index] - place) == min(abs(code - place) for code in codes)


def test_a_code_is_its_own_nearest():
    assert torch.equal(nearest(BOOK.T[None, :, :, None], BOOK).flatten(), torch.arange(len(BOOK)))


def test_codes_differ_by_their_norm_too():
    book = torch.tensor([[1.0, 0.0], [9.0, 0.0]])  # the second has the larger product with any z on the axis
    assert nearest(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1), book).item() == 0


def test_a_half_precision_latent_is_compared_in_float32():
    z = Z.bfloat16()
    assert torch.equal(nearest(z, BOOK), brute_force(z, BOOK))


def test_autocast_does_not_blur_the_codes():
    z, book = draw(1, 8, 32, 32, seed=3), draw(512, 8, seed=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(z, book)
    assert torch.equal(found, brute_force(z, book))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.88, 0.94])
def test_dead_codes_that_are_crowded_at_a_point_are_not_live(share):
    used, point = draw(60, 16, seed=1) + 1, draw(1, 16, seed=2) * 0.1
    dead = point + 1e-3 * draw(round(60 * share / (1 - share)), 16, seed=3)
    assert torch.equal(live_codes(torch.cat([used, dead])), used)


@pytest.mark.parametrize("dim", [2, 4, 16, 256])
def test_a_codebook_without_dead_codes_is_all_live(dim):
    codebook = draw(1024, dim, seed=dim)
    assert live_codes(codebook) is codebook


def test_lookup_equals_the_one_hot_product():
    codes = nearest(Z, BOOK)
    product = (F.one_hot(codes, len(BOOK)).float() @ BOOK).permute(0, 3, 1, 2)
    assert torch.equal(lookup(codes, BOOK), product)


def test_quantizing_gives_codes_to_the_last_bit():
    assert torch.equal(quantize(Z * 1e3, BOOK), lookup(nearest(Z * 1e3, BOOK), BOOK))


def test_quantizing_twice_changes_nothing():
    once = quantize(Z, BOOK)
    assert torch.equal(quantize(once, BOOK), once)


def test_the_gradient_passes_straight_through():
    z, upstream = Z.clone().requires_grad_(), draw(2, 6, 3, 5, seed=5)
    quantize(z, BOOK).backward(upstream)
    assert torch.equal(z.grad, upstream)


def test_the_codebook_gets_no_gradient():
    z, book = Z.clone().requires_grad_(), BOOK.clone().requires_grad_()
    quantize(z, book).sum().backward()
    assert book.grad is None
