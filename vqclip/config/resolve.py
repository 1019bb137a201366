"""From the values that were given to complete settings: over the preset's, over the defaults; paths absolute."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..files.images import load_image
from ..files.paths import absolute, expand
from ..models.catalogue import goes_with, guidance_of, known_or_absolute, preset
from ..models.store import own_catalogue
from ..settings.cutout_methods import CUTOUT_METHODS
from ..settings.prompts import parse_prompts, split_weight
from ..settings.schema import Settings, as_list, facts, fields_with, files_of, from_text, make_settings, with_files
from ..settings.sizes import AUTO, named_size, shaped, size_of_name
from ..text import brief
from .palette import with_colours

ANY_SEED = "-1"
# With init sample: keep what was drawn. Smoothing, which an image from noise needs, takes a sixth of the edges of one
# that was drawn, and is named no more often; ten steps of 0.35 bring the colours right, which twenty of 0.15 do not
# (examples/guides/benchmarks.md).
REFINE = {"steps": 10, "coarse": 0.0, "step_size": 0.35, "init_weight": 0.5, "tv": 0.0, "ema": 0.0}
# What preset tiny makes of a prompt alone, where that is not the default: for the help, which reads no catalogue.
TINY = {**REFINE, "init": "sample", "upscale": 4}
# What 0.1.0 took where nothing was given, and with init sample: by this it knew the rows of a batch.
EARLIER = {"init": "grey", "upscale": 0}
EARLIER_REFINE = {"steps": 20, "step_size": 0.3, "tv": 3.0, "ema": 0.9}


def resolve(prompt: str, preset_name: str = "auto", seed: int | None = None, **values: Any) -> Settings:
    """Return complete settings: given values (None: not given) over the preset's, over the defaults.

    Without a seed, or with -1, a random one is chosen, and so recorded. Raises UsageError, InputError for what is no
    path, and ModelError for an unknown preset.
    """
    given = {"prompt": prompt} | {name: value for name, value in values.items() if value is not None}
    base = {name: value for layer in base_layers(preset_name, given).values() for name, value in layer.items()}
    return _finish(base, given | {"seed": drawn_seed() if is_any_seed(seed) else seed})


def is_any_seed(value: Any) -> bool:
    """Say whether no seed is given, or -1, which in other tools too stands for any."""
    return value is None or (isinstance(value, int | str) and str(value).strip() == ANY_SEED)


def drawn_seed() -> int:
    """Return a random seed."""
    return secrets.randbelow(2**32)


def seeded(settings: Sequence[Settings], count: int) -> list[Settings]:
    """Return settings with `count` seeds each: their own and those that follow it. Raises UsageError."""
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"count: {brief(count)} is out of range", "use 1 or more")
    if any(each.seed + count > 2**63 for each in settings):
        raise UsageError("the seeds go beyond the largest", "give a smaller --seed")
    return [each.model_copy(update={"seed": each.seed + k}) for each in settings for k in range(count)]


def base_layers(preset_name: str, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values below the given ones, the lowest first, by their origins: the preset, and the start's own.

    given: the prompt too. A preset's init counts where a text is given to draw, and no init image. Raises what
    `preset_values` raises.
    """
    own = preset_values(preset_name)
    if given.get("vqgan", own.get("vqgan")) != own.get("vqgan"):
        own = _without(own, "upscale", *(["init"] if own.get("init") == "sample" else []))
    if given.get("init_image") or not _has_text(given.get("prompt", "")):
        own = _without(own, "init")
    layers = {f"preset {preset_name}": own}
    if given.get("init_image"):
        layers["init-image"] = {"coarse": 0.0}
    elif given.get("init") == "sample":
        layers["init sample"] = REFINE
    elif "init" not in given and own.get("init") == "sample":
        layers = {"init sample": REFINE} | layers  # what the preset itself says beside it counts
    if method := given.get("cutout_method", own.get("cutout_method")):
        layer = {"cutout-method": method_settings(method)}
        layers = layers | layer if "cutout_method" in given else layer | layers  # a preset's own values count
    if "clips" in given:  # a preset's weights are those of other CLIPs
        layers = {origin: _without(layer, "clip_weights") for origin, layer in layers.items()}
    return layers


def method_settings(name: Any) -> dict[str, Any]:
    """Return the settings that go with a way to cut; none with our own, nor with what is none: others say more."""
    method = CUTOUT_METHODS.get(name) if isinstance(name, str) and name != "own" else None
    return method.settings() if method else {}


