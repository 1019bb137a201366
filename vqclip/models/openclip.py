"""CLIPs by open_clip. The only file that imports it."""

import json
import logging
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import IntegrityError, ModelError


class OpenClip(nn.Module):
    """A perceptor whose size and normalisation come with its weights."""

    def __init__(self, name: str, model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer) -> None:
        super().__init__()
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.mean: Tensor
        self.std: Tensor
        preprocess = open_clip.get_model_preprocess_cfg(model)
        size = preprocess["size"]
        self.size = int(size if isinstance(size, int) else size[0])
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(preprocess[key]).view(3, 1, 1), persistent=False)

    def fits(self, text: str) -> bool:
        """Say whether all of a text is read: its tokens, a start and an end within the context length."""
        return len(self.tokenizer.encode(text)) + 2 <= self.tokenizer.context_length

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, D]`, unit length, float32. Longer ones are cut to the context length."""
        tokens = self.tokenizer(texts).to(self.mean.device)
        with torch.no_grad():
            return F.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed pictures `[M, 3, size, size]` in 0..1 as `[M, D]`, unit length, float32."""
        normal = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(normal).float(), dim=-1)


def load_clip(folder: Path, *, name: str, device: torch.device) -> OpenClip:
    """Load a folder that holds open_clip_config.json and open_clip_model.safetensors, frozen.

    A text config may name a byte-pair list of its own (`tokenizer_kwargs.bpe_path`), relative to the
    folder. Raises ModelError or IntegrityError.
    """
    logger = logging.getLogger()  # open_clip narrates its loading on the root logger
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
        options = dict(config.get("tokenizer_kwargs") or {})
        if "bpe_path" in options:
            options["bpe_path"] = str(folder / Path(options["bpe_path"]).name)
        tokenizer = open_clip.SimpleTokenizer(context_length=config.get("context_length", 77), **options)
        model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    except OSError as error:
        raise ModelError(f"the CLIP {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the CLIP in {folder} does not load: {error}", "it needs open_clip_config.json and its weights"
        ) from error
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"the weights in {folder} are damaged: {error}", "get the files again") from error
    finally:
        logger.setLevel(level)
    clip = OpenClip(name, model, tokenizer)
    clip.model.visual.to(memory_format=torch.channels_last)
    return clip.requires_grad_(False).eval().to(device)
