"""The loop, on fakes. Pitfalls 5.1, 5.2 (the last step lost), 5.8 (pull to zero), 5.16, 5.19 (NaN) of the research."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import FakeClip, FakeVqgan, aim, draw
from vqclip.batch.stacked import stack_targets
from vqclip.core.fades import FADES, fade, learning_rate
from vqclip.core.interfaces import LoopInputs, Target
from vqclip.core.loop import optimize
from vqclip.core.quantize import quantize
from vqclip.core.targets import join, make_target
from vqclip.errors import Diverged
from vqclip.settings.schema import WITH_CURVES, Settings

VQGAN = FakeVqgan()
CLIP = FakeClip()
CPU = torch.device("cpu")
LOW, HIGH = (edge[:, None, None] for edge in (VQGAN.codebook.min(0).values, VQGAN.codebook.max(0).values))
START = draw(1, 8, 4, 4, seed=50) * 0.5


def run(z=START, clips=(CLIP,), seeds=None, prompt="a red heart", targets=None, vqgan=VQGAN, z_target=None, **changes):
    """Run the loop to its end; return its steps."""
    settings = Settings(**{"prompt": prompt, "steps": 6, "cutouts": 4, "coarse": 0.0, "tv": 0.0, **changes})
    inputs = LoopInputs(vqgan, list(clips), targets or aim(list(clips), prompt), settings, z_target=z_target)
    return list(optimize(inputs, z, seeds=seeds))


def bytes_of(steps):
    return b"".join(step.latent.numpy().tobytes() for step in steps)


# -- steps


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_is_yielded_and_no_other(steps):
    assert [step.step for step in run(steps=steps)] == list(range(1, steps + 1))


def test_nothing_runs_before_it_is_asked_for():
    shown = []

    class Watched(FakeClip):
        def encode_image(self, image):
            shown.append(len(image))
            return super().encode_image(image)

    steps = optimize(
        LoopInputs(VQGAN, [Watched()], aim([CLIP], "x"), Settings(prompt="x", steps=5, cutouts=3, coarse=0.0)), START
    )
    next(steps)
    assert shown == [3]


def test_the_yielded_latent_has_the_last_update_in_it():
    (step,) = run(steps=1, ema=0.0, step_size=0.1, damping=0.0)
    moved = (step.latent - START).abs()
    rate = (
        0.1 * VQGAN.codebook.std(0).mean().item() * learning_rate(0)
    )  # Adam's first update is this, with the gradient's sign
    inside = (step.latent > LOW) & (step.latent < HIGH) & (moved > 0)
    assert inside.float().mean() > 0.8
    assert moved[inside].tolist() == pytest.approx([rate] * int(inside.sum()), rel=1e-2)


def test_damping_is_in_units_of_the_gradients_root_mean_square():
    (step,) = run(steps=1, ema=0.0, step_size=0.1, damping=2.0)
    share = (step.latent - START).abs() / (0.1 * VQGAN.codebook.std(0).mean() * learning_rate(0))
    inside = (step.latent > LOW) & (step.latent < HIGH)
    gradient = 2 * share / (1 - share)  # of Adam's first update, share = |g| / (|g| + damping)
    assert gradient[inside].square().mean().sqrt() == pytest.approx(1, rel=0.2)
    assert share.max() < 1


def test_the_learning_rate_is_in_units_of_the_codebooks_spread():
    wide = FakeVqgan()
    wide.codebook, wide.colours = VQGAN.codebook * 10, VQGAN.colours / 10
    (near,), (far,) = run(steps=1, ema=0.0), run(z=START * 10, vqgan=wide, steps=1, ema=0.0)
    assert torch.allclose(far.latent, near.latent * 10, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("point", [0.0, 9.0])  # within the live codes' range, and far out
def test_dead_codes_change_no_step(point):
    crowded = FakeVqgan()
    dead = point + 1e-4 * draw(15 * 64, 8, seed=7)
    crowded.codebook = torch.cat([VQGAN.codebook, dead])
    start = VQGAN.codebook[:16].T.reshape(1, 8, 4, 4)
    options = {"z": start, "steps": 6, "init_weight": 0.1, "ema": 0.0}
    ours, without = run(vqgan=crowded, **options), run(**options)
    if point:  # codes that no latent comes near
        assert bytes_of(ours) == bytes_of(without)
    else:
        assert crowded.codebook.std(0).mean() < 0.3 * VQGAN.codebook.std(0).mean()
    size, expected = (float((steps[0].latent - start).abs().mean()) for steps in (ours, without))
    assert size == pytest.approx(expected, rel=0.1)
    assert float(ours[-1].losses["init"]) == pytest.approx(float(without[-1].losses["init"]), rel=0.5)


def test_without_average_the_latent_shown_is_the_last():
    smooth, plain = run(ema=0.9), run(ema=0.0)
    assert not torch.allclose(smooth[-1].latent, plain[-1].latent)


def test_the_first_latents_shown_are_the_mean_so_far():
    plain, smooth = run(steps=8, ema=0.0), run(steps=8, ema=0.9)
    means = [torch.stack([step.latent for step in plain[: k + 1]]).mean(0) for k in range(8)]
    assert torch.allclose(torch.stack([step.latent for step in smooth]), torch.stack(means), atol=1e-5)


def test_later_latents_shown_are_an_exponential_average():
    plain, smooth = run(steps=8, ema=0.0), run(steps=8, ema=0.5)
    expected = plain[0].latent
    for step in plain[1:]:
        expected = (expected + step.latent) / 2
    assert torch.allclose(smooth[-1].latent, expected, atol=1e-5)


def test_the_start_is_left_as_it_was():
    z = START.clone()
    run(z=z)
    assert torch.equal(z, START)


def test_yielded_tensors_carry_no_gradient():
    step = run(steps=1, init_weight=1.0, tv=0.1)[0]
    assert not any(tensor.requires_grad for tensor in (step.latent, *step.losses.values()))


def test_a_yielded_latent_may_be_changed():
    settings = Settings(prompt="a red heart", steps=4, cutouts=4, coarse=0.0)
    kept = [
        step.latent.clone()
        for step in optimize(LoopInputs(VQGAN, [CLIP], aim([CLIP], settings.prompt), settings), START)
    ]
    changed = []
    for step in optimize(LoopInputs(VQGAN, [CLIP], aim([CLIP], settings.prompt), settings), START):
        changed.append(step.latent.clone())
        step.latent.zero_()
    assert torch.equal(torch.stack(changed), torch.stack(kept))


def test_a_wide_latent_keeps_its_shape():
    assert run(z=draw(1, 8, 2, 5, seed=1), steps=2)[-1].latent.shape == (1, 8, 2, 5)


# -- seeds


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_the_same_seed_gives_the_same_bytes(seed):
    torch.manual_seed(1)
    first = bytes_of(run(seed=seed))
    torch.manual_seed(2)
    assert bytes_of(run(seed=seed)) == first


def test_another_seed_gives_other_bytes():
    assert bytes_of(run(seed=0)) != bytes_of(run(seed=1))


def test_a_run_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_between_steps_changes_nothing():
    settings = Settings(prompt="x", steps=4, cutouts=4, coarse=0.0, tv=0.0)
    disturbed = []
    for step in optimize(LoopInputs(VQGAN, [CLIP], aim([CLIP], "x"), settings), START):
        torch.rand(step.step)
        disturbed.append(step)
    assert bytes_of(disturbed) == bytes_of(run(prompt="x", steps=4))


def test_the_settings_seed_is_every_pictures_where_none_is_given():
    two = START.repeat(2, 1, 1, 1)
    assert bytes_of(run(z=two, seed=5)) == bytes_of(run(z=two, seeds=[5, 5]))


# -- batches


def test_a_picture_in_a_batch_equals_its_run_alone():
    zs = draw(3, 8, 4, 4, seed=51) * 0.5
    together = run(z=zs, seeds=[4, 5, 6], init_weight=0.1, tv=0.1)[-1].latent
    alone = torch.cat([run(z=zs[i : i + 1], seeds=[4 + i], init_weight=0.1, tv=0.1)[-1].latent for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_picture_does_not_depend_on_its_neighbour():
    zs = draw(3, 8, 4, 4, seed=52) * 0.5
    first, second = (run(z=zs[[0, other]], seeds=[4, 4 + other])[-1].latent[0] for other in (1, 2))
    assert torch.allclose(first, second, atol=1e-4)


def test_losses_are_given_for_each_picture():
    step = run(z=START.repeat(3, 1, 1, 1), steps=1, init_weight=1.0, tv=1.0)[0]
    assert {name: loss.shape for name, loss in step.losses.items()} == dict.fromkeys(("prompt", "init", "tv"), (3,))


def test_a_pictures_gradient_does_not_shrink_with_the_batch():
    gradients = []

    class Listens(FakeClip):
        def encode_image(self, image):
            embeds = super().encode_image(image)
            embeds.register_hook(lambda grad: gradients.append(grad[:4]))  # of the first picture's four views
            return embeds

    for count in (1, 3):
        run(z=START.repeat(count, 1, 1, 1), clips=[Listens()], steps=1)
    assert torch.allclose(*gradients, rtol=1e-4)


def test_pictures_of_one_batch_have_seeds_of_their_own():
    latent = run(z=START.repeat(2, 1, 1, 1), seeds=[1, 2])[-1].latent
    assert not torch.allclose(latent[0], latent[1])


# -- what it does


def distance(z, prompt="a red heart", clip=CLIP):
    """Return the angle between the whole decoded picture and the prompt's text."""
    image = VQGAN.decode(quantize(z, VQGAN.codebook)).clamp(0, 1)
    return torch.arccos(clip.encode_image(image)[0] @ clip.encode_text([prompt])[0]).item()


