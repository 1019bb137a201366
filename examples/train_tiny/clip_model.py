"""The two CLIPs' shapes (open_clip model configs), their shared short vocabulary, and loading them.

The image tower starts from ImageNet weights; the text tower is an ordinary open_clip transformer.
The vocabulary is the first merges of open_clip's own byte-pair list: the 49,408 rows of the full one
would be most of a small model's bytes. Rare words fall into more pieces, nothing is unreadable.
"""

import copy
import gzip
import json
from pathlib import Path

import open_clip
import torch
from features import weights
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from torch import Tensor, nn

from vqclip.models.wording import normalize

CONTEXT = 32
CONFIGS = {
    "clip": {"tower": "lite0", "merges": 10_000, "size": 96, "embed_dim": 256, "width": 256, "heads": 8, "layers": 3},
    "judge": {"tower": "lite2", "merges": 6_000, "size": 128, "embed_dim": 192, "width": 192, "heads": 6, "layers": 3},
}


class Worded(SimpleTokenizer):
    """Reads texts as the bundled CLIP does, in the words of the captions."""

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Return tokens `[n, context_length]`."""
        texts = [texts] if isinstance(texts, str) else texts
        return super().__call__([normalize(text) for text in texts], context_length)


def model_config(name: str) -> dict:
    """Return the open_clip model config of `clip` or `judge`."""
    c = CONFIGS[name]
    return {
        "embed_dim": c["embed_dim"],
        "vision_cfg": {
            "timm_model_name": f"tf_efficientnet_{c['tower']}", "timm_model_pretrained": False, "timm_pool": "avg",
            "timm_proj": "linear", "timm_drop": 0.0, "timm_drop_path": 0.0, "image_size": c["size"],
        },
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": 512 + c["merges"] + 2, "width": c["width"], "heads": c["heads"],
            "layers": c["layers"], "tokenizer_kwargs": {"bpe_path": f"{name}_merges.txt.gz"},
        },
    }  # fmt: skip


def write_config(name: str, folder: Path) -> SimpleTokenizer:
    """Write `<name>.json` and its merges into `folder`; return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(model_config(name), indent=2) + "\n")
    full = gzip.decompress(Path(default_bpe()).read_bytes()).decode()
    lines = full.split("\n")[: 1 + CONFIGS[name]["merges"]]
    merges = folder / f"{name}_merges.txt.gz"
    merges.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))
    tokenizer = Worded if name == "clip" else SimpleTokenizer  # the judge takes texts as they are
    return tokenizer(str(merges), context_length=CONTEXT)


def create(name: str, folder: Path, *, imagenet: bool = True) -> tuple[nn.Module, SimpleTokenizer]:
    """Build the model through open_clip from its config, its image tower holding ImageNet weights."""
    tokenizer = write_config(name, folder)
    config = copy.deepcopy(model_config(name))
    del config["text_cfg"]["tokenizer_kwargs"]
    model = open_clip.CLIP(**config)
    if imagenet:
        model.visual.trunk.load_state_dict(weights(CONFIGS[name]["tower"]))
    return model, tokenizer


def encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    """Do what `model.encode_text` does on tokens cut to their longest row: the same values, sooner.

    Attention is causal and the text is read at its end token, so what follows it changes nothing.
    """
    length = int(tokens.argmax(1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x), device=x.device), tokens.argmax(1)] @ model.text_projection
