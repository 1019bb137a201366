"""CLIPs by open_clip. The only module that imports it."""

import contextlib
import importlib.util
import json
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import IntegrityError, ModelError, VqclipError, is_out_of_memory
from ..text import did_you_mean
from .fast import clip as fast_clip
from .fast.no_init import NoInit
from .formats.read import read_tensors
from .formats.sniff import check_format
from .store import CLIP_CONFIG, TEXT_CONFIG

TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language")  # others could make it fetch and run code
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
MOST_LAYERS = 200  # of an encoder; the largest known one has 64
TEXT_ENCODERS = ("bert", "m2m_100", "mt5", "roberta", "xlm-roberta")  # of transformers, that open_clip knows
TEXT_CONFIG_WORDS = ("model_type", "hidden_act", "activation_function", "feed_forward_proj")  # the rest is numbers


class OpenClip(nn.Module):
    """A CLIP whose size, normalisation and tokenizer come with its weights."""

    def __init__(self, name: str, model: open_clip.CLIP, tokenizer: Any) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = torch.float32
        self.mean: Tensor
        self.std: Tensor
        preprocess = open_clip.get_model_preprocess_cfg(model)
        size = preprocess["size"]
        self.size = int(size if isinstance(size, int) else size[0])
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(preprocess[key]).view(3, 1, 1), persistent=False)

    def fits(self, text: str) -> bool:
        """Return whether all of a text is read: its tokens, with start and end, are within the context length."""
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return len(self.tokenizer.encode(text)) + 2 <= self.tokenizer.context_length
        tokens = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text)).input_ids
        return len(tokens) <= self.tokenizer.context_length

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, D]`, unit length, float32. Longer ones are cut to the context length."""
        tokens = self.tokenizer(texts).to(self.mean.device)
        with torch.no_grad():
            return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed images `[M, 3, size, size]` in 0..1 as `[M, D]`, unit length, float32."""
        normalized = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(normalized.to(self.dtype)).float(), dim=-1)

    def lower(self, dtype: torch.dtype) -> None:
        """Let `encode_image` compute in a lower precision; texts are embedded once, in float32."""
        self.dtype = dtype
        fast_clip.lower(self.model.visual, dtype)


def load_clip(folder: Path, *, name: str, device: torch.device) -> OpenClip:
    """Load a folder that holds open_clip_config.json and open_clip_model.safetensors, frozen.

    A text config may name a byte-pair list of its own (`tokenizer_kwargs.bpe_path`), relative to the folder. Raises
    ModelError or IntegrityError.
    """
    with _loading(name, folder), NoInit():
        config = json.loads((folder / CLIP_CONFIG).read_text(encoding="utf-8"))
        check_config(name, config)
        text_config = config["model_cfg"]["text_cfg"]
        tokenizer = _tokenizer(folder, text_config)
        with _text_encoder(folder, text_config) as options:
            model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, **options)
        return freeze(name, model, tokenizer, device)


def load_file(file: Path, architecture: str, *, name: str, device: torch.device) -> OpenClip:
    """Load a checkpoint that has the shape that open_clip knows by this name, frozen.

    Its normalisation is that of the architecture's published weights. Raises ModelError or IntegrityError.
    """
    tensors = read_tensors(file)  # says what is wrong with a file better than open_clip does
    known = describe(architecture)
    check_config(name, known)
    text_config = known["model_cfg"]["text_cfg"]
    with _loading(name, file), NoInit():
        tokenizer = _tokenizer(file.parent, text_config)
        with _text_encoder(file.parent, text_config) as options:
            options["force_preprocess_cfg"] = known["preprocess_cfg"]
            if check_format(file) == "torchscript":  # a program, which open_clip would run
                model = open_clip.create_model(architecture, load_weights=False, **options)
                model.load_state_dict(tensors)
            else:
                model = open_clip.create_model(architecture, pretrained=str(file), require_pretrained=True, **options)
        return freeze(name, model, tokenizer, device)


def describe(architecture: str, tag: str = "") -> dict[str, Any]:
    """Return what open_clip knows of a model: its model_cfg, preprocess_cfg, and the mirrors of a tag's weights.

    Raises ModelError for an unknown one, and if tag and architecture have different activations: the weights of
    either load into the other without a warning, and perform worse (open_clip issue 771).
    """
    model_cfg = open_clip.get_model_config(architecture)
    if model_cfg is None:
        others = open_clip.list_models()
        hint = did_you_mean(architecture, others, f"it has {', '.join(others[:8])} and others")
        raise ModelError(f"open_clip has no architecture {architecture!r}", hint)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        hint = did_you_mean(tag, tags, f"it has {', '.join(tags) or 'none'}")
        raise ModelError(f"open_clip has no weights {tag!r} for {architecture}", hint)
    published = {known: open_clip.get_pretrained_cfg(architecture, known) for known in tags}
    cfg = published.get(tag, {})
    if tag:
        _check_activation(architecture, tag, of_model=model_cfg.get("quick_gelu"), of_weights=cfg.get("quick_gelu"))
    of_tags = [{key: each[key] for key in PREPROCESSING} for each in ([cfg] if tag else published.values())]
    agreed = of_tags[0] if of_tags and all(each == of_tags[0] for each in of_tags) else {}
    return {"model_cfg": model_cfg, "preprocess_cfg": agreed, "mirrors": _mirrors(cfg)}


def _check_activation(architecture: str, tag: str, *, of_model: Any, of_weights: Any) -> None:
    if bool(of_weights) == bool(of_model):
        return
    trained_with, suffix = ("QuickGELU", "-quickgelu") if of_weights else ("plain GELU", "")
    what = f"the weights {tag} were trained with {trained_with}, and {architecture} has the other"
    raise ModelError(what, f"use {architecture.removesuffix('-quickgelu')}{suffix}:{tag}")


def _mirrors(cfg: dict[str, Any]) -> list[str]:
    """Return the mirrors of open_clip's entry for a tag: a repository of the hub, an address, or both."""
    owner, repo, file = [*cfg.get("hf_hub", "").split("/", 2), "", "", ""][:3]
    files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    of_hub = [f"hf:{owner}/{repo}@main/{name}" for name in files] if repo else []
    return [*of_hub, *filter(None, [cfg.get("url")])]


def check_config(name: str, config: Any) -> None:
    """Refuse a CLIP that could not be loaded, or not without the network, before anything large is fetched.

    config: an open_clip_config.json, which is not trusted. Raises ModelError.
    """
    model = config.get("model_cfg") if isinstance(config, dict) else None
    text, vision = (model.get(key) if isinstance(model, dict) else None for key in ("text_cfg", "vision_cfg"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise ModelError(f"the {CLIP_CONFIG} of {name} is no config of a CLIP", "is it a CLIP of open_clip's?")
    for part in (text, vision):
        _check_layers(name, part.get("layers", 0))
    if not re.fullmatch(r"[\w.\-]*", str(vision.get("timm_model_name") or "")):  # timm would follow an address
        raise ModelError(f"the image encoder of {name} is no model of timm's own", "this kind is not supported")
    needs_transformers = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if needs_transformers and importlib.util.find_spec("transformers") is None:
        what = f"the CLIP {name!r} needs transformers for its tokenizer"
        raise ModelError(what, "install it: pip install 'vqclip[siglip]'")


def _check_layers(name: str, layers: Any) -> None:
    """Refuse a network that would take for ever to build. Raises ModelError."""
    counts = layers if isinstance(layers, list | tuple) else [layers]
    if not all(isinstance(count, int) and count <= MOST_LAYERS for count in counts):
        raise ModelError(f"the config of {name} states {str(layers)[:40]} layers", "get it from another source")


def _tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    options, length = dict(config.get("tokenizer_kwargs") or {}), config.get("context_length", 77)
    if config.get("hf_tokenizer_name"):
        harmless = {key: value for key, value in options.items() if key in TOKENIZER_OPTIONS}
        return open_clip.tokenizer.HFTokenizer(
            str(folder),
            context_length=length,
            tokenizer_mode=config.get("tokenizer_mode"),
            **harmless,
            trust_remote_code=False,
            local_files_only=True,
        )
    if "bpe_path" in options:
        options["bpe_path"] = str(folder / Path(options["bpe_path"]).name)
    return open_clip.SimpleTokenizer(context_length=length, **options)


def freeze(name: str, model: Any, tokenizer: Any, device: torch.device) -> OpenClip:
    """Return a model of open_clip's frozen, with the layers of fast/clip.py, on a device, in channels_last."""
    clip = OpenClip(name, model, tokenizer).requires_grad_(False).eval()
    kinds = open_clip.transformer
    fast_clip.make_fast(clip.model.visual, clip.size, kinds.QuickGELU, kinds.ResidualAttentionBlock)
    clip.model.visual.to(memory_format=torch.channels_last)
    return clip.eval().to(device)


@contextlib.contextmanager
def _text_encoder(folder: Path, text_config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield options for open_clip that build a text encoder of transformers from a folder's config.json, if it has one.

    The config is not trusted: it could name code for transformers to fetch. Only numbers and a few words are copied.
    """
    if not text_config.get("hf_model_name"):
        yield {}
        return
    config = json.loads((folder / TEXT_CONFIG).read_text(encoding="utf-8"))
    if config.get("model_type") not in TEXT_ENCODERS:
        kind = str(config.get("model_type"))[:40]
        raise ValueError(f"its {TEXT_CONFIG} is of a {kind!r}, not of {', '.join(TEXT_ENCODERS)}")
    for key in config:
        if key.endswith("layers"):
            _check_layers(TEXT_CONFIG, config[key])
    kept = {k: value for k, value in config.items() if k in TEXT_CONFIG_WORDS or isinstance(value, int | float)}
    with tempfile.TemporaryDirectory() as copy:
        (Path(copy) / TEXT_CONFIG).write_text(json.dumps(kept), encoding="utf-8")
        yield {"text_cfg": text_config | {"hf_model_name": copy, "hf_model_pretrained": False}}


@contextlib.contextmanager
def _loading(name: str, path: Path) -> Iterator[None]:
    """Turn what open_clip may raise into one line, and keep it from logging its progress on the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except (VqclipError, MemoryError):
        raise
    except OSError as error:
        raise ModelError(f"the CLIP {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        what = f"the CLIP in {path} does not load: {reason}"
        raise ModelError(what, f"it needs {CLIP_CONFIG} and its weights") from error
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"the weights in {path} are damaged: {error}", "get the files again") from error
    finally:
        logger.setLevel(level)