def test_the_picture_comes_nearer_to_its_prompt():
    assert distance(run(steps=60, cutouts=8)[-1].latent) < distance(START) - 0.1


def test_the_picture_leaves_a_negative_prompt():
    wanted = Target(
        CLIP.encode_image(VQGAN.decode(quantize(START, VQGAN.codebook)).clamp(0, 1)),
        torch.tensor([-1.0]),
        torch.tensor([-9.0]),
    )
    steps = run(steps=30, targets=[wanted])
    assert steps[-1].losses["prompt"] < steps[0].losses["prompt"] - 0.01


def test_a_negative_prompt_that_is_far_enough_moves_nothing():
    away = Target(CLIP.encode_text(["x"]), torch.tensor([-1.0]), torch.tensor([-0.001]))
    start = START.clamp(LOW, HIGH)
    assert torch.equal(run(z=start, targets=[away], steps=3, ema=0.0)[-1].latent, start)


def test_every_perceptor_is_asked():
    other = FakeClip(size=8, seed=9)
    assert bytes_of(run(clips=(CLIP, other))) != bytes_of(run(clips=(CLIP,)))


def looking(clips, *, shares=None, steps=8, **changes):
    """Run with several perceptors; return which of them were shown something, step after step."""
    seen = []

    class Eye(FakeClip):
        def encode_image(self, image):
            seen.append(self.seed)
            return super().encode_image(image)

    eyes = [Eye(seed=number) for number in range(clips)]
    for number, eye in enumerate(eyes):
        eye.seed = number
    targets = [replace(one, weight=share) for one, share in zip(aim(eyes, "x"), shares or [1.0] * clips, strict=True)]
    run(clips=eyes, targets=targets, steps=steps, **changes)
    return seen


