"""Matrix products by oneDNN, where torch's MKL leaves half of an AMD processor unused.

On AMD, MKL does not use AVX-512; oneDNN, which torch uses for convolutions, does: measured on a Zen 5, 250 GFLOP/s a
core instead of 115 (`python -m tests.benchmarks.step` writes both rates). So on a processor with AVX-512, oneDNN
computes these products too, by the operator that torch's own compiler calls. Not measured on Intel processors.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .torch_private import onednn_linear

ONEDNN = onednn_linear()
FAST = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `F.linear` returns, as fast as the processor can; without a gradient. Any type, any device."""
    if FAST and ONEDNN and x.is_cpu and x.dtype == weight.dtype == torch.float32:
        return ONEDNN(x, weight, None if bias is None else bias.contiguous())  # it ignores the bias's strides
    return F.linear(x, weight, bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a frozen matrix `[out, in]` and bias `[out]` to `[..., in]`; only `x` has a gradient."""
    return _Linear.apply(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return product(grad, ctx.weight.t()), None, None


def times(a: Tensor, b: Tensor) -> Tensor:
    """Return `a` `[M, K]` times the transpose of `b` `[N, K]`, `[M, N]`; both get gradients."""
    return _Times.apply(a, b)


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return product(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return product(grad, b.t()), product(grad.t(), a.t())


class Linear(nn.Linear):
    """A frozen `nn.Linear` on `linear`."""

    def __init__(self, layer: nn.Linear) -> None:
        """Share the weights of a layer."""
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        return linear(x, self.weight, self.bias)


def replace_linear(net: nn.Module) -> None:
    """Change a frozen network in place: each `nn.Linear` becomes a Linear of the same weights."""
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                setattr(parent, name, Linear(layer))
