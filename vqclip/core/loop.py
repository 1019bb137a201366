"""The loop of VQGAN-CLIP (Crowson et al. 2022), as a generator that knows no files and no progress bars.

A step: quantise the latent, decode it, cut the image into differently seen cutouts, let CLIP compare them with the
prompts, and move the latent against the gradient. Randomness is a function of (seed, step) alone, so that a run goes
on from a `State` as if it had never stopped.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import Diverged
from ..settings.schema import Settings
from .cutouts import HELD_OUT_STEP, CutoutConfig, make_cutouts
from .decoding import decode_for_step, decode_to_show, mirrored_steps, perturb
from .fades import fade
from .forms import FORMS
from .held_out import HeldOut
from .init import resample
from .interfaces import LoopInputs, Target
from .losses import CLIP_LOSSES, LOSSES, LossContext, Seen
from .optimizers import OPTIMIZERS, Moments, Rates
from .quantize import quantize, spread
from .regions import region_shares
from .straight_through import clamp_with_grad, with_gradient

BETA2 = 0.99  # of Adam; torch's 0.999 remembers longer than a run of a hundred steps
USUAL_BETA2 = 0.999  # with an absolute learning rate
LOOK_EVERY = 5  # steps between two looks at the held-out cutouts
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

    z is what the optimiser moves, and ema the exponential moving average of its latent, which is what is shown:
    `[N, C, h, w]`, at the size of the stage; z has a channel for each code where logits are moved. The moments and the
    average begin anew with each stage. held_out: what cutouts that no step sees have said of the full size.
    """

    step: int
    stage: StageName
    z: Tensor
    ema: Tensor
    moments: Moments
    held_out: HeldOut | None = None

    @classmethod
    def begin(cls, latent: Tensor, stage: StageName = "full", step: int = 0, z: Tensor | None = None) -> "State":
        """Return the state at the start of a stage. z: what is moved, where it is not the latent itself."""
        latent = latent.detach().contiguous()
        z = latent if z is None else z.detach().contiguous()
        return cls(step, stage, z, latent, Moments.begin(z))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that checkpoints give them."""
        tensors = {"z": self.z, "average": self.ema, "moment1": self.moments.m, "moment2": self.moments.v}
        tensors |= {"gradient": self.moments.gradient} if self.moments.gradient is not None else {}
        return tensors | ({"best": self.held_out.best} if self.held_out else {})

    def with_tensors(self, tensors: dict[str, Tensor]) -> "State":
        """Return this state with other tensors, named as `tensors` names them."""
        moments = Moments(tensors["moment1"], tensors["moment2"], self.moments.t, tensors.get("gradient"))
        held_out = replace(self.held_out, best=tensors["best"]) if self.held_out else None
        return replace(self, z=tensors["z"], ema=tensors["average"], moments=moments, held_out=held_out)

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

    def shown(self, settings: Settings) -> "Step":
        """Return the step whose image is the finished one: this, or the best so far where the settings say so."""
        held_out = self.state.held_out if self.state else None
        if settings.final == "last" or held_out is None:
            return self
        return replace(self, step=held_out.step, latent=held_out.best)


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
    vqgan, settings, form = inputs.vqgan, inputs.settings, FORMS[inputs.settings.latent]
    seeds, mirrored = seeds or [settings.seed] * len(z), mirrored_steps(settings)
    for stage in stages(settings, *z.shape[-2:]):
        if state and (state.step >= stage.until or (state.stage == "full" and stage.name == "coarse")):
            continue
        z_init = z if stage.name == "full" else resample(vqgan, z, stage.height, stage.width)
        if state is None:
            state = State.begin(z_init, stage.name, 0, form.begin(z_init, vqgan.codebook))
        elif state.stage != stage.name or state.step == mirrored > 0:
            axes = settings.symmetry if state.step <= mirrored else "none"
            z_now = resample(vqgan, state.ema, stage.height, stage.width, axes)
            begun = State.begin(z_now, stage.name, state.step, form.begin(z_now, vqgan.codebook))
            state = replace(begun, held_out=state.held_out)
        for step in _optimize_stage(inputs, stage, z_init, state, seeds):
            state = step.state
            yield step


def stages(settings: Settings, height: int, width: int) -> list[Stage]:
    """Return the stages of a run whose full latent has `height` times `width` positions; a tiny one has no coarse."""
    full = Stage("full", settings.steps, height, width)
    coarse = min(round(settings.steps * settings.coarse), max(0, settings.steps - 1))
    if not coarse or min(height, width) < 4:
        return split([full], mirrored_steps(settings))
    half = Stage("coarse", coarse, math.ceil(height / 2), math.ceil(width / 2))
    return split([half, full], mirrored_steps(settings))


def split(parts: list[Stage], step: int) -> list[Stage]:
    """Return stages of which none goes on beyond a step within it: a part of it does."""
    whole, first = [], 0
    for part in parts:
        whole += [replace(part, until=step)] if first < step < part.until else []
        whole.append(part)
        first = part.until
    return whole


def _optimize_stage(inputs: LoopInputs, stage: Stage, z_init: Tensor, state: State, seeds: list[int]) -> Iterator[Step]:
    """Run the steps of one stage from `state`.

    Differs from Crowson's notebook in: a learning rate in units of the live codes' std, warmed up and decayed;
    gradients scaled to a root mean square of 1 per image, and an epsilon of Adam of about that size
    (`settings.damping`), so that positions with small gradients move less; an average of the latent for what is
    shown; several CLIPs; the gradient by chunks of cutouts; a coarse stage first; randomness from (seed, step) alone.
    """
    known = {**LOSSES, **inputs.losses}
    codebook, names, steps = inputs.vqgan.codebook, inputs.settings.loss_weights(), inputs.settings.steps
    form, codebook_std = FORMS[inputs.settings.latent], spread(codebook)
    unit, (low, high) = form.unit(codebook), form.bounds(codebook)
    z_target = inputs.z_target
    if z_target is not None and stage.name == "coarse":
        z_target = resample(inputs.vqgan, z_target, stage.height, stage.width)
    z, ema, moments = state.z.clone().requires_grad_(), state.ema.clone(), state.moments
    codes = form.codes(z, codebook)
    clips, held_out = clips_by_step(inputs.targets, inputs.settings), state.held_out

    for step in range(state.step, stage.until):
        if held_out and held_out.stalled(inputs.settings.stop_after):
            return
        progress = step / steps
        now = inputs.at(progress)  # curves become numbers
        settings, weights = now.settings, dict.fromkeys(names, 0.0) | now.settings.loss_weights()
        weights |= dict.fromkeys(inputs.losses, 1.0)
        noise = float(settings.latent_noise * codebook_std) * fade("latent_noise", progress, settings)
        latent = form.latent(z, codebook)
        z_seen = perturb(latent, noise, seeds, step)
        z_q = quantize(z_seen, codebook, None if noise else codes)  # nearest codes, straight-through gradient
        image = clamp_with_grad(decode_for_step(now, z_q, seeds, step), 0, 1)
        context = LossContext(latent, z_init, image, codebook_std, progress, settings, z_target)
        seen, clip_loss = clip_guidance(image, now, weights, clips[step], seeds, step)
        regularizers = {name: known[name](context) for name in weights if name in known}
        losses = {**seen, **regularizers}
        loss = (clip_loss + weighted_sum(regularizers, weights)).sum()
        check_finite(loss, "loss", step + 1)
        (gradient,) = torch.autograd.grad(loss, z)
        check_finite(gradient, "gradient", step + 1)

        rates = step_rates(settings, unit, progress, absolute=inputs.settings.learning_rate != 0)
        with torch.no_grad():
            moments = OPTIMIZERS[settings.optimizer](moments, z, unit_rms(gradient), rates)
            z.clamp_(low, high)  # stay inside the live codes' range
            decay = min(settings.ema, (moments.t - 1) / moments.t)  # at first the plain mean of all latents so far
            ema.lerp_(form.settled(z, codebook), 1 - decay)

        codes, before = form.codes(z, codebook), codes
        changes = (codes != before).float().mean((1, 2))
        held_out = assess(inputs, ema, seeds, step + 1, held_out) if stage.name == "full" else None
        after = State(step + 1, stage.name, z.detach().clone(), ema.clone(), moments, held_out)
        detached = {name: value.detach() for name, value in losses.items()}
        yield Step(step + 1, after.ema, detached, float(changes.mean()), after, changes)


def step_rates(settings: Settings, unit: Tensor, progress: float, *, absolute: bool) -> Rates:
    """Return the learning rate of a step and the decays of its moments.

    unit: what the step size counts in. absolute: the learning rate is given, as a number or a curve, and neither warmed
    up nor decayed, as in other programs.
    """
    eps = max(settings.damping, 1e-8)
    if absolute:
        return Rates(settings.learning_rate, settings.momentum, USUAL_BETA2, eps)
    lr = float(settings.step_size * unit) * fade("step_size", progress, settings)
    return Rates(lr, settings.momentum, BETA2, eps)


def clip_guidance(
    image: Tensor, inputs: LoopInputs, weights: Mapping[str, float], which: Sequence[int], seeds: list[int], step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses that need CLIP, name -> `[N]`, and their weighted sum, differentiable by the image.

    The gradient is computed here and now, chunk by chunk, and only kept for the image: so one chunk of one CLIP's
    activations is in memory at a time, whatever the number of cutouts.
    """
    leaf = image.detach().requires_grad_()
    totals: dict[str, Tensor] = {}
    for losses in clip_losses(leaf, inputs, weights, which, seeds, step):
        weighted_sum(losses, weights).sum().backward()
        totals = {name: totals.get(name, 0) + value.detach() for name, value in losses.items()}
    assert leaf.grad is not None  # there is at least one cutout
    # backward has run: hand its result on to autograd
    return totals, with_gradient(weighted_sum(totals, weights), image, leaf.grad)


