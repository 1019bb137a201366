"""The judge: a CLIP that no run ever optimises, and retrieval among prompts and their hard distractors."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vqclip.models.openclip import OpenClip, load_clip

HERE = Path(__file__).parent
JUDGE = HERE.parent / "judge"


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


class Retrieval:
    """Rank a picture's own caption among all prompts of the list and its own distractors."""

    def __init__(self, judge: OpenClip, prompts: list[str]) -> None:
        self.judge, self.prompts = judge, prompts
        self.text = judge.encode_text(prompts)
        self.wrong = {p: judge.encode_text(others) for p, others in read_distractors().items() if p in prompts}

    @torch.no_grad()
    def rank(self, image: Tensor, prompt: str) -> int:
        """Return how many captions the judge prefers to the right one: image `[1, 3, H, W]` in 0..1; 0 is a hit."""
        view = F.interpolate(image, (self.judge.size,) * 2, mode="bilinear", antialias=True).clamp(0, 1)
        seen = self.judge.encode_image(view)
        candidates = torch.cat([self.text, self.wrong[prompt]]) if prompt in self.wrong else self.text
        scores = (seen @ candidates.T)[0]
        return int((scores > scores[self.prompts.index(prompt)]).sum())
