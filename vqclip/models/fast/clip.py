"""Image encoders of CLIPs made faster, once, when they are loaded: the same function in fewer and faster operations.

torch's own layers are made for training: batch norms that learn, attention that may drop out. A frozen encoder needs
neither.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.matmul import linear, replace_linear

QUICK = 1.702  # of QuickGELU


class Attention(nn.Module):
    """Self-attention with the weights of an `nn.MultiheadAttention`, which transposes and so slows what follows.

    On the CPU the product of queries and keys is formed as it is written: for some hundred positions and fewer, the
    backward pass of the fused kernel takes two to six times as long.
    """

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = original.num_heads
        self.in_proj = nn.Linear(original.embed_dim, 3 * original.embed_dim, device="meta")
        self.in_proj.weight, self.in_proj.bias = original.in_proj_weight, original.in_proj_bias
        self.out_proj = original.out_proj

    def forward(
        self, x: Tensor, _k: Tensor, _v: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attend from `x` `[B, L, D]` to itself; the other arguments are nn.MultiheadAttention's."""
        queries, keys, values = self._split(self.in_proj(x), 3)
        return self._attend(queries, keys, values, attn_mask), None

    def of_first(self, x: Tensor) -> Tensor:
        """Return the result for the first position of `x` `[B, L, D]` alone: `[B, 1, D]`."""
        weight, bias, width = self.in_proj.weight, self.in_proj.bias, x.shape[2]
        queries = self._split(linear(x[:, :1], weight[:width], bias[:width]), 1)[0]
        keys, values = self._split(linear(x, weight[width:], bias[width:]), 2)
        return self._attend(queries, keys, values)

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """Map `[B, L, parts D]` to `[parts, B, heads, L, D / heads]`."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        if queries.device.type == "cpu":
            scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            attended = (scores if mask is None else scores + mask).softmax(-1) @ values
        else:
            attended = F.scaled_dot_product_attention(queries, keys, values, mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class LastBlock(nn.Module):
    """The last block of a transformer, computed for the class token only: a fifteenth less work for a ViT-B-32."""

    def __init__(self, block: Any) -> None:
        """Take over a block of open_clip's whose attention is as above."""
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, attn_mask: None = None) -> Tensor:
        """Map `[B, L, D]` to `[B, 1, D]`."""
        block = self.block
        first = x[:, :1] + block.ls_1(block.attn.of_first(block.ln_1(x)))
        return first + block.ls_2(block.mlp(block.ln_2(first)))


class Patches(nn.Module):
    """A convolution with windows side by side, as one matrix product: its backward pass takes a tenth of the time."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size = conv.kernel_size
        self.weight = nn.Parameter(conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, H / side, W / side]`; what does not fill a window is left out."""
        rows, columns = (length // side for length, side in zip(x.shape[2:], self.kernel_size, strict=True))
        x = x[:, :, : rows * self.kernel_size[0], : columns * self.kernel_size[1]]
        windows = x.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # [B, C, rows, side, columns, side]
        flat = windows.permute(0, 2, 4, 3, 5, 1).flatten(3)
        return linear(flat, self.weight, self.bias).permute(0, 3, 1, 2)


class Upcast(nn.Module):
    """A layer that stays in float32 between others that do not."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; the result has the type of `x`."""
        return self.layer(x.float()).to(x.dtype)


def make_fast(encoder: nn.Module, size: int, quick: type[nn.Module], block: type[nn.Module]) -> None:
    """Change a frozen image encoder in place: layers as above, batch norms folded into convolutions, `quick` into SiLU.

    size: the side of its images; quick, block: open_clip's classes QuickGELU and ResidualAttentionBlock.
    """
    blocks: list[Any] = [part for part in encoder.modules() if type(part) is block]
    for part in blocks:  # other modules may attend elsewhere (a pooler), or have a norm inside their MLP
        if part.attn.batch_first:
            part.attn = Attention(part.attn)
        if isinstance(part.mlp.gelu, quick):
            _quick_gelu_to_silu(part.mlp)
    for parent, name, layer in _layers(encoder, nn.Conv2d):
        if layer.kernel_size == layer.stride != (1, 1) and type(layer) is nn.Conv2d and layer.padding == (0, 0):
            setattr(parent, name, Patches(layer))
    if getattr(encoder, "pool_type", "") == "tok" and getattr(encoder, "attn_pool", encoder) is None:
        layers: Any = encoder.get_submodule("transformer.resblocks")
        if len(layers) and type(layers[-1]) is block and isinstance(layers[-1].attn, Attention):
            layers[-1] = LastBlock(layers[-1])
    replace_linear(encoder)
    _fold_batch_norms(encoder, size)


def lower(encoder: nn.Module, dtype: torch.dtype) -> None:
    """Bring an encoder that was made fast to a lower precision.

    Depthwise convolutions with a stride stay in float32: in bfloat16 their backward pass takes ten times as long.
    """
    encoder.to(dtype)
    for parent, name, layer in _layers(encoder, nn.Conv2d):
        if layer.groups > 1 and layer.stride != (1, 1):
            setattr(parent, name, Upcast(layer.float()))


def _quick_gelu_to_silu(mlp: Any) -> None:
    """Use that x sigmoid(q x) = silu(q x) / q: scale the linear layers before and after."""

    def scaled(weight: Tensor, factor: float) -> nn.Parameter:
        return nn.Parameter(weight * factor, requires_grad=False)

    mlp.c_fc.weight, mlp.c_fc.bias = scaled(mlp.c_fc.weight, QUICK), scaled(mlp.c_fc.bias, QUICK)
    mlp.c_proj.weight = scaled(mlp.c_proj.weight, 1 / QUICK)
    mlp.gelu = nn.SiLU()


def _layers(net: nn.Module, kind: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    """Return (parent, name, layer) of all layers of a kind."""
    children = ((parent, name, layer) for parent in net.modules() for name, layer in parent.named_children())
    return [(parent, name, layer) for parent, name, layer in children if isinstance(layer, kind)]


def _fold_batch_norms(encoder: nn.Module, size: int) -> None:
    """Fold each batch norm whose input is a convolution's output, and of which that has no other, into it."""
    conv_of = _convolutions_before_norms(encoder, size)
    for parent, name, norm in _layers(encoder, nn.BatchNorm2d):
        conv = conv_of.get(norm)
        if conv is not None and list(conv_of.values()).count(conv) == 1:
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight.requires_grad_(False), fused.bias.requires_grad_(False)
            rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # timm's norms have these
            setattr(parent, name, nn.Sequential(*rest))


def _convolutions_before_norms(encoder: nn.Module, size: int) -> dict[nn.Module, Any]:
    """Return batch norm -> the convolution whose output it takes, as one run of the encoder shows."""
    conv_of: dict[nn.Module, Any] = {}

    def mark(conv: nn.Module, _: Any, out: Any) -> None:
        out.made_by = conv

    def look(norm: nn.Module, args: Any) -> None:
        if conv := getattr(args[0], "made_by", None):
            conv_of[norm] = conv

    norms = _layers(encoder, nn.BatchNorm2d)
    if not norms:
        return {}
    hooks = [layer.register_forward_hook(mark) for _, _, layer in _layers(encoder, nn.Conv2d)]
    hooks += [layer.register_forward_pre_hook(look) for _, _, layer in norms]
    with torch.no_grad():
        encoder(torch.zeros(1, 3, size, size, device=next(encoder.parameters()).device))
    for hook in hooks:
        hook.remove()
    return conv_of
