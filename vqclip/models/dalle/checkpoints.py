"""The files of a Mini DALL-E: as published for torch or Flax, and as vqclip keeps one.

Published: encoder*.pt and decoder*.pt, or flax_model.msgpack; vocab*.json, merges*.txt, perhaps config.json.
vqclip's: model.safetensors under the names of bart.py, config.json, vocab.json, merges.txt.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, IntegrityError, ModelError
from ...files.archives import UNPACK, archive_at
from ...files.paths import open_regular
from ...files.reading import parse_json, read_json
from ..fast.no_init import NoInit
from ..formats.read import check_complete, read_tensors, rename, save_tensors
from .bart import DalleBart, Shape
from .tokenizer import read_merges, read_vocabulary

PARTNER = "imagenet_f16_16384"  # the VQGAN of the published models, whose configs do not name it
WEIGHTS = "model.safetensors"
TEXTS = {"vocab*.json": "vocab.json", "merges*.txt": "merges.txt"}  # as published -> as vqclip keeps them
FILES = "a Mini DALL-E is encoder*.pt and decoder*.pt, or flax_model.msgpack; with vocab*.json and merges*.txt"
HEAD_WIDTH = 64  # of the published models
CODES = 16384  # of the published models; mega has more rows, which mean nothing
LONGEST_CONFIG, LONGEST_HEADER = 1_000_000, 10_000_000  # bytes
# Flax's names -> torch's. A star stands for the number of a layer, where one array holds all of them.
FLAX = (
    (r"^model\.", ""),
    (r"^lm_head\.", "decoder.lm_head."),
    (r"\.FlaxBart(?:En|De)coderLayer_(\d+)\.", r".\1."),
    (r"\.FlaxBart(?:En|De)coderLayers\.", ".*."),
    (r"\.FlaxBartAttention_0\.", ".self_attn."),
    (r"\.FlaxBartAttention_1\.", ".encoder_attn."),
    (r"\.GLU_0\.Dense_(\d)\.", r".glu.fc\1."),
    (r"\.GLU_0\.LayerNorm_(\d)\.", r".glu.ln\1."),
    (r"\.LayerNorm_0\.", ".pre_self_attn_layer_norm."),
    (r"\.LayerNorm_1\.", ".self_attn_layer_norm."),
    (r"\.LayerNorm_2\.", ".pre_encoder_attn_layer_norm."),
    (r"\.LayerNorm_3\.", ".encoder_attn_layer_norm."),
)


def read_published(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder as its makers publish it: encoder*.pt and decoder*.pt, or flax_model.msgpack.

    Raises ModelError if one is missing, IntegrityError if one is damaged.
    """
    flax = folder / "flax_model.msgpack"
    if flax.is_file():
        return from_flax(read_tensors(flax))
    tensors: dict[str, Tensor] = {}
    for half in ("encoder", "decoder"):
        part = read_tensors(find_one(folder, f"{half}*.pt"))
        tensors |= {f"{half}.{name}": value for name, value in part.items()}
    return tensors


def check_file(name: str, path: Path) -> None:
    """Check that a file of a published Mini DALL-E is what its name says: a vocabulary, merges, a half, Flax's whole.

    Raises ModelError, IntegrityError.
    """
    if name.endswith(".json"):
        read_vocabulary(path) if name.startswith("vocab") else read_config(path)
    elif name.endswith(".txt"):
        read_merges(path)
    else:
        tensors = read_tensors(path)
        head = any(tensor.startswith("lm_head.") for tensor in tensors)
        if not (any("glu" in tensor.lower() for tensor in tensors) and head != name.startswith("encoder")):
            raise ModelError(f"{path} is not the {name} of a Mini DALL-E", "get it from another source")


