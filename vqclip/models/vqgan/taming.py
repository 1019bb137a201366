"""The network of taming-transformers' VQGANs. The only module that imports taming."""

import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

from ...core.quantize import lookup
from ...errors import ModelError
from ..fast import decoder as fast_decoder
from ..fast.no_init import NoInit
from ..formats.read import check_complete
from .architecture import infer
from .config import check_config
from .layouts import to_taming

taming.nonlinearity = F.silu  # taming's x * sigmoid(x), without keeping the sigmoid for the backward pass

# Range of the network's images -> (black, white). taming feeds image/127.5 - 1 (taming/data/base.py), and so do latent
# diffusion (ldm/data/), VQ-Diffusion (patch_vqgan.py: data / 127.5 - 1), LlamaGen (reconstruction_vq_ddp.py: Normalize
# with 0.5, 0.5) and Open-MAGVIT2 (reconstruct.py). amused is trained on ToTensor() alone and decoded with clip(0, 1)
# (diffusers: examples/amused/train_amused.py, pipelines/amused/).
PIXELS = {"signed": (-1, 1), "unit": (0, 1)}


class TamingVqgan(nn.Module):
    """taming's Encoder and Decoder with a codebook, under taming's own state-dict names."""

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        """Build from a config with taming's fields: embed_dim, n_embed, ddconfig.

        Three fields are ours: `quantizer` is nearest, gumbel (taming's GumbelVQ) or cosine (LlamaGen: codes and latents
        of unit length); `mid_attention` is false for amused and LDM's noattn models; `pixels`, a key of PIXELS, is the
        range of the images that the network was trained on.
        """
        super().__init__()
        dd, dim, codes = config["ddconfig"], config["embed_dim"], config["n_embed"]
        with contextlib.redirect_stdout(io.StringIO()):  # taming's Decoder prints its shape
            self.encoder, self.decoder = taming.Encoder(**dd), taming.Decoder(**dd)
        if not config.get("mid_attention", True):
            self.encoder.mid.attn_1 = self.decoder.mid.attn_1 = nn.Identity()
        self.quant_conv = nn.Conv2d(dd["z_channels"], dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, dd["z_channels"], 1)
        self.quantizer = config.get("quantizer", "nearest")
        if self.quantizer not in ("nearest", "gumbel", "cosine"):
            raise ValueError(f"unknown quantizer {self.quantizer!r}")
        self.use_pixels(config.get("pixels", "signed"))
        if self.quantizer == "gumbel":
            self.quantize = nn.ModuleDict({"embed": nn.Embedding(codes, dim), "proj": nn.Conv2d(dim, codes, 1)})
        else:
            self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, dim)})
        self.name = name
        self.notes: tuple[str, ...] = ()
        self.f = 2 ** (len(dd["ch_mult"]) - 1)

    def use_pixels(self, pixels: str) -> None:
        """Take the network's images to be in a range of PIXELS."""
        self.pixels = pixels
        self.low, high = PIXELS[pixels]
        self.span = high - self.low

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors, `[n_embed, embed_dim]`, float32; of unit length where the quantizer is cosine."""
        return self.get_parameter(f"quantize.{'embed' if self.quantizer == 'gumbel' else 'embedding'}.weight")

    def encode(self, image: Tensor) -> Tensor:
        """Map images `[N, 3, H, W]` in 0..1 to latents `[N, embed_dim, H/f, W/f]`, float32.

        A Gumbel model's latent is the vector of its most probable code. taming samples a code with noise even in
        evaluation; here the same image has the same latent.
        """
        z = self.quant_conv(self.encoder(image * self.span + self.low))
        if self.quantizer == "gumbel":
            return lookup(self.quantize["proj"](z).argmax(1), self.codebook)
        return F.normalize(z, dim=1) if self.quantizer == "cosine" else z

    def decode(self, z_q: Tensor) -> Tensor:
        """Map latents `[N, embed_dim, h, w]` to images `[N, 3, h*f, w*f]`, about 0..1, not clamped, float32."""
        z = fast_decoder.conv(z_q.to(self.post_quant_conv.weight.dtype), self.post_quant_conv)
        return fast_decoder.decode(self.decoder, z).float() / self.span - self.low / self.span

    def lower(self, dtype: torch.dtype) -> None:
        """Let `decode` compute in a lower precision; the codebook and `encode` stay in float32."""
        self.post_quant_conv.to(dtype)
        self.decoder.to(dtype)


def read(
    tensors: dict[str, Tensor], yaml: Path | None, note: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's config and its tensors under taming's names, checked to be complete.

    yaml: its config file, which must fit. note: called with what is left out, or not compared. Raises ModelError.
    """
    layout, renamed = to_taming(tensors, note)
    config = infer(renamed, cosine=layout.cosine)
    amused = layout.name == "diffusers" and not config["mid_attention"]  # the only VQModels of diffusers without any
    config["pixels"] = "unit" if amused else "signed"
    if yaml:
        check_config(yaml, config, note)
    _empty("", config, renamed)
    return config, renamed


def build(
    name: str,
    config: dict[str, Any],
    shapes: dict[str, Tensor],
    tensors: Iterable[tuple[str, Tensor]],
    device: torch.device,
) -> TamingVqgan:
    """Build a frozen VQGAN around float32 copies of tensors, in channels_last.

    shapes: the same tensors, of which only the shapes are looked at. Raises ModelError that names what is missing,
    left over, or of another shape; KeyError, TypeError or ValueError for a wrong config.
    """
    model = _empty(name, config, shapes)
    state = {}
    for key, value in tensors:
        layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
        state[key] = value.to(torch.float32, copy=True, memory_format=layout)  # no longer the file's memory
    if model.quantizer == "cosine":
        state["quantize.embedding.weight"] = F.normalize(state["quantize.embedding.weight"], dim=1)
    model.load_state_dict(state, assign=True)
    return freeze(model, device)


def _empty(name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> TamingVqgan:
    """Return a VQGAN without memory for its weights, for which the tensors are checked to be complete."""
    depth = config["ddconfig"]["num_res_blocks"] * len(config["ddconfig"]["ch_mult"])
    if depth > len(tensors):  # a network that would take for ever to build
        raise ValueError("more blocks than there are tensors")
    with torch.device("meta"), NoInit():
        model = TamingVqgan(name, config)
    dd = config["ddconfig"]
    if (dd["in_channels"], dd["out_ch"]) != (3, 3):
        what = f"its images have {dd['in_channels']} channels, and what it makes of them has {dd['out_ch']}"
        raise ModelError(f"{what}; not 3 (RGB)", "take a VQGAN of colour images")
    check_complete(model.state_dict(), tensors)
    return model


def freeze(model: TamingVqgan, device: torch.device) -> TamingVqgan:
    """Freeze a VQGAN and move it to a device, in channels_last, its decoder for `fast.decoder.decode` alone."""
    model.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    fast_decoder.make_fast(model.decoder)
    return model
