"""The loop of VQGAN-CLIP (Crowson et al. 2022), as a generator that knows no files and no progress bars.

A step: quantise the latent, decode it, cut the image into differently seen cutouts, let CLIP compare them with the
prompts, and move the latent against the gradient. Randomness is a function of (seed, step) alone, so that a run goes
on from a `State` as if it had never stopped.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import Diverged
from ..settings.schema import Settings
from .adam import Adam
from .cutouts import CutoutConfig, make_cutouts
from .decoding import decode_for_step, perturb
from .fades import fade
from .init import resample
from .interfaces import LoopInputs, Target
from .losses import LOSSES, LossContext, prompt_distance
from .quantize import live_codes, nearest, quantize
from .regions import region_shares
from .straight_through import clamp_with_grad, with_gradient

BETA2 = 0.99  # of Adam; torch's 0.999 remembers longer than a run of a hundred steps
CPU_CHUNK = 8  # cutouts that CLIP sees at once on the CPU: no slower than all, and the decoder then needs more memory

StageName = Literal["coarse", "full", "unknown"]  # unknown: of a checkpoint of release 0.1, until its size is seen


@dataclass(frozen=True)
class Stage:
    """A part of the run at one size of the latent, until `until` steps of the run are done."""

    name: StageName
    until: int
    height: int  # of the latent, in positions
    width: int


@dataclass(frozen=True)
class State:
    """All that the loop needs to go on after `step` steps.

    z and ema (the exponential moving average of z, which is what is shown) are `[N, C, h, w]`, at the size of the
    stage. Adam and the average begin anew with each stage.
    """

    step: int
    stage: StageName
    z: Tensor
    ema: Tensor
    adam: Adam

    @classmethod
    def begin(cls, z: Tensor, stage: StageName = "full", step: int = 0) -> "State":
        """Return the state at the start of a stage."""
        z = z.detach().contiguous()
        return cls(step, stage, z, z, Adam.begin(z))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that checkpoints give them."""
        return {"z": self.z, "average": self.ema, "moment1": self.adam.m, "moment2": self.adam.v}

    def with_tensors(self, tensors: dict[str, Tensor]) -> "State":
        """Return this state with other tensors, named as `tensors` names them."""
        adam = Adam(tensors["moment1"], tensors["moment2"], self.adam.t)
        return replace(self, z=tensors["z"], ema=tensors["average"], adam=adam)

    def to(self, device: torch.device) -> "State":
        """Return this state on a device."""
        return self.with_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})


@dataclass(frozen=True)
class Step:
    """What one step leaves behind, detached.

    `step` steps are done. `latent` `[N, C, h, w]` is the averaged latent after them: what to decode and show.
    `losses` (name -> `[N]`) are of the image before this update; `changed` is the share of codes that it changed, and
    `changes` `[N]` that of each image. `state` is what `optimize` goes on from; None before the first update.
    """

    step: int
    latent: Tensor
    losses: dict[str, Tensor]
    changed: float
    state: State | None = None
    changes: Tensor | None = None


def optimize(
    inputs: LoopInputs, z: Tensor, *, seeds: list[int] | None = None, state: State | None = None
) -> Iterator[Step]:
    """Move the latent `z` `[N, C, h, w]` until the CLIPs see their targets in the image; yield after every step.

    The first `settings.coarse` of the steps run at half the size, which costs a quarter and settles whole shapes; the
    rest go on from there at the full size.

    seeds: one an image (default: the settings' seed for all). Losses are summed over the batch, so an image does not
    depend on its neighbours. state: go on from there; `z` is still the very first latent. Raises Diverged, for the
    whole batch, when a loss or a gradient is not finite.
    """
    vqgan, seeds = inputs.vqgan, seeds or [inputs.settings.seed] * len(z)
    for stage in stages(inputs.settings, *z.shape[-2:]):
        if state and state.stage == "full" and stage.name == "coarse":
            continue
        z_init = z if stage.name == "full" else resample(vqgan, z, stage.height, stage.width)
        if state is None:
            state = State.begin(z_init, stage.name)
        elif state.stage != stage.name:
            state = State.begin(resample(vqgan, state.ema, stage.height, stage.width), stage.name, state.step)
        for step in _optimize_stage(inputs, stage, z_init, state, seeds):
            state = step.state
            yield step


def stages(settings: Settings, height: int, width: int) -> list[Stage]:
    """Return the stages of a run whose full latent has `height` times `width` positions; a tiny one has no coarse."""
    full = Stage("full", settings.steps, height, width)
    coarse = min(round(settings.steps * settings.coarse), max(0, settings.steps - 1))
    if not coarse or min(height, width) < 4:
        return [full]
    return [Stage("coarse", coarse, math.ceil(height / 2), math.ceil(width / 2)), full]


