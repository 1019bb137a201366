"""The first latent: a random picture that CLIP likes best of many, flat grey, random codes, or a given picture."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .interfaces import Clip, Vqgan
from .losses import Target, spherical_distance
from .quantize import lookup, nearest, quantize
from .seeding import derive, generator

Init = Callable[[Vqgan, int, int, int], Tensor]  # (vqgan, width, height, seed) -> z [1, C, h, w]


def smooth_image(width: int, height: int, seed: int) -> Tensor:
    """Draw a soft random picture `[1, 3, H, W]` in 0..1: octaves of bicubic noise, the coarsest strongest.

    The same seed gives the same picture at every size.
    """
    gen = generator(seed, "smooth")
    image = torch.zeros(1, 3, height, width)
    for octave, cells in enumerate((2, 4, 8)):
        grid = torch.randn(1, 3, cells, cells, generator=gen)
        image += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False) * 0.5**octave
    return (0.5 + image * 0.2 + (torch.rand(1, 3, 1, 1, generator=gen) - 0.5) * 0.5).clamp(0, 1)


def smooth(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Encode a soft random picture."""
    return encode(vqgan, smooth_image(width, height, seed))


def grey(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Encode a flat mid-grey picture, with a trace of noise so that seeds differ."""
    noise = torch.randn(1, 3, height, width, generator=generator(seed, "grey"))
    return encode(vqgan, 0.5 + 0.02 * noise)


def codes(vqgan: Vqgan, width: int, height: int, seed: int) -> Tensor:
    """Draw a random code for each place, from those that the model uses.

    Big codebooks are mostly codes that training never used, crowded at one point; drawing from all of them,
    as the peers do, starts flat brown. What encoding random pictures uses is live.
    """
    gen = generator(seed, "codes")
    live = nearest(torch.cat([smooth(vqgan, width, height, seed + k) for k in range(4)]), vqgan.codebook).unique()
    picks = live.cpu()[torch.randint(len(live), (1, height // vqgan.f, width // vqgan.f), generator=gen)]
    return lookup(picks.to(vqgan.codebook.device), vqgan.codebook)


def best_seed(clips: list[Clip], targets: list[Target], seed: int, tries: int) -> int:
    """Return the seed whose soft random picture the perceptors find nearest to their targets, of `tries`.

    FuseDream (Liu et al. 2021) chooses among 10,000 pictures of a GAN; a few dozen soft ones cost one step.
    """
    seeds = [seed, *(derive(seed, "try", attempt) for attempt in range(1, tries))]
    score = torch.zeros(tries)
    for clip, target in zip(clips, targets, strict=True):
        for start in range(0, tries, 64):
            views = torch.cat([smooth_image(clip.size, clip.size, s) for s in seeds[start : start + 64]])
            with torch.no_grad():
                embeds = clip.encode_image(views.to(target.embeds.device))
            distance = spherical_distance(embeds[:, None], target.embeds) * target.weights
            score[start : start + 64] += distance.sum(1).cpu() * target.share
    return seeds[int(score.argmin())]


def encode(vqgan: Vqgan, image: Tensor) -> Tensor:
    """Encode a picture `[N, 3, H, W]` in 0..1 on the model's device, without a gradient."""
    with torch.no_grad():
        return vqgan.encode(image.to(vqgan.codebook))


def resample(vqgan: Vqgan, z: Tensor, height: int, width: int) -> Tensor:
    """Carry a latent `[N, C, h, w]` over to another size, `height` by `width` places, through its picture."""
    with torch.no_grad():
        image = vqgan.decode(quantize(z, vqgan.codebook)).clamp(0, 1)
        size = (height * vqgan.f, width * vqgan.f)
        return vqgan.encode(F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1))


INITS: dict[str, Init] = {
    "codes": codes,
    "grey": grey,
    "smooth": smooth,
}
