"""Networks by name. Importing this loads none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cards import find

if TYPE_CHECKING:
    import torch

    from .openclip import OpenClip
    from .taming import TamingVqgan


def load_vqgan(name: str, device: torch.device) -> TamingVqgan:
    """Load a VQGAN by catalogue name or folder, frozen. Raises ModelError or IntegrityError."""
    from . import taming

    return taming.load_vqgan(find("vqgan", name).verified(), name=name, device=device)


def load_clip(name: str, device: torch.device) -> OpenClip:
    """Load a CLIP by catalogue name or folder, frozen. Raises ModelError or IntegrityError."""
    from . import openclip

    return openclip.load_clip(find("clip", name).verified(), name=name, device=device)
