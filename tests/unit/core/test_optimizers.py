"""The optimisers agree with torch's, image by image; AdamP and DiffGrad, which torch has not, with their papers."""

import math

import pytest
import torch

import vqclip
from tests.support.fakes import draw
from tests.support.runs import contents, differing
from vqclip.core.loop import step_rates
from vqclip.core.optimizers import OPTIMIZERS, Moments, Rates
from vqclip.files.metadata import SAMPLERS
from vqclip.settings.schema import Settings

RATES = Rates(0.1, 0.9, 0.999, 1e-8)
SETTINGS = {"seed": 7, "steps": 6, "size": 32, "cutouts": 2, "init": "grey", "upscale": 0, "coarse": 0.0}
TORCH = {
    "adagrad": lambda z: torch.optim.Adagrad([z], lr=0.1, eps=1e-8),
    "adam": lambda z: torch.optim.Adam([z], lr=0.1),
    "adamax": lambda z: torch.optim.Adamax([z], lr=0.1),
    "adamw": lambda z: torch.optim.AdamW([z], lr=0.1),
    "radam": lambda z: torch.optim.RAdam([z], lr=0.1),
    "rmsprop": lambda z: torch.optim.RMSprop([z], lr=0.1),
}


def gradients(count):
    return [draw(2, 3, 4, 5, seed=k) for k in range(count)]


def after(name, z, count):
    z, state = z.clone(), Moments.begin(z)
    for gradient in gradients(count):
        state = OPTIMIZERS[name](state, z, gradient[: len(z)], RATES)
    return z, state


@pytest.mark.parametrize("name", TORCH)
def test_an_optimizer_is_torchs(name):
    z = draw(2, 3, 4, 5, seed=99)
    peer = z.clone().requires_grad_()
    optimizer = TORCH[name](peer)
    for gradient in gradients(12):
        peer.grad = gradient.clone()
        optimizer.step()
    mine, state = after(name, z, 12)
    torch.testing.assert_close(mine, peer.detach(), atol=2e-6, rtol=2e-6)
    assert state.t == 12


def test_adamp_takes_from_a_step_at_a_right_angle_what_would_scale_the_latent():
    z = torch.zeros(1, 1, 1, 1000)
    z[..., 0] = 1.0
    state = Moments(torch.zeros_like(z), torch.zeros_like(z))
    state = OPTIMIZERS["adam"](state, torch.zeros_like(z), torch.ones_like(z), RATES)  # a past along the latent too
    across = torch.zeros_like(z)
    across[..., 1] = 1.0
    plain, projected = z.clone(), z.clone()
    OPTIMIZERS["adam"](state, plain, across, RATES)
    OPTIMIZERS["adamp"](state, projected, across, RATES)
    assert plain[..., 0] < 0.99 * z[..., 0]
    assert projected[..., 0].item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(projected[..., 1:], plain[..., 1:])
    along = torch.zeros_like(z)
    along[..., 0] = 1.0
    first, second = z.clone(), z.clone()
    OPTIMIZERS["adam"](state, first, along, RATES)
    OPTIMIZERS["adamp"](state, second, along, RATES)
    torch.testing.assert_close(first, second)


def test_diffgrad_goes_less_far_where_the_gradient_hardly_changes():
    gradients_of_one = [1.0, 1.0, -2.0]
    z, state = torch.zeros(1, 1, 1, 1), Moments.begin(torch.zeros(1, 1, 1, 1))
    m = v = before = expected = 0.0
    for t, g in enumerate(gradients_of_one, 1):  # the paper's equations, in plain numbers
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        friction = 1 / (1 + math.exp(-abs(before - g)))
        expected -= 0.1 * friction * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        before = g
        state = OPTIMIZERS["diffgrad"](state, z, torch.full_like(z, g), RATES)
        assert z.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_image_does_not_depend_on_its_neighbours(name):
    z = draw(2, 3, 4, 5, seed=99)
    both, _ = after(name, z, 4)
    alone, _ = after(name, z[:1], 4)
    torch.testing.assert_close(both[:1], alone, atol=0, rtol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_that_is_resumed_has_the_same_bytes(networks, tmp_path, name):
    more = SETTINGS | {"optimizer": name, "learning_rate": "0: 0.05, 1: 0.01", "damping": 0.0}
    whole = vqclip.generate("x", runs=tmp_path / "a", **more).run
    part = vqclip.generate("x", runs=tmp_path / "b", on_step=lambda step: step.step == 3, **more).run
    vqclip.resume(part)
    assert differing(contents(whole), contents(part)) == []


def test_the_names_are_the_settings():
    assert set(OPTIMIZERS) == set(Settings.model_json_schema()["properties"]["optimizer"]["enum"])


def test_every_optimiser_has_the_name_that_galleries_show():
    assert {*SAMPLERS, "adam"} == set(OPTIMIZERS)


def test_a_learning_rate_is_absolute_and_excludes_the_step_size(networks):
    moved = []

    def first(step):
        moved.append(step.state.z.clone())
        return True

    plain = SETTINGS | {"damping": 0.0, "ema": 0.0, "tv": 0.0}
    start = []
    vqclip.generate("x", on_start=lambda session, run: start.append(session.start().z), on_step=first,
                    learning_rate=0.001, **plain)  # fmt: skip
    change = (moved[0] - start[0]).abs()
    inside = change[change > 0]
    assert inside.median().item() == pytest.approx(0.001, rel=1e-3)  # Adam's first update is the learning rate
    with pytest.raises(vqclip.VqclipError) as error:
        vqclip.generate("x", learning_rate=0.1, step_size=0.5, **SETTINGS)
    assert error.value.exit_code == 2


def test_a_curve_may_begin_at_no_learning_rate_at_all():
    settings = Settings(prompt="x", learning_rate="0: 0, 1: 0.05", steps=4)
    rates = step_rates(settings.at(0.0), torch.tensor(1.0), 0.0, absolute=settings.learning_rate != 0)
    assert rates.lr == 0


@pytest.mark.parametrize(
    ("given", "name"), [({"learning_rate": 0.2}, "learning_rate"), ({"step_size": 0.5}, "step_size")]
)
def test_a_run_that_diverged_goes_on_with_half_of_the_rate_that_counts(given, name):
    assert Settings(prompt="x", **given).slower(0.5) == {name: given[name] / 2}
