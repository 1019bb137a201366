"""Layers whose weights never learn: what they keep for the backward pass is what the gradient of their input needs.

torch's convolution keeps its input even where only its weight would need it, and a norm followed by SiLU keeps
what lies between. Here a block keeps the input of its norms and nothing else: a third of the memory. The values
are torch's own up to rounding (tests/test_frozen.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

MANY_PLACES = 4096


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        conv = ctx.conv
        return conv2d_input(ctx.shape, conv.weight, grad, conv.stride, conv.padding), None


class _NormSilu(torch.autograd.Function):
    """With m, r the group's mean and 1 / deviation, n its size: xhat = (x - m) r, y = w xhat + b, out = y sigmoid(y).

    Backward, dy through the SiLU: dx = r (w dy - mean(w dy) - xhat mean(w dy xhat)), the means over a group: a sum of
    dy, x and a constant, each times a number a channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        n, channels, height, width = x.shape
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, channels, height * width, norm.num_groups, norm.eps)
        ctx.norm = norm
        ctx.save_for_backward(x, mean, rstd)
        return F.silu(y, inplace=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, mean, rstd = ctx.saved_tensors
        norm: nn.GroupNorm = ctx.norm
        n, channels, height, width = x.shape
        per = channels // norm.num_groups
        weight, bias = norm.weight.float(), norm.bias.float()
        mean, rstd = mean.float(), rstd.float()

        def a_channel(of_group: Tensor) -> Tensor:
            return of_group.repeat_interleave(per, 1)  # [n, groups] -> [n, channels]

        def column(of_channel: Tensor) -> Tensor:
            return of_channel.to(x.dtype)[:, :, None, None]

        scale = a_channel(rstd) * weight
        y = torch.addcmul(column(bias - a_channel(mean) * scale), x, column(scale))
        dy = torch.ops.aten.silu_backward(grad, y)
        sums = _sum(dy)  # [n, channels]
        dots = _sum(torch.mul(dy, x, out=y))
        count = height * width * per
        mean_dy = (sums * weight).view(n, -1, per).sum(2) / count
        mean_dot = ((dots * weight).view(n, -1, per).sum(2) / count - mean * mean_dy) * rstd
        of_x = -(rstd.square() * mean_dot)
        rest = -(rstd * mean_dy) - of_x * mean
        torch.addcmul(column(a_channel(rest)), dy, column(scale), out=y)
        return torch.addcmul(y, x, column(a_channel(of_x)), out=dy), None


def _sum(x: Tensor) -> Tensor:
    """Sum `[N, C, H, W]` over the picture: `[N, C]`, float32. Of channels_last as a product with ones: fast."""
    if x.is_contiguous(memory_format=torch.channels_last):
        flat = x.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.matmul(flat.new_ones(1, flat.shape[1]), flat)[:, 0].float()
    return x.sum((2, 3), dtype=torch.float32)


def conv(x: Tensor, layer: nn.Module) -> Tensor:
    """Convolve `[N, C, H, W]` by an `nn.Conv2d` whose weights are frozen."""
    return _Conv.apply(x, layer)


def norm_silu(x: Tensor, layer: nn.Module) -> Tensor:
    """Apply a frozen `nn.GroupNorm` and SiLU to `[N, C, H, W]`."""
    return _NormSilu.apply(x, layer)


def decode(decoder: Any, z: Tensor) -> Tensor:
    """Do what taming's `Decoder.forward` does, by the functions above: `[N, z, h, w]` -> `[N, 3, H, W]`."""
    x = conv(z, decoder.conv_in)
    x = _block(x, decoder.mid.block_1)
    x = _attention(x, decoder.mid.attn_1)
    x = _block(x, decoder.mid.block_2)
    for level in reversed(range(decoder.num_resolutions)):
        up = decoder.up[level]
        for k, block in enumerate(up.block):
            x = _block(x, block)
            if len(up.attn):
                x = _attention(x, up.attn[k])
        if level:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = conv(x, up.upsample.conv) if up.upsample.with_conv else x
    return conv(norm_silu(x, decoder.norm_out), decoder.conv_out)


def _block(x: Tensor, block: Any) -> Tensor:
    h = conv(norm_silu(x, block.norm1), block.conv1)
    h = conv(norm_silu(h, block.norm2), block.conv2)
    if block.in_channels != block.out_channels:
        x = conv(x, block.conv_shortcut if block.use_conv_shortcut else block.nin_shortcut)
    return x + h


def _attention(x: Tensor, block: Any) -> Tensor:
    """Do what taming's `AttnBlock` does; of many places without holding what each thinks of each other one.

    On the CPU the fused kernel goes back on one thread, so it is left to where the memory counts.
    """
    if isinstance(block, nn.Identity):
        return x
    flat = block.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # [N, places, channels]
    queries, keys, values = (F.linear(flat, part.weight.flatten(1), part.bias) for part in (block.q, block.k, block.v))
    if x.device.type == "cpu" and flat.shape[1] <= MANY_PLACES:
        scores = (queries * flat.shape[2] ** -0.5) @ keys.transpose(1, 2)
        found = scores.softmax(-1) @ values
    else:
        found = F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None])[:, 0]
    found = F.linear(found, block.proj_out.weight.flatten(1), block.proj_out.bias)
    return x + found.transpose(1, 2).unflatten(2, x.shape[2:])
