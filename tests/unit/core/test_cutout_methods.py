"""Other tools' cutouts: where they lie, what they show, and that they are like those tools' own."""

import pytest
import torch

import vqclip
from tests.benchmarks.peers import kornia, latest
from tests.support.runs import contents, differing
from vqclip.core.cutouts import BOXES, CutoutConfig, make_cutouts
from vqclip.core.init import smooth_image
from vqclip.errors import UsageError
from vqclip.settings.augmentations import AUGMENTS, parse_augment
from vqclip.settings.cutout_methods import CUTOUT_METHODS
from vqclip.settings.schema import Settings

SETTINGS = {"seed": 7, "steps": 4, "size": 32, "cutouts": 3, "init": "grey", "upscale": 0, "coarse": 0.0}


def cut(name, image, size=32, count=64, augments=None, step=0, only=slice(None), **more):
    method = CUTOUT_METHODS[name]
    config = CutoutConfig(count, 0.7, 0.6, 0.0, method.augments if augments is None else augments, 0.0, name, **more)
    return make_cutouts(image, size, config, seeds=[3], step=step, only=only)


def sides(name, count=2000, **more):
    config = CutoutConfig(count, 0.25, 0.6, 0.0, (), 0.0, name, **more)
    torch.manual_seed(0)
    matrices, lengths = BOXES[CUTOUT_METHODS[name].boxes](96, 64, 32, config)
    return matrices, lengths


def test_the_names_are_the_settings():
    assert set(CUTOUT_METHODS) == set(Settings.model_json_schema()["properties"]["cutout_method"]["enum"])


@pytest.mark.parametrize("name", CUTOUT_METHODS)
def test_cutouts_are_the_same_in_chunks_of_any_size(name):
    image = smooth_image(96, 64, 1)
    whole = cut(name, image, count=6)
    parts = torch.cat([cut(name, image, count=6, only=slice(k, k + 4)) for k in (0, 4)])
    torch.testing.assert_close(whole, parts, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["original", "sg3", "kornia", "updated", "nrupdated"])
def test_squares_lie_inside_and_are_as_large_as_their_exponent_says(name):
    matrices, lengths = sides(name)
    assert 32 <= lengths.min() < 33 < 63 < lengths.max() <= 64
    corners = matrices @ torch.tensor([[-1.0, -1, 1], [1, 1, 1]]).T
    assert corners[:, :2].abs().max() <= 1 + 1e-5
    # the mean of rand^p is 1 / (p + 1)
    for power in (0.5, 1.0, 2.0):
        _, lengths = sides(name, power=power)
        assert float((lengths.mean() - 32) / 32) == pytest.approx(1 / (power + 1), abs=0.03)


def test_overviews_and_inner_cuts():
    _, lengths = sides("inner", count=8)
    assert lengths[:2].tolist() == [96, 96]
    assert lengths[2:].max() <= 64


def test_three_of_five_of_pixrays_are_zooms():
    matrices, _ = sides("pixray", count=1000)
    area = matrices[:, 0, 0] * matrices[:, 1, 1]
    assert area[:600].min() >= 0.25 - 1e-5 and area[:600].max() <= 0.95 + 1e-5  # noqa: PT018
    torch.testing.assert_close(area[600:], torch.full((400,), 0.95**-2))


def test_a_pooled_image_is_pressed_into_the_square():
    image = torch.zeros(1, 3, 64, 96)
    image[..., 48:] = 1.0
    seen = cut("latest", image, augments=())
    assert (seen[0, :, :, :15].max(), seen[0, :, :, 17:].min()) == (0, 1)


@pytest.mark.full
@pytest.mark.parametrize(("name", "peer"), [("latest", latest), ("kornia", kornia)])
def test_statistics_are_those_of_the_peers_own(name, peer):
    """Over many cutouts of several images: mean, contrast within a cutout, and spread between cutouts."""

    def statistics(cutouts):
        inside = cutouts.clamp(0, 1)
        return torch.stack([inside.mean(), inside.std((1, 2, 3)).mean(), inside.mean((1, 2, 3)).std()])

    torch.manual_seed(1)
    ours, theirs = [], []
    for k in range(8):
        image = smooth_image(96, 96, k)
        ours.append(statistics(cut(name, image, count=64, step=k)))
        theirs.append(statistics(peer(image, 32)))
    ours, theirs = torch.stack(ours).mean(0), torch.stack(theirs).mean(0)
    assert (ours - theirs).abs().max() < 0.05


@pytest.mark.parametrize("name", ["original", "pixray", "latest"])  # what each draws of its own
def test_a_run_that_is_resumed_has_the_same_bytes(networks, tmp_path, name):
    whole = vqclip.generate("x", runs=tmp_path / "a", cutout_method=name, **SETTINGS).run
    stopped = vqclip.generate(
        "x", runs=tmp_path / "b", cutout_method=name, on_step=lambda step: step.step == 2, **SETTINGS
    )
    vqclip.resume(stopped.run)
    assert differing(contents(whole), contents(stopped.run)) == []


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("affine", {"degrees": 12.0, "p": 0.8}),
        ("affine:30", {"degrees": 30.0, "p": 0.8, "shear": 4.0}),
        ("affine:30:0.5", {"degrees": 30.0, "p": 0.5}),
        ("perspective:.7", {"distortion_scale": 0.7, "p": 0.5}),
        ("colour:0.3", {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}),
        ("flip:1:0.25", {"p": 0.25}),
        (" hue:0.2 ", {"hue": 0.2}),
    ],
)
def test_an_augmentation_with_a_strength(text, arguments):
    row = parse_augment(text)
    assert {key: row.arguments[key] for key in arguments} == arguments
    assert row.kind == AUGMENTS[text.strip().partition(":")[0]].kind


@pytest.mark.parametrize("text", ["affine:181", "perspective:1.5", "flip:0.5", "affine:30:1.5", "affin:3", "affine:",
                                  "affine:x", "affine:1:1:1", "", ":", "hue:0.6", "affine:-3"])  # fmt: skip
def test_an_augmentation_that_is_not_understood(text):
    with pytest.raises(UsageError):
        parse_augment(text)
    with pytest.raises(UsageError):
        vqclip.generate("x", augments=[text], **SETTINGS)


STRENGTHS = {"affine": (5, 40), "rotation": (5, 40), "blur": (0.5, 3), "elastic": (0.2, 3), "erasing": (0.1, 0.8),
             "hue": (0.05, 0.4), "sharpness": (0.9, 0.1)}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, row in AUGMENTS.items() if row.strength])
def test_more_strength_changes_more(name):
    image = smooth_image(64, 64, 5)
    plain = cut("original", image, augments=())

    def change(strength):
        return float((cut("original", image, augments=(f"{name}:{strength}:1",)) - plain).abs().mean())

    weak, strong = STRENGTHS.get(name, (0.1, 0.6))
    assert 0 < change(weak) < change(strong)


def test_hue_keeps_grey_and_brightness_of_channels():
    grey = torch.full((1, 3, 32, 32), 0.4)
    torch.testing.assert_close(cut("original", grey, augments=("hue:0.5:1",)), grey.expand(64, -1, -1, -1))
    image = smooth_image(32, 32, 2)
    turned = cut("original", image, augments=("hue:0.5:1",))
    torch.testing.assert_close(turned.sum(1), cut("original", image, augments=()).sum(1), atol=1e-5, rtol=0)
