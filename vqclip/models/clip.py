"""CLIPs by open_clip. The only module that imports it."""

import contextlib
import gzip
import importlib.util
import io
import json
import logging
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, IntegrityError, ModelError, VqclipError, is_out_of_memory
from ..files.paths import check_regular
from ..files.reading import read_bytes, read_json
from ..text import did_you_mean
from .catalogue import name_by_hash
from .clip_shapes import TEXT, plain_names, sizes_in, sizes_of
from .fast import clip as fast_clip
from .fast.no_init import NoInit
from .formats.read import check_complete, read_tensors
from .formats.sniff import check_format
from .middle_layers import MiddleLayers, in_the_middle
from .store import CLIP_CONFIG, TEXT_CONFIG, WEIGHTS

OPENAIS = ("input_resolution", "context_length", "vocab_size")  # that OpenAI keeps among the tensors
TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language")  # others could make it fetch and run code
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
# Fields of a config that are counts -> the most that is believed; the largest known have 64 layers, 901,629 tokens.
COUNTS = dict.fromkeys(("width", "head_width", "heads", "patch_size", "image_size", "context_length"), 20_000)
COUNTS |= {"layers": 200, "vocab_size": 5_000_000, "mlp_ratio": 100, "attn_pooler_queries": 20_000}
LONGEST_CONFIG = 1_000_000  # bytes
LONGEST_MERGES = 10_000_000  # bytes, unpacked; CLIP's own list has 1,400,000
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
        self.middle = MiddleLayers(in_the_middle(model.visual))
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
        try:
            with torch.no_grad():
                return F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        except IndexError:
            what = f"the tokenizer of {self.name} has tokens that its text encoder lacks"
            raise ModelError(what, "take all files from the same source") from None

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed images `[M, 3, size, size]` in 0..1 as `[M, D]`, unit length, float32."""
        normalized = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(normalized.to(self.dtype)).float(), dim=-1)

    def encode_layers(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed images as `encode_image` does; also return what middle layers make of them, each `[M, C, positions]`.

        Raises ModelError for an encoder of timm's.
        """
        embeds, layers = self.middle.of(lambda: self.encode_image(image))
        if not layers:
            what = f"the CLIP {self.name!r} has no middle layers that are known"
            raise ModelError(what, "use a ViT or a ResNet of open_clip's")
        return embeds, layers

    def lower(self, dtype: torch.dtype) -> None:
        """Let `encode_image` compute in a lower precision; texts are embedded once, in float32."""
        self.dtype = dtype
        fast_clip.lower(self.model.visual, dtype)


def load_clip(folder: Path, *, name: str, device: torch.device) -> OpenClip:
    """Load a folder that holds open_clip_config.json and open_clip_model.safetensors, frozen.

    A text config may name a byte-pair list of its own (`tokenizer_kwargs.bpe_path`), relative to the folder. Raises
    ModelError or IntegrityError.
    """
    weights = folder / WEIGHTS["clip"]
    with _loading(name, folder), NoInit():
        config = read_json(folder / CLIP_CONFIG, LONGEST_CONFIG, "get it again")
        check_config(name, config)
        text_config = config["model_cfg"]["text_cfg"]
        tensors = plain_names(read_tensors(weights))
        _check_sizes(f"{folder / CLIP_CONFIG} does not fit the weights", config["model_cfg"], tensors)
        tokenizer = _tokenizer(folder, text_config)
        with _text_encoder(folder, text_config) as options:
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, **options)
        _fill(model, tensors, weights)
        return _tried(freeze(name, model, tokenizer, device))


def load_file(file: Path, architecture: str, *, name: str, device: torch.device) -> OpenClip:
    """Load a checkpoint, frozen. architecture: open_clip's name of its shape, or name:tag, if `identify` needs it.

    Its normalisation is that of the tag, or of all published weights of the architecture. Raises ModelError or
    IntegrityError.
    """
    tensors = plain_names(read_tensors(file))
    architecture, tag = identify(file, architecture, tensors)
    known = describe(architecture, tag)
    check_config(name, known)
    text_config = known["model_cfg"]["text_cfg"]
    with _loading(name, file), NoInit():
        tokenizer = _tokenizer(file.parent, text_config)
        with _text_encoder(file.parent, text_config) as options:
            options["force_preprocess_cfg"] = known["preprocess_cfg"]
            model = open_clip.create_model(architecture, load_weights=False, **options)
        _fill(model, tensors, file)
        return _tried(freeze(name, model, tokenizer, device))


