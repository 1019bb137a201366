"""The loop: Crowson et al. 2022 (VQGAN-CLIP), as a generator that knows no files and no bars."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .cutouts import make_cutouts
from .errors import Diverged
from .grads import clamp_with_grad
from .losses import LOSSES, Iterate, Target
from .models.interfaces import Clip, Vqgan
from .quantize import nearest, quantize
from .settings import Settings


@dataclass(frozen=True)
class Step:
    """What one step leaves behind, detached.

    `step` updates are done. `latent` `[N, C, h, w]` is the averaged latent after them: what to decode and show.
    `losses` (name -> `[N]`) and `changed` (share of codes that this update's picture has new) are of the picture
    before this update.
    """

    step: int
    latent: Tensor
    losses: dict[str, Tensor]
    changed: float


def optimize(
    z: Tensor, vqgan: Vqgan, clips: list[Clip], targets: list[Target], settings: Settings, *, seeds: list[int] | None = None
) -> Iterator[Step]:
    """Move the latent `z` `[N, C, h, w]` until the perceptors see their targets; yield after every step.

    seeds: one a picture of the batch (default: the settings' seed for all). Losses are summed over the batch,
    so a picture's path does not depend on its neighbours. Raises Diverged when a loss is not finite.

    Differs from Crowson's notebook in: a learning rate in units of the codebook's spread, warmed up and
    decayed; an average of the latent for the output; randomness from (seed, step) alone.
    """
    seeds = seeds or [settings.seed] * len(z)
    codebook = vqgan.codebook
    spread = codebook.std(0).mean()
    low, high = (edge[:, None, None] for edge in codebook.aminmax(dim=0))
    weights = settings.loss_weights()
    z_init = z.detach().clone()
    z = z.detach().clone().requires_grad_()
    average = z_init.clone()
    optimizer = torch.optim.Adam([z], lr=1.0, betas=(settings.momentum, 0.99))
    before = nearest(z, codebook)

    for step in range(settings.steps):
        progress = step / settings.steps
        for group in optimizer.param_groups:
            group["lr"] = float(settings.step_size * spread) * schedule(step, settings.steps)

        z_q = quantize(z, codebook)
        image = clamp_with_grad(vqgan.decode(z_q), 0, 1)
        embeds = [
            clip.encode_image(
                make_cutouts(
                    image, clip.size, settings.cutouts, seeds=seeds, step=step, overview=settings.overview,
                    smallest=settings.smallest_cutout, augments=settings.augments, noise=settings.noise,
                )
            ).unflatten(0, (len(z), settings.cutouts))
            for clip in clips
        ]  # fmt: skip
        iterate = Iterate(z, z_init, image, embeds, targets, spread, progress)
        losses = {name: LOSSES[name](iterate) for name in weights}
        loss = sum(weights[name] * losses[name].sum() for name in weights)
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {float(loss)} at step {step}", "lower --step-size")

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        with torch.no_grad():
            z.clamp_(low, high)
            decay = min(settings.ema, step / (step + 1))  # the mean so far, until it spans more steps than the average
            average.lerp_(z, 1 - decay)
            now = nearest(z, codebook)
            changed = float((now != before).float().mean())
            before = now
        yield Step(step + 1, average.clone(), {name: value.detach() for name, value in losses.items()}, changed)


def schedule(step: int, steps: int) -> float:
    """Scale the learning rate: up over the first 5% of the steps, then a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(1.0, 0.05 * steps))
    return warm * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)
