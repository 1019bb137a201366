"""--dry-run: what would be made, and about how long that takes; nothing is written."""

import json
from collections.abc import Sequence

from ..files.images import load_image, round_size
from ..models.catalogue import find
from ..runs.run_dir import slugify
from ..settings.remarks import sources, texts_and_weights
from ..settings.schema import Settings
from ..text import plural
from .progress import loading, progress_bar, put

MOST_SHOWN = 20  # images


def show_plan(
    settings: Sequence[Settings], device: str, *, as_json: bool, quiet: bool, done: int = 0, names: Sequence[str] = ()
) -> None:
    """Print what would be made of settings, and the seconds that it takes by a few steps of the first of them.

    done: how many more there are that were made before. names: of their runs, where these are not as usual.
    Raises ModelError, InputError for a model or an image that is not here.
    """
    for path in dict.fromkeys(path for each in settings for path in each.pictures()):
        load_image(path)
    settings = [each.model_copy(update={"size": _drawn_size(each)}) for each in settings]
    for kind, name in dict.fromkeys(model for each in settings for model in each.models()):
        find(kind, name)
    seconds = 0.0
    if settings:
        loading(quiet=quiet)
        from ..runs.bench import expected_seconds

        with progress_bar("measurement", quiet=quiet):
            seconds = expected_seconds(settings[0], device) * len(settings)
    if as_json:
        images = [each.model_dump(mode="json") for each in settings]
        put(json.dumps({"images": images, "done": done, "seconds": round(seconds, 1)}))
        return
    for each, name in zip(settings[:MOST_SHOWN], names or [""] * MOST_SHOWN, strict=False):
        put(describe(each, name))
        for read in filter(None, map(texts_and_weights, sources(each))):
            put(f"  {read}")
    if len(settings) > MOST_SHOWN:
        put(f"and {len(settings) - MOST_SHOWN} more")
    before = f"; {done} more are done already" if done else ""
    put(f"{plural(len(settings), 'image')}, about {duration(seconds)} here, and loading{before}; nothing was made")


def _drawn_size(settings: Settings) -> tuple[int, int]:
    """Return the size as the VQGAN draws it, where the catalogue knows that. Raises UsageError, ModelError."""
    f = find("vqgan", settings.vqgan).facts.f
    return round_size(settings.size, f) if f else settings.size


def describe(settings: Settings, name: str = "") -> str:
    """Return a line about one image: its prompt, seed, size, steps, start, and the name of its run directory."""
    width, height = settings.size
    factor = max(1, settings.upscale)
    size = f"{width}x{height}" + (f" made {width * factor}x{height * factor}" if factor > 1 else "")
    start = (
        f"the best of {settings.candidates} candidates"
        if settings.starts_from_candidates()
        else settings.init_image or settings.init
    )
    title = settings.title()
    run = name or f"{slugify(title)}-{settings.seed}"
    return f"{run}: {title}, seed {settings.seed}, {size}, {plural(settings.steps, 'step')} from {start}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
