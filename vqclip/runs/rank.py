"""Ranking images by a CLIP: how near each comes to a prompt. A CLIP that made none of them is the best judge."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..core.devices import choose_device
from ..core.interfaces import Clip, Target
from ..core.targets import embed_image_prompt, load_prompt_images, make_target
from ..core.threads import use_threads
from ..errors import ModelError
from ..files.images import check_images, load_image
from ..models.catalogue import all_entries, find, preset
from ..settings.schema import Settings, make_settings
from .networks import Networks


class Ranker:
    """A CLIP that scores images."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """Load the CLIP of that name, folder or file. Raises ModelError, IntegrityError, UsageError."""
        self.name, self.device = name, choose_device(device)
        use_threads(small=find("clip", name).bundled)
        self.clip: Clip = Networks().clip(name, self.device)

    def target(self, settings: Settings) -> Target:
        """Return what images of these settings are compared with. Raises InputError for an image prompt."""
        target = make_target(self.clip, settings, load_prompt_images(settings), self.device)
        return target.at(settings.end)

    def score(self, image: Image.Image, target: Target) -> float:
        """Return the mean cosine of an image with its prompts, by their weights: -1 to 1, higher is better.

        A negative weight counts against. This is the zero-shot score of Radford et al. 2021, as DALL-E re-ranks with
        it; the image is embedded as an image prompt is, whole and in four parts. Raises ModelError for a CLIP that
        gives no number.
        """
        embed = embed_image_prompt(self.clip, image, self.device)[0]
        weights = target.overall
        score = float(((target.embeds @ embed) * weights).sum() / weights.abs().sum().clamp(min=1e-9))
        if not math.isfinite(score):
            raise ModelError(f"the clip {self.clip.name} finds {score} for an image", "it is damaged: give another")
        return score


def judge_of(clips: Sequence[str]) -> str:
    """Return the CLIP that ranks images of these CLIPs where none is named: a bundled one that made none of them.

    If there is none, their own first one, whose scores are too high.
    """
    bundled = [entry.name for entry in all_entries() if entry.kind == "clip" and entry.bundled]
    return next((name for name in bundled if name not in clips), clips[0])


def said_of(judge: str, clips: Sequence[str]) -> str:
    """Return a line about the CLIP that ranks images of these CLIPs: it favours those that were made for it."""
    if judge not in clips:
        return f"ranked by {Path(judge).name}"
    other = preset("standard")["clips"][0]
    pull = f"vqclip models pull {other}, then --ranker {other}, ranks without favour"
    return f"ranked by {Path(judge).name}, which they were made for: {pull}"


def rank(
    paths: Sequence[Path],
    prompt: str,
    clip: str,
    device: str = "auto",
    on_image: Callable[[int, int], None] = lambda done, total: None,
    on_bad: Callable[[str], None] | None = None,
) -> list[tuple[Path, float]]:
    """Return images with their scores, the best first; equal ones in the order in which they came.

    on_image: called with the number of images that are scored, and of all. on_bad: hears of images that are damaged,
    which are left out. Raises InputError for an image, before the CLIP is loaded; UsageError for the prompt, ModelError
    for the CLIP.
    """
    settings = make_settings(prompt=prompt)
    paths = check_images(paths, on_bad)
    ranker = Ranker(clip, device)
    target = ranker.target(settings)
    scores = []
    for path in paths:
        scores.append(ranker.score(load_image(path), target))
        on_image(len(scores), len(paths))
    return sorted(zip(paths, scores, strict=True), key=lambda pair: -pair[1])
