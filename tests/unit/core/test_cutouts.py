"""Cutouts. Expected pictures come from the geometry by hand, from plain averaging, or from kornia's own warps."""

import itertools
import math

import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import draw
from vqclip.core.cutouts import (
    CutoutConfig,
    augment_pixels,
    draw_boxes,
    draw_colours,
    draw_geometry,
    make_cutouts,
    transform_colours,
    warp,
)
from vqclip.core.seeding import fold_in
from vqclip.settings.augmentations import AUGMENTS, Augment
from vqclip.settings.schema import Settings

DEFAULT = Settings(prompt="x").augments
GEOMETRIC = tuple(name for name in AUGMENTS if AUGMENTS[name].kind == "geometry")


def cut(image, size=16, count=8, **changes):
    """Cut views with nothing random but their place, unless told otherwise."""
    when = {"seeds": list(range(len(image))), "step": 0} | {
        name: changes.pop(name) for name in ("seeds", "step", "only") if name in changes
    }
    config = CutoutConfig(**{"count": count, "overview": 0.5, "smallest": 0.6} | changes)
    return make_cutouts(image, size, config, **when)


def picture(height, width, seed=0):
    return draw(1, 3, height, width, seed=seed) * 0.2 + 0.5


def waves(size):
    """A smooth picture: resampling it twice changes it little."""
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    return torch.stack([torch.sin(5 * x + 2 * y), torch.cos(4 * y - x), torch.sin(3 * x * y + y)])[None] * 0.4 + 0.5


def ramp(height, width):
    """Each pixel holds the place of its centre, 0..1 from left to right."""
    return ((torch.arange(width) + 0.5) / width).expand(1, 3, height, width)


# -- where views lie


def test_views_of_a_picture_stand_side_by_side():
    black_white_black = torch.stack([torch.zeros(3, 20, 20), torch.ones(3, 20, 20), torch.zeros(3, 20, 20)])
    assert cut(black_white_black, count=4).mean((1, 2, 3)).tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_views_have_the_size_asked_for():
    assert cut(picture(24, 40), size=12, count=5).shape == (5, 3, 12, 12)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_one_view_shows_the_whole_picture_even_if_none_is_asked_for(count):
    image = picture(16, 16)
    assert torch.allclose(cut(image, 16, count, overview=0.0)[0], image[0], atol=1e-5)


@given(st.integers(1, 64), st.floats(0, 1))
def test_the_share_of_overviews_is_kept(count, overview):
    _, sides = draw_boxes(50, 50, CutoutConfig(count=count, overview=overview, smallest=0.5))
    assert abs((sides == 50).sum().item() - max(1, count * overview)) <= 0.5


def test_a_wide_pictures_overview_shows_all_of_it():
    image = picture(16, 32)
    assert torch.allclose(cut(image, 32, 1)[:, :, 8:24], image, atol=1e-5)


def test_a_tall_pictures_overview_shows_all_of_it():
    image = picture(32, 16)
    assert torch.allclose(cut(image, 32, 1)[..., 8:24], image, atol=1e-5)


def test_beside_a_picture_its_border_goes_on():
    image = picture(16, 32)
    expected = torch.cat([image[:, :, :1].expand(-1, -1, 8, -1), image[:, :, -1:].expand(-1, -1, 8, -1)], 2)
    assert torch.allclose(cut(image, 32, 1)[:, :, [*range(8), *range(24, 32)]], expected, atol=1e-5)


@given(st.integers(8, 300), st.integers(8, 300), st.floats(0.01, 1))
def test_an_overview_with_a_margin_still_shows_the_whole_picture(width, height, margin):
    boxes, sides = draw_boxes(width, height, CutoutConfig(count=8, overview=1.0, smallest=0.5, margin=margin))
    half = torch.stack([boxes[:, 0, 0], boxes[:, 1, 1]], 1)  # of the view, where the picture is 1
    assert (half - boxes[:, :2, 2].abs()).min() >= 1 - 1e-4
    assert sides.max() <= max(width, height) * (1 + margin) + 1e-3


def test_overviews_with_a_margin_differ_in_size_and_place():
    boxes, sides = draw_boxes(50, 50, CutoutConfig(count=200, overview=1.0, smallest=0.5, margin=0.5))
    assert sides.max() - sides.min() > 20
    assert boxes[:, 0, 2].min() < -0.3 < 0.3 < boxes[:, 0, 2].max()


