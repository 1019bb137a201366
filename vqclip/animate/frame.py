"""What one frame of a moving picture is made of, and the few steps that make it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..core.init import encode
from ..core.interfaces import LoopInputs, Target
from ..core.loop import Step, optimize
from ..core.seeding import derive
from ..runs.session import Session

GENTLE = 0.5  # of the step size, for all frames but a first: less flickers less, and the camera's moves show


@dataclass(frozen=True)
class Shot:
    """Where a frame begins, what it is to show, and for how many steps.

    start: `[1, 3, H, W]` in 0..1; None is the session's own first latent, as of any run. smooth: how much the latent
    that is shown keeps of `past`, a picture of the same shape: 0 nothing, 1 all.
    """

    start: Tensor | None
    targets: list[Target]
    steps: int
    past: Tensor | None = None
    smooth: float = 0.0


Play = Callable[[int, Image.Image | None], Shot]  # (frame, counted from 0; the picture before it) -> how it is made


def shoot(session: Session, number: int, shot: Shot) -> Iterator[Step]:
    """Make frame `number`, counted from 0: the loop of any picture, for a few steps. Raises Diverged.

    Randomness comes from (seed, number, step) alone, and Adam begins anew, so that a frame needs nothing of those
    before it but the picture that it starts from.
    """
    settings = session.settings.model_copy(update={"steps": shot.steps})
    seeds = [derive(settings.seed, "frame", number) if number else settings.seed]
    z = session.z
    if shot.start is not None:
        changes = {"coarse": 0.0, "step_size": settings.step_size * GENTLE}  # half the size would lose what is there
        settings = settings.model_copy(update=changes)
        z = encode(session.vqgan, shot.start)
    past = encode(session.vqgan, shot.past) if shot.past is not None and shot.smooth else None
    for step in optimize(LoopInputs(session.vqgan, session.clips, shot.targets, settings), z, seeds=seeds):
        latent = step.latent if past is None else torch.lerp(step.latent, past, shot.smooth)
        yield Step(step.step, latent, step.losses, step.changed)