def _optimize_stage(inputs: LoopInputs, stage: Stage, z_init: Tensor, state: State, seeds: list[int]) -> Iterator[Step]:
    """Run the steps of one stage from `state`.

    Differs from Crowson's notebook in: a learning rate in units of the live codes' std, warmed up and decayed;
    gradients scaled to a root mean square of 1 per image, and an epsilon of Adam of about that size
    (`settings.damping`), so that positions with small gradients move less; an average of the latent for what is
    shown; several CLIPs; the gradient by chunks of cutouts; a coarse stage first; randomness from (seed, step) alone.
    """
    codebook, names, steps = inputs.vqgan.codebook, inputs.settings.loss_weights(), inputs.settings.steps
    live = live_codes(codebook)
    codebook_std = live.std(0).mean()
    low, high = (edge[:, None, None] for edge in live.aminmax(dim=0))
    z, ema, adam = state.z.clone().requires_grad_(), state.ema.clone(), state.adam
    codes = nearest(z, codebook)
    clips = clip_schedule(inputs.targets, inputs.settings)

    for step in range(state.step, stage.until):
        progress = step / steps
        now = inputs.at(progress)  # curves become numbers
        settings, weights = now.settings, dict.fromkeys(names, 0.0) | now.settings.loss_weights()
        noise = float(settings.latent_noise * codebook_std) * fade("latent_noise", progress, settings)
        z_seen = perturb(z, noise, seeds, step)
        z_q = quantize(z_seen, codebook, None if noise else codes)  # nearest codes, straight-through gradient
        image = clamp_with_grad(decode_for_step(now, z_q, seeds, step), 0, 1)
        context = LossContext(z, z_init, image, codebook_std, progress, settings)
        regularizers = {name: LOSSES[name](context) for name in weights if name in LOSSES}
        losses = {"prompt": clip_guidance(image, now, clips[step], seeds, step), **regularizers}
        loss = sum((weights[name] * value.sum() for name, value in losses.items()), torch.zeros(()))
        check_finite(loss, "loss", step + 1)
        (gradient,) = torch.autograd.grad(loss, z)
        check_finite(gradient, "gradient", step + 1)

        lr = float(settings.step_size * codebook_std) * fade("step_size", progress, settings)
        eps = max(settings.damping, 1e-8)
        adam = adam.step(z, unit_rms(gradient), lr=lr, beta1=settings.momentum, beta2=BETA2, eps=eps)
        with torch.no_grad():
            z.clamp_(low, high)  # stay inside the live codes' range
            ema.lerp_(z, 1 - min(settings.ema, (adam.t - 1) / adam.t))  # at first the plain mean of all latents so far

        codes, before = nearest(z, codebook), codes
        changes = (codes != before).float().mean((1, 2))
        after = State(step + 1, stage.name, z.detach().clone(), ema.clone(), adam)
        detached = {name: value.detach() for name, value in losses.items()}
        yield Step(step + 1, after.ema, detached, float(changes.mean()), after, changes)


def clip_guidance(image: Tensor, inputs: LoopInputs, which: Sequence[int], seeds: list[int], step: int) -> Tensor:
    """Return each image's distance to its prompts `[N]`, differentiable with respect to the image.

    The mean over cutouts and, by their weights, over the CLIPs `which`. The gradient is computed here and now, chunk
    by chunk, and only kept for the image: so one chunk of one CLIP's activations is in memory at a time, whatever the
    number of cutouts.
    """
    settings, config = inputs.settings, CutoutConfig.of(inputs.settings)
    leaf = image.detach().requires_grad_()
    total = torch.zeros(len(image), device=image.device)
    weight_sum = sum(inputs.targets[k].weight for k in which)
    chunk = chunk_size(settings, image.device, len(image))
    for k in which:
        clip, target = inputs.clips[k], inputs.targets[k]
        for first in range(0, config.count, chunk):
            only = slice(first, first + chunk)
            cutouts = make_cutouts(leaf, clip.size, config, seeds=seeds, step=step, only=only)
            if inputs.on_cutouts:
                inputs.on_cutouts(step, k, cutouts.detach())
            embeds = clip.encode_image(cutouts).unflatten(0, (len(image), -1))
            shares = region_shares(target.masks, image, clip.size, config, seeds=seeds, step=step, only=only)
            distance = prompt_distance(embeds, target, shares).sum(1) * (target.weight / weight_sum / config.count)
            distance.sum().backward()
            total += distance.detach()
    assert leaf.grad is not None  # there is at least one cutout
    return with_gradient(total, image, leaf.grad)  # backward has run: hand its result on to autograd


def chunk_size(settings: Settings, device: torch.device, images: int = 1) -> int:
    """Return how many cutouts of each of so many images CLIP sees at once; `settings.chunk` counts all images'."""
    default = CPU_CHUNK if device.type == "cpu" else settings.cutouts
    return min(max(1, settings.chunk // images) if settings.chunk else default, settings.cutouts)


def clip_schedule(targets: Sequence[Target], settings: Settings) -> list[Sequence[int]]:
    """Return for each step the indices of the CLIPs that see the image: all, or one by weighted round-robin.

    In turns, the next CLIP is the one whose turn has been due longest, so that each comes as often as its weight says.
    """
    if settings.clip_mix == "sum":
        return [range(len(targets))] * settings.steps
    due = [1 / target.weight for target in targets]
    schedule: list[Sequence[int]] = []
    for _ in range(settings.steps):
        index = due.index(min(due))
        schedule.append([index])
        due[index] += 1 / targets[index].weight
    return schedule


def unit_rms(gradient: Tensor) -> Tensor:
    """Scale a gradient `[N, C, h, w]` to a root mean square of 1 for each image; one of zeros stays."""
    return gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def check_finite(tensor: Tensor, name: str, step: int) -> None:
    """Raise Diverged where a tensor holds what is not a number, or infinite."""
    if not torch.isfinite(tensor).all():
        value = f"is {tensor.item()}" if tensor.ndim == 0 else "is not finite"
        raise Diverged(f"the {name} {value} at step {step}", "lower --step-size")
