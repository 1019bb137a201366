"""Cutouts that no step sees: when a run ends early, and which of its images is the finished one."""

import pytest
import torch

from tests.support.fakes import FakeClip, FakeVqgan, aim
from tests.support.runs import contents, differing, record_of
from vqclip.core.held_out import HeldOut
from vqclip.core.interfaces import LoopInputs
from vqclip.core.loop import assess, optimize
from vqclip.runs.api import generate, resume
from vqclip.runs.run_dir import drawn_image
from vqclip.settings.schema import Settings

QUICK = {"steps": 20, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0, "coarse": 0.0}

AWAY = {"tv": 1000.0}  # a pull that is stronger than the prompt's


class Indifferent(FakeClip):
    """A CLIP to which all images are alike."""

    def encode_image(self, image):
        return super().encode_image(image * 0)


def look(distances, min_gain=0.1):
    """Return what is known after looks at steps 5, 10, 15 ..."""
    held_out = None
    for number, distance in enumerate(distances, 1):
        held_out = HeldOut.of(held_out, torch.tensor([float(number)]), distance, 5 * number, min_gain)
    return held_out


@pytest.mark.parametrize(
    ("distances", "best", "gained_at"),
    [
        ([0.9], 5, 5),
        ([0.9, 0.7, 0.8], 10, 10),
        ([0.9, 0.85, 0.81, 0.82], 15, 5),  # better, and by less than counts
        ([0.9, 0.85, 0.79], 15, 15),  # slowly, but by so much since it last counted
    ],
)
def test_the_best_is_the_nearest_and_a_gain_is_what_counts(distances, best, gained_at):
    held_out = look(distances)
    assert (held_out.step, float(held_out.best) * 5, held_out.gained_at) == (best, best, gained_at)
    waited = 5 * len(distances) - gained_at
    assert held_out.stalled(waited) == bool(waited)
    assert not held_out.stalled(waited + 1)
    assert not held_out.stalled(0)


def test_what_gains_nothing_ends(networks, tmp_path):
    networks.clip = Indifferent()
    made = generate("x", runs=tmp_path, stop_after=10, **QUICK)
    record = record_of(made.run)
    assert (made.status, made.steps, record["status"], record["steps_done"]) == ("converged", 15, "converged", 15)
    before = contents(made.run)
    assert resume(made.run).steps == 15
    assert differing(contents(made.run), before) == []
    assert resume(made.run, stop_after=0).steps == 20
    assert record_of(made.run)["status"] == "done"


def test_what_gains_goes_on(networks, tmp_path):
    assert generate("x", runs=tmp_path, stop_after=10, min_gain=0.0, ema=0.0, **QUICK).status == "done"


def test_the_finished_image_is_the_best_of_those_that_were_looked_at():
    values = {"prompt": "a red heart", "steps": 20, "cutouts": 4, "coarse": 0.0, "ema": 0.0, "seed": 3}
    clip, start = FakeClip(), torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))

    settings = Settings(**values, **AWAY, final="best")
    inputs = LoopInputs(FakeVqgan(), [clip], aim([clip], settings.prompt), settings)
    steps = list(optimize(inputs, start))
    looked = [assess(inputs, step.latent, [3], step.step, None) for step in steps if step.step % 5 == 0]
    nearest = min(looked, key=lambda held_out: held_out.distance)
    shown = steps[-1].shown(settings)
    assert (shown.step, steps[-1].state.held_out.distance) == (nearest.step, nearest.distance)
    assert torch.equal(shown.latent, steps[shown.step - 1].latent)
    assert shown.step < 20  # the last is not the best


def test_what_the_mirrored_steps_were_best_at_counts_after_them():
    values = {"prompt": "x", "steps": 12, "cutouts": 2, "coarse": 0.0, "seed": 3, "symmetry": "x", "final": "best"}
    clip, start = FakeClip(), torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    settings = Settings(**values, symmetry_until=0.5)
    steps = list(optimize(LoopInputs(FakeVqgan(), [clip], aim([clip], settings.prompt), settings), start))
    assert steps[7].shown(settings).step == 5  # where a run would end that is stopped after eight steps


def test_the_best_image_is_written_and_the_frames_are_what_they_are(networks, tmp_path):
    away = QUICK | AWAY | {"ema": 0.0, "frames_every": 5, "metadata": False}
    best = generate("a red heart", runs=tmp_path / "best", final="best", **away)
    last = generate("a red heart", runs=tmp_path / "last", **away)
    frames = [run / "frames" for run in (best.run, last.run)]
    for number in (5, 10, 15, 20):
        assert len({(folder / f"{number:06d}.png").read_bytes() for folder in frames}) == 1
    final = (best.run / "final.png").read_bytes()
    shown = [number for number in (5, 10, 15, 20) if (frames[0] / f"{number:06d}.png").read_bytes() == final]
    assert shown
    assert 20 not in shown
    assert "held_out" not in (last.run / "state.safetensors").read_bytes()[:500].decode("utf-8", "replace")


def test_what_ranks_sees_the_image_that_is_the_best_and_not_the_last(networks, tmp_path):
    away = QUICK | AWAY | {"ema": 0.0, "metadata": False}
    run = generate("a red heart", runs=tmp_path, final="best", frames_every=0, **away).run
    assert record_of(run)["step_shown"] < record_of(run)["steps_done"] == 20
    assert drawn_image(run).parent.name == "frames"
    assert drawn_image(run).read_bytes() == (run / "final.png").read_bytes()


def test_a_run_that_goes_on_with_another_prompt_measures_it_anew(networks, tmp_path):
    part = generate("x", runs=tmp_path, final="best", on_step=lambda step: step.step == 10, **QUICK).run
    seen = []
    resume(part, prompt="y", on_step=lambda step: seen.append(step.state.held_out))
    assert seen[0] is None
    assert min(held_out.step for held_out in seen if held_out) > 10


def test_looking_changes_no_step(networks, tmp_path):
    looking = generate("a red heart", runs=tmp_path / "a", stop_after=1000, metadata=False, **QUICK).run
    without = generate("a red heart", runs=tmp_path / "b", metadata=False, **QUICK).run
    assert differing(contents(looking), contents(without)) == ["run.json", "state.safetensors"]


@pytest.mark.parametrize("curve", [{"cutouts": "0: 11, 1: 0"}, {"tv": "1 / (1 - t)"}, {"smallest_cutout": "1 - t"}])
def test_curves_count_as_in_the_last_step_and_not_as_after_it(networks, tmp_path, curve):
    assert generate("x", runs=tmp_path, final="best", **QUICK | curve).status == "done"
