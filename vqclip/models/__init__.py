"""Networks by name. Importing this loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelError
from .catalogue import find

if TYPE_CHECKING:
    import torch

    from .clip import OpenClip
    from .dalle import Dalle
    from .vqgan.taming import TamingVqgan


def load_vqgan(name: str, device: torch.device) -> TamingVqgan:
    """Load a VQGAN by name, folder or checkpoint, frozen. Raises ModelError or IntegrityError."""
    from .vqgan import taming

    card = find("vqgan", name)
    if card.file:
        from .vqgan.convert import read_checkpoint

        card.verified()
        architecture, tensors = read_checkpoint(card.file)
        return taming.ready(taming.build(card.name, architecture.config(), tensors), device)
    return taming.load_vqgan(card.verified(), name=card.name, device=device)


def load_clip(name: str, device: torch.device) -> OpenClip:
    """Load a CLIP by name, folder or FILE@ARCHITECTURE, frozen. Raises ModelError or IntegrityError."""
    from . import clip as openclip

    card = find("clip", name)
    if card.file:
        from .formats.read import read_tensors
        from .formats.sniff import check_format

        card.verified()
        tensors = read_tensors(card.file)  # says what is wrong with a file better than open_clip does
        given = tensors if check_format(card.file) == "torchscript" else None  # which open_clip would run
        return openclip.load_file(card.file, card.architecture, given, name=card.name, device=device)
    return openclip.load_clip(card.verified(), name=card.name, device=device)


def load_dalle(name: str, device: torch.device) -> Dalle:
    """Load a Mini DALL-E by name or folder, frozen. Raises ModelError or IntegrityError."""
    from . import dalle

    card = find("dalle", name)
    if card.file:
        raise ModelError(f"{card.file} is half of a Mini DALL-E at most", "give its folder, with its words")
    return dalle.load_dalle(card.verified(), name=card.name, device=device)
