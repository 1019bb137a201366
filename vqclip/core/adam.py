"""Adam (Kingma and Ba 2015, algorithm 1) for one tensor, with its state in sight: it is what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """The state of Adam: estimates of the gradient's first and second moment `m` and `v`, after `t` updates."""

    m: Tensor
    v: Tensor
    t: int = 0

    @classmethod
    def begin(cls, z: Tensor) -> Adam:
        """Return the state before the first update of `z`."""
        return cls(torch.zeros_like(z), torch.zeros_like(z))

    def step(self, z: Tensor, gradient: Tensor, *, lr: float, beta1: float, beta2: float, eps: float) -> Adam:
        """Update `z` in place; return the next state. Equal to torch.optim.Adam to the last bit."""
        t = self.t + 1
        with torch.no_grad():
            m = self.m.lerp(gradient, 1 - beta1)
            v = (self.v * beta2).addcmul_(gradient, gradient, value=1 - beta2)
            denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(eps)
            z.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))
        return Adam(m, v, t)
