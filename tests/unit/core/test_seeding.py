"""Randomness as a function of (seed, path). Pitfall 5.1: at a peer, seed 0 means "random"."""

import contextlib
import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqclip.core.seeding import derive, fold_in, generator

paths = st.lists(st.integers(0, 99) | st.text(max_size=4), max_size=3).map(tuple)


def folded(seed, *path):
    with fold_in(seed, *path):
        return torch.rand(8)


def test_derived_seeds_stay_the_same_from_release_to_release():
    digest = hashlib.sha256(b"(7, 'cutouts', 3)").hexdigest()
    first = int("".join(reversed([digest[i : i + 2] for i in range(0, 16, 2)])), 16)  # 8 bytes, the lowest first
    assert derive(7, "cutouts", 3) == first // 2


@given(st.integers(0, 2**64), paths)
def test_derived_seeds_fit_in_63_bits(seed, path):
    assert 0 <= derive(seed, *path) < 2**63


@given(st.integers(0, 99), paths, st.integers(0, 99), paths)
def test_only_equal_paths_give_equal_seeds(seed, path, other, other_path):
    assert (derive(seed, *path) == derive(other, *other_path)) == ((seed, path) == (other, other_path))


@pytest.mark.parametrize(
    ("one", "other"), [((1, 23), (12, 3)), ((1, 2), (1, "2")), ((1, "a", "b"), (1, "ab")), ((0,), (0, 0))]
)
def test_paths_that_look_alike_give_different_seeds(one, other):
    assert derive(*one) != derive(*other)


def test_seed_zero_is_a_seed():
    assert torch.equal(folded(0), folded(0))


def test_one_path_always_draws_the_same():
    assert torch.equal(torch.rand(8, generator=generator(5, "a")), torch.rand(8, generator=generator(5, "a")))


def test_neighbouring_seeds_draw_differently():
    assert not torch.equal(torch.rand(8, generator=generator(5)), torch.rand(8, generator=generator(6)))


def test_generators_live_on_the_cpu():
    assert generator(1).device.type == "cpu"


def test_a_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    torch.rand(8, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folded_block_draws_the_same_whatever_came_before():
    torch.manual_seed(1)
    first = folded(5, "a", 2)
    torch.rand(3)
    assert torch.equal(folded(5, "a", 2), first)


def test_a_folded_block_draws_differently_at_the_next_step():
    assert not torch.equal(folded(5, "a", 2), folded(5, "a", 3))


def test_a_folded_block_gives_the_global_generator_back():
    before = torch.get_rng_state()
    folded(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folded_block_gives_the_global_generator_back_after_an_error():
    before = torch.get_rng_state()
    with contextlib.suppress(KeyError), fold_in(5):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folded_block_goes_on_after_a_nested_one():
    with fold_in(5):
        torch.rand(1)
        plain = torch.rand(4)
    with fold_in(5):
        torch.rand(1)
        folded(6)
        assert torch.equal(torch.rand(4), plain)
