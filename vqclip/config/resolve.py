"""From the values that were given to complete settings: over the preset's, over the defaults; paths absolute."""

import secrets
from typing import Any

from ..errors import InputError, UsageError
from ..files.paths import absolute
from ..models.catalogue import goes_with, guidance_of, known_or_absolute, preset
from ..models.store import own_catalogue
from ..settings.schema import Settings, from_text, make_settings

REFINE = {"steps": 20, "coarse": 0.0, "step_size": 0.3, "init_weight": 0.5}  # with init sample: keep what was drawn


def resolve(prompt: str, preset_name: str = "auto", seed: int | None = None, **values: Any) -> Settings:
    """Return complete settings: given values (None: not given) over the preset's, over the defaults.

    Without a seed a random one is chosen, and so recorded. Raises UsageError, and ModelError for an unknown preset.
    """
    base = preset_values(preset_name)
    given = with_absolute_paths({key: value for key, value in values.items() if value is not None})
    start = {"coarse": 0.0} if given.get("init_image") else REFINE if given.get("init") == "sample" else {}
    seed = secrets.randbelow(2**32) if seed is None else seed
    return complete(make_settings(**(base | start | given), prompt=prompt, seed=seed))


def change(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return complete settings with changes laid over them. Raises UsageError, InputError for what is no path."""
    return complete(make_settings(**(settings.model_dump() | with_absolute_paths(changes))))


def complete(settings: Settings) -> Settings:
    """Return settings with the Mini DALL-E that goes with the VQGAN, and its guidance, where none are given."""
    if settings.init != "sample" or (settings.dalle and settings.guidance):
        return settings
    dalle = settings.dalle or goes_with(settings.vqgan)
    guidance = settings.guidance or guidance_of(dalle)
    return settings.model_copy(update={"dalle": dalle, "guidance": guidance})


def preset_values(name: str) -> dict[str, Any]:
    """Return a preset's settings. Raises ModelError for an unknown one, InputError for a wrong one of the user's."""
    try:
        values = {
            key: from_text(key, value) if isinstance(value, str) else value for key, value in preset(name).items()
        }
        if own := [key for key in ("prompt", "seed") if key in values]:
            raise UsageError(f"{own[0]} is no setting of a preset", "give it with each picture")
        make_settings(prompt="x", **values)
        return with_absolute_paths(values)
    except (UsageError, InputError) as error:
        raise InputError(f"{own_catalogue()}: preset.{name}: {error.what}", error.hint) from None


def with_absolute_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Return values of settings with their paths made absolute. Raises InputError for what is no path.

    CLIPs that come without weights reset the weights, which were those of other CLIPs.
    """
    values = dict(values)
    if values.get("init_image"):
        values["init_image"] = absolute(values["init_image"])
    if "vqgan" in values:
        values["vqgan"] = known_or_absolute("vqgan", values["vqgan"])
    if "dalle" in values:
        values["dalle"] = known_or_absolute("dalle", values["dalle"])
    if "clips" in values:
        values["clips"] = tuple(known_or_absolute("clip", name) for name in values["clips"])
        values.setdefault("clip_weights", ())
    if isinstance(values.get("image_prompts"), str):
        values["image_prompts"] = (values["image_prompts"],)
    if "image_prompts" in values:
        values["image_prompts"] = tuple(map(absolute, values["image_prompts"]))
    return values
