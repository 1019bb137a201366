"""Images that exist, made larger, one at a time."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..core.devices import choose_device
from ..errors import OutOfMemory, is_out_of_memory
from ..files.atomic import write_atomic
from ..files.carry_metadata import bare, enlarged
from ..files.images import load_with_alpha
from ..models.catalogue import find
from ..models.upscaler import BUNDLED, FACTOR, TILE
from ..models.upscaler.enlarge import check_factor, check_tile
from ..models.upscaler.image import bytes_needed, enlarge_image
from ..models.upscaler.load import Network
from .memory import available
from .networks import Networks


@dataclass(frozen=True)
class Done:
    """An image that was enlarged."""

    path: Path
    before: tuple[int, int]  # width, height
    after: tuple[int, int]
    seconds: float


class Enlarger:
    """An upscaler, a factor and a tile, for any number of images; the network is loaded with the first."""

    def __init__(
        self, name: str = BUNDLED, factor: int = FACTOR, tile: int = TILE, device: str | torch.device = "auto",
        networks: Networks | None = None, hint: str = "",
    ) -> None:  # fmt: skip
        """Check what was asked for; hint: what to do where memory is short. Raises UsageError, ModelError."""
        check_factor(factor)
        check_tile(tile)
        self.name, self.factor, self.tile = name, factor, tile
        self.device = choose_device(device) if isinstance(device, str) else device
        self.entry = find("upscaler", name)
        self.hint = hint or (f"use a smaller --tile than {tile}, or --by" if tile else "leave --tile 0 out")
        self._networks = networks or Networks()

    @property
    def tag(self) -> dict[str, str]:
        """Return the upscaler's name and hash, for metadata."""
        return {"name": self.entry.name, "sha256": self.entry.sha256()}

    @property
    def record(self) -> dict[str, Any]:
        """Return what an enlarged image says of it, as `upscale` in its record."""
        return {"factor": self.factor, "upscaler": self.tag}

    @property
    def network(self) -> Network:
        """The network, which is loaded when it is first needed. Raises ModelError, IntegrityError."""
        return self._networks.upscaler(self.name, self.device)

    def bytes_needed(self, size: tuple[int, int]) -> int | None:
        """Count the bytes that enlarging an image of (width, height) takes; None if that is not known."""
        return bytes_needed(size, self.factor, self.network, self.tile)

    def image(self, image: Image.Image, name: str = "") -> Image.Image:
        """Enlarge an RGB or RGBA image; name: what it is called where it is too large. Raises OutOfMemory."""
        need, have = self.bytes_needed(image.size), available(self.device)
        what = f"{name or 'the image'}, {image.width}x{image.height} pixels {self.factor} times as large"
        if need is not None and need > have:
            what += f", takes about {need / 1e9:.1f} GB, and {have / 1e9:.1f} GB is free"
            raise OutOfMemory(what, self.hint)
        try:
            return enlarge_image(image, self.factor, self.network, self.tile)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"there is too little memory for {what}", self.hint) from None

    def file(self, source: Path, target: Path, *, overwrite: bool = False, metadata: bool = True) -> Done:
        """Enlarge an image's file. Raises InputError, OutputError, OutputExists, OutOfMemory, UsageError."""
        before = load_with_alpha(source)
        began = time.monotonic()
        after = self.image(before, str(source))
        taken = time.monotonic() - began
        info = {str(key): value for key, value in before.info.items()}
        data = enlarged(after, info, target, self.tag, self.factor) if metadata else bare(after, info, target)
        write_atomic(target, data, replace=overwrite)
        return Done(target, before.size, after.size, taken)
