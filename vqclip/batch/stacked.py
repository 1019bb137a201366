"""Several runs as one tensor: the loop once for all of them, and each its own step of it.

What they share are shapes, networks and all settings but those in APART, which decide the start and the target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.interfaces import Clip, LoopInputs, Target, Vqgan
from ..core.loop import State, Step, optimize
from ..runs.checkpoint import with_stage
from ..runs.generate import Run
from ..settings.schema import Settings, fields_with

# What rows of one tensor may differ in.
APART = fields_with("per_image")


def shared_settings(settings: Settings) -> str:
    """Return a key that is the same for settings that can be optimised as one tensor."""
    return settings.model_copy(update={"prompt": "", "seed": 0}).model_dump_json(exclude=set(APART))


def steps(runs: Sequence[Run]) -> Iterator[list[Step]]:
    """Run the loop for runs that have begun, whose settings agree and which are at one step; yield a Step for each.

    A run's pictures don't depend on the others: its randomness is its own seed's and losses are summed. On the CPU,
    where a larger batch is no faster, networks see one picture at a time, so that its bytes are those of the run
    alone; elsewhere kernels round a batch differently, and what is rounded differently grows apart over the steps.
    Raises Diverged where one of them diverges.
    """
    first, device = runs[0].session, runs[0].session.device
    starts = [run.start for run in runs if run.start]
    states = [with_stage(run.state, first.shape) for run in runs if run.state]
    z, seeds = torch.cat([start.z for start in starts]), [run.session.settings.seed for run in runs]
    targets = [stacked(targets) for targets in zip(*(start.targets for start in starts), strict=True)]
    state = _joined(states).to(device) if states else None
    vqgan, clips = first.vqgan, first.clips
    if device.type == "cpu":
        vqgan, clips = _OneByOne(vqgan), [_Apart(clip, len(runs)) for clip in clips]
    for step in optimize(LoopInputs(vqgan, clips, targets, first.settings), z, seeds=seeds, state=state):
        yield [_part(step, k) for k in range(len(runs))]


def stacked(targets: Sequence[Target]) -> Target:
    """Join one perceptor's targets of several pictures: embeds `[N, 1, P, D]`, weights and stops `[N, 1, P]`.

    Those with fewer prompts are filled up with their first one, at no weight, which neither pulls nor pushes.
    """
    most = max(len(target.weights) for target in targets)

    def filled(values: Tensor, fill: Tensor) -> Tensor:
        return torch.cat([values, fill.expand(most - len(values), *values.shape[1:])])

    return replace(
        targets[0],
        embeds=torch.stack([filled(target.embeds, target.embeds[:1]) for target in targets])[:, None],
        weights=torch.stack([filled(target.weights, torch.zeros_like(target.weights[:1])) for target in targets])[
            :, None
        ],
        stops=torch.stack([filled(target.stops, target.stops[:1]) for target in targets])[:, None],
    )


def _joined(states: Sequence[State]) -> State:
    parts = [state.tensors() for state in states]
    return states[0].with_tensors({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _part(step: Step, k: int) -> Step:
    after, changes = step.state, step.changes
    assert after is not None  # every step of the loop has both
    assert changes is not None
    state = after.with_tensors({name: tensor[k : k + 1].clone() for name, tensor in after.tensors().items()})
    losses = {name: value[k : k + 1] for name, value in step.losses.items()}
    return Step(step.step, state.ema, losses, float(changes[k]), state)


class _OneByOne:
    """A VQGAN that is shown a batch picture by picture, as runs alone show it theirs."""

    def __init__(self, vqgan: Vqgan) -> None:
        self.name, self.f, self.codebook, self._vqgan = vqgan.name, vqgan.f, vqgan.codebook, vqgan

    def encode(self, image: Tensor) -> Tensor:
        return torch.cat([self._vqgan.encode(one) for one in image.split(1)])

    def decode(self, z_q: Tensor) -> Tensor:
        return torch.cat([self._vqgan.decode(one) for one in z_q.split(1)])


class _Apart:
    """A CLIP that is shown the cutouts of one picture after the other, of so many pictures."""

    def __init__(self, clip: Clip, pictures: int) -> None:
        self.name, self.size, self._clip, self._pictures = clip.name, clip.size, clip, pictures

    def fits(self, text: str) -> bool:
        return self._clip.fits(text)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self._clip.encode_text(texts)

    def encode_image(self, image: Tensor) -> Tensor:
        return torch.cat([self._clip.encode_image(views) for views in image.chunk(self._pictures)])
