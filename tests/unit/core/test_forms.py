"""What the optimiser moves: logits begin at the latent's codes, their gradient is that of the codes' mean."""

import pytest
import torch

import vqclip
from tests.support.fakes import FakeVqgan, draw
from vqclip.core.forms import FORMS
from vqclip.core.quantize import lookup, nearest, quantize

BOOK = draw(40, 6, seed=1)
Z = draw(2, 6, 3, 5, seed=2)
LOGITS = FORMS["logits"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_moved_begins_at_the_latents_codes(form):
    moved = form.begin(Z, BOOK)
    assert moved.shape[1] == BOOK.shape[form.axis]
    assert torch.equal(form.codes(moved, BOOK), nearest(Z, BOOK))
    assert torch.equal(nearest(form.settled(moved, BOOK), BOOK), nearest(Z, BOOK))
    alone = torch.cat([form.begin(image, BOOK) for image in Z.split(1)])
    torch.testing.assert_close(alone, moved, atol=0, rtol=0)


def test_the_latent_of_logits_is_the_mean_of_the_codes():
    logits = draw(2, 40, 3, 5, seed=3)
    expected = torch.einsum("nkhw,kc->nchw", logits.double().softmax(1), BOOK.double())
    torch.testing.assert_close(LOGITS.latent(logits, BOOK).double(), expected, atol=1e-5, rtol=1e-5)
    certain = 100.0 * torch.nn.functional.one_hot(nearest(Z, BOOK), 40).movedim(-1, 1)
    torch.testing.assert_close(LOGITS.latent(certain, BOOK), lookup(nearest(Z, BOOK), BOOK))


def test_a_step_against_the_gradient_makes_the_code_that_is_asked_for_likelier():
    logits, asked = LOGITS.begin(Z, BOOK).requires_grad_(), BOOK[7][:, None, None]
    z_q = quantize(LOGITS.latent(logits, BOOK), BOOK, LOGITS.codes(logits, BOOK))
    assert torch.equal(z_q.detach(), lookup(nearest(Z, BOOK), BOOK))  # forward: a code, not the mean
    (gradient,) = torch.autograd.grad((z_q - asked).square().sum(), logits)
    after = (logits - 0.05 * gradient).softmax(1)[:, 7]
    assert (after > logits.softmax(1)[:, 7]).float().mean() > 0.9


def test_a_run_of_logits_comes_nearer_and_differs_from_one_of_vectors(networks):
    more = {"seed": 7, "steps": 40, "size": 32, "cutouts": 4, "init": "grey", "upscale": 0}
    ends = {}
    for latent in FORMS:
        steps = []
        picture = vqclip.generate(
            "x", latent=latent, on_step=lambda step, steps=steps: steps.append(step), **more
        ).picture
        losses = [float(step.losses["prompt"].mean()) for step in steps]
        assert sum(losses[-5:]) < sum(losses[:5])
        ends[latent] = picture.tobytes()
    assert ends["vectors"] != ends["logits"]


def test_logits_are_held_to_the_start_by_its_weight(networks):
    away = {}
    for weight in (0.0, 50.0):
        starts, states = [], []
        vqclip.generate(
            "x", latent="logits", init_weight=weight, seed=7, steps=20, size=32, cutouts=4, init="grey", upscale=0,
            coarse=0.0, schedule="flat", on_start=lambda session, run, starts=starts: starts.append(session.start().z),
            on_step=lambda step, states=states: states.append(step.state),
        )  # fmt: skip
        latent = LOGITS.latent(states[-1].z, FakeVqgan().codebook)
        assert states[-1].ema.shape == latent.shape
        away[weight] = float((latent - starts[0]).square().mean())
    assert away[50.0] < away[0.0]
