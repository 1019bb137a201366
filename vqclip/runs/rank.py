"""Pictures in the order in which a CLIP finds them like a prompt: the re-ranking of many by one that drew none."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..core.interfaces import Clip
from ..core.losses import Target
from ..files.images import load_image
from ..models import load_clip
from ..settings.schema import Settings, make_settings
from .session import aim, choose_device, embed_picture


class Judge:
    """A CLIP that gives marks; loaded once."""

    def __init__(self, name: str, device: str = "auto") -> None:
        """Load the CLIP of that name, folder or file. Raises ModelError, IntegrityError, UsageError."""
        self.device = choose_device(device)
        self.clip: Clip = load_clip(name, self.device)

    def score(self, picture: Image.Image, target: Target) -> float:
        """Return the mean cosine of a picture with its prompts, by their weights: -1 to 1, higher is better.

        A negative weight counts against. Radford et al. 2021's zero-shot score, as DALL-E's re-ranking uses it; the
        picture is embedded as an image prompt is, whole and in four parts.
        """
        seen = embed_picture(self.clip, picture, self.device)
        cosines = (target.embeds @ seen[0]) * target.weights
        return float(cosines.sum() / target.weights.abs().sum())

    def target(self, settings: Settings) -> Target:
        """Return what a run with these settings is to be compared with. Raises InputError for an image prompt."""
        return aim(self.clip, settings, [load_image(path) for path in settings.image_prompts], self.device)


def rank(
    paths: Sequence[Path], prompt: str, clip: str, device: str = "auto",
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Path, float]]:  # fmt: skip
    """Return pictures with their scores, the best first; equal ones in the order in which they came.

    on_picture gets how many were seen, of how many. Raises InputError for a picture, before the CLIP is loaded;
    UsageError for the prompt, ModelError for the CLIP.
    """
    settings = make_settings(prompt=prompt)
    for path in paths:
        load_image(path)  # looked at one at a time: all of them may be more than memory holds
    judge = Judge(clip, device)
    target = judge.target(settings)
    scores = []
    for path in paths:
        scores.append(judge.score(load_image(path), target))
        on_picture(len(scores), len(paths))
    return sorted(zip(paths, scores, strict=True), key=lambda pair: -pair[1])
