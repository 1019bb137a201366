"""The bundled CLIP: EfficientNet-Lite0 sees images, a small transformer of CLIP's reads texts.

EfficientNet-Lite is Tan & Le's network (ICML 2019, https://arxiv.org/abs/1905.11946) without squeeze and excitation
and with ReLU6; the text transformer is that of Radford et al. (2021). open_clip makes the same function of the same
files; it is made here as well because importing open_clip takes torchvision, timm and torch's compiler: two seconds of
a command that takes ten.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.matmul import replace_linear
from ..errors import ModelError, is_out_of_memory
from ..files.reading import read_json
from .clip_tokenizer import ClipTokenizer, read_merges
from .fast.clip import lower
from .formats.read import read_plain
from .middle_layers import MiddleLayers
from .store import CLIP_CONFIG, WEIGHTS
from .wording import normalize

# A row a stage: blocks, kernel size, stride of its first block, output channels. All but the first expand by 6.
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
MIDDLE = (4, 6, 12)  # of the layers, after the stem: the last blocks of the stages of 24, 40 and 112 channels
STEM, HEAD, EXPANSION = 32, 1280, 6
EPSILON = 1e-3  # of the batch norms, as TensorFlow has them
VISION = {"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear"}  # as its config says
MAX_CONFIG = 100_000  # bytes


class Conv(nn.Conv2d):
    """A convolution; with a stride, an odd pixel of padding is right and below, as in TensorFlow."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, size, stride, size // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, before, H, W]` to `[B, after, H / stride, W / stride]`, rounded up."""
        size, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            width, height = (max(0, (math.ceil(side / stride) - 1) * stride + size - side) for side in x.shape[:1:-1])
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


