"""The style of an image: statistics of CLIP's middle layers, by hand values, in the loop and from a run."""

import pytest
import torch
from PIL import Image

from tests.support.fakes import FakeClip, FakeVqgan, aim
from tests.support.runs import metrics_of
from vqclip.batch.stacked import _ImagewiseClip
from vqclip.core.interfaces import LoopInputs, Reference, Target
from vqclip.core.loop import clip_guidance, optimize
from vqclip.core.losses import Seen, statistics, style_distance
from vqclip.core.targets import style_of
from vqclip.errors import InputError
from vqclip.runs.api import generate
from vqclip.settings.schema import Settings

TARGET = Target(torch.zeros(1, 4), torch.ones(1), torch.zeros(1))


def test_statistics_are_those_over_positions():
    layer = torch.tensor([[[0.0, 2.0], [5.0, 5.0]]])
    mean, std = statistics(layer)
    assert mean.tolist() == [[1, 5]]
    assert std[0].tolist() == pytest.approx([1, 0], abs=1e-3)


def test_the_distance_of_a_style_is_in_units_of_its_spread():
    style = (torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
    layer = torch.tensor([[[[-1.0, 3.0], [3.0, 7.0]]]])  # one image, one cutout: means 1 and 5, deviations 2
    seen = Seen(TARGET, Reference([style]), torch.zeros(1, 1, 4), [layer])
    assert style_distance(seen).tolist() == [[pytest.approx(0, abs=1e-6)]]
    shifted = Seen(TARGET, Reference([style, style]), torch.zeros(1, 1, 4), [layer + 4, layer])
    assert style_distance(shifted).tolist() == [[pytest.approx(16 / 4 / 2, rel=1e-5)]]


def guided(**settings):
    settings = Settings(prompt="x", steps=30, coarse=0.0, cutouts=6, tv=0.0, ema=0.0, style_image="/s.png", **settings)
    image = Image.radial_gradient("L").resize((16, 16)).convert("RGB")
    image.paste("orange", (0, 0, 16, 9))
    clip = FakeClip()
    style = style_of(clip, settings, image, torch.device("cpu"))
    return LoopInputs(FakeVqgan(), [clip], aim([clip], "x"), settings, references=[Reference(style)])


def test_descent_brings_the_statistics_to_those_of_the_style():
    whole = {"overview": 1.0, "margin": 0.0, "noise": 0.0, "augments": ()}  # cutouts that are the image itself
    inputs, image = guided(**whole), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    adam, losses = torch.optim.Adam([image.requires_grad_()], 0.02), []
    for _ in range(60):
        adam.zero_grad()
        seen, total = clip_guidance(image, inputs, {"prompt": 0.0, "style": 1.0}, [0], [1], 0)
        total.sum().backward()
        adam.step()
        losses.append(float(seen["style"]))
    assert losses[-1] < 0.1 * losses[0]
    mean, std = (part[0] for part in statistics(FakeClip().encode_layers(image)[1][0].detach()))
    assert torch.allclose(mean, inputs.references[0].style[0][0], atol=0.1)
    assert torch.allclose(std, inputs.references[0].style[0][1], atol=0.1)


def test_a_style_without_weight_is_not_looked_at():
    (step, *_) = optimize(guided(style_weight=0.0), torch.zeros(1, 8, 4, 4))
    assert "style" not in step.losses


def test_the_gradient_does_not_depend_on_chunks():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    results = []
    for chunk in (0, 2):
        leaf, inputs = image.clone().requires_grad_(), guided(chunk=chunk)
        losses, total = clip_guidance(leaf, inputs, inputs.settings.loss_weights(), [0], [1, 2], 0)
        total.sum().backward()
        results.append((leaf.grad, losses["style"], losses["prompt"]))
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*results, strict=True))


def test_images_side_by_side_have_their_own_layers():
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    embeds, layers = _ImagewiseClip(FakeClip(), 3).encode_layers(images)
    expected, others = FakeClip().encode_layers(images)
    assert torch.allclose(embeds, expected, atol=1e-6)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(layers, others, strict=True))


def test_a_run_records_its_style(networks, tmp_path):
    Image.effect_noise((20, 20), 100).convert("RGB").save(tmp_path / "style.png")
    quick = {"steps": 3, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}
    run = generate("x", runs=tmp_path, style_image=str(tmp_path / "style.png"), **quick).run
    assert all(line["style"] > 0 for line in metrics_of(run))
    with pytest.raises(InputError):
        generate("x", runs=tmp_path, style_image=str(tmp_path / "none.png"), **quick)
