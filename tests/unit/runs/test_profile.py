"""Where the time goes. The networks are fakes that take a known time, forward and backward."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from tests.support.fakes import FakeClip, FakeVqgan
from vqclip.runs.api import prepare
from vqclip.runs.profile import CLIP, DECODE, PICTURES, START, Profile
from vqclip.settings.schema import Settings

PAUSE = 0.02


class Slow(torch.autograd.Function):
    """Waits on the way forth, and twice as long on the way back."""

    @staticmethod
    def forward(ctx, x, seconds):
        ctx.seconds = seconds
        time.sleep(seconds)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(2 * ctx.seconds)
        return grad, None


@pytest.fixture
def session(networks):
    settings = Settings(prompt="x", size=(32, 32), steps=4, cutouts=4, tries=1, coarse=0, chunk=2, precision="float32")
    return prepare(settings, "cpu")


def slowed(session):
    vqgan, clip = session.vqgan, session.clips[0]
    vqgan.decode = lambda z: Slow.apply(FakeVqgan.decode(vqgan, z), PAUSE)
    clip.encode_image = lambda image: Slow.apply(FakeClip.encode_image(clip, image), 3 * PAUSE)


@pytest.mark.full
def test_each_network_is_told_what_it_took_forth_and_back(session):
    slowed(session)
    watch = Profile()
    watch.watch(session)
    began = time.perf_counter()
    list(session.steps())
    took = time.perf_counter() - began
    expected = {DECODE: 1, DECODE + " back": 2, CLIP: 2 * 3, CLIP + " back": 2 * 6}  # two chunks
    for part, pauses in expected.items():
        assert pauses * PAUSE * 4 <= watch.seconds[part] < pauses * PAUSE * 4 + took / 4
    assert sum(watch.seconds.values()) == pytest.approx(took, rel=0.1)
    assert watch.steps == 4


def test_what_the_start_took_is_told_once(session):
    start = dataclasses.replace(session.start(), seconds=3.0)
    watch = Profile()
    watch.start(session, None)
    watch.started(start)
    list(session.steps(start))
    assert watch.record()["seconds"][START] == 3.0
    assert watch.table()[0].split()[-3:] == ["3000.0", "ms", "once"]
    assert all(line.endswith("ms a step") for line in watch.table()[1:])


def test_pictures_in_between_are_no_steps(session):
    watch = Profile()
    watch.watch(session)
    for step in session.steps():
        session.picture(step.latent)
    assert watch.steps == 4
    assert watch.seconds[PICTURES] > 0
    assert watch.seconds["files"] > 0


def test_a_watched_run_draws_the_same(networks):
    settings = Settings(prompt="x", size=(32, 32), steps=4, cutouts=4, tries=1, precision="float32")
    session = prepare(settings, "cpu")
    plain = [*session.steps()][-1].latent
    with Profile() as watch:
        watch.watch(session)
        assert torch.equal(plain, [*session.steps()][-1].latent)
    assert watch.steps == 4
    list(session.steps())
    assert watch.steps == 4  # the networks are as they were


def test_the_table_tells_shares_of_one(session):
    watch = Profile()
    watch.watch(session)
    list(session.steps())
    shares = [float(line[24:].split("%")[0]) for line in watch.table()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert shares == sorted(shares, reverse=True)


def test_profile_writes_where_the_time_went(vq, networks):
    done = vq("generate", "x", "--steps", 3, "--size", "32x32", "--cutouts", 2, "--profile", "--json")
    told = json.loads(done.out)
    found = json.loads(Path(told["run"], "profile.json").read_text())
    assert found["steps"] == 3
    assert found["seconds"][DECODE] > 0
    assert any(line.startswith(DECODE) for line in done.lines)


def test_without_profile_nothing_is_written(vq, tmp_path):
    vq("generate", "x", "--steps", 2, "--size", "32x32", "--cutouts", 2)
    assert not list(tmp_path.rglob("profile.json"))
