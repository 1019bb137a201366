"""The same network under many names: each layout's keys become those of taming-transformers.

A layout is told by a key that only it has. Parity with each original is in tests/unit/models/test_vqgan_layouts.py.
"""

import re
from collections.abc import Callable

from torch import Tensor

Tensors = dict[str, Tensor]

# What is no part of encoder, codebook and decoder: losses, averages, statistics, second stages.
DROPPED = re.compile(r"(loss|model_ema|cond_stage_model|transformer)\.|colorize$|quantize\.(used|codebook_used)$")
ATTENTION = re.compile(r"\.(q|k|v|proj_out)\.weight$")

DIFFUSERS = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.attentions\.", r".down.\1.attn."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d+)\.attentions\.", r".up.\1.attn."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.(?:to_q|query)\.", ".q."),
    (r"\.(?:to_k|key)\.", ".k."),
    (r"\.(?:to_v|value)\.", ".v."),
    (r"\.(?:to_out\.0|proj_attn)\.", ".proj_out."),
)
LLAMAGEN = (
    (r"^encoder\.conv_blocks\.(\d+)\.res\.", r"encoder.down.\1.block."),
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"^decoder\.conv_blocks\.(\d+)\.res\.", r"decoder.up.\1.block."),
    (r"^decoder\.conv_blocks\.", "decoder.up."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
FLAX = ((r"\.(down|up|block|attn)_(\d+)(?=\.)", r".\1.\2"), (r"\.mid\.(block|attn)\.(\d)\.", r".mid.\1_\2."))


def to_taming(tensors: Tensors) -> tuple[str, Tensors]:
    """Return the layout's name and the autoencoder's tensors under taming's names; what else there is, is left out.

    A first stage inside a transformer (Net2Net) or a diffusion model is taken out. Tensors of no known layout come
    back as they are: what they lack is said by `architecture.infer`.
    """
    first = {k.removeprefix("first_stage_model."): v for k, v in tensors.items() if k.startswith("first_stage_model.")}
    kept = {name: value for name, value in (first or tensors).items() if not DROPPED.match(name)}
    layout = next((name for name, (mark, _) in LAYOUTS.items() if any(re.match(mark, key) for key in kept)), "unknown")
    return layout, LAYOUTS[layout][1](kept) if layout in LAYOUTS else kept


def _renamed(rules: tuple[tuple[str, str], ...], *, upside_down: bool) -> Callable[[Tensors], Tensors]:
    """Return a function that renames by rules; upside_down: the decoder's levels count from the lowest resolution."""

    def rename(tensors: Tensors) -> Tensors:
        renamed = {}
        for name, value in tensors.items():
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            # attention by linear layers is attention by 1x1 convolutions
            renamed[name] = value[:, :, None, None] if value.ndim == 2 and ATTENTION.search(name) else value
        return _turned(renamed) if upside_down else renamed

    return rename


def _turned(tensors: Tensors) -> Tensors:
    levels = 1 + max(
        (int(found[1]) for name in tensors if (found := re.match(r"decoder\.up\.(\d+)\.", name))), default=0
    )
    return {
        re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", name): value
        for name, value in tensors.items()
    }


# Layout -> a key that tells it, and how its keys become taming's.
LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "diffusers": (r"encoder\.down_blocks\.", _renamed(DIFFUSERS, upside_down=True)),
    "llamagen": (r"encoder\.conv_blocks\.", _renamed(LLAMAGEN, upside_down=True)),
    "flax": (r"encoder\.down_\d+\.", _renamed(FLAX, upside_down=False)),
    "taming": (r"encoder\.down\.0\.", lambda tensors: tensors),
}
