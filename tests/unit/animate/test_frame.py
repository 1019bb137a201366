"""One frame of an animation."""

from types import SimpleNamespace

import torch

from tests.support.fakes import FakeClip, FakeVqgan, aim, draw
from vqclip.animate.frame import FramePlan, optimize_frame
from vqclip.runs.session import Start
from vqclip.settings.schema import Settings


def test_a_first_frame_without_steps_is_its_start():
    targets = aim([FakeClip()], "x")
    start = Start(draw(1, 8, 4, 4, seed=1), targets, {"prompt": torch.tensor([0.5])})
    settings = Settings(prompt="x", steps=0, init="sample")
    session = SimpleNamespace(settings=settings, vqgan=FakeVqgan(), clips=[FakeClip()], start=lambda: start)
    (step,) = optimize_frame(session, 0, FramePlan(None, targets, 0))
    assert torch.equal(step.latent, start.z)
    assert step.losses == start.losses
