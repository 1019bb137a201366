"""taming's Decoder with frozen layers: they keep for the backward pass only what the gradient of their input needs.

torch's convolution keeps its input even if only its weight would need that, and a norm followed by SiLU keeps what is
between. Here a block keeps the input of its norms and nothing else: a third of the memory. The values are torch's own
up to rounding (tests/unit/models/test_fast.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.matmul import linear, times
from ...core.torch_private import is_fake

MANY_POSITIONS = 4096  # from which on attention must not store its matrix
CACHED = 2**18  # numbers that fit the processor's cache
PIXELS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the 2 by 2 that one becomes


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _input_gradient(grad, ctx.conv, ctx.shape), None


def _input_gradient(grad: Tensor, conv: nn.Conv2d, shape: torch.Size) -> Tensor:
    """Return the gradient of a convolution's input, of this shape, from that of its output."""
    padding = [int(pad) for pad in conv.padding]
    sides = zip(shape[2:], grad.shape[2:], conv.kernel_size, conv.stride, padding, strict=True)
    unused = [length - ((count - 1) * stride - 2 * pad + side) for length, count, side, stride, pad in sides]
    return F.conv_transpose2d(grad, conv.weight, None, conv.stride, padding, unused)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution in one, without the upsampled image.

    Each of the four pixels that one becomes depends on 2 by 2 of the old ones, through sums of the kernel's weights:
    16 products instead of 36, with the same values up to rounding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take over the frozen weights of the convolution, whose padding is 1."""
        super().__init__()
        rows = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).to(conv.weight)  # [pixel, 2, 3]
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
        height, width = x.shape[2:]
        pixels = F.conv2d(x, conv.weight, conv.bias, padding=1).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        out = pixels.new_empty(len(x), height, 2, width, 2, pixels.shape[-1])
        for a, b in PIXELS:
            out[:, :, a, :, b] = pixels[:, a : a + height, b : b + width, a, b]
        return out.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        n, _, height, width = ctx.shape
        grad = grad.permute(0, 2, 3, 1).unflatten(2, (width, 2)).unflatten(1, (height, 2))
        pixels = grad.new_zeros(n, height + 1, width + 1, 2, 2, grad.shape[-1])
        for a, b in PIXELS:
            pixels[:, a : a + height, b : b + width, a, b] = grad[:, :, a, :, b]
        return _input_gradient(pixels.flatten(3).permute(0, 3, 1, 2), ctx.conv, ctx.shape), None


class _NormSiluConv(torch.autograd.Function):
    """A group norm, SiLU and a convolution.

    With m, r the group's mean and 1 / deviation, n its size: xhat = (x - m) r, y = w xhat + b, out = y sigmoid(y).
    Backward, dy through the SiLU: dx = r (w dy - mean(w dy) - xhat mean(w dy xhat)), the means over a group: a sum of
    dy, x and a constant, each times a number per channel. All of it is done to the convolution's gradient in place,
    in strips of rows that fit the cache: at 512x512 each tensor is 134 MB.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
        n, channels, height, width = x.shape
        # Given float32 weights the CPU keeps mean and deviation in float32; on other devices types may not be mixed.
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
        dx = _input_gradient(grad, ctx.conv, x.shape)
        n, channels, height, width = x.shape
        per_group, wide = channels // norm.num_groups, torch.promote_types(x.dtype, torch.float32)
        weight, bias, mean, rstd = (part.to(wide) for part in (norm.weight, norm.bias, mean, rstd))

        def by_channel(of_group: Tensor) -> Tensor:
            return of_group.repeat_interleave(per_group, 1)  # [n, groups] -> [n, channels]

        scale = by_channel(rstd) * weight
        sums, dots = _silu_backward(dx, x, scale, bias - by_channel(mean) * scale)
        count = height * width * per_group
        mean_dy = (sums * weight).view(n, -1, per_group).sum(2) / count
        mean_dot = ((dots * weight).view(n, -1, per_group).sum(2) / count - mean * mean_dy) * rstd
        x_scale = -(rstd.square() * mean_dot)
        constant = -(rstd * mean_dy) - x_scale * mean
        _combine(dx, x, scale, by_channel(x_scale), by_channel(constant))
        return dx, None, None


