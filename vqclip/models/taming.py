"""VQGANs in the layout of taming-transformers. The only file that imports taming."""

import contextlib
import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

from ..errors import IntegrityError, ModelError

taming.nonlinearity = F.silu  # taming's x * sigmoid(x), without keeping the sigmoid for the backward pass


class TamingVqgan(nn.Module):
    """taming's Encoder and Decoder with a codebook, under taming's own state-dict names."""

    def __init__(self, name: str, config: dict) -> None:
        """Build from a config with taming's fields: embed_dim, n_embed, ddconfig."""
        super().__init__()
        dd, dim = config["ddconfig"], config["embed_dim"]
        with contextlib.redirect_stdout(io.StringIO()):  # taming's Decoder prints its shape
            self.encoder, self.decoder = taming.Encoder(**dd), taming.Decoder(**dd)
        self.quant_conv = nn.Conv2d(dd["z_channels"], dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, dd["z_channels"], 1)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config["n_embed"], dim)})
        self.name = name
        self.f = 2 ** (len(dd["ch_mult"]) - 1)

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors, `[n_embed, embed_dim]`, float32."""
        return self.get_parameter("quantize.embedding.weight")

    def encode(self, image: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` in 0..1 to the latent `[N, embed_dim, H/f, W/f]`, float32."""
        return self.quant_conv(self.encoder(image * 2 - 1))

    def decode(self, z_q: Tensor) -> Tensor:
        """Map a latent `[N, embed_dim, h, w]` to `[N, 3, h*f, w*f]`, about 0..1, not clamped."""
        return self.decoder(self.post_quant_conv(z_q)) / 2 + 0.5


def load_vqgan(folder: Path, *, name: str, device: torch.device) -> TamingVqgan:
    """Load `config.json` and `model.safetensors` from a folder, frozen, in float32 and channels_last.

    Raises ModelError where a file is missing or does not fit, IntegrityError where it is damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        model = TamingVqgan(name, config)
        state = load_file(folder / "model.safetensors")
    except OSError as error:
        raise ModelError(f"the VQGAN {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}/config.json is not a VQGAN's config: {error!r}", "it needs embed_dim, n_embed, ddconfig"
        ) from error
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"{folder}/model.safetensors is damaged: {error}", "get the file again") from error
    try:
        model.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise ModelError(
            f"{folder}/model.safetensors does not fit its config: {error}", "take both from the same place"
        ) from error
    return model.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
