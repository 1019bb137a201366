"""What steers an image beside the prompts: losses by hand values, tiles, noise, and what a mask keeps."""

import pytest
import torch

from tests.support.fakes import FakeClip, FakeVqgan, aim
from vqclip.core.decoding import decode_for_step, decode_to_show, keep, perturb, turn
from vqclip.core.init import framed
from vqclip.core.interfaces import Kept, LoopInputs
from vqclip.core.loop import optimize
from vqclip.core.losses import LOSSES, LossContext, oklab
from vqclip.errors import UsageError
from vqclip.settings.schema import Settings, make_settings


def loss(name, image, **settings):
    """Return a loss of one image `[1, 3, H, W]`."""
    z = torch.zeros(1, 4, 2, 2)
    return float(LOSSES[name](LossContext(z, z, image, torch.tensor(1.0), 0.0, Settings(prompt="x", **settings))))


def flat(*rgb, side=10):
    """Return an image of one colour."""
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, side, side).clone()


def test_saturation_is_the_deviation_of_a_pixels_channels():
    assert loss("saturation", flat(0.5, 0.5, 0.5)) == pytest.approx(0, abs=1e-6)
    assert loss("saturation", flat(1.0, 0.0, 0.0)) == pytest.approx(-((1 / 3) ** 0.5), abs=1e-6)


def test_smoothness_spares_small_steps():
    rising = torch.linspace(0, 1, 11)[None, None, None].expand(1, 3, 11, 11)
    edge = (torch.arange(11) > 5).float()[None, None, None].expand(1, 3, 11, 11)
    assert loss("smoothness", rising) == pytest.approx(0.01, rel=1e-4)  # ten steps of a tenth, squared
    assert loss("smoothness", edge) == pytest.approx(0.1, rel=1e-4)  # one step of one
    assert loss("tv", rising) == pytest.approx(loss("tv", edge), rel=1e-4)


@pytest.mark.parametrize(("axis", "expected"), [("x", 1.0), ("y", 0.0), ("both", 1.0)])
def test_symmetry_compares_the_mirror_image(axis, expected):
    halves = (torch.arange(8) < 4).float()[None, None, None].expand(1, 3, 8, 8)  # white left, black right
    assert loss("symmetry", halves, symmetry=axis) == pytest.approx(expected)


def test_a_palette_takes_the_nearest_of_its_colours():
    image = flat(1.0, 0.0, 0.0)
    assert loss("palette", image, palette=("blue", "red")) == pytest.approx(0, abs=1e-9)
    apart = float((oklab(flat(1.0, 0.0, 0.0, side=1)) - oklab(flat(0.0, 0.0, 1.0, side=1))).square().sum())
    assert loss("palette", image, palette=("blue",)) == pytest.approx(apart, rel=1e-4)


def test_oklab_has_the_published_values():
    """Ottosson's table gives white as (1, 0, 0), and red as (0.628, 0.225, 0.126)."""
    assert oklab(flat(1.0, 1.0, 1.0, side=1)).flatten().tolist() == pytest.approx([1, 0, 0], abs=1e-3)
    assert oklab(flat(1.0, 0.0, 0.0, side=1)).flatten().tolist() == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


def test_a_frame_looks_at_the_edges_alone():
    image = flat(0.0, 0.0, 0.0)
    image[..., 2:-2, 2:-2] = 0.7
    assert loss("frame", image, frame="black", frame_width=0.2) == pytest.approx(0, abs=1e-6)
    assert loss("frame", image, frame="#fff", frame_width=0.2) == pytest.approx(1, abs=1e-6)
    assert loss("frame", image, frame="black", frame_width=0.5) == pytest.approx(0.49 * 36 / 100, abs=1e-6)


@pytest.mark.parametrize(("axis", "flips"), [("x", [(3,)]), ("y", [(2,)]), ("both", [(3,), (2,), (2, 3)])])
def test_the_first_steps_see_a_mirror_image(axis, flips):
    z = torch.randn(2, FakeVqgan().codebook.shape[1], 3, 5, generator=torch.Generator().manual_seed(1))
    given = inputs(symmetry=axis, symmetry_until=0.3, steps=10)
    early, late = decode_for_step(given, z, [1, 2], 2), decode_for_step(given, z, [1, 2], 3)
    assert all(torch.equal(early, early.flip(flip)) for flip in flips)
    assert torch.equal(late, given.vqgan.decode(z))
    assert torch.equal(early[..., :6, :10], late[..., :6, :10])
    assert torch.equal(decode_to_show(given, z, 3), early)  # what three steps have made
    assert torch.equal(decode_to_show(given, z), late)


def test_the_half_that_was_copied_goes_on_from_the_copy():
    seen = []

    class Drawing(FakeVqgan):
        def decode(self, z_q):
            seen.append(super().decode(z_q).detach())
            return super().decode(z_q)

    settings = Settings(prompt="x", steps=6, cutouts=2, coarse=0.0, symmetry="x", symmetry_until=0.5, symmetry_weight=0)
    clip = FakeClip()
    given = LoopInputs(Drawing(), [clip], aim([clip], "x"), settings)
    start = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    steps = list(optimize(given, start))
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    apart = [float((image - image.flip(3)).abs().mean()) for image in seen]
    assert len(seen) == 7  # a step each, and once for the copy
    assert apart[4] < apart[3] / 5  # the fourth step begins from a mirror image, as far as codes can draw it