def test_outside_the_picture_each_view_has_a_flat_colour_of_its_own():
    views = cut(torch.full((1, 3, 32, 64), 5e3), 32, 6, overview=1.0, margin=0.3)  # no frame is as bright
    frames = [view[:, (view < 1.001).all(0)] for view in views]
    assert max(frame.std(1).max() for frame in frames) < 1e-3
    assert torch.stack([frame.mean(1) for frame in frames]).std(0).min() > 0.05


def test_the_frame_covers_nothing_of_the_picture():
    views = cut(torch.full((1, 3, 32, 64), 5.0), 32, 6, overview=1.0, margin=0.3)
    with fold_in(0, "cutouts", 0):
        _, sides = draw_boxes(64, 32, CutoutConfig(count=6, overview=1.0, smallest=0.6, margin=0.3))
    inside = (views.mean(1) - 5).abs() < 1e-3
    expected = 32 * 64 / sides.sort(descending=True).values ** 2 * 32 * 32
    assert (inside.sum((1, 2)) - expected).abs().max() <= 2 * 32 + 2 * 16  # a pixel along the edge


@given(st.integers(8, 300), st.integers(8, 300), st.floats(0.05, 1))
def test_crops_lie_inside_the_picture(width, height, smallest):
    boxes, _ = draw_boxes(width, height, CutoutConfig(count=8, overview=0.0, smallest=smallest))
    reach = boxes[1:, :2, 2].abs() + torch.stack([boxes[1:, 0, 0], boxes[1:, 1, 1]], 1)
    assert reach.max() <= 1 + 1e-5


@given(st.integers(8, 300), st.integers(8, 300), st.floats(0.05, 1))
def test_crops_are_sized_by_the_pictures_short_side(width, height, smallest):
    _, sides = draw_boxes(width, height, CutoutConfig(count=8, overview=0.0, smallest=smallest))
    short = min(width, height)
    assert smallest * short - 1e-3 <= sides[1:].min()
    assert sides[1:].max() <= short + 1e-3


@given(st.integers(8, 300), st.integers(8, 300))
def test_crops_are_square(width, height):
    boxes, sides = draw_boxes(width, height, CutoutConfig(count=4, overview=0.0, smallest=0.3))
    assert torch.allclose(boxes[1:, 0, 0] * width, sides[1:], rtol=1e-4)
    assert torch.allclose(boxes[1:, 1, 1] * height, sides[1:], rtol=1e-4)


def test_crops_reach_every_side_of_the_picture():
    with fold_in(0):
        boxes, sides = draw_boxes(200, 100, CutoutConfig(count=4000, overview=0.0, smallest=0.5))
    left = (boxes[1:, 0, 2] + 1) * 100 - sides[1:] / 2
    top = (boxes[1:, 1, 2] + 1) * 50 - sides[1:] / 2
    edges = [left.min(), 200 - (left + sides[1:]).max(), top.min(), 100 - (top + sides[1:]).max()]
    assert max(edges) < 1


def test_a_picture_smaller_than_the_view_is_cropped_all_the_same():
    views = cut(ramp(16, 16), 32, 9, overview=0.0, smallest=0.5)[1:]
    shown = views.amax((1, 2, 3)) - views.amin((1, 2, 3))
    assert shown.min() < 0.75  # of 15/16 in all, at smallest 0.5; a peer shows all of it in every view


def test_a_crop_shows_what_lies_in_its_box():
    image = picture(40, 40)
    centre, side = torch.tensor([26.0, 18.0]), 16
    box = torch.tensor([[side / 40, 0, centre[0] / 20 - 1], [0, side / 40, centre[1] / 20 - 1], [0, 0, 1]])[None]
    assert torch.allclose(warp(image, box, torch.tensor([16.0]), 16), image[:, :, 10:26, 18:34], atol=1e-5)


# -- aliasing


@pytest.mark.parametrize("side", [64, 100, 128])
def test_a_fine_checkerboards_overview_is_grey(side):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    board = ((x + y) % 2).float().expand(1, 3, side, side)
    assert (cut(board, 32, 1) - 0.5).abs().max() < 0.02


