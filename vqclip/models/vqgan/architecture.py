"""A VQGAN's architecture, inferred from the shapes of its tensors: no config file is needed, or trusted."""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import ModelError

NOMINAL = 256  # the resolution on which attention levels are counted; the network itself works at any


@dataclass(frozen=True)
class Architecture:
    """What decides the shapes, in taming's terms. Level i has ch * ch_mult[i] channels."""

    in_channels: int
    out_ch: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attention: tuple[int, ...]  # levels with attention, 0 the finest
    mid_attention: bool
    z_channels: int
    n_embed: int
    embed_dim: int
    quantizer: str  # nearest, gumbel, or cosine: of codes and latents of unit length

    @property
    def f(self) -> int:
        """Pixels of the image for one position of the latent, per side."""
        return 2 ** (len(self.ch_mult) - 1)

    def config(self) -> dict[str, Any]:
        """Return what `taming.TamingVqgan` is built from: taming's own fields, and two that it lacks."""
        return {
            "embed_dim": self.embed_dim,
            "n_embed": self.n_embed,
            "quantizer": self.quantizer,
            "mid_attention": self.mid_attention,
            "ddconfig": {
                "double_z": False,
                "resolution": NOMINAL,
                "in_channels": self.in_channels,
                "out_ch": self.out_ch,
                "ch": self.ch,
                "ch_mult": list(self.ch_mult),
                "num_res_blocks": self.num_res_blocks,
                "attn_resolutions": [NOMINAL >> level for level in self.attention],
                "z_channels": self.z_channels,
                "dropout": 0.0,
            },
        }


def infer(tensors: dict[str, Tensor], *, cosine: bool = False) -> Architecture:
    """Return the architecture of tensors under taming's names. Raises ModelError that names what is missing."""
    gumbel = "quantize.embed.weight" in tensors
    book = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    needed = (book, "encoder.conv_in.weight", "encoder.conv_out.weight", "decoder.conv_in.weight",
              "decoder.conv_out.weight", "quant_conv.weight", "post_quant_conv.weight",
              "encoder.down.0.block.0.conv1.weight")  # fmt: skip
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ModelError(f"it is no VQGAN: it has no {missing[0]}{_and_more(missing)}", _what_it_is(tensors))
    flat = [name for name in needed if tensors[name].ndim != (2 if name == book else 4)]
    if flat:
        raise ModelError(f"it is no VQGAN: {flat[0]} has {tensors[flat[0]].ndim} dimensions", _what_it_is(tensors))
    out, inside = tensors["encoder.conv_in.weight"].shape[:2]
    levels = _count(r"encoder\.down\.(\d+)\.", tensors)
    widths = [_width(tensors, level) for level in range(levels)]
    if not out or any(width % out for width in widths):
        raise ModelError(f"its levels of {widths} channels are no multiples of {out}", "this kind is not supported")
    n_embed, embed_dim = tensors[book].shape
    if not n_embed or not embed_dim:
        raise ModelError(f"its codebook {book} is empty", "get the file again")
    return Architecture(
        in_channels=inside,
        out_ch=tensors["decoder.conv_out.weight"].shape[0],
        ch=out,
        ch_mult=tuple(width // out for width in widths),
        num_res_blocks=_count(r"encoder\.down\.0\.block\.(\d+)\.", tensors),
        attention=tuple(sorted(_numbers(r"encoder\.down\.(\d+)\.attn\.", tensors))),
        mid_attention="encoder.mid.attn_1.norm.weight" in tensors,
        z_channels=tensors["encoder.conv_out.weight"].shape[0],
        n_embed=n_embed,
        embed_dim=embed_dim,
        quantizer="gumbel" if gumbel else "cosine" if cosine else "nearest",
    )


def _width(tensors: dict[str, Tensor], level: int) -> int:
    name = f"encoder.down.{level}.block.0.conv1.weight"
    if name not in tensors:
        raise ModelError(f"it is no VQGAN: it has no {name}", _what_it_is(tensors))
    return tensors[name].shape[0] if tensors[name].ndim else 0


def _numbers(pattern: str, tensors: dict[str, Tensor]) -> set[int]:
    return {int(found[1]) for name in tensors if (found := re.match(pattern, name)) and len(found[1]) < 4}


def _count(pattern: str, tensors: dict[str, Tensor]) -> int:
    """Return how many there are, from 0 on: a number far out makes no network of that size."""
    found = _numbers(pattern, tensors)
    return next(number for number in range(len(found) + 1) if number not in found)


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _what_it_is(tensors: dict[str, Tensor]) -> str:
    """Say what a checkpoint that is no VQGAN looks like."""
    for marks, kind in OTHERS:
        if all(any(re.search(mark, name) for name in tensors) for mark in marks):
            return f"it looks like {kind}"
    return f"it begins with {next(iter(tensors), 'nothing')[:80]!r}; give a VQGAN's checkpoint"


# Keys -> what has them.
OTHERS = (
    ((r"^visual\.", r"^(text\.)?token_embedding"), "a CLIP: use it with --clip FILE@ARCHITECTURE"),
    ((r"^(model\.)?diffusion_model\.",), "a diffusion model without its first stage"),
    ((r"^encoder\.", r"^decoder\.", r"^quant_conv"), "a continuous autoencoder (KL), which has no codebook"),
    ((r"^post_quant_conv", r"^decoder\."), "a decoder alone: the encoder is needed too"),
    ((r"discriminator|\.loss\.",), "a discriminator"),
)
