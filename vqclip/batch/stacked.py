"""Several runs as one tensor: one loop for all of them, which yields a step for each.

They share their networks, the size, and all settings but those in SEPARATE, which decide the start and the targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.interfaces import Clip, Kept, Target, Vqgan
from ..core.loop import State, Step, optimize
from ..core.regions import masks_of
from ..runs.checkpoint import with_stage
from ..runs.generate import Run
from ..settings.schema import Settings, fields_with

SEPARATE = fields_with("per_image")  # settings in which the runs of one tensor may differ


def shared_settings(settings: Settings) -> str:
    """Return a key that is the same for settings that can be optimised as one tensor."""
    return settings.model_copy(update={"prompt": "", "seed": 0}).model_dump_json(exclude=set(SEPARATE))


def optimize_stack(runs: Sequence[Run]) -> Iterator[list[Step]]:
    """Run the loop for runs that have begun, agree in their settings and are at one step; yield a Step for each.

    A run does not depend on the others: its randomness is that of its own seed, and losses are summed. On the CPU the
    networks get one image at a time, so that a run's bytes are those that it has alone; elsewhere kernels round a
    batch differently, and small differences grow over the steps. Raises Diverged if one of the runs diverges.
    """
    session = runs[0].session
    starts = [run.start for run in runs if run.start]
    states = [with_stage(run.state, session.shape) for run in runs if run.state]
    state = _stack_states(states).to(session.device) if states else None
    targets = [stack_targets(targets) for targets in zip(*(start.targets for start in starts), strict=True)]
    inputs = replace(session.inputs(targets), kept=stack_kept([run.session.kept for run in runs]))
    if session.device.type == "cpu":
        clips: list[Clip] = [_ImagewiseClip(clip, len(runs)) for clip in session.clips]
        inputs = replace(inputs, vqgan=_ImagewiseVqgan(session.vqgan), clips=clips)
    z = torch.cat([start.z for start in starts])
    seeds = [run.session.settings.seed for run in runs]
    for step in optimize(inputs, z, seeds=seeds, state=state):
        yield [_step_of(step, k) for k in range(len(runs))]


def stack_targets(targets: Sequence[Target]) -> Target:
    """Stack one CLIP's targets of several images: embeds `[N, 1, P, D]`, weights and stops `[N, 1, P]`.

    A target with fewer prompts is filled up with its first prompt at weight 0, which has no effect.
    """
    count = max(len(target.weights) for target in targets)

    def stack(name: str, weight: float = 1.0) -> Tensor:
        values = [getattr(target, name) for target in targets]
        filled = [torch.cat([v, (v[:1] * weight).expand(count - len(v), *v.shape[1:])]) for v in values]
        return torch.stack(filled)[:, None]

    curves = [replace(c, index=(n, 0, *c.index)) for n, target in enumerate(targets) for c in target.curves]
    stacked = replace(
        targets[0], embeds=stack("embeds"), weights=stack("weights", 0.0), stops=stack("stops"), curves=tuple(curves)
    )
    if all(target.region_masks is None for target in targets):
        return stacked
    masks = [F.pad(masks_of(t), (0, 0, 0, 0, 0, count - len(t.weights)), value=1.0) for t in targets]
    return replace(stacked, region_masks=torch.stack(masks))


def stack_kept(kept: Sequence[Kept | None]) -> Kept | None:
    """Stack what of several images stays: of all of them or of none, since they share the mask."""
    parts = [part for part in kept if part]
    if not parts:
        return None
    return Kept(torch.cat([part.original for part in parts]), torch.cat([part.change for part in parts]))


def _stack_states(states: Sequence[State]) -> State:
    parts = [state.tensors() for state in states]
    return states[0].with_tensors({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _step_of(step: Step, k: int) -> Step:
    """Return the k-th run's part of a step."""
    assert step.state is not None  # every step of the loop has both
    assert step.changes is not None
    tensors = {name: tensor[k : k + 1].clone() for name, tensor in step.state.tensors().items()}
    state = step.state.with_tensors(tensors)
    losses = {name: value[k : k + 1] for name, value in step.losses.items()}
    return Step(step.step, state.ema, losses, float(step.changes[k]), state)


class _ImagewiseVqgan:
    """A VQGAN that encodes and decodes a batch image by image, to the bytes of a run alone."""

    def __init__(self, vqgan: Vqgan) -> None:
        self.name, self.f, self.codebook, self._vqgan = vqgan.name, vqgan.f, vqgan.codebook, vqgan
        self.notes = vqgan.notes

    def encode(self, image: Tensor) -> Tensor:
        return torch.cat([self._vqgan.encode(part) for part in image.split(1)])

    def decode(self, z_q: Tensor) -> Tensor:
        return torch.cat([self._vqgan.decode(part) for part in z_q.split(1)])

    def lower(self, dtype: torch.dtype) -> None:
        self._vqgan.lower(dtype)


class _ImagewiseClip:
    """A CLIP that encodes the cutouts of one of `count` images after the other."""

    def __init__(self, clip: Clip, count: int) -> None:
        self.name, self.size, self._clip, self._count = clip.name, clip.size, clip, count

    def fits(self, text: str) -> bool:
        return self._clip.fits(text)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._clip.encode_text(texts)

    def encode_image(self, image: Tensor) -> Tensor:
        return torch.cat([self._clip.encode_image(cutouts) for cutouts in image.chunk(self._count)])

    def encode_layers(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        embeds, layers = zip(*(self._clip.encode_layers(cutouts) for cutouts in image.chunk(self._count)), strict=True)
        return torch.cat(embeds), [torch.cat(parts) for parts in zip(*layers, strict=True)]

    def lower(self, dtype: torch.dtype) -> None:
        self._clip.lower(dtype)
