"""Networks by name. Importing this loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError
from .catalogue import find

if TYPE_CHECKING:
    import torch

    from ..core.interfaces import Clip, Head, Vqgan
    from .dalle import Dalle
    from .upscaler.load import Network


def load_vqgan(name: str, device: torch.device) -> Vqgan:
    """Load a VQGAN by name, folder or checkpoint, frozen. Raises ModelError or IntegrityError."""
    from .vqgan.checkpoints import load_file, load_folder

    entry = find("vqgan", name)
    folder = entry.verified()
    if entry.file:
        return load_file(entry.file, name=entry.name, device=device, pixels=entry.facts.pixels)
    return load_folder(folder, name=entry.name, device=device, pixels=entry.facts.pixels)


def load_clip(name: str, device: torch.device) -> Clip:
    """Load a CLIP by name, folder or FILE@ARCHITECTURE, frozen. Raises ModelError or IntegrityError."""
    entry = find("clip", name)
    folder = entry.verified()
    if entry.bundled:  # without open_clip, whose import takes longer than all that the bundled models do until a step
        from . import lite_clip

        return lite_clip.load(folder, name=entry.name, device=device)
    from . import clip

    if entry.file:
        return clip.load_file(entry.file, entry.architecture, name=entry.name, device=device)
    return clip.load_clip(folder, name=entry.name, device=device)


def load_dalle(name: str, device: torch.device) -> Dalle:
    """Load a Mini DALL-E by name or folder, frozen. Raises ModelError or IntegrityError."""
    from . import dalle
    from .dalle.tokenizer import plain
    from .wording import normalize

    entry = find("dalle", name)
    if entry.file:
        what = f"{entry.file} is half of a Mini DALL-E at most"
        raise ModelError(what, "give its folder, with the files of its tokenizer")
    words = (lambda text: plain(normalize(text))) if entry.bundled else None  # with the space in front that it learnt
    return dalle.load_dalle(entry.verified(), name=entry.name, device=device, normalize=words)


def load_head(name: str, device: torch.device) -> Head:
    """Load a head by name or file. Raises ModelError or IntegrityError."""
    from .head import load

    entry = find("head", name)
    entry.verified()
    return load(entry.weights, device=device)


def load_upscaler(name: str, device: torch.device) -> Network:
    """Load an upscaler by name or file, frozen. Raises ModelError or IntegrityError."""
    from .upscaler.load import load

    entry = find("upscaler", name)
    entry.verified()
    return load(entry.weights, name=entry.name, device=device)
