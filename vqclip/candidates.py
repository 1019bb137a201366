"""Candidates: pictures that a Mini DALL-E draws from a text, and how near CLIP finds each to the prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ModelError, UsageError
from .images import fit, to_picture, to_tensor
from .inits import encode
from .losses import Target, spherical_distance
from .models import load_dalle
from .models.cards import find
from .models.dalle import LANES, Dalle, partner_of
from .models.interfaces import Clip, Vqgan
from .quantize import lookup
from .settings import Settings

LIMITS = {"count": (1, 4096), "top_k": (1, 65536), "temperature": (0.01, 10), "guidance": (0, 100)}


@dataclass(frozen=True)
class Draw:
    """How candidates are drawn; what of it is not given is the model's usual."""

    dalle: str = "mini"
    count: int = 16
    top_k: int = 256  # codes, the likeliest, that each place is drawn from
    temperature: float = 1.0
    guidance: float = 4.0  # how far past the text's own logits, away from those without a text; 1 is none

    def __post_init__(self) -> None:
        """Check every value. Raises UsageError."""
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # nan is refused too
                raise UsageError(f"{name.replace('_', '-')}: {value:g} is out of range", f"use {low:g} to {high:g}")


def told(settings: Settings) -> str:
    """Return the text that is drawn: the first that pulls. Raises UsageError where none does."""
    texts = [prompt.text for prompt in settings.prompts() if prompt.weight > 0]
    if not texts:
        raise UsageError("there is no text to draw from", 'say what to draw, e.g. vqclip sample "a red heart"')
    return texts[0]


def partner(name: str, vqgan: str = "") -> str:
    """Return the VQGAN that a Mini DALL-E's codes are of, once both are found to be here; loads neither.

    vqgan: the one that is to be used, where that is decided. Raises ModelError for another, or where one is not here.
    """
    card = find("dalle", name)
    own = partner_of(card.folder)
    if vqgan not in (own, ""):
        what = f"the codes of the Mini DALL-E {card.name!r} are those of the VQGAN {own}, not of {vqgan}"
        raise ModelError(what, f"use --vqgan {own}")
    find("vqgan", own)
    return own


def draw_codes(dalle: Dalle, text: str, draw: Draw, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Draw all candidates, LANES at a time; yield (number of the first, codes so far `[n, k]`) after each code."""
    for first in range(0, draw.count, LANES):
        numbers = range(first, min(first + LANES, draw.count))
        for codes in dalle.sample(
            text, numbers, seed=seed, top_k=draw.top_k, temperature=draw.temperature, scale=draw.guidance
        ):
            yield first, codes


def rank(images: Tensor, clips: Sequence[Clip], targets: Sequence[Target]) -> Tensor:
    """Return each picture's distance to the prompts `[N]`: the loop's own, of the whole picture, a mean over CLIPs."""
    distances = []
    for clip, target in zip(clips, targets, strict=True):
        with torch.no_grad():
            view = F.interpolate(images, (clip.size, clip.size), mode="bicubic", antialias=True).clamp(0, 1)
            embeds = torch.cat([clip.encode_image(part) for part in view.split(16)])
            distances.append((spherical_distance(embeds[:, None], target.embeds) * target.weights).sum(1))
    return torch.stack(distances).mean(0)


def latent(dalle: Dalle, vqgan: Vqgan, codes: Tensor) -> Tensor:
    """Return the latent `[n, C, h, w]` of whole codes: their vectors, or what encoding their pictures gives."""
    if dalle.pixels == "vqgan":
        return lookup(codes.unflatten(1, (dalle.side, dalle.side)), vqgan.codebook)
    with torch.no_grad():
        return vqgan.encode(dalle.decode(codes, vqgan))


def best(
    settings: Settings, vqgan: Vqgan, clips: Sequence[Clip], targets: Sequence[Target], device: torch.device
) -> tuple[Tensor, str]:
    """Return the latent `[1, C, h, w]` of the candidate that is nearest to the prompts, and a line that tells of it.

    Its picture is scaled to cover another size than the Mini DALL-E's own, and encoded.
    """
    draw = Draw(settings.dalle, settings.candidates, guidance=settings.guidance)
    dalle = load_dalle(draw.dalle, device)
    ends = {first: codes for first, codes in draw_codes(dalle, told(settings), draw, settings.seed)}
    codes = torch.cat(list(ends.values()))
    distances = rank(torch.cat([dalle.decode(part, vqgan) for part in codes.split(LANES)]), clips, targets)
    chosen = int(distances.argmin())
    note = f"the start is number {chosen} of {draw.count} candidates, distance {float(distances[chosen]):.3f}"
    code = codes[chosen : chosen + 1]
    if settings.size == (dalle.side * vqgan.f,) * 2:
        return latent(dalle, vqgan, code), note
    return encode(vqgan, to_tensor(fit(to_picture(dalle.decode(code, vqgan)), settings.size))), note