def identify(file: Path, given: str, tensors: dict[str, Tensor]) -> tuple[str, str]:
    """Return open_clip's (architecture, tag) of a checkpoint; the tag is "" if it is not known.

    given: what the user says, ARCHITECTURE or ARCHITECTURE:TAG, or "". What that leaves open is inferred: the sizes
    from the shapes, all of a file of the catalogue's from its hash. A TorchScript archive, or one with OPENAIS, is
    OpenAI's, whose networks have QuickGELU (openai/CLIP, clip/model.py). Raises ModelError for what is no CLIP, does
    not fit or stays open.
    """
    if not any(name.startswith("visual.") for name in tensors):
        what = f"{file} holds no CLIP: its tensors begin with {next(iter(tensors))[:80]!r}"
        others = any(name.startswith("vision_model.") for name in tensors)
        raise ModelError(what, "give a checkpoint of OpenAI's or open_clip's" + ", not of transformers'" * others)
    script = check_format(file) == "torchscript" or tensors.keys() >= set(OPENAIS)
    architecture, _, tag = given.partition(":")
    sizes = sizes_of(tensors)
    like = [name for name in open_clip.list_models() if sizes and sizes_in(_config(name)) == sizes]
    if not architecture:
        architecture, _, tag = name_by_hash("clip", file).partition(":")
    if not architecture:
        fitting = [name for name in like if _is_quick(name)] if script else like
        if len(fitting) != 1:
            raise ModelError(f"of what shape is the CLIP in {file}?", _names_to_choose(file, fitting))
        architecture = fitting[0]
    if like and architecture not in like and _config(architecture):
        what = f"the CLIP in {file} has the shape of {like[0]}, not of {architecture}"
        raise ModelError(what, _names_to_choose(file, like))
    if script and _config(architecture) and not _is_quick(architecture):
        what = f"{file} is OpenAI's, which was trained with QuickGELU, and {architecture} has plain GELU"
        raise ModelError(what, _names_to_choose(file, [name for name in like if _is_quick(name)]))
    published = open_clip.list_pretrained_tags_by_model(architecture)
    return architecture, tag or ("openai" if script and "openai" in published else "")


def _config(architecture: str) -> dict[str, Any]:
    """Return open_clip's model_cfg of an architecture; {} if it knows none of that name."""
    return open_clip.get_model_config(architecture) or {}


def _is_quick(architecture: str) -> bool:
    return bool(_config(architecture).get("quick_gelu"))


def _names_to_choose(file: Path, architectures: list[str]) -> str:
    names = " or ".join(f"{file}@{name}" for name in architectures[:3] or ["ViT-B-32"])
    return f"write {names}" + ", or another name of open_clip" * (not architectures)


def _tried(clip: OpenClip) -> OpenClip:
    """Return a CLIP that embeds an image and a text alike: configs can ask open_clip for networks that don't."""
    with torch.no_grad():
        image = clip.encode_image(torch.full((1, 3, clip.size, clip.size), 0.5, device=clip.mean.device))
    text = clip.encode_text([""])
    if image.ndim != 2 or image.shape != text.shape or not torch.isfinite(image + text).all():
        raise ValueError("its images and texts have no common embedding")
    return clip


