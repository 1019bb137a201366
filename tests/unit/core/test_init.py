"""The first latent. Pitfalls 5.1 (seed set after the start is drawn), 5.6 (width and height mixed up), dead codes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.support.fakes import FakeClip, FakeVqgan, aim
from vqclip.core.init import INITS, best_seed, codes, encode, grey, resample, smooth_image
from vqclip.core.interfaces import LoopInputs, Target
from vqclip.core.seeding import derive
from vqclip.settings.schema import Settings

VQGAN = FakeVqgan()
CLIP = FakeClip()


def inputs(width, height, seed, vqgan=VQGAN):
    settings = Settings(prompt="x", size=(width, height), seed=seed, tries=2)
    return LoopInputs(vqgan, [CLIP], aim([CLIP], "x"), settings)


each = pytest.mark.parametrize("name", sorted(INITS))


@each
@pytest.mark.parametrize(("width", "height"), [(16, 16), (32, 12), (12, 32)])
def test_a_start_has_the_latents_shape(name, width, height):
    assert INITS[name](inputs(width, height, 0)).shape == (1, 8, height // 4, width // 4)


@each
def test_a_start_is_finite(name):
    assert INITS[name](inputs(16, 16, 0)).isfinite().all()


@each
@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_the_same_seed_gives_the_same_start(name, seed):
    torch.manual_seed(1)
    first = INITS[name](inputs(16, 16, seed))
    torch.manual_seed(2)
    assert torch.equal(INITS[name](inputs(16, 16, seed)), first)


@each
def test_another_seed_gives_another_start(name):
    assert not torch.equal(INITS[name](inputs(16, 16, 0)), INITS[name](inputs(16, 16, 1)))


@each
def test_a_start_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    INITS[name](inputs(16, 16, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_smooth_picture_lies_between_black_and_white():
    images = torch.cat([smooth_image(24, 16, seed) for seed in range(50)])
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_smooth_picture_is_smooth():
    image = smooth_image(128, 128, 0)
    assert (image[..., 1:] - image[..., :-1]).abs().max() < 0.1
    assert (image[..., 1:, :] - image[..., :-1, :]).abs().max() < 0.1


def test_a_smooth_picture_is_not_flat():
    assert smooth_image(128, 128, 0).std((2, 3)).min() > 0.05


def test_a_smooth_picture_is_the_same_at_every_size():
    large, small = smooth_image(256, 256, 4), smooth_image(64, 64, 4)
    assert torch.allclose(F.avg_pool2d(large, 4), small, atol=0.02)


def test_grey_starts_from_grey():
    assert (VQGAN.decode(grey(inputs(32, 32, 0))) - 0.5).abs().max() < 0.05


def test_random_codes_are_codes():
    places = codes(inputs(16, 16, 0)).movedim(1, -1).flatten(0, 2)
    assert all((place == VQGAN.codebook).all(1).any() for place in places)


def test_random_codes_differ_from_place_to_place():
    assert len(codes(inputs(32, 32, 0)).movedim(1, -1).flatten(0, 2).unique(dim=0)) > 1


def test_dead_codes_are_not_drawn():
    vqgan = FakeVqgan(n_embed=32)
    vqgan.codebook = torch.cat([vqgan.codebook, torch.full((1000, 8), 50.0)])  # far from all that is ever encoded
    assert codes(inputs(32, 32, 0, vqgan)).abs().max() < 50


# -- the best of many starts


def distance(seed, *, clip=CLIP, wanted):
    """Return the angle between a clip's view of a seed's smooth picture and the target's first embedding."""
    seen = clip.encode_image(smooth_image(clip.size, clip.size, seed))[0]
    return torch.arccos((seen @ wanted.embeds[0]).clamp(-1, 1)).item()


def picture_of(seed, clip=CLIP, weight=1.0):
    """Return a Target that wants one seed's smooth picture."""
    embeds = clip.encode_image(smooth_image(clip.size, clip.size, seed))
    return Target(embeds, torch.tensor([weight]), torch.tensor([-torch.inf]))


def test_a_perceptor_with_a_larger_share_chooses():
    eyes = [CLIP, FakeClip(seed=9)]
    seeds = [3, *(derive(3, "try", attempt) for attempt in (1, 2))]
    wanted = [picture_of(seed, eye) for seed, eye in zip(seeds[1:], eyes, strict=True)]
    for chosen, (mine, other) in ((seeds[1], (9.0, 0.1)), (seeds[2], (0.1, 9.0))):
        shares = [replace(wanted[0], weight=mine), replace(wanted[1], weight=other)]
        assert best_seed(eyes, shares, 3, 3) == chosen


