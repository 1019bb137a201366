"""Valid values of settings, made from the types and ranges of their fields, and how people write them."""

from typing import Literal, get_args, get_origin

from vqclip.settings.augmentations import AUGMENTS
from vqclip.settings.curves import Curve
from vqclip.settings.schema import WITH_CURVES, Settings, facts, flag
from vqclip.text import as_text

SPECIAL = {  # settings whose values their type does not say
    "prompt": ["a cat:2", "c | d"],
    "size": [(64, 32), (48, 48)],
    "upscale": [2, 8],
    "clip_weights": [(0.5,), (2.0,)],
    "image_prompt_weights": [(0.5,), (-1.0,)],
    "noise_prompts": [("14",), ("14:0.5", "3:-1")],
    "regions": [("a cat:2@left", "a dog@0,0,0.5,1"), ("a cat@/m",)],
    "palette": [("#ff0000",), ("#ff0000", "#008080")],
    "frame": ["#ff0000", "#008080"],
    "cut_power": [2.0],
    "augments": [("blur",), ("affine:30", "perspective:0.7:0.5"), tuple(sorted(AUGMENTS)[:2]), ()],
}
NEEDED = {
    "image_prompt_weights": {"image_prompts": ("/i",)},
    "mask": {"init_image": "/i"},
}  # setting -> others without which it is refused


def limits(name):
    """Return the lowest and the highest value of a number: as they are, or None."""
    found = {key: getattr(limit, key) for limit in Settings.model_fields[name].metadata
             for key in ("ge", "gt", "le", "lt") if getattr(limit, key, None) is not None}  # fmt: skip
    return found.get("ge", found.get("gt")), found.get("le", found.get("lt"))


def others(name):
    """Return valid values of a setting that are not its default."""
    field = Settings.model_fields[name]
    if name in SPECIAL:
        found = SPECIAL[name]
    elif get_origin(field.annotation) is Literal:
        found = [value for value in get_args(field.annotation) if value != "sample"]
    elif field.annotation is int:
        found = [limits(name)[0] + k for k in (1, 2, 3)]
    elif field.annotation is float:
        low, high = limits(name)
        found = [low + min(1, high - low) * k / 4 for k in (1, 2, 3)]
    elif facts(name).flag:
        found = [("/a",), ("/b", "/c")]
    else:
        found = ["/a", "/b"]
    if name in WITH_CURVES:
        found.append(Curve(f"0: {found[0]}, 0.6: {found[1]}"))
    return [value for value in found if value != field.default]


def arguments(name, value):
    """Return the words of a command line that give a setting a value."""
    values = value if facts(name).flag else [value]
    return [word for one in values for word in (flag(name), as_text(name, one))]
