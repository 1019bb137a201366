"""A published Mini DALL-E's files, torch's or Flax's, as one set of tensors under the names of bart.py."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import IntegrityError, ModelError
from ..fast.no_init import Hollow
from ..formats.read import read_tensors
from .bart import DalleBart, Shape

HEAD = 64  # the width of a published model's heads
CODES = 16384  # of a published one; mega has rows besides that mean nothing
# Flax's name -> torch's, inside a layer.
ATTENTIONS = {"FlaxBartAttention_0": "self_attn", "FlaxBartAttention_1": "encoder_attn"}
NORMS = {
    "encoder": ("pre_self_attn_layer_norm", "self_attn_layer_norm"),
    "decoder": (
        "pre_self_attn_layer_norm", "self_attn_layer_norm", "pre_encoder_attn_layer_norm", "encoder_attn_layer_norm",
    ),
}  # fmt: skip
GLUS = {"Dense_0": "fc0", "Dense_1": "fc1", "Dense_2": "fc2", "LayerNorm_0": "ln0", "LayerNorm_1": "ln1"}
LAYER = re.compile(
    r"layers\.(?:FlaxBart(?:En|De)coderLayers|FlaxBart(?:En|De)coderLayer_(?P<number>\d+))\.(?P<rest>.+)"
)


def read_published(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder as its makers publish it: encoder*.pt and decoder*.pt, or flax_model.msgpack.

    Raises ModelError where they are not there, IntegrityError where they are damaged.
    """
    flax = folder / "flax_model.msgpack"
    if flax.is_file():
        return from_flax(read_tensors(flax))
    tensors: dict[str, Tensor] = {}
    for half in ("encoder", "decoder"):
        found = sorted(folder.glob(f"{half}*.pt"))
        if len(found) != 1:
            what = "no" if not found else "more than one"
            raise ModelError(f"{folder} has {what} {half}*.pt", "give a folder with both halves of one model")
        tensors |= {f"{half}.{name}": value for name, value in read_tensors(found[0]).items()}
    return tensors


def from_flax(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename dalle-mini's tensors: layers that it keeps in one array come apart, kernels are turned over.

    `tensors` are as `load_flax` leaves them. Raises IntegrityError for a name that no DalleBart has.
    """
    turned = {}
    for name, value in tensors.items():
        half, _, rest = name.removeprefix("model.").partition(".")
        if half == "lm_head":
            turned["decoder.lm_head.weight"] = value.T
            continue
        found = LAYER.fullmatch(rest)
        if not found:
            turned[f"{half}.{rest}"] = value
            continue
        inside = _inside(half, found["rest"], name)
        numbered = [(int(found["number"]), value)] if found["number"] else list(enumerate(value))
        for number, one in numbered:
            kernel = one.ndim == 2
            turned[f"{half}.layers.{number}.{inside}"] = one.T if kernel else one
    return {name: value.contiguous() for name, value in turned.items()}


def _inside(half: str, rest: str, name: str) -> str:
    first, _, after = rest.partition(".")
    if first in ATTENTIONS:
        return f"{ATTENTIONS[first]}.{after}"
    if first == "GLU_0":
        part, _, leaf = after.partition(".")
        if part in GLUS:
            return f"glu.{GLUS[part]}.{leaf}"
    numbered = re.fullmatch(r"LayerNorm_(\d)", first)
    if numbered and half in NORMS and int(numbered[1]) < len(NORMS[half]):
        return f"{NORMS[half][int(numbered[1])]}.{after}"
    raise IntegrityError(f"{name!r} is no part of a Mini DALL-E", "get the file again")


def shape_of(tensors: dict[str, Tensor], config: dict[str, Any]) -> Shape:
    """Tell a model's shape from its tensors; what they can't tell is in its config, or as in the published ones.

    Raises ModelError for tensors that lack what tells it.
    """
    try:
        words, width = tensors["encoder.embed_tokens.weight"].shape
        rows = len(tensors["decoder.embed_tokens.weight"])
        return Shape(
            width=width,
            heads=int(config.get("heads") or config.get("decoder_attention_heads") or width // HEAD),
            hidden=len(tensors["decoder.layers.0.glu.fc0.weight"]),
            encoder_layers=_layers(tensors, "encoder"),
            decoder_layers=_layers(tensors, "decoder"),
            words=words,
            rows=rows,
            codes=int(config.get("codes") or config.get("decoder_start_token_id") or min(rows - 1, CODES)),
            text_length=len(tensors["encoder.embed_positions.weight"]),
            image_length=len(tensors["decoder.embed_positions.weight"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"these are no tensors of a Mini DALL-E: {error!r}", "give both halves of one model") from None


def _layers(tensors: dict[str, Tensor], half: str) -> int:
    return len({name.split(".")[2] for name in tensors if name.startswith(f"{half}.layers.")})


def build(tensors: dict[str, Tensor], config: dict[str, Any]) -> DalleBart:
    """Build a DalleBart, in float32, around tensors that must be all of it.

    Norms without a scale have none here either: the published files lack them, and a loader that fills in what is
    missing hides what is truly missing. Raises ModelError that names what is missing or left over.
    """
    shape = shape_of(tensors, config)
    if shape.heads < 1 or shape.width % shape.heads:
        raise ModelError(f"{shape.heads} heads do not divide a width of {shape.width}", "its config is another model's")
    if not 0 < shape.codes < shape.rows:
        raise ModelError(f"code {shape.codes} can't be the start of {shape.rows} rows", "its config is another model's")
    with torch.device("meta"), Hollow():  # no memory for weights that are replaced at once
        model = DalleBart(shape)
    needed = model.state_dict()
    wrong = {
        "lacks": [name for name in needed if name not in tensors],
        "has besides": [name for name in tensors if name not in needed],
        "has in other shapes": [
            name for name in needed if name in tensors and tensors[name].shape != needed[name].shape
        ],
    }
    told = [f"it {what} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if names[3:] else "")
            for what, names in wrong.items() if names]  # fmt: skip
    if told:
        raise ModelError("; ".join(told), "it is cut off, or of a kind that is not supported")
    model.load_state_dict({name: tensors[name].to(torch.float32, copy=True) for name in needed}, assign=True)
    return model


def read_config(path: Path) -> dict[str, Any]:
    """Return a config.json; nothing where there is none. Raises IntegrityError for a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(found, dict):
            raise ValueError("it is no table")
        return found
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "get it again") from None