def _has_text(prompt: Any) -> bool:
    """Return whether a prompt has a text to draw from, one of positive weight; not of what is none."""
    try:
        return isinstance(prompt, str) and any(part.pulls for part in parse_prompts(prompt))
    except UsageError:  # who makes the settings says more
        return False


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def change(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return complete settings with changes laid over them. Raises UsageError, InputError for what is no path."""
    if "seed" in changes and is_any_seed(changes["seed"]):
        changes = changes | {"seed": drawn_seed()}
    return _finish(settings.model_dump(), changes)


def _finish(base: dict[str, Any], given: dict[str, Any]) -> Settings:
    given = with_colours(given)
    if given.get("learning_rate") and "step_size" in given:
        what = "step-size: a learning rate is given, which is absolute"
        raise UsageError(what, "leave --step-size or --learning-rate out", "step_size")
    if "step_size" in given:
        given = {"learning_rate": 0.0, **given}
    if "clips" in given:  # the weights below are those of other CLIPs
        given = {"clip_weights": (), **given}
    given = _with_image_weights(base, given)
    if name := named_size(given.get("size")):
        given = given | _size_of_name(name, base, given)
    return complete(with_absolute_paths(make_settings(**(base | given)), given))


def _size_of_name(name: str, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size that a name stands for, and the factor with which it is that of the finished image.

    Raises UsageError, InputError.
    """
    plain = {key: value for key, value in {**base, **given}.items() if key != "size" or not named_size(value)}
    usual = make_settings(**(plain | ({"size": base["size"]} if "size" in base else {})))
    if name == AUTO:
        if not usual.init_image:
            raise UsageError("size: auto is the init image's shape, and there is none", "give --init-image", "size")
        return {"size": shaped(load_image(expand(usual.init_image)).size, usual.size)}
    size, upscale = size_of_name(name, usual.size, usual.upscale)
    return {"size": size} if upscale == usual.upscale else {"size": size, "upscale": upscale}


def _with_image_weights(base: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return values whose image prompts, FILE[:WEIGHT], are files with their weights beside them.

    What is a file as it stands has no weight of its own: it has that of all.
    """
    prompts = as_list(given.get("image_prompts"))
    if "image_prompts" not in given or not all(isinstance(prompt, str | Path) for prompt in prompts):
        return given
    pairs = [(str(prompt), None) if _exists(prompt) else split_weight(str(prompt)) for prompt in prompts]
    if not any(weight for _, weight in pairs):
        return {"image_prompt_weights": (), **given}
    common = given.get("image_prompt_weight", base.get("image_prompt_weight", 1.0))
    weights = [common if weight is None else weight for _, weight in pairs]
    return given | {"image_prompts": [file for file, _ in pairs], "image_prompt_weights": weights}


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # no file can have this name
        return False


def complete(settings: Settings) -> Settings:
    """Return settings with the Mini DALL-E that goes with the VQGAN, and its guidance, where none are given."""
    if settings.init != "sample" or (settings.dalle and settings.guidance):
        return settings
    dalle = settings.dalle or goes_with(settings.vqgan)
    guidance = settings.guidance or guidance_of(dalle)
    return settings.model_copy(update={"dalle": dalle, "guidance": guidance})


def preset_values(name: str) -> dict[str, Any]:
    """Return a preset's settings. Raises ModelError for an unknown one, InputError for a wrong one of the user's."""
    values = preset(name)
    try:
        if own := [key for key in ("prompt", "seed") if key in values]:
            raise UsageError(f"{own[0]} is no setting of a preset", "give it with each image")
        read = {key: from_text(key, value) if isinstance(value, str) else value for key, value in values.items()}
        settings = with_absolute_paths(make_settings(prompt="x", **with_colours(read)), values)
        return {key: getattr(settings, key) for key in values}
    except (UsageError, InputError) as error:
        raise InputError(f"{own_catalogue()}: preset.{name}: {error.what}", error.hint) from None


def with_absolute_paths(settings: Settings, names: Iterable[str]) -> Settings:
    """Return settings with the paths in the named ones made absolute. Raises InputError for what is no path."""
    changes: dict[str, Any] = {}
    for name in set(names) & set(fields_with("names")):
        value, kind = getattr(settings, name), facts(name).names
        paths = [absolute(text) if kind == "file" else known_or_absolute(kind, text) for text in files_of(name, value)]
        if paths:
            changes[name] = with_files(name, value, paths)
    return settings.model_copy(update=changes)
