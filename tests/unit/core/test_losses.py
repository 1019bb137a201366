"""Losses, against Crowson's published modules and values by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.fakes import draw, unit
from tests.unit.core.test_straight_through import ReplaceGrad
from vqclip.core.interfaces import Target
from vqclip.core.losses import LOSSES, LossContext, init, prompt_distance, spherical_distance, tv
from vqclip.settings.prompts import parse_prompts
from vqclip.settings.schema import Settings


class CrowsonPrompt(nn.Module):
    """Prompt of the VQGAN+CLIP notebook, as published."""

    def __init__(self, embed, weight=1.0, stop=float("-inf")):
        super().__init__()
        self.register_buffer("embed", embed)
        self.register_buffer("weight", torch.as_tensor(weight))
        self.register_buffer("stop", torch.as_tensor(stop))

    def forward(self, input):
        input_normed = F.normalize(input.unsqueeze(1), dim=2)
        embed_normed = F.normalize(self.embed.unsqueeze(0), dim=2)
        dists = input_normed.sub(embed_normed).norm(dim=2).div(2).arcsin().pow(2).mul(2)
        dists = dists * self.weight.sign()
        return self.weight.abs() * ReplaceGrad.apply(dists, torch.maximum(dists, self.stop)).mean()


def iterate(**changes):
    """Return an LossContext of two pictures with plain values."""
    values = {
        "z": torch.zeros(2, 4, 3, 3), "z_init": torch.zeros(2, 4, 3, 3), "image": torch.full((2, 3, 8, 8), 0.5),
        "codebook_std": torch.tensor(1.0), "progress": 0.0, "settings": Settings(prompt="x"),
        "z_target": torch.ones(2, 4, 3, 3),
    }  # fmt: skip
    return LossContext(**values | changes)


def target(embeds, weights=None, stops=None):
    count = len(embeds)
    return Target(embeds, torch.tensor(weights or [1.0] * count), torch.tensor(stops or [-math.inf] * count))


def at(*degrees):
    """Return unit vectors `[P, 2]` at these angles."""
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], -1)


# -- the distance


@pytest.mark.parametrize("degrees", [0.0, 1.0, 30.0, 60.0, 90.0, 120.0, 170.0])
def test_the_distance_is_half_the_squared_angle(degrees):
    assert spherical_distance(at(20.0), at(20.0 + degrees)).item() == pytest.approx(
        math.radians(degrees) ** 2 / 2, abs=1e-4
    )


def test_the_distance_of_opposites_is_half_pi_squared():
    assert spherical_distance(at(0.0), at(180.0)).item() == pytest.approx(math.pi**2 / 2, rel=0.01)


def test_the_distance_is_crowsons():
    a, b = unit(100, 16, seed=3), unit(100, 16, seed=4)
    assert torch.allclose(spherical_distance(a, b), a.sub(b).norm(dim=-1).div(2).arcsin().pow(2).mul(2), rtol=1e-4)


@pytest.mark.parametrize("degrees", [5.0, 45.0, 90.0, 150.0])
def test_the_pull_is_as_strong_as_the_angle(degrees):
    turn = torch.tensor(math.radians(degrees), requires_grad=True)
    spherical_distance(torch.stack([turn.cos(), turn.sin()]), torch.tensor([1.0, 0.0])).backward()
    assert turn.grad.item() == pytest.approx(math.radians(degrees), rel=1e-3)  # d(theta^2 / 2) = theta


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equal_and_opposite_vectors_have_finite_gradients(sign):
    a = unit(200, 16, seed=5).requires_grad_()
    spherical_distance(a, sign * a.detach()).sum().backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_vectors_slightly_longer_than_one_have_finite_distances(sign):
    a = unit(200, 16, seed=6) * 1.001  # a norm above 1 by rounding would leave arcsin's domain
    assert spherical_distance(a, sign * a).isfinite().all()


# -- the prompt loss


@pytest.mark.parametrize(
    ("weight", "stop"),
    [(1.0, -math.inf), (2.5, -math.inf), (1.0, 1.2), (-1.0, -1.2), (-0.5, -math.inf), (0.0, -math.inf)],
)
def test_the_prompt_loss_is_crowsons(weight, stop):
    embeds, aim = unit(1, 40, 16, seed=7), unit(1, 16, seed=8)
    ours = prompt_distance(embeds, target(aim, [weight], [stop])).mean()
    assert ours.item() == pytest.approx(CrowsonPrompt(aim, weight, stop)(embeds[0]).item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("weight", "stop"),
    [(1.0, -math.inf), (2.5, -math.inf), (1.0, 1.2), (-1.0, -1.2), (-0.5, -math.inf), (0.0, -math.inf)],
)
def test_the_prompt_loss_has_crowsons_gradient(weight, stop):
    raw, aim = draw(1, 40, 16, seed=7), unit(1, 16, seed=8)
    gradients = []
    for loss in (
        lambda x: prompt_distance(F.normalize(x, dim=-1), target(aim, [weight], [stop])).mean(),
        lambda x: CrowsonPrompt(aim, weight, stop)(x[0]),
    ):
        x = raw.clone().requires_grad_()
        loss(x).backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, atol=1e-6, rtol=1e-3)


def pull(source, *degrees):
    """Return which cutouts, at these angles from prompt `source`, get a gradient."""
    (parsed,) = parse_prompts(source)
    embeds = at(*degrees)[None].requires_grad_()
    prompt_distance(embeds, target(at(0.0), [parsed.weight], [parsed.stop])).sum().backward()
    return (embeds.grad[0].abs().sum(-1) > 0).tolist()


def test_a_positive_prompt_pulls_at_any_angle():
    assert pull("x", 10.0, 80.0, 150.0) == [True, True, True]


def test_a_negative_prompt_lets_go_at_its_default_stop():
    assert pull("x:-1", 40.0, 78.0, 80.0, 120.0) == [True, True, False, False]


def test_a_negative_prompt_lets_go_at_its_own_stop():
    assert pull("x:-1:-0.5", 40.0, 56.0, 58.0) == [True, True, False]  # 0.5 is 57.3 degrees


def test_a_positive_prompt_lets_go_nearer_than_its_stop():
    assert pull("x:1:0.5", 40.0, 56.0, 58.0) == [False, False, True]


def test_a_negative_prompt_pushes_away():
    embeds = at(40.0)[None].requires_grad_()
    prompt_distance(embeds, target(at(0.0), [-1.0])).sum().backward()
    moved = F.normalize(embeds - 0.1 * embeds.grad, dim=-1)
    assert moved[0, 0] @ at(0.0)[0] < embeds[0, 0] @ at(0.0)[0]


def test_prompts_are_summed():
    embeds, aims = unit(2, 5, 16, seed=9), unit(3, 16, seed=10)
    apart = [prompt_distance(embeds, target(aims[i : i + 1], [w])) for i, w in enumerate((1.0, 2.0, -0.5))]
    together = prompt_distance(embeds, target(aims, [1.0, 2.0, -0.5]))
    assert torch.allclose(together, sum(apart), atol=1e-5)


def test_each_view_has_its_own_distance():
    embeds = torch.stack([at(30.0, 60.0), at(60.0, 90.0)])
    expected = [math.radians(angle) ** 2 / 2 for angle in (30, 60, 60, 90)]
    assert prompt_distance(embeds, target(at(0.0))).flatten().tolist() == pytest.approx(expected, rel=1e-4)


# -- the pull to the start


def test_at_the_start_the_init_loss_is_zero():
    z = draw(2, 4, 3, 3, seed=11)
    assert init(iterate(z=z, z_init=z)).tolist() == [0, 0]


def test_the_init_loss_pulls_to_the_start_and_not_to_zero():
    z, z_init = torch.zeros(2, 4, 3, 3, requires_grad=True), draw(2, 4, 3, 3, seed=12)
    init(iterate(z=z, z_init=z_init)).sum().backward()
    assert torch.allclose(-z.grad, z_init * 2 / 36, atol=1e-6)  # of a mean over 36 values


def test_the_init_loss_is_in_units_of_the_codebooks_spread():
    loss = init(iterate(z=torch.full((2, 4, 3, 3), 0.3), codebook_std=torch.tensor(0.1)))
    assert loss.tolist() == pytest.approx([9, 9])


@pytest.mark.parametrize(("progress", "share"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_init_loss_fades(progress, share):
    assert init(iterate(z=torch.ones(2, 4, 3, 3), progress=progress)).tolist() == pytest.approx(
        [share, share], abs=1e-6
    )


def test_each_picture_has_its_own_init_loss():
    z = torch.stack([torch.zeros(4, 3, 3), torch.full((4, 3, 3), 2.0)])
    assert init(iterate(z=z)).tolist() == [0, 4]


# -- total variation


def test_a_flat_picture_has_no_variation():
    assert tv(iterate()).tolist() == [0, 0]


def test_variation_is_the_mean_difference_of_neighbours():
    image = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]).expand(2, 3, 2, 3)
    expected = (0 + 0.5 + 0) / 3 + (1 + 0 + 0.5 + 0.5) / 4  # down, then across
    assert tv(iterate(image=image)).tolist() == pytest.approx([expected, expected])


def test_each_picture_has_its_own_variation():
    image = torch.stack([torch.zeros(3, 4, 4), torch.eye(4).expand(3, 4, 4)])
    assert tv(iterate(image=image)).tolist() == pytest.approx([0, 2 * 6 / 12])  # each row and column: 6 of 12 differ


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_gives_one_number_a_picture(name):
    settings = Settings(prompt="x", symmetry="both", palette=("red", "#fff"), frame="blue")
    loss = LOSSES[name](iterate(settings=settings))
    assert loss.shape == (2,)
    assert loss.isfinite().all()
