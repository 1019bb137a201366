"""Picture towers of CLIPs made lean, once, when they are loaded: the same function in fewer and faster operations.

torch's own are made for training: batch norms that learn, attention that may drop out. A frozen tower needs neither.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core import matmul as product

QUICK = 1.702  # of QuickGELU


class Attention(nn.Module):
    """Self-attention with the weights of an `nn.MultiheadAttention`, which turns its input and so slows what follows.

    On the CPU the product of queries and keys is formed as it is written: of some hundred places and fewer, the
    fused kernel takes two to six times as long on the way back.
    """

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = whole.num_heads
        self.in_proj = nn.Linear(whole.embed_dim, 3 * whole.embed_dim, device="meta")
        self.in_proj.weight, self.in_proj.bias = whole.in_proj_weight, whole.in_proj_bias
        self.out_proj = whole.out_proj

    def forward(
        self, x: Tensor, _k: Tensor, _v: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attend from `x` `[B, L, D]` to itself; the other arguments are nn.MultiheadAttention's."""
        queries, keys, values = self._split(self.in_proj(x), 3)
        return self._attend(queries, keys, values, attn_mask), None

    def of_first(self, x: Tensor) -> Tensor:
        """Return what the first place of `x` `[B, L, D]` finds: `[B, 1, D]`."""
        weight, bias, width = self.in_proj.weight, self.in_proj.bias, x.shape[2]
        queries = self._split(product.linear(x[:, :1], weight[:width], bias[:width]), 1)[0]
        keys, values = self._split(product.linear(x, weight[width:], bias[width:]), 2)
        return self._attend(queries, keys, values)

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """Map `[B, L, parts D]` to `[parts, B, heads, L, D / heads]`."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        if queries.device.type == "cpu":
            scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            found = (scores if mask is None else scores + mask).softmax(-1) @ values
        else:
            found = F.scaled_dot_product_attention(queries, keys, values, mask)
        return self.out_proj(found.transpose(1, 2).flatten(2))


class LastBlock(nn.Module):
    """The last of a transformer's blocks, where only its first place is looked at: the others are not computed.

    Of a ViT-B-32's operations these are a fifteenth.
    """

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
    """A convolution whose windows lie side by side, as one matrix product: its way back takes a tenth of the time."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.sides = conv.kernel_size
        self.weight = nn.Parameter(conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, D, H / side, W / side]`; what does not fill a window is left out."""
        high, wide = (length // side for length, side in zip(x.shape[2:], self.sides, strict=True))
        x = x[:, :, : high * self.sides[0], : wide * self.sides[1]]
        windows = (
            x.unflatten(3, (wide, -1)).unflatten(2, (high, -1)).permute(0, 2, 4, 3, 5, 1)
        )  # [B, h, w, side, side, C]
        return product.linear(windows.flatten(3), self.weight, self.bias).permute(0, 3, 1, 2)


class Upcast(nn.Module):
    """A layer that stays in float32 between others that don't."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; the result has the type of `x`."""
        return self.layer(x.float()).to(x.dtype)


def make_lean(tower: nn.Module, size: int, quick: type[nn.Module], block: type[nn.Module]) -> None:
    """Change a frozen tower in place: layers as above, batch norms folded into convolutions, `quick` into SiLU.

    size: the side of its pictures; quick, block: the classes of open_clip's QuickGELU and ResidualAttentionBlock.
    """
    known: list[Any] = [part for part in tower.modules() if type(part) is block]
    for part in known:  # others may attend elsewhere (a pooler), or have a norm between the layers of their MLP
        if part.attn.batch_first:
            part.attn = Attention(part.attn)
        if isinstance(part.mlp.gelu, quick):  # x sigmoid(q x) = silu(q x) / q
            first, last = part.mlp.c_fc, part.mlp.c_proj
            first.weight, first.bias = _times(first.weight, QUICK), _times(first.bias, QUICK)
            last.weight, part.mlp.gelu = _times(last.weight, 1 / QUICK), nn.SiLU()
    for parent, name, layer in _layers(tower, nn.Conv2d):
        if layer.kernel_size == layer.stride != (1, 1) and type(layer) is nn.Conv2d and layer.padding == (0, 0):
            setattr(parent, name, Patches(layer))
    if getattr(tower, "pool_type", "") == "tok" and getattr(tower, "attn_pool", tower) is None:
        blocks: Any = tower.get_submodule("transformer.resblocks")
        if len(blocks) and type(blocks[-1]) is block and isinstance(blocks[-1].attn, Attention):
            blocks[-1] = LastBlock(blocks[-1])
    product.replace_linear(tower)
    _fold(tower, size)


def _times(weight: Tensor, factor: float) -> nn.Parameter:
    return nn.Parameter(weight * factor, requires_grad=False)


def lower(tower: nn.Module, dtype: torch.dtype) -> None:
    """Bring a lean tower to a type of lower precision.

    Depthwise convolutions that skip places stay in float32: in bfloat16 their way back takes ten times as long.
    """
    tower.to(dtype)
    for parent, name, layer in _layers(tower, nn.Conv2d):
        if layer.groups > 1 and layer.stride != (1, 1):
            setattr(parent, name, Upcast(layer.float()))


def _layers(tower: nn.Module, kind: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    return [(parent, name, layer) for parent in tower.modules() for name, layer in parent.named_children()
            if isinstance(layer, kind)]  # fmt: skip


def _fold(tower: nn.Module, size: int) -> None:
    """Fold each batch norm that takes a convolution's result into that convolution; which do, one run shows."""
    made: dict[
        int, tuple[Any, Tensor]
    ] = {}  # a result's id -> who made it; the result is held, so that no id comes twice
    pairs: dict[nn.Module, Any] = {}  # norm -> convolution
    norms = _layers(tower, nn.BatchNorm2d)
    hooks = [layer.register_forward_hook(lambda layer, _, out: made.update({id(out): (layer, out)}))
             for _, _, layer in _layers(tower, nn.Conv2d)]  # fmt: skip
    hooks += [layer.register_forward_pre_hook(lambda layer, given: pairs.update({layer: made[id(given[0])][0]})
                                              if id(given[0]) in made else None) for _, _, layer in norms]  # fmt: skip
    if norms:
        with torch.no_grad():
            tower(torch.zeros(1, 3, size, size, device=next(tower.parameters()).device))
    for hook in hooks:
        hook.remove()
    for parent, name, norm in norms:
        if norm in pairs and sum(other is pairs[norm] for other in pairs.values()) == 1:
            conv = pairs[norm]
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            conv.weight, conv.bias = fused.weight.requires_grad_(False), fused.bias.requires_grad_(False)
            rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]  # timm's norms act too
            setattr(parent, name, nn.Sequential(*rest))
