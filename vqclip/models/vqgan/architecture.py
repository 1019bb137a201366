"""A VQGAN's architecture, inferred from the shapes of its tensors: no config file is needed, or trusted."""

import re
from typing import Any

from torch import Tensor

from ...errors import ModelError

CONVOLUTIONS = (
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "decoder.conv_in.weight",
    "decoder.conv_out.weight",
    "quant_conv.weight",
    "post_quant_conv.weight",
)
NOMINAL = 256  # the resolution on which attention levels are counted; the network itself works at any


def infer(tensors: dict[str, Tensor], *, cosine: bool = False) -> dict[str, Any]:
    """Return the config of tensors under taming's names: taming's own fields, and three of ours.

    f: pixels of the image for one position of the latent, per side. quantizer: nearest, gumbel, or cosine (codes and
    latents of unit length). mid_attention: whether the middle block has any. Raises ModelError that names what is
    missing.
    """
    gumbel = "quantize.embed.weight" in tensors
    codebook = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    levels = _count(r"encoder\.down\.(\d+)\.", tensors)
    first_of_level = [f"encoder.down.{level}.block.0.conv1.weight" for level in range(max(1, levels))]
    _check_dimensions(tensors, {codebook: 2} | dict.fromkeys((*CONVOLUTIONS, *first_of_level), 4))
    out, inside = tensors["encoder.conv_in.weight"].shape[:2]
    widths = [tensors[name].shape[0] for name in first_of_level]
    if not out or any(width % out for width in widths):
        raise ModelError(f"its levels of {widths} channels are no multiples of {out}", "this kind is not supported")
    n_embed, embed_dim = tensors[codebook].shape
    if not n_embed or not embed_dim:
        raise ModelError(f"its codebook {codebook} is empty", "get the file again")
    attention = sorted(_numbers(r"encoder\.down\.(\d+)\.attn\.", tensors))  # levels, 0 the finest
    return {
        "f": 2 ** (levels - 1),
        "embed_dim": embed_dim,
        "n_embed": n_embed,
        "quantizer": "gumbel" if gumbel else "cosine" if cosine else "nearest",
        "mid_attention": "encoder.mid.attn_1.norm.weight" in tensors,
        "ddconfig": {
            "double_z": False,
            "resolution": NOMINAL,
            "in_channels": inside,
            "out_ch": tensors["decoder.conv_out.weight"].shape[0],
            "ch": out,
            "ch_mult": [width // out for width in widths],
            "num_res_blocks": _count(r"encoder\.down\.0\.block\.(\d+)\.", tensors),
            "attn_resolutions": [NOMINAL >> level for level in attention],
            "z_channels": tensors["encoder.conv_out.weight"].shape[0],
            "dropout": 0.0,
        },
    }


def _check_dimensions(tensors: dict[str, Tensor], needed: dict[str, int]) -> None:
    for name, dimensions in needed.items():
        if name not in tensors:
            raise ModelError(f"it is no VQGAN: it has no {name}", _what_it_is(tensors))
        if tensors[name].ndim != dimensions:
            raise ModelError(f"it is no VQGAN: {name} has {tensors[name].ndim} dimensions", _what_it_is(tensors))


def _numbers(pattern: str, tensors: dict[str, Tensor]) -> set[int]:
    return {int(match[1]) for name in tensors if (match := re.match(pattern, name)) and len(match[1]) < 4}


def _count(pattern: str, tensors: dict[str, Tensor]) -> int:
    """Return how many numbers there are in a row from 0 on: one that is far out makes no network of that size."""
    numbers = _numbers(pattern, tensors)
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


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