@pytest.mark.parametrize(
    "values",
    [
        {"tile": "x", "symmetry": "both"},
        {"tile": "y", "frame": "red"},
        {"mask": "m.png", "init_image": "i.png", "symmetry": "x", "symmetry_until": 0.5},
    ],
)
def test_controls_that_make_no_sense_together_are_refused(values):
    with pytest.raises(UsageError):
        make_settings(prompt="x", **values)
    assert make_settings(prompt="x", tile="x", symmetry="y").tile == "x"


def test_a_start_with_a_frame_has_its_colour_at_the_edges_and_is_itself_within():
    vqgan, z = FakeVqgan(f=4), torch.randn(1, 8, 6, 8, generator=torch.Generator().manual_seed(1))
    settings = Settings(prompt="x", frame="teal", frame_width=0.2)  # of 24 pixels: 5, two positions
    framed_z = framed(vqgan, z, settings)
    assert torch.equal(framed_z[..., 2:-2, 2:-2], z[..., 2:-2, 2:-2])
    colour = torch.tensor([0, 128, 128]).view(3, 1, 1) / 255
    assert torch.allclose(vqgan.decode(framed_z)[0, :, :4], colour.expand(3, 4, 32), atol=1e-4)
    assert framed(vqgan, z, Settings(prompt="x", frame="teal", frame_weight=0.0)) is z


@pytest.mark.parametrize("given", ["reddish", "#12", "12", "rgb(1"])
def test_what_is_no_colour_is_refused(given):
    with pytest.raises(Exception, match="colour"):
        make_settings(prompt="x", palette=(given,))


def test_a_mask_needs_an_init_image_and_no_tile():
    for values in ({"mask": "m.png"}, {"mask": "m.png", "init_image": "i.png", "tile": "x"}):
        with pytest.raises(Exception, match=r"mask|tile"):
            make_settings(prompt="x", **values)


def inputs(**settings):
    return LoopInputs(FakeVqgan(), [], [], Settings(prompt="x", **settings))


@pytest.mark.parametrize("axes", ["x", "y", "both"])
def test_a_tile_is_turned_in_itself_by_step_and_seed(axes):
    z = torch.arange(2 * 3 * 8 * 8.0).view(1, 6, 8, 8)
    turned = [turn(z, axes, seed, step) for seed in (1, 2) for step in range(4)]
    assert all(torch.equal(each.flatten(2).sort().values, z.flatten(2).sort().values) for each in turned)
    assert len({tuple(each.flatten().tolist()) for each in turned}) > 3
    if axes == "x":
        assert all(torch.equal(each.sort(3).values, z.sort(3).values) for each in turned)  # rows stay rows


def test_a_tile_that_is_shown_joins_itself():
    z = torch.randn(1, FakeVqgan().codebook.shape[1], 4, 4, generator=torch.Generator().manual_seed(1))
    given = inputs(tile="both")
    shown = decode_to_show(given, z)
    assert shown.shape == decode_for_step(given, z, [1], 0).shape
    f = given.vqgan.f
    turned = decode_to_show(given, z.roll((1, 2), (2, 3)))
    assert torch.allclose(turned, shown.roll((f, 2 * f), (2, 3)), atol=1e-5)


def test_without_controls_a_step_sees_what_the_decoder_draws():
    z = torch.randn(1, FakeVqgan().codebook.shape[1], 4, 4)
    given = inputs()
    assert torch.equal(decode_for_step(given, z, [1], 3), given.vqgan.decode(z))
    assert perturb(z, 0.0, [1], 0) is z


def test_noise_is_of_its_image_and_step():
    z = torch.zeros(2, 4, 8, 8)
    noisy = perturb(z, 0.5, [1, 2], 3)
    assert torch.equal(noisy[1:], perturb(z[1:], 0.5, [2], 3))
    assert not torch.equal(noisy, perturb(z, 0.5, [1, 2], 4))
    assert float(noisy.std()) == pytest.approx(0.5, rel=0.1)


def test_where_a_mask_is_black_the_original_stays():
    change = torch.zeros(1, 1, 4, 4)
    change[..., 2:] = 1
    kept = keep(torch.ones(1, 3, 4, 4), Kept(torch.full((1, 3, 4, 4), 0.25), change))
    assert torch.equal(kept[..., :2], torch.full((1, 3, 4, 2), 0.25))
    assert torch.equal(kept[..., 2:], torch.ones(1, 3, 4, 2))


def test_a_target_pulls_by_its_distance_in_units_of_the_codebook():
    z = torch.full((2, 4, 2, 2), 3.0)
    context = LossContext(z, z, z, torch.tensor(2.0), 0.9, Settings(prompt="x"), torch.ones(1, 4, 2, 2))
    assert LOSSES["target"](context).tolist() == [1, 1]
