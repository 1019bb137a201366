"""VQGANs in the layout of taming-transformers. The only file that imports taming."""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

from ...core.quantize import lookup
from ...errors import IntegrityError, ModelError, is_out_of_memory
from ..fast import decoder as frozen
from ..fast.no_init import Hollow

taming.nonlinearity = F.silu  # taming's x * sigmoid(x), without keeping the sigmoid for the backward pass


class TamingVqgan(nn.Module):
    """taming's Encoder and Decoder with a codebook, under taming's own state-dict names."""

    def __init__(self, name: str, config: dict) -> None:
        """Build from a config with taming's fields: embed_dim, n_embed, ddconfig.

        `quantizer` may be gumbel (taming's GumbelVQ) or cosine (LlamaGen: codes and latents of unit length);
        `mid_attention` may be false (amused, LDM's noattn).
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
        if self.quantizer == "gumbel":
            self.quantize = nn.ModuleDict({"embed": nn.Embedding(codes, dim), "proj": nn.Conv2d(dim, codes, 1)})
        else:
            self.quantize = nn.ModuleDict({"embedding": nn.Embedding(codes, dim)})
        self.name = name
        self.f = 2 ** (len(dd["ch_mult"]) - 1)

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors, `[n_embed, embed_dim]`, float32; of unit length where the quantizer is cosine."""
        return self.get_parameter(f"quantize.{'embed' if self.quantizer == 'gumbel' else 'embedding'}.weight")

    def encode(self, image: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` in 0..1 to the latent `[N, embed_dim, H/f, W/f]`, float32.

        A Gumbel model's latent is the vector of its most probable code. taming draws a code with noise even in
        evaluation; here the same picture has the same latent.
        """
        z = self.quant_conv(self.encoder(image * 2 - 1))
        if self.quantizer == "gumbel":
            return lookup(self.quantize["proj"](z).argmax(1), self.codebook)
        return F.normalize(z, dim=1) if self.quantizer == "cosine" else z

    def decode(self, z_q: Tensor) -> Tensor:
        """Map a latent `[N, embed_dim, h, w]` to `[N, 3, h*f, w*f]`, about 0..1, not clamped, float32."""
        z = frozen.conv(z_q.to(self.post_quant_conv.weight.dtype), self.post_quant_conv)
        return frozen.decode(self.decoder, z).float() / 2 + 0.5

    def lower(self, dtype: torch.dtype) -> None:
        """Let `decode` compute in a type of lower precision; the codebook and `encode` stay in float32."""
        self.post_quant_conv.to(dtype)
        self.decoder.to(dtype)


def build(name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> TamingVqgan:
    """Build a VQGAN around copies of tensors that must be all of it. Raises as `shell` does."""
    return fill(shell(name, config, tensors), tensors.items())


def shell(name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> TamingVqgan:
    """Build a VQGAN that holds no weights yet, once the tensors are found to be all of it.

    Raises ModelError that names what is missing, left over, or of another shape; KeyError, TypeError or ValueError
    for a config that is none.
    """
    with torch.device("meta"), Hollow():
        model = TamingVqgan(name, config)
    _check_whole({key: value.shape for key, value in model.state_dict().items()}, tensors)
    return model


def fill(model: TamingVqgan, tensors: Iterable[tuple[str, Tensor]]) -> TamingVqgan:
    """Give a VQGAN copies of all its tensors, in float32 and channels_last, and return it."""
    state = {}
    for key, value in tensors:
        layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
        state[key] = value.to(torch.float32, copy=True, memory_format=layout)  # no longer the file's
    if model.quantizer == "cosine":
        state["quantize.embedding.weight"] = F.normalize(state["quantize.embedding.weight"], dim=1)
    model.load_state_dict(state, assign=True)
    return model


def _check_whole(needed: dict[str, torch.Size], tensors: dict[str, Tensor]) -> None:
    wrong = {
        "lacks": [key for key in needed if key not in tensors],
        "has besides": [key for key in tensors if key not in needed],
        "has in other shapes": [key for key in needed if key in tensors and tensors[key].shape != needed[key]],
        "has as whole numbers": [key for key in needed if key in tensors and not tensors[key].is_floating_point()],
    }
    told = [f"it {what} {', '.join(key[:80] for key in keys[:3])}" + (f" and {len(keys) - 3} more" if keys[3:] else "")
            for what, keys in wrong.items() if keys]  # fmt: skip
    if told:
        raise ModelError("; ".join(told), "it is cut off, or of a kind that is not supported")


def load_vqgan(folder: Path, *, name: str, device: torch.device) -> TamingVqgan:
    """Load `config.json` and `model.safetensors` from a folder, frozen, in float32 and channels_last.

    Raises ModelError where a file is missing or does not fit, IntegrityError where it is damaged.
    """
    weights = folder / "model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        mapped = load_file(weights)  # read when they are looked at, and here their shapes alone are
    except OSError as error:
        raise ModelError(f"the VQGAN {name!r} cannot be read: {error}", "see: vqclip models list") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder}/config.json is not a VQGAN's config: {error!r}", "it must be JSON") from error
    except MemoryError:
        raise
    except Exception as error:  # safetensors has no public error class of its own
        raise IntegrityError(f"{weights} is damaged: {error}", "get the file again") from error
    try:
        if config["ddconfig"]["num_res_blocks"] * len(config["ddconfig"]["ch_mult"]) > len(mapped):
            raise ValueError("more blocks than there are tensors")
        model = fill(shell(name, config, mapped), _one_by_one(weights))
    except ModelError as error:
        raise ModelError(f"{weights} does not fit its config: {error.what}", "take both from the same place") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{folder}/config.json is not a VQGAN's config: {error!r}", "it needs embed_dim, n_embed, ddconfig"
        ) from error
    return ready(model, device)


def _one_by_one(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's tensors. It is opened anew for each, so that no more than one counts as this process's memory."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(name)


def ready(model: TamingVqgan, device: torch.device) -> TamingVqgan:
    """Freeze a VQGAN and bring it to a device, lean and in channels_last. Its decoder is then frozen.decode's alone."""
    model.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    frozen.make_lean(model.decoder)
    return model