def test_a_large_pictures_overview_is_its_area_average():
    image = picture(64, 64)
    assert torch.allclose(cut(image, 16, 1), F.avg_pool2d(image, 4), atol=1e-5)


def test_a_crop_of_a_large_picture_is_averaged_too():
    image = picture(64, 64)
    box = torch.diag(torch.tensor([0.5, 0.5, 1.0]))[None]  # the middle half, 32 pixels a side
    assert torch.allclose(
        warp(image, box, torch.tensor([32.0]), 16), F.avg_pool2d(image, 2)[:, :, 8:24, 8:24], atol=1e-5
    )


def test_views_of_different_scale_come_back_in_order():
    image = ramp(96, 96)
    sides = torch.tensor([16.0, 96, 32, 96, 16])
    boxes = torch.stack([torch.diag(torch.tensor([side / 96, side / 96, 1])) for side in sides])
    shown = warp(image, boxes, sides, 16)
    width = (shown.amax((1, 2, 3)) - shown.amin((1, 2, 3))) * 96 * 16 / 15
    assert width.tolist() == pytest.approx(sides.tolist(), abs=0.1)


@pytest.mark.parametrize("side", [192, 196, 204, 129])
def test_a_large_pictures_overview_is_in_place_at_any_size(side):
    shown = cut(ramp(side, side), 16, 1)[0, 0, 8]
    assert (shown - (torch.arange(16) + 0.5) / 16).abs().max() < 0.5 / 16  # half a pixel of the view


@pytest.mark.parametrize(("height", "width"), [(8, 512), (512, 8), (9, 300)])
def test_a_thin_pictures_overview_is_finite(height, width):
    assert cut(picture(height, width), 16, 4).isfinite().all()


# -- gradients


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (16, 16), (23, 23), (24, 24), (30, 18), (64, 64), (33, 70), (100, 100)]
)
def test_one_overview_sends_gradient_to_every_pixel(height, width):
    image = picture(height, width).requires_grad_()
    cut(image, 16, 1).sum().backward()
    assert image.grad.abs().amin() > 0


def test_the_default_views_send_gradient_to_every_pixel():
    image = picture(40, 40).requires_grad_()
    cut(image, 32, 16, augments=DEFAULT, noise=0.08).sum().backward()
    assert image.grad.abs().amin() > 0


def test_gradient_goes_only_to_the_picture_a_view_is_of():
    images = torch.cat([picture(20, 20, 1), picture(20, 20, 2)]).requires_grad_()
    cut(images, 16, 4, augments=DEFAULT)[:4].sum().backward()
    assert images.grad[1].abs().max() == 0


# -- randomness


def test_the_same_seed_and_step_give_the_same_views():
    image = picture(20, 20)
    assert torch.equal(cut(image, augments=DEFAULT, noise=0.1), cut(image, augments=DEFAULT, noise=0.1))


def test_the_next_step_gives_other_views():
    image = picture(20, 20)
    assert not torch.allclose(cut(image, step=0), cut(image, step=1))


def test_another_seed_gives_other_views():
    image = picture(20, 20)
    assert not torch.allclose(cut(image, seeds=[0]), cut(image, seeds=[1]))


def test_views_do_not_depend_on_the_global_generator():
    image, everything = picture(20, 20), tuple(AUGMENTS)
    torch.manual_seed(1)
    first = cut(image, augments=everything, noise=0.1)
    torch.manual_seed(2)
    assert torch.equal(cut(image, augments=everything, noise=0.1), first)


