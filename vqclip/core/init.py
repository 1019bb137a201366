"""The first latent: flat grey, random codes, or the soft random image of many that CLIP likes best."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings.colours import rgb
from ..settings.schema import Settings
from .decoding import mirror
from .interfaces import Clip, LoopInputs, Target, Vqgan
from .losses import frame_pixels, spherical_distance
from .quantize import lookup, nearest, quantize
from .seeding import derive, generator

Init = Callable[[LoopInputs], Tensor]  # -> z [1, C, h, w] for the settings' size and seed
BATCH = 64  # images that CLIP sees at once


def grey(inputs: LoopInputs) -> Tensor:
    """Encode a flat mid-grey image, with a trace of noise so that seeds differ."""
    width, height = inputs.settings.size
    noise = torch.randn(1, 3, height, width, generator=generator(inputs.settings.seed, "grey"))
    return encode(inputs.vqgan, 0.5 + 0.02 * noise)


def codes(inputs: LoopInputs) -> Tensor:
    """Draw a random code for each position, from those that the model uses.

    Big codebooks are mostly codes that training never used, crowded at one point; drawing from all of them,
    as the peers do, starts flat brown. What encoding random images uses is live.
    """
    vqgan, seed = inputs.vqgan, inputs.settings.seed
    width, height = inputs.settings.size
    images = [smooth_image(width, height, seed + k) for k in range(4)]
    live = nearest(torch.cat([encode(vqgan, image) for image in images]), vqgan.codebook).unique()
    shape = 1, height // vqgan.f, width // vqgan.f
    picks = live.cpu()[torch.randint(len(live), shape, generator=generator(seed, "codes"))]
    return lookup(picks.to(vqgan.codebook.device), vqgan.codebook)


def smooth(inputs: LoopInputs) -> Tensor:
    """Encode a soft random image: of `settings.tries` that the seed gives, the one that CLIP finds nearest."""
    settings = inputs.settings
    seed = best_seed(inputs.clips, inputs.targets, settings.seed, settings.tries)
    return encode(inputs.vqgan, smooth_image(*settings.size, seed))


def smooth_image(width: int, height: int, seed: int) -> Tensor:
    """Draw a soft random image `[1, 3, H, W]` in 0..1: octaves of bicubic noise, the coarsest strongest.

    The same seed gives the same image at every size.
    """
    gen = generator(seed, "smooth")
    image = torch.zeros(1, 3, height, width)
    for octave, cells in enumerate((2, 4, 8)):
        grid = torch.randn(1, 3, cells, cells, generator=gen)
        image += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False) * 0.5**octave
    return (0.5 + image * 0.2 + (torch.rand(1, 3, 1, 1, generator=gen) - 0.5) * 0.5).clamp(0, 1)


def best_seed(clips: list[Clip], targets: list[Target], seed: int, tries: int) -> int:
    """Return the seed, of `tries`, whose soft random image is nearest to the targets.

    FuseDream (Liu et al. 2021) chooses among 10,000 images of a GAN; a few dozen soft ones cost one step.
    """
    if tries == 1:
        return seed
    seeds = [seed, *(derive(seed, "try", attempt) for attempt in range(1, tries))]
    distances = torch.zeros(tries)
    for clip, target in zip(clips, targets, strict=True):
        for first in range(0, tries, BATCH):
            images = torch.cat([smooth_image(clip.size, clip.size, s) for s in seeds[first : first + BATCH]])
            with torch.no_grad():
                embeds = clip.encode_image(images.to(target.embeds.device))
            distance = spherical_distance(embeds[:, None], target.embeds) * target.overall
            distances[first : first + BATCH] += distance.sum(1).cpu() * target.weight
    return seeds[int(distances.argmin())]


def encode(vqgan: Vqgan, image: Tensor) -> Tensor:
    """Encode an image `[N, 3, H, W]` in 0..1 on the model's device, without a gradient."""
    with torch.no_grad():
        return vqgan.encode(image.to(vqgan.codebook))


def framed(vqgan: Vqgan, z: Tensor, settings: Settings) -> Tensor:
    """Return a first latent `[N, C, h, w]` whose image has the frame of the settings; within, it is as it was.

    The loss alone brings a white edge half the way to teal, at whatever weight: the few steps of a refinement reach no
    further.
    """
    if "frame" not in settings.loss_weights():
        return z
    with torch.no_grad():
        image = vqgan.decode(quantize(z, vqgan.codebook)).clamp(0, 1)
        width = frame_pixels(image, settings)
        painted = image.new_tensor(rgb(settings.frame))[:, None, None].expand_as(image).clone()
        inside = (..., slice(width, -width), slice(width, -width))
        painted[inside] = image[inside]
        edge = torch.ones_like(z, dtype=torch.bool)
        positions = math.ceil(width / vqgan.f)
        edge[..., positions:-positions, positions:-positions] = False
        return torch.where(edge, vqgan.encode(painted), z)


def resample(vqgan: Vqgan, z: Tensor, height: int, width: int, mirrored: str = "none") -> Tensor:
    """Carry a latent `[N, C, h, w]` over to another size, `height` times `width` positions, by way of its image.

    mirrored: the axes along which one half of the image is copied onto the other.
    """
    with torch.no_grad():
        image = vqgan.decode(quantize(z, vqgan.codebook)).clamp(0, 1)
        image = image if mirrored == "none" else mirror(image, mirrored)
        size = (height * vqgan.f, width * vqgan.f)
        return vqgan.encode(F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1))


INITS: dict[str, Init] = {"codes": codes, "grey": grey, "smooth": smooth}
