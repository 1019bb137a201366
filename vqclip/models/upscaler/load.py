"""An upscaler out of its file: the tensors by our own reader, the network by what they are called."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import IntegrityError, ModelError, is_out_of_memory
from ..fast.no_init import NoInit
from ..formats.read import read_tensors
from . import compact

# Where training code keeps a network's tensors. The averaged ones, params_ema, are those to be used.
NESTS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
PREFIXES = ("module.", "netG.")
COLOURS = 3
SCALES = (2, 8)
MARGIN = 32  # input pixels around a tile, for networks whose reach is not known: twice what is usual elsewhere
WINDOW = 16  # of those that look at windows: tiles begin at multiples, so that these stay where they were
SPARSE = 8  # layers without weights for one with, at most
KNOWN = "vqclip reads what spandrel reads: ESRGAN, Real-ESRGAN, Compact, SwinIR, HAT, DAT, SPAN, OmniSR, PLKSR, ..."
NOISY = ("AuraSR",)  # draw random numbers


class Network:
    """A super-resolution network, frozen, on a device, in float32: an `Upscaler` (core/interfaces.py)."""

    def __init__(
        self, name: str, run: Callable[[Tensor], Tensor], scale: int, device: torch.device, *,
        radius: int, step: int = 1, pixel_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Take a network that is ready; pixel_bytes: bytes of memory for each pixel of the input, 0 if unknown."""
        self.name, self.scale, self.device = name, scale, device
        self.radius, self.step, self.pixel_bytes = radius, step, pixel_bytes
        self._run = run

    def __call__(self, image: Tensor) -> Tensor:
        """Map an image `[N, 3, H, W]` in 0..1 to `[N, 3, H*scale, W*scale]` in 0..1."""
        with torch.no_grad():
            return self._run(image.to(self.device, torch.float32, copy=True)).clamp(0, 1)  # some write into theirs


def load(file: Path, *, name: str, device: torch.device) -> Network:
    """Load a network's file (.safetensors, .pth, ...). Raises ModelError, IntegrityError."""
    tensors = _plain(read_tensors(file, NESTS))
    _check(file, tensors)
    small = compact.build(tensors)
    if small is not None:
        _check_scale(file, small.scale)
        small = small.requires_grad_(False).eval().to(device)
        return Network(name, small, small.scale, device, radius=small.radius, pixel_bytes=small.pixel_bytes)
    return _by_spandrel(file, tensors, name, device)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names that they have in the network itself."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _check(file: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse what would build a network that no file of this size holds, or one that can't compute."""
    furthest = max((int(part) for name in tensors for part in re.findall(r"\d{1,9}", name)), default=0)
    if furthest > 100 + SPARSE * len(tensors):
        raise IntegrityError(f"{file} names a layer {furthest:,} and has {len(tensors)} tensors", "get the file again")
    for name, value in tensors.items():
        if value.numel() == 0 or value.is_complex():
            raise ModelError(f"{file}: {name[:80]} is empty or has complex numbers", KNOWN)
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{file}: {name[:80]} has numbers that are not finite", "get the file again")


def _by_spandrel(file: Path, tensors: dict[str, Tensor], name: str, device: torch.device) -> Network:
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    try:
        with NoInit(), warnings.catch_warnings(action="ignore"):
            descriptor = ModelLoader().load_from_state_dict(tensors)
    except UnsupportedModelError:
        raise ModelError(f"{file} is of no network that is known here", KNOWN) from None
    except Exception as error:  # tensors of any origin make its search raise anything
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{file} does not load: {reason}", KNOWN) from None
    kind = descriptor.architecture.name
    if not isinstance(descriptor, ImageModelDescriptor) or descriptor.purpose != "SR":
        raise ModelError(f"{file} is a {kind}: {descriptor.purpose.lower()}, not an upscaler", KNOWN)
    if (descriptor.input_channels, descriptor.output_channels) != (COLOURS, COLOURS):
        channels = f"{descriptor.input_channels} to {descriptor.output_channels}"
        raise ModelError(f"{file} is a {kind} of {channels} channels", "give one for colour images: 3 to 3")
    if descriptor.architecture.id in NOISY:
        raise ModelError(f"{file} is a {kind}, which draws other details every time", KNOWN)
    _check_scale(file, descriptor.scale)
    descriptor.model.requires_grad_(False).eval().float().to(device)
    step = math.lcm(WINDOW, descriptor.size_requirements.multiple_of)
    return Network(name, descriptor, descriptor.scale, device, radius=MARGIN, step=step)


def _check_scale(file: Path, scale: int) -> None:
    low, high = SCALES
    if not low <= scale <= high:
        raise ModelError(f"{file} makes images {scale} times as large", f"give one for {low} to {high} times")