def test_cutting_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    cut(picture(20, 20), augments=tuple(AUGMENTS), noise=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pictures_views_do_not_depend_on_its_neighbours():
    one, other, everything = picture(20, 24, 1), picture(20, 24, 2), tuple(AUGMENTS)
    together = cut(torch.cat([one, other]), seeds=[5, 6], augments=everything, noise=0.1)
    alone = cut(other, seeds=[6], augments=everything, noise=0.1)
    assert torch.allclose(together[8:], alone, atol=1e-5)


def test_each_view_has_its_own_noise():
    views = cut(torch.full((1, 3, 20, 20), 0.5), count=5, noise=0.5).flatten(1) - 0.5
    alike = torch.corrcoef(views) - torch.eye(5)
    assert alike.abs().max() < 0.2  # 768 independent values: 0.04 typically


def test_each_picture_has_its_own_noise():
    views = cut(torch.full((2, 3, 20, 20), 0.5), count=1, noise=0.5).flatten(1)
    assert torch.corrcoef(views)[0, 1].abs() < 0.2


def test_each_view_is_turned_on_its_own():
    views = cut(ramp(16, 16), 16, 64, overview=1.0, augments=("flip",))
    assert 10 < (views[:, 0, 0, 0] > 0.5).sum() < 54  # half of them, by chance


def test_noise_has_the_strengths_of_the_paper():
    views = cut(torch.full((1, 3, 20, 20), 0.5), count=300, noise=0.1)
    strength = views.flatten(1).std(1)  # uniform in 0..0.1
    assert strength.max() < 0.11
    assert strength.mean() == pytest.approx(0.05, abs=0.006)


def test_without_noise_a_flat_picture_stays_flat():
    assert torch.allclose(cut(torch.full((1, 3, 20, 20), 0.3)), torch.tensor(0.3), atol=1e-6)


PIXELWISE = tuple(name for name in AUGMENTS if AUGMENTS[name].kind == "pixels")


@pytest.mark.parametrize("augments", [DEFAULT, PIXELWISE], ids=["default", "pixels"])
@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_views_made_in_parts_are_those_made_together(at_once, augments):
    image, options = picture(40, 24), {"augments": augments, "noise": 0.1, "margin": 0.4, "count": 8}
    parts = [cut(image, only=slice(first, first + at_once), **options) for first in range(0, 8, at_once)]
    assert torch.allclose(torch.cat(parts), cut(image, **options), atol=1e-6)


def test_views_made_in_parts_are_coloured_in_turn_as_well(only):
    names = (only(contrast=0.5), only(brightness=0.4), only(saturation=0.5))
    views = torch.rand(5, 3, 8, 8)
    with fold_in(4):
        together = transform_colours(views, *draw_colours(5, names))
    with fold_in(4):
        for name in names:
            views = transform_colours(views, *draw_colours(5, (name,)))
    assert torch.allclose(together, views, atol=1e-5)


def test_pixel_augmentations_of_each_view_are_drawn_apart():
    alike = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(2)).expand(9, -1, -1, -1)
    changed = augment_pixels(alike, PIXELWISE, range(9), 5, 0)
    assert len({view.numpy().tobytes() for view in changed}) > 5  # one in seven is left as it is


# -- the composed warp against kornia's own


def kornias(name):
    """Return kornia's augmentation as it would be used by itself: pixel centres, border kept where it can be."""
    extra = {
        "affine": {"align_corners": True, "padding_mode": "border"},
        "perspective": {"align_corners": True},
        "rotation": {"align_corners": True},
        "flip": {},
    }
    return getattr(K, AUGMENTS[name].kornia)(**AUGMENTS[name].arguments, **extra[name])


def apply_kornias(names, views):
    """Apply kornia's augmentations one by one, as peers do; tell which pixels came from inside throughout."""
    inside = torch.ones_like(views)
    for name in names:
        augment = kornias(name)
        params = augment.forward_parameters(views.shape)
        views, inside = augment(views, params=params), augment(inside, params=params)
    return views, inside > 0.9999  # a pixel that took 1% from outside differs by 1%


@pytest.mark.parametrize("name", GEOMETRIC)
def test_one_augmentation_is_warped_as_kornia_warps_it(name):
    image = picture(32, 32)
    with fold_in(1):
        ours = warp(image, draw_geometry(12, 32, (name,)), torch.full((12,), 32.0), 32)
    with fold_in(1):
        theirs, inside = apply_kornias([name], image.expand(12, -1, -1, -1))
    assert (ours - theirs).abs()[inside].max() < 2e-3


@pytest.mark.parametrize("names", list(itertools.permutations(GEOMETRIC)))
def test_composed_augmentations_are_warped_as_kornia_warps_them_in_turn(names):
    image = waves(48)
    with fold_in(2):
        ours = warp(image, draw_geometry(24, 48, names), torch.full((24,), 48.0), 48)
    with fold_in(2):
        theirs, inside = apply_kornias(names, image.expand(24, -1, -1, -1))
    inner = inside[..., 4:-4, 4:-4]  # affine's border is one pixel wide in kornia, and then bent
    assert (ours - theirs)[..., 4:-4, 4:-4].abs()[inner].quantile(0.99) < 0.01


