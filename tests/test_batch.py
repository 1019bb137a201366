"""A file of prompts becomes a folder of pictures, whatever happens on the way."""

import csv
import json

import pytest
import torch

import vqclip.pipeline
from vqclip.batch import run_batch
from vqclip.errors import Diverged, OutOfMemory
from vqclip.manifest import Manifest, read_manifest
from vqclip.recording import Plan
from vqclip.rows import Row
from vqclip.session import Networks, prepare
from vqclip.settings import Interval, Settings, resolve
from vqclip.together import steps
from vqclip.worker import Task, Work, Worker

from .runs import contents, differing

FAST = {"steps": 3, "size": (32, 32), "cutouts": 2, "preset_name": "tiny"}
SET = ("--steps", "3", "--size", "32x32", "--set", "cutouts=2")
PROMPTS = ["a red heart", "an owl | text:-0.5", "a tree:2 | a lake | night:0.5"]


def settings(prompt, seed, **more):
    return resolve(prompt, seed=seed, **(FAST | more))


def work(folder, **more):
    return Work(folder / "runs", Plan(True, 1, Interval(steps=1)), "cpu", **more)


def tasks():
    return [Task(f"row-{k}", settings(prompt, k)) for k, prompt in enumerate(PROMPTS)]


def solo(folder, task):
    """Make the run alone, by generate; return its contents."""
    made = vqclip.pipeline.generate(
        task.settings, runs=folder / task.name, frames_every=1, checkpoint_every="1", device="cpu"
    )
    return contents(made.run)


def on_step(rows, step, total):
    return False


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_row_is_its_solo_run_byte_by_byte_however_many_stand_beside_it(networks, tmp_path, size):
    (tmp_path / "runs").mkdir()
    ended = list(Worker(work(tmp_path, batch_size=size)).draw(tasks(), on_step))
    assert [outcome.status for outcome in ended] == ["done"] * 3
    for task in tasks():
        assert differing(contents(tmp_path / "runs" / task.name), solo(tmp_path / "solo", task)) == []


def test_a_batch_makes_a_folder_of_pictures(vq, tmp_path):
    (tmp_path / "p.txt").write_text("# two\na red heart\n\nan owl\n", encoding="utf-8")
    done = vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--seeds", "4-5", *SET)
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n")
    names = ["0001-a-red-heart-4", "0002-a-red-heart-5", "0003-an-owl-4", "0004-an-owl-5"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("0*.png")) == names
    for name in names:
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == (
            tmp_path / "out/runs" / name / "final.png"
        ).read_bytes()