def test_in_turns_one_perceptor_sees_a_step():
    assert looking(3, clip_mix="turns", steps=7) == [0, 1, 2, 0, 1, 2, 0]
    assert looking(2, steps=2) == [0, 1, 0, 1]


def test_a_turn_comes_as_often_as_its_share_asks_and_never_in_a_row_unless_it_must():
    seen = looking(3, shares=[2.0, 1.0, 1.0], clip_mix="turns", steps=40)
    assert [seen.count(number) for number in range(3)] == [20, 10, 10]
    assert all(seen[start : start + 4].count(0) == 2 for start in range(0, 40, 4))


def test_turns_go_over_from_the_coarse_steps_to_the_fine_ones():
    assert looking(2, clip_mix="turns", steps=5, coarse=0.6) == [0, 1, 0, 1, 0]


def test_a_run_in_turns_goes_on_with_the_one_whose_turn_it_is():
    clips = [CLIP, FakeClip(seed=9)]
    settings = Settings(prompt="x", steps=5, cutouts=3, coarse=0.0, clip_mix="turns")
    whole = list(optimize(LoopInputs(VQGAN, clips, aim(clips, "x"), settings), START))
    rest = list(optimize(LoopInputs(VQGAN, clips, aim(clips, "x"), settings), START, state=whole[2].state))
    assert bytes_of(rest) == bytes_of(whole[3:])


def test_the_latent_stays_between_the_codebooks_bounds():
    latents = torch.cat([step.latent for step in run(z=START * 20, steps=8, step_size=5.0, ema=0.0)])
    assert (latents >= LOW).all()
    assert (latents <= HIGH).all()


