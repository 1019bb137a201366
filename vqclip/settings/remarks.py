"""What settings mean that their author may not expect: a line each, in no way an error."""

from ..text import brief
from .prompts import parse_prompts, prompt_notes
from .regions import SIGN
from .schema import Settings
from .sizes import FINISHED

LARGE = 1024  # px of a side: who types a larger one than this by 1 / upscale may mean the finished image


def notes_on_prompts(settings: Settings) -> list[str]:
    """Return a line for what in the prompts is read as text, and looks like more."""
    return list(dict.fromkeys(note for source in sources(settings) for note in prompt_notes(source)))


def remarks(settings: Settings) -> list[str]:
    """Return what else is to be said of settings before they are drawn."""
    notes = []
    if settings.regions and settings.starts_from_candidates():
        notes.append(
            "regions count little beside a start that is drawn whole: "
            "--init smooth --overview 0.2 --smallest-cutout 0.4 lets them"
        )
    finished = tuple(side * max(1, settings.upscale) for side in settings.size)
    if settings.upscale and max(finished) > LARGE and finished not in FINISHED.values():
        notes.append(
            f"the finished image has {finished[0]}x{finished[1]}: --upscale 0 leaves it in the size it is drawn"
        )
    return notes


def sources(settings: Settings) -> list[str]:
    """Return the prompt texts of settings: that of the image and those of regions."""
    texts = [settings.prompt, *(region.rpartition(SIGN)[0] for region in settings.regions)]
    return [text for text in texts if text.strip()]


def texts_and_weights(source: str) -> str:
    """Return how a prompt text is read; "" for a single text without a weight. Raises UsageError."""
    prompts = parse_prompts(source)
    if len(prompts) == 1 and prompts[0].weight == 1.0:
        return ""
    weights = [f"{p.weight:g}" if isinstance(p.weight, float) else f"{{{p.weight.text}}}" for p in prompts]
    return ", ".join(f"{brief(p.text)} with weight {weight}" for p, weight in zip(prompts, weights, strict=True))