def _silu_backward(dx: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Take the gradient `dx` back through SiLU, in place; its input is x times scale plus shift, `[n, channels]`.

    Returns the sums over the image of the new dx, and of dx times x, `[n, channels]`.
    """
    sums, dots = torch.zeros_like(scale), torch.zeros_like(scale)
    for dx_strip, x_strip in _strips(dx, x):
        dy, wide_x = dx_strip.to(scale.dtype), x_strip.to(scale.dtype)  # the same tensors, if they are wide already
        y = torch.addcmul(_column(shift), wide_x, _column(scale))
        torch.ops.aten.silu_backward.grad_input(dy, y, grad_input=dy)
        sums += _sum(dy)
        dots += _sum(torch.mul(dy, wide_x, out=y))
        dx_strip.copy_(dy)
    return sums, dots


def _combine(dx: Tensor, x: Tensor, dx_scale: Tensor, x_scale: Tensor, constant: Tensor) -> None:
    """Replace dx by dx times dx_scale plus x times x_scale plus a constant, all `[n, channels]`."""
    for dx_strip, x_strip in _strips(dx, x):
        dy = dx_strip.to(dx_scale.dtype)
        torch.addcmul(_column(constant), dy, _column(dx_scale), out=dy)
        dx_strip.copy_(dy.addcmul_(x_strip.to(dx_scale.dtype), _column(x_scale)))


def _column(of_channel: Tensor) -> Tensor:
    return of_channel[:, :, None, None]


def _strips(dx: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield strips of rows of two tensors `[N, C, H, W]` that fit the cache.

    Of tensors without contents only the first strip: the others take as much memory, and that is all that is asked.
    """
    height, rows = x.shape[2], max(1, CACHED // (x.shape[1] * x.shape[3]))
    for at in range(0, height, rows):
        count = min(rows, height - at)
        yield dx.narrow(2, at, count), x.narrow(2, at, count)
        if is_fake(x):
            return


def _sum(x: Tensor) -> Tensor:
    """Sum `[N, C, H, W]` over the image: `[N, C]`; in channels_last as a product with ones, which is fast."""
    if x.stride(1) != 1:
        return x.sum((2, 3))
    flat = x.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.matmul(flat.new_ones(1, flat.shape[1]), flat)[:, 0]


def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Convolve `[N, C, H, W]` by a layer whose weights are frozen."""
    if (*layer.kernel_size, *layer.stride, *layer.padding) == (1, 1, 1, 1, 0, 0):  # each pixel alone
        return linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)
    return _Conv.apply(x, layer)


def norm_silu_conv(x: Tensor, norm: nn.Module, layer: nn.Module) -> Tensor:
    """Apply a frozen `nn.GroupNorm`, SiLU and `nn.Conv2d` to `[N, C, H, W]`."""
    return _NormSiluConv.apply(x, norm, layer)


def decode(decoder: Any, z: Tensor) -> Tensor:
    """Return what taming's `Decoder.forward` does, by the functions above: `[N, z, h, w]` -> `[N, 3, H, W]`."""
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
            x = _upsample(x, up.upsample)
    return norm_silu_conv(x, decoder.norm_out, decoder.conv_out)


def make_fast(decoder: Any) -> None:
    """Change a frozen decoder in place: its upsampling convolutions become Upsample."""
    for up in decoder.up:
        layer = getattr(getattr(up, "upsample", None), "conv", None)
        if type(layer) is nn.Conv2d and layer.kernel_size == (3, 3) and layer.padding == (1, 1):
            up.upsample.conv = Upsample(layer).eval()


def _upsample(x: Tensor, layer: Any) -> Tensor:
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
    """Return what taming's `AttnBlock` does. Above MANY_POSITIONS attention is fused: its matrix is never stored.

    On the CPU the backward pass of the fused kernel runs on one thread, so it is used only if memory counts.
    """
    if isinstance(block, nn.Identity):
        return x
    flat = block.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # [N, positions, channels]
    queries, keys, values = (linear(flat, part.weight.flatten(1), part.bias) for part in (block.q, block.k, block.v))
    if x.device.type == "cpu" and flat.shape[1] <= MANY_POSITIONS:
        images = zip(queries * flat.shape[2] ** -0.5, keys, values, strict=True)
        attended = torch.stack([times(times(q, k).softmax(-1), v.t()) for q, k, v in images])
    else:
        attended = F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None])[:, 0]
    out = linear(attended, block.proj_out.weight.flatten(1), block.proj_out.bias)
    return x + out.transpose(1, 2).unflatten(2, x.shape[2:])