def clip_losses(
    image: Tensor, inputs: LoopInputs, names: Iterable[str], which: Sequence[int], seeds: list[int], step: int
) -> Iterator[dict[str, Tensor]]:
    """Yield what each chunk of cutouts adds to the named ones of the losses that need CLIP, `[N]` each.

    They are means over cutouts and, by their weights, over the CLIPs `which`.
    """
    settings, config = inputs.settings, CutoutConfig.of(inputs.settings)
    names = [name for name in names if name in CLIP_LOSSES]
    weight_sum = sum(inputs.targets[k].weight for k in which)
    chunk = chunk_size(settings, image.device, len(image))
    for k in which:
        clip, target, reference = inputs.clips[k], inputs.targets[k], inputs.reference(k)
        factor = target.weight / weight_sum / config.count
        for first in range(0, config.count, chunk):
            only = slice(first, first + chunk)
            cutouts = make_cutouts(image, clip.size, config, seeds=seeds, step=step, only=only)
            if inputs.on_cutouts:
                inputs.on_cutouts(step, k, cutouts.detach())
            shares = region_shares(target.region_masks, image, clip.size, config, seeds=seeds, step=step, only=only)
            embeds, layers = clip.encode_layers(cutouts) if "style" in names else (clip.encode_image(cutouts), [])
            embeds, *layers = (part.unflatten(0, (len(image), -1)) for part in (embeds, *layers))
            seen = Seen(target, reference, embeds, layers, shares)
            yield {name: CLIP_LOSSES[name](seen).sum(1) * factor for name in names}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return each image's weighted sum of losses, `[N]`; of none 0."""
    return sum((weights[name] * value for name, value in losses.items()), torch.zeros(()))