@pytest.fixture
def asked(monkeypatch):
    """Return the list of seeds whose smooth pictures are drawn."""
    seen = []

    def draw(width, height, seed):
        seen.append(seed)
        return smooth_image(width, height, seed)

    monkeypatch.setattr("vqclip.core.init.smooth_image", draw)
    return seen


def test_one_try_is_the_seed_itself():
    assert best_seed([CLIP], aim([CLIP], "x"), 3, 1) == 3


def test_the_first_try_is_the_seed_itself(asked):
    best_seed([CLIP], aim([CLIP], "x"), 3, 5)
    assert asked[0] == 3


@pytest.mark.parametrize("tries", [5, 64, 130])
def test_as_many_starts_are_tried_as_asked_for(asked, tries):
    best_seed([CLIP], aim([CLIP], "x"), 3, tries)
    assert len(set(asked)) == tries


def test_neighbouring_seeds_try_different_starts(asked):
    for seed in range(20):
        best_seed([CLIP], aim([CLIP], "x"), seed, 20)
    assert len(set(asked)) == 400


@pytest.mark.parametrize("place", [0, 3, 63, 64, 99])
def test_the_start_nearest_to_the_prompt_wins(asked, place):
    best_seed([CLIP], aim([CLIP], "x"), 7, 100)
    wanted = asked[place]
    assert best_seed([CLIP], [picture_of(wanted)], 7, 100) == wanted


def test_a_negative_prompt_wants_the_farthest_start(asked):
    wanted = picture_of(1000, weight=-1.0)
    chosen = best_seed([CLIP], [wanted], 7, 30)
    assert distance(chosen, wanted=wanted) == max(distance(seed, wanted=wanted) for seed in set(asked))


@pytest.mark.parametrize("stronger", [0, 1])
def test_every_perceptor_has_a_say(asked, stronger):
    clips = [CLIP, FakeClip(size=8, seed=5)]
    best_seed(clips, aim(clips, "x"), 7, 30)
    ends = asked[4], asked[20]
    weights = [1000.0 if index == stronger else 1.0 for index in (0, 1)]
    targets = [picture_of(end, clip, weight) for end, clip, weight in zip(ends, clips, weights, strict=True)]
    assert best_seed(clips, targets, 7, 30) == ends[stronger]


def test_the_best_of_many_is_the_same_each_time():
    torch.manual_seed(1)
    first = best_seed([CLIP], aim([CLIP], "x"), 3, 20)
    torch.manual_seed(2)
    assert best_seed([CLIP], aim([CLIP], "x"), 3, 20) == first


def test_more_tries_never_choose_worse():
    (wanted,) = aim([CLIP], "a red heart")
    distances = [distance(best_seed([CLIP], [wanted], 0, tries), wanted=wanted) for tries in (1, 2, 4, 8, 16, 80)]
    assert distances == sorted(distances, reverse=True)


def test_looking_for_the_best_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    best_seed([CLIP], aim([CLIP], "x"), 3, 3)
    assert torch.equal(torch.get_rng_state(), before)


# -- from picture to latent, and from size to size


def test_encoding_carries_no_gradient():
    assert not encode(VQGAN, torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad


def flat(shades, height, width):
    """Return a VQGAN with a code for each flat grey of a tenth, and one latent for each shade."""
    vqgan = FakeVqgan()
    vqgan.codebook = encode(vqgan, torch.linspace(0, 1, 11)[:, None, None, None].expand(-1, 3, 4, 4)).flatten(1)
    image = torch.tensor(shades)[:, None, None, None].expand(-1, 3, height * 4, width * 4)
    return vqgan, encode(vqgan, image)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (2, 3), (5, 4)])
def test_a_resampled_latent_has_the_places_asked_for(height, width):
    assert resample(VQGAN, torch.zeros(2, 8, 4, 6), height, width).shape == (2, 8, height, width)


def test_a_resampled_latent_shows_the_same_colours():
    vqgan, z = flat([0.2, 0.7], 4, 6)
    shades = vqgan.decode(resample(vqgan, z, 8, 12)).mean((1, 2, 3))
    assert shades.tolist() == pytest.approx([0.2, 0.7], abs=1e-3)


def test_a_resampled_latent_keeps_left_and_right():
    vqgan, z = flat([0.1, 0.9], 4, 4)
    z = torch.cat([z[:1, ..., :2], z[1:, ..., 2:]], 3)  # dark on the left, light on the right
    image = vqgan.decode(resample(vqgan, z, 2, 2))
    assert image[..., :4].mean() < 0.3
    assert image[..., 4:].mean() > 0.7


def test_a_resampled_latent_carries_no_gradient():
    assert not resample(VQGAN, torch.zeros(1, 8, 4, 4, requires_grad=True), 2, 2).requires_grad
