"""Values whose gradient is not the derivative of how they were computed.

The first two are Crowson's (VQGAN+CLIP, 2021), written as a value plus a hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def replace_grad(value: Tensor, grad_of: Tensor) -> Tensor:
    """Return `value`; its gradient goes to `grad_of` alone (same shape), as if it were that."""
    return value.detach() + (grad_of - grad_of.detach())


def clamp_with_grad(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp `x` to low..high; outside, only gradients whose descent step leads back inside pass.

    A plain clamp has no gradient outside, so a pixel that left the range could never return.
    """
    clamped = x.detach().clamp(low, high)
    outside = x.detach() - clamped  # > 0 above, < 0 below
    through = x + 0
    if not through.requires_grad:
        return clamped
    through.register_hook(lambda grad: grad * (grad * outside >= 0))
    return replace_grad(clamped, through)


def with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Return `value` `[N]` as a function of `x` `[N, ...]` whose gradient is known already: `gradient`, like `x`."""
    return value.detach() + ((x - x.detach()) * gradient).flatten(1).sum(1)
