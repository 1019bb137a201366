"""What the picture is pulled towards: the prompts, by each view of it; and losses, which map an Iterate to `[N]`.

Only tensor methods are used here, so that the names can be listed without importing torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .straight_through import replace_grad

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What one perceptor should see: embeddings `[P, D]` of unit length, weights `[P]`, stops `[P]`.

    `share` is what this perceptor counts beside the others.
    """

    embeds: Tensor
    weights: Tensor
    stops: Tensor
    share: float = 1.0


@dataclass(frozen=True)
class Iterate:
    """One step's tensors, for losses to look at."""

    z: Tensor  # [N, C, h, w], the latent that is optimised
    z_init: Tensor  # the latent it started from
    image: Tensor  # [N, 3, H, W], 0..1
    spread: Tensor  # standard deviation of the codebook, a scalar
    progress: float  # 0 at the first step, towards 1 at the last


Loss = Callable[[Iterate], "Tensor"]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between unit vectors over the last axis, by the chord: accurate at 0, finite gradient."""
    chord = ((a - b).square().sum(-1) + 1e-12).sqrt()
    return (chord / 2).clamp(max=1 - 1e-6).asin() * 2


def spherical_distance(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared angle between unit vectors: Crowson's `2 * asin(|a - b| / 2) ** 2`."""
    return angle(a, b).square() / 2


def prompt(embeds: Tensor, target: Target) -> Tensor:
    """Draw views, embedded as `[N, V, D]`, towards every prompt, or away where its weight is negative: `[N, V]`.

    Crowson's Prompt module: the distance carries the weight's sign, and a view whose signed
    distance is below the prompt's stop gives no gradient. Sum over prompts.
    """
    signed = spherical_distance(embeds[:, :, None], target.embeds) * target.weights.sign()  # [N, V, P]
    held = replace_grad(signed, signed.maximum(target.stops))
    return (held * target.weights.abs()).sum(-1)


def init(it: Iterate) -> Tensor:
    """Hold the latent near its start, in units of the codebook's spread; the pull fades to nothing.

    The peers' `init_weight` pulls to zero, whatever the start; this one pulls to the start.
    """
    fade = (1 + math.cos(math.pi * it.progress)) / 2
    return (it.z - it.z_init).square().mean((1, 2, 3)) / it.spread**2 * fade


def tv(it: Iterate) -> Tensor:
    """Total variation of the picture: mean absolute difference of neighbouring pixels, smooths."""
    x = it.image
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean((1, 2, 3)) + (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))


LOSSES: dict[str, Loss] = {
    "init": init,
    "tv": tv,
}
