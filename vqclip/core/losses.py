"""Losses: each maps what a step has made to one number per image.

The prompts' loss needs CLIP and is computed in loop.clip_guidance, from `prompt_distance`; the others, which
regularise, are rows of LOSSES. Only tensor methods are used here, so that the names can be listed without importing
torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .straight_through import replace_grad

if TYPE_CHECKING:
    from torch import Tensor

    from .interfaces import Target


@dataclass(frozen=True)
class LossContext:
    """The tensors of one step, for losses to look at."""

    z: Tensor  # [N, C, h, w], the latent that is optimised
    z_init: Tensor  # the latent that it started from
    image: Tensor  # [N, 3, H, W], 0..1
    codebook_std: Tensor  # standard deviation of the live codes, a scalar
    progress: float  # 0 at the first step, towards 1 at the last


Loss = Callable[[LossContext], "Tensor"]  # -> [N]


def spherical_angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between unit vectors over the last axis, by the chord: accurate at 0, finite gradient."""
    chord = ((a - b).square().sum(-1) + 1e-12).sqrt()
    return (chord / 2).clamp(max=1 - 1e-6).asin() * 2


def spherical_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return half the squared angle between unit vectors: Crowson's `2 * asin(|a - b| / 2) ** 2`."""
    return spherical_angle(a, b).square() / 2


def prompt_distance(embeds: Tensor, target: Target) -> Tensor:
    """Return the distance of cutouts, embedded as `[N, M, D]`, to the prompts of a target: `[N, M]`.

    Crowson's Prompt module: the distance carries the weight's sign, and a cutout whose signed distance is below the
    prompt's stop gives no gradient. Summed over the prompts.
    """
    signed = spherical_distance(embeds[:, :, None], target.embeds) * target.weights.sign()  # [N, M, P]
    held = replace_grad(signed, signed.maximum(target.stops))
    return (held * target.weights.abs()).sum(-1)


def init(context: LossContext) -> Tensor:
    """Hold the latent near its start, in units of the codebook's std; the pull fades to nothing over the run.

    The `init_weight` of nerdyrodent and others pulls to zero, whatever the start; this one pulls to the start.
    """
    fade = (1 + math.cos(math.pi * context.progress)) / 2
    return (context.z - context.z_init).square().mean((1, 2, 3)) / context.codebook_std**2 * fade


def tv(context: LossContext) -> Tensor:
    """Return the image's total variation: the mean absolute difference of neighbouring pixels; smooths."""
    x = context.image
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean((1, 2, 3)) + (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))


LOSSES: dict[str, Loss] = {
    "init": init,
    "tv": tv,
}