def test_the_init_weight_holds_the_latent_near_its_start():
    start = VQGAN.codebook[:16].T.reshape(1, 8, 4, 4)
    free, held = (run(z=start, steps=20, init_weight=weight)[-1].latent for weight in (0.0, 50.0))
    assert (held - start).norm() < 0.5 * (free - start).norm()


def test_the_init_weight_does_not_pull_to_zero():
    start = VQGAN.codebook[:16].T.reshape(1, 8, 4, 4)
    away = Target(CLIP.encode_text(["x"]), torch.tensor([-1.0]), torch.tensor([-0.001]))  # a prompt that pulls nothing
    assert torch.equal(run(z=start, targets=[away], init_weight=50.0, ema=0.0)[-1].latent, start)


def test_total_variation_smooths():
    def roughness(z):
        image = VQGAN.decode(quantize(z, VQGAN.codebook)).clamp(0, 1)
        return (image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()).item()

    rough, smooth = (run(steps=30, tv=weight)[-1].latent for weight in (0.0, 100.0))
    assert roughness(smooth) < roughness(rough)


def test_the_share_of_changed_codes_is_counted_place_by_place():
    def chosen(z):
        return torch.cdist(z.movedim(1, -1).reshape(-1, 8).double(), VQGAN.codebook.double()).argmin(1)

    steps = run(steps=6, step_size=1.0, ema=0.0)
    latents = [START, *(step.latent for step in steps)]
    shares = [(chosen(a) != chosen(b)).double().mean().item() for a, b in itertools.pairwise(latents)]
    assert [step.changed for step in steps] == pytest.approx(shares)


# -- divergence


class Breaks(FakeClip):
    """A FakeClip that gives NaN, in the forward pass or in the gradient alone, from one step on."""

    def __init__(self, *, at: int, gradient: bool = False) -> None:
        super().__init__()
        self.at, self.gradient, self.asked = at, gradient, 0

    def encode_image(self, image):
        self.asked += 1
        embeds = super().encode_image(image)
        if self.asked < self.at:
            return embeds
        if self.gradient:
            embeds.register_hook(lambda grad: grad * math.nan)
            return embeds
        return embeds * math.nan


def test_a_loss_that_is_not_a_number_raises_diverged():
    with pytest.raises(Diverged):
        run(clips=[Breaks(at=3)], targets=aim([CLIP], "x"))


def test_an_infinite_loss_raises_diverged():
    class Infinite(FakeVqgan):
        def decode(self, z_q):
            return super().decode(z_q) * math.inf

    with pytest.raises(Diverged):
        run(vqgan=Infinite())


def collect(clip, steps):
    """Run until the loop ends or gives up; return what it yielded and whether it gave up."""
    seen = []
    try:
        for step in optimize(
            LoopInputs(VQGAN, [clip], aim([CLIP], "x"), Settings(prompt="x", steps=steps, cutouts=2, coarse=0.0)), START
        ):
            seen.append(step)
    except Diverged:
        return seen, True
    return seen, False


def test_steps_before_the_divergence_are_yielded():
    seen, _ = collect(Breaks(at=3), steps=9)
    assert [step.step for step in seen] == [1, 2]


def test_a_gradient_that_is_not_a_number_raises_diverged_even_at_the_last_step():
    assert collect(Breaks(at=2, gradient=True), steps=2)[1]


def test_a_gradient_that_is_not_a_number_reaches_no_latent():
    seen, _ = collect(Breaks(at=2, gradient=True), steps=4)
    assert all(step.latent.isfinite().all() for step in seen)


# -- the schedule


@given(st.floats(0, 1))
def test_the_schedule_stays_above_zero_and_at_most_one(progress):
    assert 0 < learning_rate(progress) <= 1


@given(st.floats(0.05, 1))
def test_after_the_warm_up_the_schedule_stays_above_a_tenth(progress):
    assert learning_rate(progress) >= 0.1


@pytest.mark.parametrize(("progress", "expected"), [(0.25, 0.8682), (0.5, 0.55), (0.75, 0.2318), (1.0, 0.1)])
def test_the_schedule_follows_a_cosine_down_to_a_tenth(progress, expected):
    assert learning_rate(progress) == pytest.approx(expected, abs=1e-4)


def test_the_schedule_rises_over_the_first_twentieth():
    rates = [learning_rate(k / 1000) for k in range(30)]
    assert rates == sorted(rates)


def test_the_schedule_starts_low():
    assert learning_rate(0) <= 0.25


