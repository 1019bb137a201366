"""vqclip bench, on fakes: what is measured, what is said, and that nothing is left."""

import io
import itertools
import json
import sys

import pytest
import torch

from vqclip.cli.progress import progress_bar
from vqclip.runs import bench as benching
from vqclip.runs.bench import bench, changes
from vqclip.runs.session import Session
from vqclip.settings.schema import Settings


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(benching, "MOST", 3)


def small(**more):
    return Settings(prompt="x", size=(32, 32), cutouts=4, tries=1, precision="float32", **more)


@pytest.mark.full
def test_the_settings_come_first_and_then_every_change(networks):
    heard = []
    found = bench(small(steps=50), "cpu", on_measured=lambda *told: heard.append(told))
    names = [name for name, _ in changes(found.settings, torch.device("cpu"))]
    assert [pace.name for pace in found.paces] == ["", *names]
    ways = len(names) + 1  # the way as it is
    total = ways * (benching.MOST + 1)  # and the stopwatch's turn
    assert heard[:ways] == [(k, ways) for k in range(ways)]  # what warms up
    assert heard[ways:] == [(done, total) for done in (*range(total - len(names)), total)]
    assert found.parts.steps == benching.MOST


def test_ways_take_turns(networks, monkeypatch):
    order, plain = [], benching.Timed.step
    monkeypatch.setattr(benching.Timed, "step", lambda self, **more: order.append(id(self)) or plain(self, **more))
    ways = 2 * len(bench(small(steps=50, coarse=0.6), "cpu").paces)  # at either size
    turns = [order[k : k + ways] for k in range(1, len(order), ways)]  # the very first step is timed alone
    assert len(turns) == benching.MOST + 1
    assert all(turn == turns[0] for turn in turns)
    assert len(set(turns[0])) == ways


def test_a_picture_takes_its_coarse_steps_and_its_others(networks):
    for pace in bench(small(steps=50, coarse=0.6), "cpu").paces:
        assert pace.picture == pytest.approx(30 * pace.coarse + 20 * pace.step)


def test_one_step_is_never_a_coarse_one(networks):
    for pace in bench(small(steps=1, coarse=0.6), "cpu").paces:
        assert pace.picture == pace.step


@pytest.mark.full
@pytest.mark.parametrize("places", [2, 3, 5])
def test_pictures_too_small_to_halve_are_measured_too(networks, places):
    found = bench(Settings(prompt="x", size=(places * 4, places * 4), cutouts=2, steps=10, coarse=0.6), "cpu")
    coarse = 6 if places == 5 else 0
    for pace in found.paces:
        if not pace.name.startswith("--size"):
            assert (pace.coarse is None) == (not coarse)
            assert pace.picture == pytest.approx(coarse * (pace.coarse or 0) + (10 - coarse) * pace.step)


def test_in_turns_a_step_takes_what_its_clips_take_by_their_shares(networks, monkeypatch):
    settings = small(clips=("tiny", "tiny"), clip_weights=(3, 1), clip_mix="turns", coarse=0)
    course = benching.Timed(Session.load(settings, "cpu"), 1)
    took = iter([1.0, 9.0, 2.0, 3.0])
    monkeypatch.setattr(benching.time, "perf_counter", itertools.accumulate(
        itertools.chain.from_iterable((0, each) for each in took)).__next__)  # fmt: skip
    for _ in range(4):
        course.step()
    assert course._seconds == {(0,): [1.0, 9.0, 2.0], (1,): [3.0]}
    assert course.seconds() == pytest.approx((3 * 1.0 + 1 * 3.0) / 4)


def test_in_turns_every_clip_has_one(networks, monkeypatch):
    monkeypatch.setattr(benching, "MOST", 2)
    monkeypatch.setattr(benching, "PATIENCE", 0.0)
    found = bench(small(clips=("tiny", "tiny", "tiny"), clip_mix="turns"), "cpu")
    assert found.parts.steps == 3


