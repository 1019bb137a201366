"""Layers whose weights never learn: what they keep for the backward pass is what the gradient of their input needs.

torch's convolution keeps its input even where only its weight would need it, and a norm followed by SiLU keeps
what lies between. Here a block keeps the input of its norms and nothing else: a third of the memory. The values
are torch's own up to rounding (tests/unit/models/test_fast.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ...core.matmul import linear, times

MANY_PLACES = 4096
CACHED = 2**18  # numbers
PIXELS = ((0, 0), (0, 1), (1, 0), (1, 1))


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _back(grad, ctx.conv, ctx.shape), None


def _back(grad: Tensor, conv: nn.Conv2d, shape: torch.Size) -> Tensor:
    """Return the gradient of a convolution's input, of this shape, from that of its result."""
    padding = [int(pad) for pad in conv.padding]
    sides = zip(shape[2:], grad.shape[2:], conv.kernel_size, conv.stride, padding, strict=True)
    left = [length - ((places - 1) * stride - 2 * pad + side) for length, places, side, stride, pad in sides]
    return F.conv_transpose2d(grad, conv.weight, None, conv.stride, padding, left)


class Upsample(nn.Module):
    """A picture enlarged to double size by repeating its pixels, and convolved 3 by 3, without being enlarged.

    Each of the four pixels that one becomes sees 2 by 2 of the old ones, through sums of the kernel's weights: 16
    products where there were 36, at the same values up to rounding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take over the frozen weights of the convolution, whose padding is 1."""
        super().__init__()
        rows = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).to(conv.weight)  # [of which pixel, 2, 3]
        weight = torch.einsum("apk,oikl,bql->aboipq", rows, conv.weight, rows).flatten(0, 2)
        self.conv = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2, padding=1, device="meta")
        self.conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        self.conv.bias = nn.Parameter(bias.repeat(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to `[N, out, 2 H, 2 W]`, in channels_last."""
        return _Upsample.apply(x, self.conv)


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        high, wide = x.shape[2:]
        seen = F.conv2d(x, conv.weight, conv.bias, padding=1).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        out = seen.new_empty(len(x), high, 2, wide, 2, seen.shape[-1])
        for a, b in PIXELS:
            out[:, :, a, :, b] = seen[:, a : a + high, b : b + wide, a, b]
        return out.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        n, _, high, wide = ctx.shape
        grad = grad.permute(0, 2, 3, 1).unflatten(2, (wide, 2)).unflatten(1, (high, 2))
        seen = grad.new_zeros(n, high + 1, wide + 1, 2, 2, grad.shape[-1])
        for a, b in PIXELS:
            seen[:, a : a + high, b : b + wide, a, b] = grad[:, :, a, :, b]
        return _back(seen.flatten(3).permute(0, 3, 1, 2), ctx.conv, ctx.shape), None


class _NormSiluConv(torch.autograd.Function):
    """With m, r the group's mean and 1 / deviation, n its size: xhat = (x - m) r, y = w xhat + b, out = y sigmoid(y).

    Backward, dy through the SiLU: dx = r (w dy - mean(w dy) - xhat mean(w dy xhat)), the means over a group: a sum of
    dy, x and a constant, each times a number a channel. All of it is done to the convolution's gradient in place, some
    rows at a time: at 512x512 each tensor is 134 MB, and what is in the cache is quick.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        n, channels, height, width = x.shape
        # Of float32 weights the CPU keeps mean and deviation in float32; elsewhere types may not be mixed.
        dtype = torch.promote_types(x.dtype, torch.float32) if x.device.type == "cpu" else x.dtype
        weight, bias = norm.weight.to(dtype), norm.bias.to(dtype)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, channels, height * width, norm.num_groups, norm.eps)
        ctx.norm, ctx.conv = norm, conv
        ctx.save_for_backward(x, mean, rstd)
        return F.conv2d(F.silu(y, inplace=True), conv.weight, conv.bias, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, mean, rstd = ctx.saved_tensors
        norm: nn.GroupNorm = ctx.norm
        dx = _back(grad, ctx.conv, x.shape)
        n, channels, height, width = x.shape
        per, wide = channels // norm.num_groups, torch.promote_types(x.dtype, torch.float32)
        weight, bias, mean, rstd = (part.to(wide) for part in (norm.weight, norm.bias, mean, rstd))

        def a_channel(of_group: Tensor) -> Tensor:
            return of_group.repeat_interleave(per, 1)  # [n, groups] -> [n, channels]

        def column(of_channel: Tensor) -> Tensor:
            return of_channel[:, :, None, None]

        scale = a_channel(rstd) * weight
        shift = bias - a_channel(mean) * scale
        sums, dots = torch.zeros_like(scale), torch.zeros_like(scale)
        for part, seen in _strips(dx, x):
            dy, seen = part.to(wide), seen.to(wide)  # the same, if they are wide already
            y = torch.addcmul(column(shift), seen, column(scale))
            torch.ops.aten.silu_backward.grad_input(dy, y, grad_input=dy)
            sums += _sum(dy)
            dots += _sum(torch.mul(dy, seen, out=y))
            part.copy_(dy)
        count = height * width * per
        mean_dy = (sums * weight).view(n, -1, per).sum(2) / count
        mean_dot = ((dots * weight).view(n, -1, per).sum(2) / count - mean * mean_dy) * rstd
        of_x = -(rstd.square() * mean_dot)
        rest = -(rstd * mean_dy) - of_x * mean
        for part, seen in _strips(dx, x):
            dy = part.to(wide)
            torch.addcmul(column(a_channel(rest)), dy, column(scale), out=dy)
            part.copy_(dy.addcmul_(seen.to(wide), column(a_channel(of_x))))
        return dx, None, None


def _strips(dx: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Give two `[N, C, H, W]` some rows at a time, as many as the cache holds.

    Of tensors without contents the first rows alone, which take what all others take: memory.py asks for no more.
    """
    height, rows = x.shape[2], max(1, CACHED // (x.shape[1] * x.shape[3]))
    for at in range(0, height, rows):
        count = min(rows, height - at)
        yield dx.narrow(2, at, count), x.narrow(2, at, count)
        if isinstance(x, FakeTensor):
            return


def _sum(x: Tensor) -> Tensor:
    """Sum `[N, C, H, W]` over the picture: `[N, C]`. Of channels_last as a product with ones, which is fast."""
    if x.stride(1) != 1:
        return x.sum((2, 3))
    flat = x.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.matmul(flat.new_ones(1, flat.shape[1]), flat)[:, 0]


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Convolve `[N, C, H, W]` by a layer whose weights are frozen."""
    if (*layer.kernel_size, *layer.stride, *layer.padding) == (1, 1, 1, 1, 0, 0):  # of each pixel alone
        return linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
    return _Conv.apply(x, layer)


def norm_silu_conv(x: Tensor, norm: nn.Module, layer: nn.Module) -> Tensor:
    """Apply a frozen `nn.GroupNorm`, SiLU and `nn.Conv2d` to `[N, C, H, W]`."""
    return _NormSiluConv.apply(x, norm, layer)


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
            x = _enlarged(x, up.upsample)
    return norm_silu_conv(x, decoder.norm_out, decoder.conv_out)


def make_lean(decoder: Any) -> None:
    """Change a frozen decoder in place: its enlarging convolutions become Upsample."""
    for up in decoder.up:
        layer = getattr(getattr(up, "upsample", None), "conv", None)
        if type(layer) is nn.Conv2d and layer.kernel_size == (3, 3) and layer.padding == (1, 1):
            up.upsample.conv = Upsample(layer).eval()


def _enlarged(x: Tensor, layer: Any) -> Tensor:
    if layer.with_conv and isinstance(layer.conv, Upsample):
        return layer.conv(x)
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return conv(x, layer.conv) if layer.with_conv else x


def _block(x: Tensor, block: Any) -> Tensor:
    h = norm_silu_conv(x, block.norm1, block.conv1)
    h = norm_silu_conv(h, block.norm2, block.conv2)
    if block.in_channels != block.out_channels:
        x = conv(x, block.conv_shortcut if block.use_conv_shortcut else block.nin_shortcut)
    return h.add_(x)


def _attention(x: Tensor, block: Any) -> Tensor:
    """Do what taming's `AttnBlock` does; of many places without holding what each thinks of each other one.

    On the CPU the fused kernel goes back on one thread, so it is left to where the memory counts.
    """
    if isinstance(block, nn.Identity):
        return x
    flat = block.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # [N, places, channels]
    queries, keys, values = (linear(flat, part.weight.flatten(1), part.bias) for part in (block.q, block.k, block.v))
    if x.device.type == "cpu" and flat.shape[1] <= MANY_PLACES:
        each = zip(queries * flat.shape[2] ** -0.5, keys, values, strict=True)
        found = torch.stack([times(times(q, k).softmax(-1), v.t()) for q, k, v in each])
    else:
        found = F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None])[:, 0]
    found = linear(found, block.proj_out.weight.flatten(1), block.proj_out.bias)
    return x + found.transpose(1, 2).unflatten(2, x.shape[2:])
