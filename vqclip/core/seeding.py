"""Randomness as a function of (seed, step) only, so that a resumed run needs no hidden state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_GLOBAL = RLock()  # there is one global generator, whatever the number of threads


def derive(seed: int, *path: int | str) -> int:
    """Derive an independent 63-bit seed from `seed` and any path of numbers and words."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for `path`; on the CPU seeds agree across machines, elsewhere much is drawn fast."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


@contextmanager
def fold_in(seed: int, *path: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator for a block (kornia draws from it), then give it back untouched."""
    with _GLOBAL, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *path))
        yield
