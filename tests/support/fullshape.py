"""The files of the preset `standard` in full shape, with random weights: what the public ones take, without them."""

import json

import open_clip
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import lightning, lightning_class
from vqclip.models.vqgan.taming import TamingVqgan

F16 = {"double_z": False, "resolution": 256, "in_channels": 3, "out_ch": 3, "dropout": 0.0, "ch": 128,
       "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "z_channels": 256, "attn_resolutions": [16]}  # fmt: skip
PUBLISHED = 980_092_370  # bytes of the published imagenet_f16_16384


def write_checkpoint(path):
    """Write a Lightning .ckpt of f16-16384: weights, a loss, Adam's two moments, a class among the callbacks."""
    torch.manual_seed(0)
    state = TamingVqgan("x", {"embed_dim": 256, "n_embed": 16384, "ddconfig": F16}).state_dict()
    moments = {n: {"exp_avg": value.clone(), "exp_avg_sq": value.clone()} for n, value in enumerate(state.values())}
    callback = lightning_class("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    rest = PUBLISHED - 3 * sum(value.numel() * 4 for value in state.values())
    whole = lightning(state | {"loss.discriminator.weight": torch.zeros(rest // 4)}, callbacks={callback: {}})
    torch.save(whole | {"optimizer_states": [{"state": moments}]}, path)


def write_clip(path):
    """Write the weights of a ViT-B-32 with QuickGELU, as safetensors."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def write_standard(folder):
    """Write both, and a catalogue by which they are the preset `standard`; return its path."""
    write_checkpoint(folder / "last.ckpt")
    write_clip(folder / "clip.safetensors")
    catalogue = folder / "models.toml"
    catalogue.write_text(
        f"[vqgan.imagenet_f16_16384]\npath = {json.dumps(str(folder / 'last.ckpt'))}\n"
        '[clip."ViT-B-32-quickgelu:openai"]\n'
        f"path = {json.dumps(str(folder / 'clip.safetensors') + '@ViT-B-32-quickgelu')}\n"
    )
    return catalogue
