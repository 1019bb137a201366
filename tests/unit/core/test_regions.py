"""Prompts of a part of the image: masks, what cutouts see of them, and that they change nothing beside."""

import pytest
import torch
from PIL import Image

from tests.support.fakes import FakeClip, FakeVqgan, draw
from vqclip.batch.stacked import stack_targets
from vqclip.core.cutouts import CutoutConfig, draw_cutouts
from vqclip.core.interfaces import LoopInputs
from vqclip.core.loop import optimize
from vqclip.core.losses import prompt_distance
from vqclip.core.regions import SIDE, make_mask, region_shares
from vqclip.core.targets import make_targets
from vqclip.errors import InputError
from vqclip.settings.regions import parse_region
from vqclip.settings.schema import Settings

VQGAN, CLIP, CPU = FakeVqgan(), FakeClip(), torch.device("cpu")
START = draw(1, 8, 4, 4, seed=50) * 0.5
WHITE = Image.new("L", (40, 30), "white")


def run(images={}, **changes):
    settings = Settings(**{"steps": 4, "cutouts": 5, "coarse": 0.0, "size": (16, 16), **changes})
    inputs = LoopInputs(VQGAN, [CLIP], make_targets([CLIP], settings, images, CPU), settings)
    return b"".join(step.latent.numpy().tobytes() for step in optimize(inputs, START))


@pytest.mark.parametrize("place", ["0,0,1,1", "/white.png"])
@pytest.mark.parametrize("more", [{}, {"margin": 0.0}, {"chunk": 2}])
def test_a_region_that_is_the_whole_image_gives_the_bytes_of_a_prompt(place, more):
    assert run({"/white.png": WHITE}, prompt="a cat", regions=(f"a hat:0.5@{place}",), **more) == run(
        prompt="a cat | a hat:0.5", **more
    )


def test_a_region_does_not_depend_on_the_chunks():
    """To rounding: sums are in another order."""
    ours, chunked = (
        torch.frombuffer(bytearray(run(prompt="a", regions=("b@left",), chunk=chunk)), dtype=torch.float32)
        for chunk in (0, 2)
    )
    assert torch.allclose(ours, chunked, atol=1e-4)


def test_regions_alone_are_prompts_enough():
    assert run(regions=("a@left", "b@right")) != run(regions=("a@right", "b@left"))


@pytest.mark.parametrize(
    ("place", "share"),
    [("left", 0.5), ("right", 0.5), ("top", 0.5), ("centre", 0.25), ("0.1,0.2,0.3,0.4", 0.12), ("0,0,1,1", 1.0)],
)
def test_a_mask_covers_its_part_of_the_image(place, share):
    mask = make_mask(parse_region(f"a@{place}"), {}, (64, 32))
    assert float(mask.mean()) == pytest.approx(share, abs=1e-6)


def test_a_mask_lies_where_it_is_said():
    mask = make_mask(parse_region("a@0.5,0,0.5,0.25"), {}, (64, 32))
    assert mask[: SIDE // 4, SIDE // 2 :].min() == 1
    assert float(mask.sum()) == SIDE * SIDE / 8


def test_a_file_is_cropped_as_an_init_image_is():
    picture = Image.new("L", (64, 32), "black")
    picture.paste("white", (16, 0, 32, 32))  # of a square from its middle the left half
    mask = make_mask(parse_region("a@/m.png"), {"/m.png": picture}, (32, 32))
    assert torch.equal(mask, make_mask(parse_region("a@left"), {}, (32, 32)))


def test_a_black_mask_is_refused():
    with pytest.raises(InputError, match="black"):
        make_mask(parse_region("a@/m.png"), {"/m.png": Image.new("L", (8, 8))}, (32, 32))


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_a_cutout_sees_the_share_of_the_region_in_what_it_sees_of_the_image(margin):
    config = CutoutConfig(20, overview=0.2, smallest=0.2, margin=margin)
    masks = make_mask(parse_region("a@left"), {}, (64, 64))[None]
    (shares,) = region_shares(masks, torch.zeros(1, 3, 64, 64), 32, config, seeds=[3], step=2, only=slice(2, None))
    transforms = draw_cutouts(64, 64, 32, config, 3, 2).transforms[2:]
    half, middle = transforms[:, 0, 0], transforms[:, 0, 2]  # of a cutout, where the image is -1..1
    left, right = (middle - half).clamp(-1, 1), (middle + half).clamp(-1, 1)
    expected = (-left).clamp(min=0).minimum(right - left) / (right - left)
    assert shares[:, 0].tolist() == pytest.approx(expected.tolist(), abs=0.03)
    assert expected.min() == 0
    assert expected.max() > 0.6


def test_a_prompt_counts_by_the_square_of_its_share():
    settings = Settings(prompt="a", regions=("b@left",))
    (target,) = make_targets([CLIP], settings, {}, CPU)
    embeds = CLIP.encode_text(["c", "d"])[None]
    plain = prompt_distance(embeds, target)
    half = prompt_distance(embeds, target, torch.tensor([[[1.0, 0.5], [1.0, 0.0]]]))
    alone, _ = (prompt_distance(embeds[:, [k]], make_targets([CLIP], Settings(prompt="a"), {}, CPU)[0]) for k in (0, 1))
    assert half[0, 0] == pytest.approx(float(alone + (plain[0, 0] - alone) / 4), abs=1e-5)
    assert target.overall.tolist() == [1, 0.25]


def test_images_of_one_tensor_have_their_own_regions():
    several = [Settings(prompt="a", regions=("b@left",)), Settings(prompt="c | d"), Settings(regions=("e:{t}@right",))]
    shared = Settings(prompt="x", steps=3, cutouts=3, coarse=0.0, size=(16, 16))
    targets = [make_targets([CLIP], settings, {}, CPU) for settings in several]
    stacked = [stack_targets([target for (target,) in targets])]
    *_, together = optimize(LoopInputs(VQGAN, [CLIP], stacked, shared), START.repeat(3, 1, 1, 1), seeds=[1, 2, 3])
    for k, target in enumerate(targets):
        *_, alone = optimize(LoopInputs(VQGAN, [CLIP], target, shared), START, seeds=[k + 1])
        assert torch.allclose(together.latent[[k]], alone.latent, atol=1e-5)


@pytest.mark.parametrize("method", ["pixray", "latest"])
def test_a_region_lies_where_the_cutouts_of_a_pooled_image_do(method):
    config = CutoutConfig(count=24, method=method)
    masks = torch.zeros(1, SIDE, SIDE)
    masks[..., : SIDE // 2] = 1
    wide, square = torch.zeros(1, 3, 208, 384), torch.zeros(1, 3, 32, 32)
    ours, theirs = (
        region_shares(masks, image, 32, config, seeds=[3], step=1, only=slice(None)) for image in (wide, square)
    )
    assert torch.equal(ours, theirs)
