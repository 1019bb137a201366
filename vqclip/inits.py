"""The first latent: a smooth random picture, random codes, a picture, or the best of many starts."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import Target, spherical_distance
from .models.interfaces import Clip, Vqgan
from .quantize import lookup, nearest, quantize
from .seeding import generator

Init = Callable[[Vqgan, int, int, int], Tensor]  # (vqgan, width, height, seed) -> z [1, C, h, w]


def smooth_image(width: int, height: int, gen: torch.Generator) -> Tensor:
    """Draw a soft random picture `[1, 3, H, W]` in 0..1: octaves of bicubic noise, the coarsest strongest."""
    image = torch.zeros(1, 3, height, width)
    for octave, cells in enumerate((2, 4, 8)):
        grid = torch.randn(1, 3, cells, cells, generator=gen)
        image += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False) * 0.5**octave
    return (0.5 + image * 0.2 + (torch.rand(1, 3, 1, 1, generator=gen) - 0.5) * 0.5).clamp(0, 1)


def smooth(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Encode a soft random picture."""
    image = smooth_image(width, height, generator(seed, "smooth"))
    with torch.no_grad():
        return vqgan.encode(image.to(vqgan.codebook))


def grey(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Encode a flat mid-grey picture, with a trace of noise so that seeds differ."""
    noise = torch.randn(1, 3, height, width, generator=generator(seed, "grey"))
    with torch.no_grad():
        return vqgan.encode((0.5 + 0.02 * noise).to(vqgan.codebook))


def codes(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Draw a random code for each place, from those that the model uses.

    Big codebooks are mostly codes that training never used, crowded at one point; drawing from all of them,
    as the peers do, starts flat brown. What encoding random pictures uses is live.
    """
    gen = generator(seed, "codes")
    with torch.no_grad():
        probes = torch.cat([smooth_image(width, height, gen) for _ in range(4)])
        live = nearest(vqgan.encode(probes.to(vqgan.codebook)), vqgan.codebook).flatten().unique()
    picks = live.cpu()[torch.randint(len(live), (1, height // vqgan.f, width // vqgan.f), generator=gen)]
    return lookup(picks.to(vqgan.codebook.device), vqgan.codebook)


def best_of(
    vqgan: Vqgan, clips: list[Clip], targets: list[Target], init: Init, width: int, height: int, seed: int, tries: int
) -> Tensor:
    """Draw `tries` starts and return the latent `[1, C, h, w]` of the one that CLIP finds nearest.

    FuseDream (Liu et al. 2021) does so with 10,000 pictures of a GAN; a few dozen already spare many steps.
    """
    if tries <= 1:
        return init(vqgan, width, height, seed)
    found: list[tuple[float, Tensor]] = []
    for attempt in range(tries):
        z = init(vqgan, width, height, seed if attempt == 0 else seed + 0x5EED * attempt)
        with torch.no_grad():
            image = vqgan.decode(quantize(z, vqgan.codebook)).clamp(0, 1)
            score = 0.0
            for clip, target in zip(clips, targets, strict=True):
                view = F.interpolate(image, (clip.size, clip.size), mode="bilinear", antialias=True)
                distance = spherical_distance(clip.encode_image(view)[:, None], target.embeds)
                score += float((distance * target.weights).sum())
        found.append((score, z))
    return min(found, key=lambda pair: pair[0])[1]


INITS: dict[str, Init] = {
    "codes": codes,
    "grey": grey,
    "smooth": smooth,
}
