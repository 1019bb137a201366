"""Which CLIP a checkpoint holds: its sizes, from the shapes of its tensors, as a config of open_clip's states them.

Only the activation does not show in them, and what is not of open_clip's own two kinds (a ViT or a ResNet beside a
text transformer): timm's image encoders, transformers' text encoders.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# The fields of open_clip's configs that decide the shapes, with its defaults.
VISION = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "layers": 12}
ELSEWHERE = ("timm_model_name", "hf_model_name")  # fields of encoders that other packages build
STEM = 32  # pixels of the image for one position of a ResNet's last layer, per side

Sizes = dict[str, Any]


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without the prefix that training on several GPUs puts before their names."""
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def sizes_of(tensors: Mapping[str, Tensor]) -> Sizes:
    """Return the sizes that tensors under open_clip's or OpenAI's names have; {} if they are of another kind."""
    text = "text." if "text.positional_embedding" in tensors else ""
    try:
        length, width = tensors[f"{text}positional_embedding"].shape
        vocabulary = len(tensors[f"{text}token_embedding.weight"])
        layers = _count(rf"{re.escape(text)}transformer\.resblocks\.(\d+)\.", tensors)
        sizes = {"context_length": length, "vocab_size": vocabulary, "width": width, "layers": layers}
        vision, embed_dim = (_vit if "visual.conv1.weight" in tensors and "visual.proj" in tensors else _resnet)(
            tensors
        )
    except (KeyError, ValueError):
        return {}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": sizes}


def sizes_in(config: Mapping[str, Any]) -> Sizes:
    """Return the same of open_clip's model_cfg; {} if it is of another kind."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config or any(vision.get(key) or text.get(key) for key in ELSEWHERE):
        return {}
    sizes = {key: vision.get(key, default) for key, default in VISION.items()}
    if isinstance(sizes["layers"], list | tuple):
        sizes |= {"layers": list(sizes["layers"]), "patch_size": None}
    return {
        "embed_dim": config.get("embed_dim"),
        "vision_cfg": sizes,
        "text_cfg": {key: text.get(key, default) for key, default in TEXT.items()},
    }


def _vit(tensors: Mapping[str, Tensor]) -> tuple[Sizes, int]:
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    grid = math.isqrt(len(tensors["visual.positional_embedding"]) - 1)  # and the class's position
    layers = _count(r"visual\.transformer\.resblocks\.(\d+)\.", tensors)
    sizes = {"image_size": grid * patch, "patch_size": patch, "width": width, "layers": layers}
    return sizes, tensors["visual.proj"].shape[1]


def _resnet(tensors: Mapping[str, Tensor]) -> tuple[Sizes, int]:
    grid = math.isqrt(len(tensors["visual.attnpool.positional_embedding"]) - 1)
    layers = [_count(rf"visual\.layer{stage}\.(\d+)\.", tensors) for stage in (1, 2, 3, 4)]
    width = len(tensors["visual.layer1.0.conv1.weight"])
    sizes = {"image_size": grid * STEM, "patch_size": None, "width": width, "layers": layers}
    return sizes, len(tensors["visual.attnpool.c_proj.weight"])


def _count(pattern: str, tensors: Mapping[str, Tensor]) -> int:
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})