def test_a_crop_is_cut_first_and_augmented_after():
    image = picture(40, 40)
    plain, flipped = (cut(image, 16, 12, overview=0.0, augments=names) for names in ((), ("flip",)))
    as_is, mirrored = (plain - flipped).abs().amax((1, 2, 3)), (plain.flip(3) - flipped).abs().amax((1, 2, 3))
    assert torch.minimum(as_is, mirrored).max() < 1e-4


def test_no_augmentation_leaves_the_view_as_it_is():
    assert torch.equal(draw_geometry(3, 16, ("colour", "erasing")), torch.eye(3).expand(3, 3, 3))


# -- colour


@pytest.fixture
def only(monkeypatch):
    """Return a function that adds a colour augmentation to the table, always applied, and gives its name."""

    def add(**arguments):
        name = f"test {sorted(arguments.items())}"
        monkeypatch.setitem(AUGMENTS, name, Augment("ColorJiggle", arguments | {"p": 1.0}, "colour"))
        return name

    return add


def recoloured(views, name, seed=3):
    with fold_in(seed):
        return transform_colours(views, *draw_colours(len(views), (name,)))


def luma(views):
    return (views * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)  # ITU-R BT.601


def test_saturating_keeps_the_luma(only):
    views = torch.rand(6, 3, 8, 8)
    assert torch.allclose(luma(recoloured(views, only(saturation=0.5))), luma(views), atol=1e-5)


def test_saturating_scales_the_distance_from_grey(only):
    views = torch.rand(6, 3, 8, 8)
    ratio = (recoloured(views, only(saturation=0.5)) - luma(views)[:, None]) / (views - luma(views)[:, None])
    assert ratio.flatten(1).std(1).max() < 1e-2
    assert ratio.flatten(1).mean(1).std() > 0.05


def test_brightening_scales_every_value(only):
    views = torch.rand(6, 3, 8, 8) + 0.1
    ratio = recoloured(views, only(brightness=0.5)) / views
    assert ratio.flatten(1).std(1).max() < 1e-5
    assert ratio.flatten(1).mean(1).std() > 0.05


def test_contrast_keeps_mid_grey(only):
    assert torch.allclose(recoloured(torch.full((6, 3, 4, 4), 0.5), only(contrast=0.5)), torch.tensor(0.5), atol=1e-6)


def test_contrast_scales_the_distance_from_mid_grey(only):
    views = torch.rand(6, 3, 8, 8)
    ratio = (recoloured(views, only(contrast=0.5)) - 0.5) / (views - 0.5)
    assert ratio.flatten(1).std(1).max() < 1e-2
    assert ratio.flatten(1).mean(1).std() > 0.05


def test_grey_stays_grey():
    out = transform_colours(torch.rand(6, 1, 8, 8).expand(-1, 3, -1, -1), *draw_colours(6, ("colour",)))
    assert torch.allclose(out, out[:, :1].expand(-1, 3, -1, -1), atol=1e-5)


def test_colour_is_left_alone_as_often_as_the_table_says():
    views = torch.rand(1, 3, 4, 4).expand(600, -1, -1, -1)
    with fold_in(0):
        untouched = (transform_colours(views, *draw_colours(600, ("colour",))) - views).abs().amax((1, 2, 3)) < 1e-6
    share = AUGMENTS["colour"].arguments["p"]
    assert untouched.float().mean() == pytest.approx(1 - share, abs=4 * math.sqrt(share * (1 - share) / 600))


# -- the table


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_every_augmentation_gives_finite_views(name):
    assert cut(picture(24, 24), augments=(name,)).isfinite().all()


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_every_augmentation_does_something(name):
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(cut(image, count=24, augments=(name,)), cut(image, count=24), atol=1e-3)


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_every_augmentation_passes_gradients(name):
    image = picture(24, 24).requires_grad_()
    cut(image, count=24, augments=(name,)).square().sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def test_every_augmentation_is_of_a_known_kind():
    assert {augment.kind for augment in AUGMENTS.values()} <= {"geometry", "colour", "pixels"}
