"""CLIPs by open_clip. The only file that imports it."""

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
from .fast import clip as towers
from .fast.no_init import Hollow

WORDS = ("clean", "strip_sep_token", "language")  # of a tokenizer's options; others could make it fetch and run code
SEEN = ("mean", "std", "interpolation", "resize_mode")  # how a model's pictures were prepared
CONFIG = "open_clip_config.json"
DEEPEST = 200  # layers of a tower; the largest that is known has 64
TOWER = "config.json"  # of a text tower that is one of transformers'
TOWERS = ("bert", "m2m_100", "mt5", "roberta", "xlm-roberta")  # those that open_clip knows
NAMES = ("model_type", "hidden_act", "activation_function", "feed_forward_proj")  # what is no number in its config


class OpenClip(nn.Module):
    """A perceptor whose size, normalisation and tokenizer come with its weights."""

    def __init__(self, name: str, model: open_clip.CLIP, tokenizer: Any) -> None:
        super().__init__()
        self.name, self.model, self.tokenizer, self.dtype = name, model, tokenizer, torch.float32
        self.mean: Tensor
        self.std: Tensor
        preprocess = open_clip.get_model_preprocess_cfg(model)
        size = preprocess["size"]
        self.size = int(size if isinstance(size, int) else size[0])
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(preprocess[key]).view(3, 1, 1), persistent=False)

    def fits(self, text: str) -> bool:
        """Say whether all of a text is read: its tokens, start and end among them, within the context length."""
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
        """Embed pictures `[M, 3, size, size]` in 0..1 as `[M, D]`, unit length, float32."""
        normal = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(normal.to(self.dtype)).float(), dim=-1)

    def lower(self, dtype: torch.dtype) -> None:
        """Let `encode_image` compute in a type of lower precision; texts are embedded once, in float32."""
        self.dtype = dtype
        towers.lower(self.model.visual, dtype)


def load_clip(folder: Path, *, name: str, device: torch.device) -> OpenClip:
    """Load a folder that holds open_clip_config.json and open_clip_model.safetensors, frozen.

    A text config may name a byte-pair list of its own (`tokenizer_kwargs.bpe_path`), relative to the
    folder. Raises ModelError or IntegrityError.
    """
    with _told(name, folder), Hollow():
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        check_config(name, config)
        tokenizer = _tokenizer(folder, config["model_cfg"]["text_cfg"])
        with _tower(folder, config["model_cfg"]["text_cfg"]) as tower:
            model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, **tower)
        return ready(name, model, tokenizer, device)


def load_file(
    file: Path, architecture: str, tensors: dict[str, Tensor] | None, *, name: str, device: torch.device
) -> OpenClip:
    """Load a checkpoint that has the shape that open_clip knows by this name, frozen.

    tensors: what is in it, where open_clip could not read that. Its normalisation is that of the architecture's
    published weights. Raises ModelError or IntegrityError.
    """
    known = describe(architecture)
    check_config(name, known)
    with _told(name, file), Hollow():
        tokenizer = _tokenizer(file.parent, known["model_cfg"]["text_cfg"])
        way = {"force_preprocess_cfg": known["preprocess_cfg"]}
        with _tower(file.parent, known["model_cfg"]["text_cfg"]) as tower:
            if tensors is None:
                model = open_clip.create_model(
                    architecture, pretrained=str(file), require_pretrained=True, **way, **tower
                )
            else:
                model = open_clip.create_model(architecture, load_weights=False, **way, **tower)
                model.load_state_dict(tensors)
        return ready(name, model, tokenizer, device)