def _check_sizes(what: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Compare a config's sizes with those of its tensors, before anything is built. Raises ModelError."""
    stated, actual = sizes_in(config), sizes_of(tensors)
    if not stated or not actual:
        return
    for key in ("vision_cfg", "text_cfg"):
        for field, value in stated[key].items():
            if value != actual[key][field]:
                detail = f"{field} of its {key} is {str(value)[:40]} there and {actual[key][field]} here"
                raise ModelError(f"{what}: {detail}", "take both from the same place")


def _fill(model: Any, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy a checkpoint's tensors into a network, which must be all of it. Raises ModelError, IntegrityError."""
    state = open_clip.convert.convert_state_dict(model, tensors)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    for name in ("logit_scale", "logit_bias"):  # a number or a list of one
        if name in state and name in expected:
            state[name] = state[name].reshape(expected[name].shape)
    spare = (".embeddings.position_ids", *OPENAIS)
    state = {name: value for name, value in state.items() if not name.endswith(spare)}
    counters = {name for name, value in expected.items() if not value.is_floating_point()}  # of batches, in training
    try:
        check_complete(*({name: each[name] for name in each if name not in counters} for each in (expected, state)))
    except ModelError as error:
        raise ModelError(f"{path} does not load as this CLIP: {error.what}", error.hint) from None
    broken = next((name for name, value in state.items() if not torch.isfinite(value.float().sum())), "")
    if broken:
        raise IntegrityError(f"{path} is damaged: not all of {broken[:80]} are numbers", "get the file again")
    model.load_state_dict(state, strict=False)


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
    if any(each != of_tags[0] for each in of_tags):
        what = f"the published weights of {architecture} differ in mean and std: which are these?"
        raise ModelError(what, f"name their tag: @{architecture}:{tags[0]} or another of {', '.join(tags)}")
    return {"model_cfg": model_cfg, "preprocess_cfg": next(iter(of_tags), {}), "mirrors": _mirrors(cfg)}


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
    model = model if isinstance(model, dict) else {}
    text, vision = (model.get(key) for key in ("text_cfg", "vision_cfg"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise ModelError(f"the {CLIP_CONFIG} of {name} is no config of a CLIP", "is it a CLIP of open_clip's?")
    for part in (text, vision, {"width": model.get("embed_dim")}):
        for field, most in COUNTS.items():
            if part.get(field) is not None:
                _check_count(name, field, part[field], most)
    preprocess = config.get("preprocess_cfg") or {}
    for key in ("mean", "std") if isinstance(preprocess, dict) else ():
        if key in preprocess and not _is_colour(preprocess[key], above=0 if key == "std" else -math.inf):
            what = f"the config of {name} states {str(preprocess[key])[:40]} for {key}"
            raise ModelError(what, "get it from another source")
    if not re.fullmatch(r"[\w.\-]*", str(vision.get("timm_model_name") or "")):  # timm would follow an address
        raise ModelError(f"the image encoder of {name} is no model of timm's own", "this kind is not supported")
    needs_transformers = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if needs_transformers and importlib.util.find_spec("transformers") is None:
        what = f"the CLIP {name!r} needs transformers for its tokenizer"
        raise ModelError(what, "install it: pip install 'vqclip[siglip]'")


def _is_colour(value: Any, above: float) -> bool:
    """Return whether this is a number for red, green and blue each, finite and above a bound."""
    numbers = value if isinstance(value, list | tuple) else ()
    return len(numbers) == 3 and all(isinstance(n, int | float) and above < n < math.inf for n in numbers)


def _check_count(name: str, field: str, value: Any, most: int) -> None:
    """Refuse a network that can't be, or would take for ever to build. Raises ModelError."""
    counts = value if isinstance(value, list | tuple) else [value]
    if not counts or not all(isinstance(count, int | float) and 0 < count <= most for count in counts):
        what = f"the config of {name} states {str(value)[:40]} for {field}"
        raise ModelError(what, "get it from another source")


def _tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    options, length = dict(config.get("tokenizer_kwargs") or {}), config.get("context_length", 77)
    if config.get("hf_tokenizer_name"):
        for path in folder.glob("*.json"):  # which transformers would wait for
            check_regular(path)
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
        path = folder / Path(options["bpe_path"]).name
        options["bpe_path"] = str(path)
        with gzip.open(io.BytesIO(read_bytes(path, LONGEST_MERGES, "get it again"))) as file:
            if len(file.read(LONGEST_MERGES + 1)) > LONGEST_MERGES:
                raise ModelError(f"{path} is over {LONGEST_MERGES:,} bytes", "get it again")
    tokenizer = open_clip.SimpleTokenizer(context_length=length, **options)
    known = config.get("vocab_size", TEXT["vocab_size"])
    if tokenizer.vocab_size > known or ("bpe_path" in options and tokenizer.vocab_size < known):
        what = f"the tokenizer in {folder} has {tokenizer.vocab_size:,} tokens, the CLIP {known:,}"
        raise ModelError(what, "take all files from the same source")
    return tokenizer


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
    config = read_json(folder / TEXT_CONFIG, LONGEST_CONFIG, "get it again")
    if config.get("model_type") not in TEXT_ENCODERS:
        kind = str(config.get("model_type"))[:40]
        raise ValueError(f"its {TEXT_CONFIG} is of a {kind!r}, not of {', '.join(TEXT_ENCODERS)}")
    for key in config:
        if key.endswith("layers"):
            _check_count(TEXT_CONFIG, "layers", config[key], COUNTS["layers"])
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
    except InputError as error:
        raise ModelError(f"the CLIP {name!r} cannot be read: {error.what}", error.hint) from None
    except (VqclipError, MemoryError):
        raise
    except OSError as error:
        raise ModelError(f"the CLIP {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except Exception as error:  # a config that is not trusted makes open_clip and transformers raise anything
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        what = f"the CLIP in {path} does not load: {reason}"
        raise ModelError(what, f"it needs {CLIP_CONFIG}, its weights and its tokenizer") from error
    finally:
        logger.setLevel(level)
