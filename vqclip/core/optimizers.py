"""The optimisers that published settings name, each one step of its paper's equations, over the same two moments.

Their state is in sight: it is what a checkpoint holds, whichever optimiser it is of. One image of a batch never depends
on another.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

DECAY = 0.01  # of AdamW, torch's default
SMOOTHING = 0.99  # of RMSprop, torch's default
ALIGNED = 0.1  # AdamP: below this cosine of gradient and latent, times the root of their length, they are projected


@dataclass(frozen=True)
class Rates:
    """The learning rate and what else a step takes. beta1, beta2: decays of the moments; eps: beside the root."""

    lr: float
    beta1: float
    beta2: float
    eps: float


@dataclass(frozen=True)
class Moments:
    """Estimates of the gradient's first and second moment, `m` and `v`, each as the latent, after `t` updates.

    gradient: the last one, where the optimiser asks for it (DiffGrad).
    """

    m: Tensor
    v: Tensor
    t: int = 0
    gradient: Tensor | None = None

    @classmethod
    def begin(cls, z: Tensor) -> "Moments":
        """Return the state before the first update of `z`."""
        return cls(torch.zeros_like(z), torch.zeros_like(z))


Optimizer = Callable[[Moments, Tensor, Tensor, Rates], Moments]  # (state, z, gradient, rates): updates z in place


def adam(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Kingma and Ba 2015, algorithm 1; equal to torch.optim.Adam to the last bit."""
    t, beta1, beta2 = state.t + 1, rates.beta1, rates.beta2
    m = state.m.lerp(gradient, 1 - beta1)
    v = (state.v * beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(rates.eps)
    z.addcdiv_(m, denominator, value=-rates.lr / (1 - beta1**t))
    return Moments(m, v, t)


def adamw(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Loshchilov and Hutter 2019, algorithm 2: Adam, and the latent decays by itself."""
    z.mul_(1 - rates.lr * DECAY)
    return adam(state, z, gradient, rates)


def adamax(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Kingma and Ba 2015, algorithm 2: the largest gradient, decayed, in place of the second moment."""
    m = state.m.lerp(gradient, 1 - rates.beta1)
    v = (state.v * rates.beta2).maximum(gradient.abs() + rates.eps)
    z.addcdiv_(m, v, value=-rates.lr / (1 - rates.beta1 ** (state.t + 1)))
    return Moments(m, v, state.t + 1)


def radam(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Liu et al. 2020, algorithm 2: the second moment counts once its variance can be told."""
    t, beta2 = state.t + 1, rates.beta2
    m = state.m.lerp(gradient, 1 - rates.beta1)
    v = (state.v * beta2).addcmul_(gradient, gradient, value=1 - beta2)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    size = rates.lr / (1 - rates.beta1**t)
    if length > 5:
        part = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        z.addcdiv_(m, v.sqrt().add_(rates.eps), value=-size * (part * (1 - beta2**t)) ** 0.5)
    else:
        z.add_(m, alpha=-size)
    return Moments(m, v, t)


def adamp(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Heo et al. 2021, algorithm 2: of a step at a right angle to the latent, what would only scale it is left out."""
    after = adam(state, torch.zeros_like(z), gradient, rates)  # its moments; the step is taken below
    root = (after.v.sqrt() / (1 - rates.beta2**after.t) ** 0.5).add_(rates.eps)
    step = after.m / root / (1 - rates.beta1**after.t)
    flat_z, flat_g, flat_step = (x.flatten(1) for x in (z, gradient, step))
    unit = flat_z / flat_z.norm(dim=1, keepdim=True).clamp(min=rates.eps)
    cosine = torch.cosine_similarity(flat_g, flat_z, dim=1).abs()[:, None]
    radial = (flat_step * unit).sum(1, keepdim=True) * unit
    crossing = cosine < ALIGNED / flat_z.shape[1] ** 0.5
    z.add_((flat_step - radial * crossing).view_as(z), alpha=-rates.lr)
    return after


def diffgrad(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Dubey et al. 2020, algorithm 1: Adam, up to half as far where the gradient hardly changes."""
    after = adam(state, torch.zeros_like(z), gradient, rates)  # its moments; the step is taken below
    before = torch.zeros_like(z) if state.gradient is None else state.gradient
    friction = (before - gradient).abs().sigmoid()
    root = (after.v.sqrt() / (1 - rates.beta2**after.t) ** 0.5).add_(rates.eps)
    z.addcdiv_(after.m * friction, root, value=-rates.lr / (1 - rates.beta1**after.t))
    return replace(after, gradient=gradient)


def adagrad(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Duchi et al. 2011, diagonal: divided by the root of all squares so far."""
    v = state.v.addcmul(gradient, gradient)
    z.addcdiv_(gradient, v.sqrt().add_(rates.eps), value=-rates.lr)
    return Moments(state.m, v, state.t + 1)


def rmsprop(state: Moments, z: Tensor, gradient: Tensor, rates: Rates) -> Moments:
    """Tieleman and Hinton 2012: divided by the root of the mean square, decayed by SMOOTHING."""
    v = (state.v * SMOOTHING).addcmul_(gradient, gradient, value=1 - SMOOTHING)
    z.addcdiv_(gradient, v.sqrt().add_(rates.eps), value=-rates.lr)
    return Moments(state.m, v, state.t + 1)


OPTIMIZERS: dict[str, Optimizer] = {
    "adagrad": adagrad,
    "adam": adam,
    "adamax": adamax,
    "adamp": adamp,
    "adamw": adamw,
    "diffgrad": diffgrad,
    "radam": radam,
    "rmsprop": rmsprop,
}