def describe(architecture: str, tag: str = "") -> dict[str, Any]:
    """Return what open_clip knows of a model: its model_cfg, preprocess_cfg, and the mirrors of a tag's weights.

    Raises ModelError for an unknown one, and where tag and architecture have different activations: the weights of
    either load into the other without a word, and see worse (open_clip issue 771).
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
    if tag and bool(published[tag].get("quick_gelu")) != bool(model_cfg.get("quick_gelu")):
        stem, quick = architecture.removesuffix("-quickgelu"), bool(published[tag].get("quick_gelu"))
        with_which = "QuickGELU" if quick else "plain GELU"
        what = f"the weights {tag} were trained with {with_which}, and {architecture} has the other"
        raise ModelError(what, f"use {stem}{'-quickgelu' if quick else ''}:{tag}")
    ways = [{key: cfg[key] for key in SEEN} for cfg in ([published[tag]] if tag else published.values())]
    preprocess_cfg = ways[0] if ways and all(way == ways[0] for way in ways) else {}
    cfg = published.get(tag, {})
    owner, repo, file = [*cfg.get("hf_hub", "").split("/", 2), "", "", ""][:3]
    files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    mirrors, url = [f"hf:{owner}/{repo}@main/{file}" for file in files if repo], cfg.get("url", "")
    return {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg, "mirrors": mirrors + ([url] if url else [])}


def check_config(name: str, config: Any) -> None:
    """Refuse what could not be loaded, or not without the network, before anything large is fetched.

    config: as in open_clip_config.json; it may be a stranger's. Raises ModelError.
    """
    model = config.get("model_cfg") if isinstance(config, dict) else None
    text, vision = (model.get(key) if isinstance(model, dict) else None for key in ("text_cfg", "vision_cfg"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise ModelError(f"the {CONFIG} of {name} is no config of a CLIP", "is it a CLIP of open_clip's?")
    for part in (text, vision):
        _check_depth(name, part.get("layers", 0))
    if not re.fullmatch(r"[\w.\-]*", str(vision.get("timm_model_name") or "")):  # timm would follow an address
        raise ModelError(f"the picture tower of {name} is no model of timm's own", "this kind is not supported")
    if (text.get("hf_tokenizer_name") or text.get("hf_model_name")) and importlib.util.find_spec(
        "transformers"
    ) is None:
        raise ModelError(
            f"the CLIP {name!r} needs transformers for its words", "install it: pip install 'vqclip[siglip]'"
        )


def _check_depth(name: str, layers: Any) -> None:
    """Refuse a network that would never be built to its end. Raises ModelError."""
    told = layers if isinstance(layers, list | tuple) else [layers]
    if not all(isinstance(number, int) and number <= DEEPEST for number in told):
        raise ModelError(f"the config of {name} tells of {str(layers)[:40]} layers", "take it from another place")


def _tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    options, length = dict(config.get("tokenizer_kwargs") or {}), config.get("context_length", 77)
    if config.get("hf_tokenizer_name"):
        kept = {key: value for key, value in options.items() if key in WORDS}
        return open_clip.tokenizer.HFTokenizer(
            str(folder), context_length=length, tokenizer_mode=config.get("tokenizer_mode"), **kept,
            trust_remote_code=False, local_files_only=True,
        )  # fmt: skip
    if "bpe_path" in options:
        options["bpe_path"] = str(folder / Path(options["bpe_path"]).name)
    return open_clip.SimpleTokenizer(context_length=length, **options)


def ready(name: str, model: Any, tokenizer: Any, device: torch.device) -> OpenClip:
    """Make a model of open_clip's a perceptor: frozen, lean, on a device, in channels_last."""
    clip = OpenClip(name, model, tokenizer).requires_grad_(False).eval()
    kinds = open_clip.transformer
    towers.make_lean(clip.model.visual, clip.size, kinds.QuickGELU, kinds.ResidualAttentionBlock)
    clip.model.visual.to(memory_format=torch.channels_last)
    return clip.eval().to(device)


@contextlib.contextmanager
def _tower(folder: Path, text: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give what makes open_clip build a text tower of transformers' after the numbers in a folder's config.json.

    It is a stranger's, and could name code for transformers to fetch: the numbers are taken and a few plain words.
    """
    if not text.get("hf_model_name"):
        yield {}
        return
    told = json.loads((folder / TOWER).read_text(encoding="utf-8"))
    if told.get("model_type") not in TOWERS:
        raise ValueError(f"its {TOWER} is of a {str(told.get('model_type'))[:40]!r}, not of {', '.join(TOWERS)}")
    for key in told:
        if key.endswith("layers"):
            _check_depth(TOWER, told[key])
    kept = {key: value for key, value in told.items() if key in NAMES or isinstance(value, int | float)}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / TOWER).write_text(json.dumps(kept), encoding="utf-8")
        yield {"text_cfg": text | {"hf_model_name": place, "hf_model_pretrained": False}}


@contextlib.contextmanager
def _told(name: str, place: Path) -> Iterator[None]:
    """Turn what open_clip may raise into one line; keep it from narrating its loading on the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except VqclipError:
        raise
    except OSError as error:
        raise ModelError(f"the CLIP {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the CLIP in {place} does not load: {reason}", f"it needs {CONFIG} and its weights"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"the weights in {place} are damaged: {error}", "get the files again") from error
    finally:
        logger.setLevel(level)
