"""Loaded networks, kept for the runs that follow."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..core.devices import LOWER_PRECISION
from ..core.interfaces import Clip, Head, Vqgan
from ..models import load_clip, load_dalle, load_head, load_upscaler, load_vqgan
from ..models.dalle import Dalle
from ..settings.schema import Settings

if TYPE_CHECKING:
    from ..models.upscaler.load import Network

STEPPING = ("vqgan", "clip")  # the kinds that every step computes with
Loader = Callable[[str, torch.device], Any]
LOADERS: dict[str, Loader] = {
    "vqgan": load_vqgan,
    "clip": load_clip,
    "dalle": load_dalle,
    "upscaler": load_upscaler,
    "head": load_head,
}


class Networks:
    """Loads networks, each once, and keeps those that were last asked for."""

    def __init__(self, loaders: dict[str, Loader] | None = None) -> None:
        """Start empty. loaders: functions that load other networks than the catalogue's, by kind."""
        self._loaders = LOADERS | (loaders or {})
        self._held: dict[tuple[str, str, str], Any] = {}
        self._lock = threading.RLock()  # rows of a batch that run side by side load each network once

    def of(self, settings: Settings, device: torch.device) -> tuple[Vqgan, list[Clip]]:
        """Return the VQGAN and the CLIPs of settings; other networks are released first."""
        keys = [(kind, name, settings.precision if kind in STEPPING else "") for kind, name in settings.models()]
        with self._lock:
            self._held = {key: self._held[key] for key in keys if key in self._held}
            vqgan, *clips = (self._load(*key, device) for key in keys if key[0] in STEPPING)
        return vqgan, clips

    def clip(self, name: str, device: torch.device) -> Clip:
        """Return a CLIP in float32."""
        return self._load("clip", name, "float32", device)

    def dalle(self, name: str, device: torch.device) -> Dalle:
        """Return a Mini DALL-E."""
        return self._load("dalle", name, "", device)

    def upscaler(self, name: str, device: torch.device) -> "Network":
        """Return an upscaler."""
        return self._load("upscaler", name, "", device)

    def head(self, name: str, device: torch.device) -> Head:
        """Return a head."""
        return self._load("head", name, "", device)

    def has_dalle(self, name: str) -> bool:
        """Return whether a Mini DALL-E is loaded."""
        return ("dalle", name, "") in self._held

    def _load(self, kind: str, name: str, precision: str, device: torch.device) -> Any:
        key = kind, name, precision
        with self._lock:
            if key not in self._held:
                network = self._loaders[kind](name, device)
                if precision == "bfloat16":
                    network.lower(LOWER_PRECISION)
                self._held[key] = network
            return self._held[key]