def test_no_change_is_the_settings_as_they_are():
    settings = Settings(prompt="x", size=(16, 16), cutouts=1, precision="float32")
    assert [name for name, _ in changes(settings, torch.device("cuda"))] == ["--precision bfloat16"]


def test_what_cannot_be_held_is_refused_before_a_step(vq, monkeypatch):
    monkeypatch.setattr("vqclip.runs.memory.available", lambda device: 1000)
    done = vq("bench", "--set", "size=64x64")
    assert (done.code, len(done.lines)) == (7, 2)


@pytest.mark.full
def test_no_candidates_are_drawn_to_time_a_step(networks):
    bench(small(init="sample", dalle="tiny"), "cpu")
    assert set(networks.loaded) == {"tiny"}


def test_where_a_step_is_slow_one_does_and_no_change_is_tried(networks, monkeypatch):
    monkeypatch.setattr(benching, "PATIENCE", 0.0)
    found = bench(small(), "cpu")
    assert [pace.name for pace in found.paces] == [""]
    assert found.parts.steps == 1


def test_where_steps_take_long_few_do(networks, monkeypatch):
    monkeypatch.setattr(benching, "LONG_ENOUGH", 0.0)
    assert bench(small(), "cpu").parts.steps == benching.FEWEST


def test_threads_are_as_they_were(networks):
    before = torch.get_num_threads()
    bench(small(), "cpu")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("more", "named"),
    [({}, {"--size 24x24", "--cutouts 2", "--precision bfloat16"}), ({"clips": ("a", "b")}, {"--clip-mix turns"})],
)
def test_changes_are_named_as_one_types_them(more, named):
    found = dict(changes(small(**more), torch.device("cuda")))
    assert named <= set(found)
    assert not any(name.startswith("OMP") for name in found)


def test_the_command_prints_the_pace_and_the_changes_on_stdout(vq, tmp_path):
    done = vq("bench", "--set", "size=32x32", "--set", "cutouts=4", "--set", "tries=1", "-q")
    assert done.code == 0
    assert "steps a second" in done.out
    assert "--cutouts 2" in done.out
    assert "VQGAN decoder" in done.out
    assert done.err == ""
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.full
@pytest.mark.parametrize(("side", "told"), [(12, False), (32, True)])
def test_steps_at_half_are_told_where_there_are_such(vq, side, told):
    done = vq("bench", "--set", f"size={side}x{side}", "--set", "cutouts=2", "--set", "tries=1", "-q")
    assert (" at half; " in done.out) == told


def test_one_step_and_one_thread_are_said_as_such(vq):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = vq("bench", "--set", "size=32x32", "--set", "cutouts=4", "--set", "tries=1", "--set", "steps=1")
    finally:
        torch.set_num_threads(before)
    assert "with 1 thread\n" in done.out
    assert "an image of 1 step takes" in done.out


def test_the_command_prints_one_object(vq):
    told = json.loads(vq("bench", "--set", "size=32x32", "--set", "cutouts=4", "--json").out)
    assert told["ways"][0]["times_as_fast"] == 1
    assert told["parts"]["steps"] == benching.MOST


@pytest.mark.parametrize(
    ("args", "code"), [(("--set", "steps=0"), 2), (("--preset", "tniy"), 5), (("--device", "abacus"), 2)]
)
def test_bad_input_is_said_in_two_lines(vq, args, code):
    done = vq("bench", *args)
    assert (done.code, len(done.lines)) == (code, 2)


def test_on_a_terminal_a_bar_of_unknown_length_gets_its_length(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    monkeypatch.setattr("vqclip.cli.progress.MOMENT_S", -1.0)
    with progress_bar("measurement") as bar:
        bar.at(0, 0)
        bar.at(0, 0)  # such a bar has no truth to ask for
        bar.at(3, 4)
    assert "3/4" in shown.getvalue()


def test_without_steps_there_is_nothing_to_measure(vq):
    outcome = vq("bench", "--steps", 0, "--init", "sample")
    assert outcome.code == 2
    assert "steps" in outcome.err