class Block(nn.Sequential):
    """An inverted residual: expand, convolve each channel, project; added to what came in where shapes agree."""

    def __init__(self, before: int, after: int, size: int, stride: int, expansion: int) -> None:
        wide = before * expansion
        expand = [Conv(before, wide, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = Conv(wide, wide, size, stride, groups=wide)
        super().__init__(*expand, depthwise, nn.ReLU6(inplace=True), Conv(wide, after, 1))
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, before, H, W]` to `[B, after, H / stride, W / stride]`."""
        out: Tensor = super().forward(x)
        return out + x if self.residual else out


class ImageEncoder(nn.Module):
    """EfficientNet-Lite0 with a linear layer to the embedding."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv(3, STEM, 3, 2), nn.ReLU6(inplace=True)]
        before = STEM
        for number, (blocks, size, stride, after) in enumerate(STAGES):
            for block in range(blocks):
                expansion = EXPANSION if number else 1
                layers.append(Block(before, after, size, 1 if block else stride, expansion))
                before = after
        self.layers = nn.Sequential(*layers, Conv(before, HEAD, 1), nn.ReLU6(inplace=True))
        self.project = nn.Linear(HEAD, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, 3, H, W]` to `[B, embed_dim]`."""
        return self.project(F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


class TextBlock(nn.Module):
    """Attention to the tokens so far, then two layers with a GELU; each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, L, width]` to the same."""
        queries, keys, values = self.in_proj(self.ln_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out_proj(attended.transpose(1, 2).flatten(2))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class TextEncoder(nn.Module):
    """CLIP's text transformer, read at the end token."""

    def __init__(self, config: dict[str, int], embed_dim: int) -> None:
        super().__init__()
        width = config["width"]
        self.token_embedding = nn.Embedding(config["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(config["context_length"], width))
        self.blocks = nn.Sequential(*(TextBlock(width, config["heads"]) for _ in range(config["layers"])))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens `[B, L]`, of which the end has the highest number, to `[B, embed_dim]`."""
        x = self.ln_final(self.blocks(self.token_embedding(tokens) + self.positional_embedding))
        return x[torch.arange(len(x)), tokens.argmax(1)] @ self.text_projection


class LiteClip(nn.Module):
    """The networks above with their normalisation and tokenizer: a `Clip` of core/interfaces.py."""

    def __init__(self, name: str, config: dict[str, Any], tokenizer: ClipTokenizer) -> None:
        super().__init__()
        model, preprocess = config["model_cfg"], config["preprocess_cfg"]
        self.name = name
        self.size = int(model["vision_cfg"]["image_size"])
        self.dtype = torch.float32
        self.tokenizer = tokenizer
        self.visual = ImageEncoder(model["embed_dim"])
        self.text = TextEncoder(model["text_cfg"], model["embed_dim"])
        self.middle = MiddleLayers([self.visual.layers[index] for index in MIDDLE])
        self.mean: Tensor
        self.std: Tensor
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(preprocess[key]).view(3, 1, 1), persistent=False)

    def fits(self, text: str) -> bool:
        """Return whether all of a text is read: its tokens, with begin and end, are within the context length."""
        return len(self.tokenizer.encode(normalize(text))) + 2 <= self.tokenizer.context_length

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, D]`, unit length, float32. Longer ones are cut to the context length."""
        tokens = self.tokenizer([normalize(text) for text in texts]).to(self.mean.device)
        with torch.no_grad():
            return F.normalize(self.text(tokens), dim=-1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed images `[M, 3, size, size]` in 0..1 as `[M, D]`, unit length, float32."""
        normalized = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.visual(normalized.to(self.dtype)).float(), dim=-1)

    def encode_layers(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed images as `encode_image` does; also return what middle layers make of them: `[M, C, positions]`."""
        return self.middle.of(lambda: self.encode_image(image))

    def lower(self, dtype: torch.dtype) -> None:
        """Let `encode_image` compute in a lower precision; texts are embedded once, in float32."""
        self.dtype = dtype
        lower(self.visual, dtype)


def load(folder: Path, *, name: str, device: torch.device) -> LiteClip:
    """Load a folder as open_clip keeps one, frozen.

    Raises ModelError for another architecture or a config that does not fit the weights, IntegrityError.
    """
    config = read_json(folder / CLIP_CONFIG, MAX_CONFIG)
    try:
        model, text = config["model_cfg"], config["model_cfg"]["text_cfg"]
        if any(model["vision_cfg"].get(key) != value for key, value in VISION.items()):
            raise ValueError(f"its image encoder is no {VISION['timm_model_name']}")
        merges = read_merges(folder / Path(text["tokenizer_kwargs"]["bpe_path"]).name)
        tokenizer = ClipTokenizer(merges, text["context_length"])
        clip = LiteClip(name, config, tokenizer)
        tensors = {key: value.float() for key, value in read_plain(folder / WEIGHTS["clip"]).items()}
        clip.load_state_dict(_renamed(tensors))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        what = f"the CLIP in {folder} does not load: {' '.join(str(error).split())[:300]}"
        raise ModelError(what, f"its weights and its {CLIP_CONFIG} do not belong together") from None
    replace_linear(clip.visual)
    clip.visual.to(memory_format=torch.channels_last)
    return clip.requires_grad_(False).eval().to(device)


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return open_clip's tensors by the names above, batch norms folded into the convolutions before them."""
    renamed: dict[str, Tensor] = {}
    for name, (conv, norm) in zip(_convolutions(), _timm_convolutions(), strict=True):
        parts = (tensors[f"visual.trunk.{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, weight, bias = parts
        kernel = tensors[f"visual.trunk.{conv}.weight"]
        fused = nn.utils.fusion.fuse_conv_bn_weights(kernel, None, mean, variance, EPSILON, weight, bias)
        renamed |= {f"visual.{name}.weight": fused[0], f"visual.{name}.bias": fused[1]}
    renamed["visual.project.weight"] = tensors["visual.head.proj.weight"]
    for name, tensor in tensors.items():
        if not name.startswith("visual.") and name != "logit_scale":
            short = name.replace("transformer.resblocks.", "blocks.").replace("attn.in_proj_", "in_proj.")
            renamed["text." + short.replace("attn.", "").replace("mlp.", "")] = tensor
    return renamed


def _convolutions() -> list[str]:
    """Return the names of the image encoder's convolutions, in order."""
    with torch.device("meta"):
        return [name for name, layer in ImageEncoder(1).named_modules() if isinstance(layer, Conv)]


def _timm_convolutions() -> list[tuple[str, str]]:
    """Return timm's names of the same convolutions and of their batch norms."""
    names = [("conv_stem", "bn1")]
    for stage, (blocks, *_) in enumerate(STAGES):
        convs = ("conv_pw", "conv_dw", "conv_pwl") if stage else ("conv_dw", "conv_pw")
        for block in range(blocks):
            names += [
                (f"blocks.{stage}.{block}.{conv}", f"blocks.{stage}.{block}.bn{k}") for k, conv in enumerate(convs, 1)
            ]
    return [*names, ("conv_head", "bn2")]
