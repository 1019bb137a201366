"""The loop: Crowson et al. 2022 (VQGAN-CLIP), as a generator that knows no files and no bars."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

import torch
from torch import Tensor

from ..errors import Diverged
from ..settings.schema import Settings
from .cutouts import make_cutouts
from .init import resample
from .interfaces import Clip, Vqgan
from .losses import LOSSES, Iterate, Target, prompt
from .quantize import nearest, quantize
from .straight_through import clamp_with_grad

TENSORS = ("z", "average", "moment1", "moment2")  # of a State


@dataclass(frozen=True)
class State:
    """All that the loop needs to go on after `step` updates: small tensors, nothing hidden.

    z, average and Adam's two moments are `[N, C, h, w]`, at the size of the leg at hand; `updates` are that leg's.
    """

    step: int
    updates: int
    z: Tensor
    average: Tensor
    moment1: Tensor
    moment2: Tensor

    @classmethod
    def begin(cls, z: Tensor, step: int = 0) -> "State":
        """Start a leg from a latent."""
        z = z.detach().contiguous()
        return cls(step, 0, z, z, torch.zeros_like(z), torch.zeros_like(z))


@dataclass(frozen=True)
class Step:
    """What one step leaves behind, detached.

    `step` updates are done. `latent` `[N, C, h, w]` is the averaged latent after them: what to decode and show.
    `losses` (name -> `[N]`) are of the picture before this update; `changed` is the share of codes that it changed.
    `state` is what `optimize` goes on from; None before the first update.
    """

    step: int
    latent: Tensor
    losses: dict[str, Tensor]
    changed: float
    state: State | None = None
    changes: Tensor | None = None  # [N], `changed` of each picture


def optimize(
    z: Tensor,
    vqgan: Vqgan,
    clips: list[Clip],
    targets: list[Target],
    settings: Settings,
    *,
    seeds: list[int] | None = None,
    state: State | None = None,
) -> Iterator[Step]:
    """Move the latent `z` `[N, C, h, w]` until the perceptors see their targets; yield after every step.

    The first `settings.coarse` of the steps run at half the size (a quarter of the decoder's cost, and what is
    drawn there is whole shapes), the rest from there at the full one.

    seeds: one a picture of the batch (default: the settings' seed for all). Losses are summed over the batch,
    so a picture's path does not depend on its neighbours. state: go on from there as if never stopped; `z` is still
    the very first latent. Raises Diverged, for the whole batch, when a loss or a gradient is not finite.
    """
    seeds = seeds or [settings.seed] * len(z)
    height, width = z.shape[-2:]
    coarse = coarse_steps(settings, height, width)
    small = resample(vqgan, z, math.ceil(height / 2), math.ceil(width / 2)) if coarse else z
    state = state or State.begin(small)
    if state.z.shape != z.shape:
        for step in _descend(state, small, vqgan, clips, targets, settings, seeds, coarse):
            state = step.state or state
            yield step
        state = State.begin(resample(vqgan, state.average, height, width), state.step)
    yield from _descend(state, z, vqgan, clips, targets, settings, seeds, settings.steps)


def coarse_steps(settings: Settings, height: int, width: int) -> int:
    """Return how many steps come first at half the size of a latent of so many places; one too small has none."""
    if min(height, width) < 4:
        return 0
    return min(round(settings.steps * settings.coarse), max(0, settings.steps - 1))


def _descend(
    state: State,
    z_init: Tensor,
    vqgan: Vqgan,
    clips: list[Clip],
    targets: list[Target],
    settings: Settings,
    seeds: list[int],
    until: int,
) -> Iterator[Step]:
    """Run one leg, at one size, from `state` until so many steps of the run are done.

    Differs from Crowson's notebook in: a learning rate in units of the codebook's spread, warmed up and
    decayed; gradients in units of their root mean square, so that Adam's epsilon means something; an average of the
    latent for the output; randomness from (seed, step) alone. The optimiser and the average begin anew with each leg.
    """
    codebook = vqgan.codebook
    spread = codebook.std(0).mean()
    low, high = (edge[:, None, None] for edge in codebook.aminmax(dim=0))
    weights = settings.loss_weights()
    z = state.z.clone().requires_grad_()
    average, updates = state.average.clone(), state.updates
    optimizer = torch.optim.Adam([z], lr=1.0, betas=(settings.momentum, 0.99), eps=max(settings.damping, 1e-8))
    moments = {"exp_avg": state.moment1.clone(), "exp_avg_sq": state.moment2.clone()}
    optimizer.state[z] = {"step": torch.tensor(float(updates)), **moments}
    before = nearest(z, codebook)

    for step, seeing in zip(range(state.step, until), perceptors(targets, settings, state.step), strict=False):
        progress = step / settings.steps
        for group in optimizer.param_groups:
            group["lr"] = float(settings.step_size * spread) * schedule(progress)

        optimizer.zero_grad(set_to_none=True)
        image = clamp_with_grad(vqgan.decode(quantize(z, codebook)), 0, 1)
        seen = image.detach().requires_grad_()
        prompts = _look(seen, [(clips[k], targets[k]) for k in seeing], settings, seeds, step)
        iterate = Iterate(z, z_init, image, spread, progress)
        others = {name: LOSSES[name](iterate) for name in weights if name in LOSSES}
        loss = prompts.sum() + sum(weights[name] * value.sum() for name, value in others.items())
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} at step {step}", "lower --step-size")
        pulls = [torch.full_like(value, weights[name]) for name, value in others.items()]
        torch.autograd.backward([image, *others.values()], [seen.grad, *pulls])
        if z.grad is not None:
            if not torch.isfinite(z.grad).all():
                raise Diverged(f"the gradient is not finite at step {step}", "lower --step-size")
            z.grad /= z.grad.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        optimizer.step()

        with torch.no_grad():
            z.clamp_(low, high)
            average.lerp_(z, 1 - min(settings.ema, updates / (updates + 1)))  # a plain mean until it spans the average
            updates += 1
            now = nearest(z, codebook)
            changes = (now != before).float().mean((1, 2))
            before = now
        latents = (tensor.detach().clone() for tensor in (z, average, moments["exp_avg"], moments["exp_avg_sq"]))
        after = State(step + 1, updates, *latents)
        told = {"prompt": prompts} | {name: value.detach() for name, value in others.items()}
        yield Step(after.step, after.average, told, float(changes.mean()), after, changes)


def perceptors(targets: list[Target], settings: Settings, first: int) -> Iterator[Sequence[int]]:
    """Yield which perceptors see the picture, from step `first` on: all of them, or one in turn.

    In turn each comes as often as its share asks, spread evenly: the next is the one whose turn has been due longest.
    """
    return repeat(range(len(targets))) if settings.clip_mix == "sum" else islice(_turns(targets), first, None)


def _turns(targets: list[Target]) -> Iterator[Sequence[int]]:
    due = [1 / target.share for target in targets]
    while True:
        index = due.index(min(due))
        yield [index]
        due[index] += 1 / targets[index].share


def seen_at_once(settings: Settings, device: torch.device) -> int:
    """Return how many views of a picture CLIP sees at once.

    On the CPU eight take no longer than all, and at 512x512 the decoder then needs more memory than they do.
    """
    usual = 8 if device.type == "cpu" else settings.cutouts
    return min(settings.chunk or usual, settings.cutouts)


def _look(
    image: Tensor, perceptors: Sequence[tuple[Clip, Target]], settings: Settings, seeds: list[int], step: int
) -> Tensor:
    """Return each picture's distance to the prompts `[N]`, its gradient already added to `image.grad`.

    Mean over views and, by their shares, over perceptors. Going back to the picture at once for every chunk of views,
    and to the decoder once for all, takes memory for one chunk of one perceptor, whatever the number of views.
    """
    total = torch.zeros(len(image), device=image.device)
    shares = sum(target.share for _, target in perceptors)
    at_once = max(1, settings.chunk // len(image)) if settings.chunk else seen_at_once(settings, image.device)
    for clip, target in perceptors:
        for first in range(0, settings.cutouts, at_once):
            views = make_cutouts(
                image,
                clip.size,
                settings.cutouts,
                seeds=seeds,
                step=step,
                overview=settings.overview,
                smallest=settings.smallest_cutout,
                augments=settings.augments,
                noise=settings.noise,
                margin=settings.margin,
                only=slice(first, first + at_once),
            )
            embeds = clip.encode_image(views).unflatten(0, (len(image), -1))
            distance = prompt(embeds, target).sum(1) * (target.share / shares / settings.cutouts)
            distance.sum().backward()
            total += distance.detach()
    return total


def schedule(progress: float) -> float:
    """Scale the learning rate: from a fifth up over the first 4% of the run, and a cosine down to a tenth."""
    return min(1.0, 0.2 + progress / 0.05) * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)