def assess(inputs: LoopInputs, ema: Tensor, seeds: list[int], step: int, before: HeldOut | None) -> HeldOut | None:
    """Return what cutouts that no step sees, the same each time, say of the latent that is shown after a step.

    They say it every few steps of the full size, and after the last; and only where the settings ask for it. Curves
    count as they end: distances of different steps are comparable.
    """
    settings = inputs.settings
    if not settings.held_out() or (step % LOOK_EVERY and step < settings.steps):
        return before
    inputs = replace(inputs.at(settings.end), on_cutouts=None)
    with torch.no_grad():
        image = decode_to_show(inputs, quantize(ema, inputs.vqgan.codebook), step).clamp(0, 1)
        parts = clip_losses(image, inputs, ["prompt"], range(len(inputs.clips)), seeds, HELD_OUT_STEP)
        distance = float(torch.stack([part["prompt"] for part in parts]).sum(0).mean())
    return HeldOut.of(before, ema.clone(), distance, step, settings.min_gain)


def chunk_size(settings: Settings, device: torch.device, images: int = 1) -> int:
    """Return how many cutouts of each of so many images CLIP sees at once; `settings.chunk` counts all images'."""
    default = CPU_CHUNK if device.type == "cpu" else settings.cutouts
    return min(max(1, settings.chunk // images) if settings.chunk else default, settings.cutouts)


def clips_by_step(targets: Sequence[Target], settings: Settings) -> list[Sequence[int]]:
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