def test_the_schedule_falls_after_the_first_twentieth():
    rates = [learning_rate(k / 1000) for k in range(50, 1001)]
    assert rates == sorted(rates, reverse=True)


# -- coarse steps


def places(steps):
    return [tuple(step.latent.shape[-2:]) for step in steps]


def test_coarse_steps_run_at_half_the_size_and_first():
    assert places(run(z=draw(1, 8, 6, 8, seed=1), steps=4, coarse=0.5)) == [(3, 4)] * 2 + [(6, 8)] * 2


def test_coarse_steps_are_counted_with_the_rest():
    assert [step.step for step in run(steps=5, coarse=0.4)] == [1, 2, 3, 4, 5]


def test_an_odd_number_of_places_comes_back_after_coarse_steps():
    assert places(run(z=draw(1, 8, 5, 7, seed=1), steps=2, coarse=0.5)) == [(3, 4), (5, 7)]


def test_a_picture_too_small_to_halve_has_no_coarse_steps():
    assert places(run(z=draw(1, 8, 3, 8, seed=1), steps=2, coarse=0.5)) == [(3, 8)] * 2


def test_the_last_latent_has_the_full_size_even_if_all_steps_are_coarse():
    assert run(steps=2, coarse=1.0)[-1].latent.shape == START.shape


def test_coarse_steps_come_back_as_the_same_bytes():
    assert bytes_of(run(coarse=0.5)) == bytes_of(run(coarse=0.5))


def test_a_picture_in_a_batch_with_coarse_steps_equals_its_run_alone():
    zs = draw(2, 8, 4, 4, seed=53) * 0.5
    together = run(z=zs, seeds=[4, 5], coarse=0.5)[-1].latent
    alone = torch.cat([run(z=zs[i : i + 1], seeds=[4 + i], coarse=0.5)[-1].latent for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_full_size_goes_on_from_the_coarse_picture():
    steps = run(z=draw(1, 8, 8, 8, seed=54) * 0.5, steps=40, coarse=0.5, cutouts=8)
    image = [VQGAN.decode(quantize(steps[k].latent, VQGAN.codebook)).clamp(0, 1) for k in (19, 20)]
    small, large = image[0], torch.nn.functional.avg_pool2d(image[1], 2)
    assert torch.corrcoef(torch.stack([small.flatten(), large.flatten()]))[0, 1] > 0.5


class Sees(FakeClip):
    """A perceptor that sees every view at one angle from its target, whatever is in it."""

    def __init__(self, degrees):
        super().__init__()
        self.degrees = degrees

    def encode_image(self, image):
        radians = torch.deg2rad(torch.tensor(self.degrees))
        return torch.stack([radians.cos(), radians.sin()]).expand(len(image), 2) + 0 * image.mean()


@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize("shares", [(3.0, 1.0), (0.75, 0.25), (1.0, 1.0)])
def test_a_perceptor_counts_by_its_share_of_all(shares, chunk):
    aims = [Target(torch.tensor([[1.0, 0.0]]), torch.ones(1), torch.full((1,), -torch.inf), share) for share in shares]
    settings = Settings(prompt="x", steps=1, cutouts=8, chunk=chunk)
    z = torch.zeros(2, 8, 8, 8)
    (step,) = optimize(LoopInputs(FakeVqgan(), [Sees(30.0), Sees(60.0)], aims, settings), z)
    first, second = (torch.deg2rad(torch.tensor(angle)) ** 2 / 2 for angle in (30.0, 60.0))
    expected = (first * shares[0] + second * shares[1]) / sum(shares)
    assert torch.allclose(step.losses["prompt"], expected.expand(2), rtol=1e-4)


# -- curves


@pytest.mark.parametrize("name", [name for name in WITH_CURVES if name != "aesthetic_weight"])  # which needs a head
def test_a_constant_curve_gives_the_bytes_of_its_number(name):
    more = {"symmetry": "x", "frame": "#ff0000", "palette": ("#00ff00",), "tv": 3.0}
    value = {"init_weight": 0.3, "saturation": 0.2, "smoothness": 0.2, "latent_noise": 0.1, "learning_rate": 0.1}.get(
        name, Settings.model_fields[name].default
    )
    number, curve = (run(**(more | {name: given})) for given in (value, f"0: {value}, 0.3: {value}, 1: {value}"))
    assert bytes_of(curve) == bytes_of(number)
    assert [list(step.losses) for step in curve] == [list(step.losses) for step in number]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("tv", 3, 30), ("step_size", 1, 0.1), ("cutouts", 4, 6), ("overview", 0.7, 0), ("noise", 0.08, 0.5),
        ("latent_noise", 0.1, 0.5), ("margin", 0.5, 0.1), ("damping", 1, 2), ("ema", 0.9, 0.1),
        ("smallest_cutout", 0.6, 0.2), ("saturation", 0.5, 5),
    ],
)  # fmt: skip
def test_a_curve_counts_from_its_step_on(name, before, after):
    """Of six steps the fourth is the first at t = 0.5."""
    curve = run(**{name: f"{before} + ({after} - {before}) * floor(t + 0.5)"})
    assert bytes_of(curve[:3]) == bytes_of(run(**{name: before})[:3])
    assert bytes_of(curve[3:]) != bytes_of(run(**{name: before})[3:])


