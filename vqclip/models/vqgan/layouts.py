"""The same network under many names: each layout's keys become those of taming-transformers.

A layout is recognised by a key that only it has. Parity with the originals is tested (test_vqgan_layouts.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..formats.read import rename

Tensors = dict[str, Tensor]

# A name in an autoencoder, behind the prefix of what wraps it.
PART = re.compile(r"(?P<prefix>(?:.*?\.)??)(?P<part>encoder|decoder|(?:post_)?quant\w*)\.")
OF_NETWORK = re.compile(r"(encoder|decoder|quant_conv|post_quant_conv)\.|quantize\.((embed|embedding)\.weight$|proj\.)")
WRAPPER = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGES = "model_ema."  # begins the name of an average, which is without its dots
OTHERS = ("cond_stage_model.", "loss.")  # which may hold another autoencoder
# What is known to lie beside it: losses, averages, statistics, second stages.
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


@dataclass(frozen=True)
class Layout:
    """How a kind of checkpoint names the network's tensors."""

    name: str
    key: str  # a pattern of a name that only this layout has
    rules: tuple[tuple[str, str], ...] = ()  # that turn its names into taming's
    from_coarsest: bool = False  # whether its decoder counts levels from the lowest resolution
    cosine: bool = False  # whether its codes and latents have unit length


def unwrap(tensors: Tensors, note: Callable[[str], None] = lambda text: None) -> Tensors | None:
    """Return the tensors of an autoencoder without the prefix that all of its parts have in common; None if it has not.

    So those inside of DistributedDataParallel, of a compiled module, of a trainer, a transformer or a diffusion model
    are found. note: called where an average is taken instead of what it is of.
    """
    bare = _with_averages({WRAPPER.sub("", name): value for name, value in tensors.items()}, note)
    parts: dict[str, set[str]] = {}
    for name in bare:
        if match := PART.match(name):
            parts.setdefault(match["prefix"], set()).add(match["part"])
    whole = [p for p, of in parts.items() if {"encoder", "decoder"} < of and not p.startswith(OTHERS)]
    if not whole:
        return None
    prefix = min(whole, key=lambda prefix: ("ema" not in prefix, len(prefix)))
    if len(whole) > 1:
        note(f"its {prefix[:80]!r} is taken, not {', '.join(repr(other[:80]) for other in whole if other != prefix)}")
    return {name.removeprefix(prefix): value for name, value in bare.items() if name.startswith(prefix)}


def _with_averages(tensors: Tensors, note: Callable[[str], None]) -> Tensors:
    """Return tensors with the averages that latent diffusion's trainer keeps in their place (ldm/modules/ema.py)."""
    names = {name.replace(".", ""): name for name in tensors}
    given = {name.removeprefix(AVERAGES): value for name, value in tensors.items() if name.startswith(AVERAGES)}
    averages = {names[plain]: value for plain, value in given.items() if plain in names}
    if averages:
        note(f"its {AVERAGES[:-1]!r} is taken, not what it is the average of")
    return tensors | averages


def to_taming(tensors: Tensors, note: Callable[[str], None] = lambda text: None) -> tuple[Layout, Tensors]:
    """Return the layout and the autoencoder's tensors under taming's names, without any others.

    Tensors of an unknown layout keep their names: `architecture.infer` says what they lack. note: called with what is
    left out.
    """
    layout, renamed = _renamed({name: value for name, value in tensors.items() if not DROPPED.match(name)})
    others = [name for name in renamed if not OF_NETWORK.match(name)]
    if others and len(others) < len(renamed):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        note(f"left out, since no VQGAN has it: {', '.join(name[:80] for name in others[:3])}{more}")
        renamed = {name: value for name, value in renamed.items() if name not in set(others)}
    return layout, renamed


def _renamed(kept: Tensors) -> tuple[Layout, Tensors]:
    layout = next((layout for layout in LAYOUTS if any(re.match(layout.key, name) for name in kept)), TAMING)
    if not layout.rules:
        return layout, kept
    renamed = {}
    for old_name, value in kept.items():
        name = rename(old_name, layout.rules)
        # attention by linear layers is attention by 1x1 convolutions
        linear = value.ndim == 2 and ATTENTION.search(name)
        renamed[name] = value[:, :, None, None] if linear else value
    return layout, _reversed(renamed) if layout.from_coarsest else renamed


def _reversed(tensors: Tensors) -> Tensors:
    """Return the tensors with the decoder's levels counted from the finest, as taming does."""
    level = re.compile(r"^decoder\.up\.(\d+)")
    last = max((int(match[1]) for name in tensors if (match := level.match(name))), default=0)
    return {
        level.sub(lambda match: f"decoder.up.{last - int(match[1])}", name): value for name, value in tensors.items()
    }


TAMING = Layout("taming", r"encoder\.down\.0\.")
LAYOUTS = (
    Layout("diffusers", r"encoder\.down_blocks\.", DIFFUSERS, from_coarsest=True),
    Layout("llamagen", r"encoder\.conv_blocks\.", LLAMAGEN, from_coarsest=True, cosine=True),
    Layout("flax", r"encoder\.down_\d+\.", FLAX),
    TAMING,
)
