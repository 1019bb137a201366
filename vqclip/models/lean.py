"""Layers of a frozen network that keep less for the backward pass, and give the same values and gradients.

Autograd keeps a convolution's input for the weight's gradient even where the weight has none, and both the result of
a normalisation and that of the SiLU after it. Here a convolution keeps its weight alone, and norm and SiLU together
their input: the rest is computed once more. Of a VQGAN's decoder that leaves about a quarter of the memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class Conv2d(nn.Conv2d):
    """nn.Conv2d; with a frozen weight it keeps no input."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` as nn.Conv2d does."""
        if self.weight.requires_grad or not (torch.is_grad_enabled() and x.requires_grad):
            return super().forward(x)
        return _FrozenConv.apply(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class NormSilu(nn.GroupNorm):
    """nn.GroupNorm and SiLU; frozen, they keep their input alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to silu(group_norm(x))."""
        if self.weight.requires_grad or not (torch.is_grad_enabled() and x.requires_grad):
            return F.silu(super().forward(x))
        return _FrozenNormSilu.apply(x, self.weight, self.bias, self.num_groups, self.eps)


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return conv2d_input(ctx.shape, weight, grad, *ctx.how), *[None] * 6


class _FrozenNormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.how = groups, eps
        return F.silu(F.group_norm(x, groups, weight, bias, eps))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        groups, eps = ctx.how
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            again = F.silu(F.group_norm(leaf, groups, weight, bias, eps))
        return torch.autograd.grad(again, leaf, grad)[0], *[None] * 4
