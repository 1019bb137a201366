"""An image enlarged and drawn anew: window by window, so that memory is that of one window, without seams."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config.resolve import REFINE, resolve
from ..core.decoding import decode_to_show
from ..core.init import encode
from ..core.interfaces import Target
from ..core.loop import optimize
from ..core.quantize import quantize
from ..core.seeding import derive
from ..errors import InputError, UsageError
from ..files.images import to_picture, to_tensor
from ..settings.schema import Settings
from ..settings.sizes import MAX_PIXELS
from .memory import fit_memory, watched
from .records import read, settings_of
from .run_dir import drawn_image
from .session import Session
from .upscale import Enlarger

# What belongs to the whole image, or to its making, and not to a window.
WHOLE = {
    "init": "grey",
    "init_image": None,
    "candidate_weight": 0.0,
    "mask": None,
    "target_image": None,
    "tile": "none",
    "symmetry": "none",
    "frame": "",
    "stop_after": 0,
    "final": "last",
    "upscale": 0,
}
OnWindow = Callable[[int, int], None]  # windows done, of how many


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def settings_for(source: Path, prompt: str, preset: str, given: dict[str, Any]) -> Settings:
    """Return the settings of windows: those that a run or an image records, else the preset's.

    prompt: instead of the recorded one, "" for that. given: settings over all of that. Raises UsageError, InputError.
    """
    try:
        record: dict[str, Any] | None = read(source)
    except InputError:
        record = None
    changes = {**REFINE, **WHOLE, **({"prompt": prompt} if prompt else {}), **given}
    if record:
        return settings_of(source, record, changes)
    if not changes.get("prompt"):
        raise UsageError(f"{source} does not say what it shows", 'say it: --prompt "a red heart"')
    return resolve(changes.pop("prompt"), preset, changes.pop("seed", 0), **changes)


def source_image(source: Path) -> Path:
    """Return the file of an image, or of a run's as it was drawn. Raises InputError."""
    return drawn_image(source) if source.is_dir() else source


def enlarge(
    image: Image.Image, settings: Settings, enlarger: Enlarger, *, overlap: float = 0.25, on_window: OnWindow
) -> Image.Image:
    """Return an RGB image enlarged, each window of it refined by the loop towards its prompts.

    The settings' size is that of a window, in pixels of the result. Raises UsageError, OutOfMemory, Diverged.
    """
    if image.width * image.height * enlarger.factor**2 > MAX_PIXELS:
        raise UsageError("the enlarged image has over 64 million pixels", "use a smaller --by")
    with watched(settings):
        large = to_tensor(enlarger.image(image))
        size = (min(settings.size[0], large.shape[3]), min(settings.size[1], large.shape[2]))
        session = Session.load(settings.model_copy(update={"size": size}), str(enlarger.device))
        fit_memory(session, fit=True)
        return session.finished(to_picture(_refined(session, large, overlap, on_window)))


def _refined(session: Session, large: Tensor, overlap: float, on_window: OnWindow) -> Tensor:
    """Return `[1, 3, H, W]` of refined windows, faded into each other by raised cosines."""
    f = session.vqgan.f
    across, down = (
        side - f * (side > room) for side, room in zip(session.settings.size, large.shape[:1:-1], strict=True)
    )
    parts = list(windows(large.shape[3], large.shape[2], across, down, overlap))
    total, weights = torch.zeros_like(large), torch.zeros_like(large[:, :1])
    for number, part in enumerate(parts):
        on_window(number, len(parts))
        rows, columns = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
        weight = fading(part, large.shape[3], large.shape[2], overlap)
        total[..., rows, columns] += weight * _refine(session, large[..., rows, columns], part, large.shape, number)
        weights[..., rows, columns] += weight
    on_window(len(parts), len(parts))
    return total / weights


def _refine(session: Session, image: Tensor, part: Window, shape: torch.Size, number: int) -> Tensor:
    """Run the loop on a window `[1, 3, h, w]` of an image of a shape; return it anew, in 0..1, on the CPU."""
    targets = [of_window(target, part, shape) for target in session.targets]
    settings = session.settings.model_copy(update={"size": (part.width, part.height)})
    inputs = replace(session.inputs(targets), settings=settings)
    z = encode(session.vqgan, image)
    for step in optimize(inputs, z, seeds=[derive(settings.seed, "window", number)]):
        z = step.latent
    with torch.no_grad():
        return decode_to_show(inputs, quantize(z, session.vqgan.codebook)).clamp(0, 1).float().cpu()


def of_window(target: Target, part: Window, shape: torch.Size) -> Target:
    """Return a target whose prompts count where their regions lie in a window."""
    if target.region_masks is None:
        return target
    side = target.region_masks.shape[-1]
    whole = F.interpolate(target.region_masks[None], tuple(shape[-2:]), mode="nearest")
    cut = whole[..., part.top : part.top + part.height, part.left : part.left + part.width]
    return replace(target, region_masks=F.interpolate(cut, (side, side), mode="area")[0])


def windows(width: int, height: int, across: int, down: int, overlap: float) -> Iterator[Window]:
    """Yield windows of `across` times `down` pixels that cover an image, evenly, and overlap by at least a share."""
    for top in _starts(height, down, overlap):
        for left in _starts(width, across, overlap):
            yield Window(left, top, across, down)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    gaps = math.ceil((length - window) / max(1, window * (1 - overlap)))
    return [round((length - window) * k / gaps) for k in range(gaps + 1)] if gaps else [0]


def fading(part: Window, width: int, height: int, overlap: float) -> Tensor:
    """Return a window's weights `[1, 1, h, w]`: a raised cosine over the overlap, but for where the image ends."""
    rows = _fade(part.height, round(part.height * overlap), part.top > 0, part.top + part.height < height)
    columns = _fade(part.width, round(part.width * overlap), part.left > 0, part.left + part.width < width)
    return (rows[:, None] * columns)[None, None]


def _fade(length: int, over: int, before: bool, after: bool) -> Tensor:
    rising = (torch.arange(length) + 0.5) / max(1, over)
    ramp = torch.sin(rising.clamp(max=1) * math.pi / 2).square()
    return (ramp if before else torch.ones(length)) * (ramp.flip(0) if after else torch.ones(length))