def from_flax(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return dalle-mini's tensors, as `load_flax` leaves them, under torch's names, a tensor a layer.

    Flax's kernels are `[in, out]`, torch's `[out, in]`.
    """
    renamed = {}
    for flax_name, value in tensors.items():
        name = rename(flax_name, FLAX)
        layers = {name.replace("*", str(k)): layer for k, layer in enumerate(value)} if "*" in name else {name: value}
        for layer_name, layer in layers.items():
            is_kernel = layer.ndim == 2 and "embed_" not in layer_name
            renamed[layer_name] = (layer.T if is_kernel else layer).contiguous()
    return renamed


def shape_of(tensors: dict[str, Tensor], config: dict[str, Any]) -> Shape:
    """Return a model's shape, from its tensors; the rest is in its config, or as in the published models.

    Raises ModelError if one of the tensors that are needed is missing.
    """
    try:
        tokens, width = tensors["encoder.embed_tokens.weight"].shape
        rows = len(tensors["decoder.embed_tokens.weight"])
        return Shape(
            width=width,
            heads=int(config.get("heads") or config.get("decoder_attention_heads") or width // HEAD_WIDTH),
            hidden=len(tensors["decoder.layers.0.glu.fc0.weight"]),
            encoder_layers=_layers(tensors, "encoder"),
            decoder_layers=_layers(tensors, "decoder"),
            vocabulary=tokens,
            rows=rows,
            codes=int(config.get("codes") or config.get("decoder_start_token_id") or min(rows - 1, CODES)),
            text_length=len(tensors["encoder.embed_positions.weight"]),
            image_length=len(tensors["decoder.embed_positions.weight"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"these are no tensors of a Mini DALL-E: {error!r}", "give both halves of one model") from None


def _layers(tensors: Iterable[str], half: str) -> int:
    return len({name.split(".")[2] for name in tensors if name.startswith(f"{half}.layers.")})


def build(tensors: dict[str, Tensor], config: dict[str, Any]) -> DalleBart:
    """Build a DalleBart, in float32, around tensors that must be all of it.

    Norms without a scale have none here either: the published files lack them, and a loader that fills in what is
    missing hides what is really missing. Raises ModelError that names what is missing or left over.
    """
    shape = shape_of(tensors, config)
    if shape.heads < 1 or shape.width % shape.heads:
        raise ModelError(f"{shape.heads} heads do not divide a width of {shape.width}", "its config is another model's")
    if not 0 < shape.codes < shape.rows:
        raise ModelError(f"code {shape.codes} can't be the start of {shape.rows} rows", "its config is another model's")
    with torch.device("meta"), NoInit():  # no memory for weights that are replaced at once
        model = DalleBart(shape)
    check_complete(model.state_dict(), tensors)
    copies = {name: value.to(torch.float32, copy=True) for name, value in tensors.items()}
    for name, value in copies.items():
        if not torch.isfinite(value.sum()):
            raise IntegrityError(f"not all of {name[:80]} are numbers", "get the file again")
    model.load_state_dict(copies, assign=True)
    return model


def write_plain(folder: Path, target: Path, *, codes: int = 0) -> None:
    """Write a Mini DALL-E that is in `folder`, as published or as vqclip keeps one, into `target` as vqclip keeps one.

    codes: of its VQGAN, if its config does not say it. Raises ModelError, IntegrityError, OSError.
    """
    config = read_config(folder / "config.json")
    weights = folder / WEIGHTS
    if weights.is_file():
        shutil.copyfile(weights, target / WEIGHTS)
    else:
        tensors = read_published(folder)
        build(tensors, config)  # before it is written: says what is missing
        save_tensors(tensors, target / WEIGHTS)
    kept = {
        "heads": config.get("heads") or config.get("decoder_attention_heads"),
        "codes": codes or config.get("codes") or config.get("decoder_start_token_id"),
        "vqgan": config.get("vqgan", PARTNER),
        "pixels": config.get("pixels", "unit"),
    }
    known = {key: value for key, value in kept.items() if value}
    (target / "config.json").write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    for pattern, name in TEXTS.items():
        shutil.copyfile(find_one(folder, pattern), target / name)


def memory_needed(weights: Path, batch_size: int) -> tuple[int, int]:
    """Return the peak bytes of loading a Mini DALL-E, and those of sampling `batch_size` candidates afterwards.

    From the shapes in the header of its file. 0 and 0 if they can't be read: loading then says why.
    """
    try:
        with open_regular(weights) as file:
            text = file.read(min(int.from_bytes(file.read(8), "little"), LONGEST_HEADER)).decode()
        header = parse_json(text, str(weights))
        shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        parameters = 4 * sum(math.prod(shape) for shape in shapes.values())
        codes, width = shapes["decoder.embed_positions.weight"]
        tokens, _ = shapes["encoder.embed_positions.weight"]
        file_size = weights.stat().st_size
    except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0, 0
    # keys and values of every layer, in float32, without and with the text
    cached = 2 * _layers(shapes, "decoder") * width * (2 * batch_size * codes + 2 * tokens)
    return parameters + file_size, parameters + 4 * cached


def read_config(path: Path) -> dict[str, Any]:
    """Return a config.json; {} if there is none. Raises IntegrityError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        config = read_json(path, LONGEST_CONFIG, "get it again")
    except InputError as error:
        raise IntegrityError(error.what, error.hint) from None
    if not isinstance(config, dict):
        raise IntegrityError(f"{path} is damaged: it is not a table", "get it again")
    return config


def partner_of(folder: Path) -> str:
    """Return the name of the VQGAN whose codes the Mini DALL-E in a folder writes. Raises IntegrityError."""
    return str(read_config(folder / "config.json").get("vqgan", PARTNER))


def find_one(folder: Path, pattern: str) -> Path:
    """Return the only file of a pattern. Raises ModelError if there is none, or more than one."""
    if archive := archive_at(folder):
        raise ModelError(f"{folder} is {archive}, not a folder", UNPACK)
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        found = f"several: {', '.join(path.name for path in paths[:4])}" if paths else "none"
        raise ModelError(f"{folder} must have one file {pattern} and has {found}", FILES)
    return paths[0]