def test_prompts_change_by_curves_of_their_weights():
    def prompts(text):
        return [step.latent for step in run(prompt=text, targets=[make_target(CLIP, Settings(prompt=text), {}, CPU)])]

    changing = prompts("a castle:{1 - floor(t + 0.5)} | ruins:{floor(t + 0.5)}")
    first, same = prompts("a castle | ruins:0"), prompts("a castle:{1} | ruins:{0: 0}")
    assert all(map(torch.equal, changing[:3], first[:3]))
    assert not torch.equal(changing[3], first[3])
    assert all(map(torch.equal, same, first))


def test_a_curve_has_the_sign_of_its_value_in_its_stop():
    target = make_target(CLIP, Settings(prompt="a castle:{1 - 2 * t} | ruins:{1 - 2 * t}:0.8"), {}, CPU)
    assert target.at(0.0).stops.tolist() == pytest.approx([-math.inf, 0.8])
    assert target.at(1.0).weights.tolist() == [-1, -1]
    assert target.at(1.0).stops.tolist() == pytest.approx([-0.95, -0.8])


def test_joined_and_stacked_targets_keep_their_curves():
    parts = [make_target(CLIP, Settings(prompt=text), {}, CPU) for text in ("a:{t} | b", "c | d:{1 - t} | e")]
    joined, stacked = join(parts, [1.0, 0.5]).at(0.25), stack_targets(parts).at(0.25)
    assert joined.weights.tolist() == [0.25, 1, 0.5, 0.375, 0.5]
    assert stacked.weights.tolist() == [[[0.25, 1, 0]], [[1, 0.75, 1]]]


def test_a_flat_schedule_leaves_steps_and_pulls_as_they_are_given():
    """Adam's first update is the learning rate, with the gradient's sign."""
    (step,) = run(steps=1, ema=0.0, step_size=0.1, damping=0.0, schedule="flat")
    moved = (step.latent - START).abs()
    assert float(moved.median()) == pytest.approx(0.1 * VQGAN.codebook.std(0).mean().item(), rel=1e-2)
    settings = Settings(prompt="x", schedule="flat")
    assert {fade(name, 0.7, settings) for name in FADES} == {1.0}


def test_a_latent_comes_nearer_to_that_of_a_target():
    far, near = (
        [float(step.losses["target"]) for step in run(steps=20, target_image="/t", target_weight=w, z_target=-START)]
        for w in (1e-9, 5.0)
    )
    assert near[-1] < 0.5 * near[0]
    assert near[-1] < 0.5 * far[-1]


def test_noise_prompts_are_unit_vectors_of_each_clips_width_by_their_seeds():
    wide = FakeClip(dim=48)
    texts = ("7:0.5", "8:-1", "7")
    for clip in (CLIP, wide):
        target = make_target(clip, Settings(prompt="x", noise_prompts=texts), {}, CPU)
        seventh, eighth, again = target.embeds[1:]
        assert target.embeds.norm(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-5)
        assert torch.equal(seventh, again)
        assert float(seventh @ eighth) == pytest.approx(0, abs=0.5)
        assert target.weights.tolist() == [1, 0.5, -1, 1]
        assert target.stops.tolist() == pytest.approx([-math.inf, -math.inf, -0.95, -math.inf])
    assert bytes_of(
        run(targets=[make_target(CLIP, Settings(prompt="x", noise_prompts=("7:0",)), {}, CPU)])
    ) == bytes_of(run(targets=[make_target(CLIP, Settings(prompt="x"), {}, CPU)]))
