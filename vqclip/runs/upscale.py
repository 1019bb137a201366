"""Images that exist, made larger, one at a time."""

import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..core.devices import choose_device
from ..errors import OutOfMemory, is_out_of_memory
from ..files.atomic import write_atomic
from ..files.carry_metadata import bare, enlarged
from ..files.images import load_with_alpha
from ..models import load_upscaler
from ..models.catalogue import find
from ..models.upscaler import BUNDLED, FACTOR, TILE
from ..models.upscaler.enlarge import check_factor, check_tile
from ..models.upscaler.image import bytes_needed, enlarge_image
from ..models.upscaler.load import Network
from .memory import available


@dataclass(frozen=True)
class Done:
    """An image that was enlarged."""

    path: Path
    before: tuple[int, int]  # width, height
    after: tuple[int, int]
    seconds: float


class Enlarger:
    """An upscaler, a factor and a tile, for any number of images; the network is loaded with the first."""

    def __init__(self, name: str = BUNDLED, factor: int = FACTOR, tile: int = TILE, device: str = "auto") -> None:
        """Check what was asked for. Raises UsageError, and ModelError for the name."""
        check_factor(factor)
        check_tile(tile)
        self.name, self.factor, self.tile, self.device = name, factor, tile, choose_device(device)
        self.entry = find("upscaler", name)
        self._network: Network | None = None

    @property
    def tag(self) -> dict[str, str]:
        """Return the upscaler's name and hash, for metadata."""
        return {"name": self.entry.name, "sha256": self.entry.sha256()}

    def image(self, image: Image.Image, name: str = "") -> Image.Image:
        """Enlarge an RGB or RGBA image; name: what it is called where it is too large. Raises OutOfMemory."""
        self._network = self._network or load_upscaler(self.name, self.device)
        need, have = bytes_needed(image.size, self.factor, self._network, self.tile), available(self.device)
        what = f"{name or 'the image'}, {image.width}x{image.height} pixels {self.factor} times as large"
        hint = f"use a smaller --tile than {self.tile}, or --by" if self.tile else "leave --tile 0 out"
        if need is not None and need > have:
            raise OutOfMemory(f"{what}, takes about {need / 2**30:.1f} GB, and {have / 2**30:.1f} GB is free", hint)
        try:
            return enlarge_image(image, self.factor, self._network, self.tile)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"there is too little memory for {what}", hint) from None

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
