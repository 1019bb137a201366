"""The judge: a CLIP that no run ever optimises, and retrieval among prompts and their hard distractors."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vqclip.models.clip import OpenClip, load_clip

HERE = Path(__file__).parent
JUDGE = HERE.parent / "judge"
REALS = HERE / "reals"


def load_judge() -> OpenClip:
    """Load the held-out perceptor from tests/judge."""
    return load_clip(JUDGE, name="judge", device=torch.device("cpu"))


def read_prompts(name: str) -> list[str]:
    """Read a prompt list of this folder, one a line."""
    return [line for line in (HERE / name).read_text().splitlines() if line and not line.startswith("#")]


def read_distractors() -> dict[str, list[str]]:
    """Read the wrong captions that a careless model would accept: prompt -> captions."""
    rows = (line.split("=", 1) for line in read_prompts("distractors.txt"))
    return {prompt.strip(): [wrong.strip() for wrong in others.split("|")] for prompt, others in rows}


def read_reals() -> dict[str, str]:
    """Read what the real drawings show: file name in REALS -> prompt."""
    return {name: row["prompt"] for name, row in json.loads((REALS / "index.json").read_text()).items()}


class Retrieval:
    """Rank a picture's own caption among all prompts of the list and its own distractors."""

    def __init__(self, judge: OpenClip, prompts: list[str]) -> None:
        self.judge, self.prompts = judge, prompts
        self.text = judge.encode_text(prompts)
        self.wrong = {p: judge.encode_text(others) for p, others in read_distractors().items() if p in prompts}

    def rank(self, image: Tensor, prompt: str) -> int:
        """Return how many captions the judge prefers to the right one; 0 is a hit."""
        return self.look(image, prompt)[0]

    @torch.no_grad()
    def look(self, image: Tensor, prompt: str) -> tuple[int, float]:
        """Return that rank and the log-probability of the right caption: image `[1, 3, H, W]` in 0..1."""
        view = F.interpolate(image, (self.judge.size,) * 2, mode="bilinear", antialias=True).clamp(0, 1)
        seen = self.judge.encode_image(view)
        candidates = torch.cat([self.text, self.wrong[prompt]]) if prompt in self.wrong else self.text
        scores = (seen @ candidates.T)[0]
        right = self.prompts.index(prompt)
        chances = (scores * self.judge.model.logit_scale.exp()).log_softmax(0)
        return int((scores > scores[right]).sum()), float(chances[right])
