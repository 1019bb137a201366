"""Does the loop draw what it is told? A judge that no run optimises says so, against the unoptimised start."""

import json

import pytest
import torch

from tests.benchmarks.judging import JUDGE, Retrieval, load_judge, read_prompts
from vqclip.config.resolve import resolve
from vqclip.files.images import to_tensor
from vqclip.models.catalogue import find
from vqclip.runs.api import prepare

pytestmark = pytest.mark.timeout(1200)  # twelve images, on a machine that may be slow and busy
PROMPTS = (
    "a red heart", "a green apple", "a strawberry", "a cat face", "a yellow banana", "a blue balloon",
    "an orange on a blue background", "a skull", "a snowman", "a red car", "a green leaf", "a ghost",
)  # fmt: skip


@pytest.fixture(scope="module")
def judge():
    return Retrieval(load_judge(), read_prompts("dev64.txt"))


@pytest.fixture(scope="module")
def outcome(judge):
    """Ranks of the right caption among the 64 prompts and its distractors: before a step, and after all."""
    before, after = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other take many times as long on a busy machine
    for seed, prompt in enumerate(PROMPTS):
        session = prepare(resolve(prompt, seed=seed, steps=60, init="grey"))
        before.append(judge.rank(to_tensor(session.picture(session.start().z)), prompt))
        *_, last = session.steps()
        after.append(judge.rank(to_tensor(session.picture(last.latent)), prompt))
    torch.set_num_threads(threads)
    return before, after


def test_the_judge_finds_the_right_caption_first_far_above_chance(outcome):
    _, after = outcome
    assert sum(rank == 0 for rank in after) >= 5, after  # chance: 12 / 64


def test_the_start_before_any_step_is_no_better_than_chance(outcome):
    before, _ = outcome
    assert sum(rank == 0 for rank in before) <= 2, before


def test_the_loop_improves_the_rank_of_nearly_every_prompt(outcome):
    before, after = outcome
    assert sum(b > a or a == 0 for b, a in zip(before, after, strict=True)) >= 10, (before, after)


def test_the_judge_has_another_architecture_than_the_perceptor():
    configs = [
        json.loads((folder / "open_clip_config.json").read_text()) for folder in (JUDGE, find("clip", "tiny").folder)
    ]
    towers = [config["model_cfg"]["vision_cfg"]["timm_model_name"] for config in configs]
    assert towers[0] != towers[1]
