"""One frame of an animation: its plan, and the few steps of the loop that draw it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from ..core.init import encode
from ..core.interfaces import Target
from ..core.loop import Step, optimize
from ..core.seeding import derive
from ..runs.session import Session

STEP_SIZE = 0.5  # of the settings', for all frames but a first: less flickers less, and the camera's moves show


@dataclass(frozen=True)
class FramePlan:
    """Where a frame begins, what it is to show, and for how many steps."""

    start: Tensor | None  # an image [1, 3, H, W] in 0..1; None: the session's own start, as of any run
    targets: list[Target]
    steps: int
    past: Tensor | None = None  # an image of that shape, whose latent is mixed into the one that is shown
    smooth: float = 0.0  # weight of the past: 0 nothing of it, 1 nothing else
    goal: Tensor | None = None  # a latent that the start is morphed to
    arrived: float = 0.0  # how far: 0 not at all, 1 all the way


PlanFrame = Callable[[int, Image.Image | None], FramePlan]  # (frame, counted from 0; the frame before it) -> its plan


def optimize_frame(session: Session, number: int, plan: FramePlan) -> Iterator[Step]:
    """Run the loop for a frame, counted from 0: a few steps from where it begins. Raises Diverged.

    Randomness comes from (seed, number, step) alone, and Adam starts anew: of the frames before it, a frame needs only
    the image that it begins from.
    """
    settings = session.settings.model_copy(update={"steps": plan.steps})
    seeds = [derive(settings.seed, "frame", number) if number else settings.seed]
    if plan.start is None:
        start = session.start()
        assert start is not None  # nothing stops it
        z = start.z
        if not plan.steps:  # with init sample: the best candidate as it is
            yield Step(0, z, start.losses, 0.0)
            return
    else:
        changes = {"coarse": 0.0, **settings.slower(STEP_SIZE)}  # half the size would lose details
        settings = settings.model_copy(update=changes)
        z = encode(session.vqgan, plan.start)
        z = z if plan.goal is None else torch.lerp(z, plan.goal, plan.arrived)
    past = encode(session.vqgan, plan.past) if plan.past is not None and plan.smooth else None
    inputs = replace(session.inputs(plan.targets), settings=settings)
    for step in optimize(inputs, z, seeds=seeds):
        latent = step.shown(settings).latent
        latent = latent if past is None else torch.lerp(latent, past, plan.smooth)
        yield Step(step.step, latent, step.losses, step.changed)
