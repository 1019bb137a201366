"""Rows made into settings: crossed, validated, each with its place. Loads no torch."""

import itertools
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError, VqclipError
from ..files.images import load_image
from ..models.catalogue import find
from ..settings.schema import Settings, brief, from_text, nearest_of, resolve
from .prompt_files import Raw, RowFile

WORD = re.compile(r"\{(\w+)\}")
NAMES = (*Settings.model_fields, "preset")


@dataclass(frozen=True)
class Row:
    """One picture to be made. `source` is the number of its row, before seeds."""

    place: str
    source: int
    settings: Settings
    drawn: bool = False  # its seed was drawn, not given


def crossed(found: RowFile, cross: Mapping[str, Sequence[Any]], limit: int) -> list[Raw]:
    """Multiply rows by every combination of `cross` (and the file's own): settings by name, other words in prompts.

    A word stands as {word} in the prompt. Raises UsageError for more rows than `limit`, and for a cross that says
    nothing.
    """
    axes = {key.replace("-", "_"): list(values) for key, values in (found.cross | dict(cross)).items()}
    for key, values in axes.items():
        if not values:
            raise UsageError(f"the cross {key!r} has no values", "write --cross NAME=VALUE,VALUE")
    count = len(found.rows) * math.prod(len(values) for values in axes.values())
    if count > limit:
        raise UsageError(f"that makes {count:,} rows, more than {limit:,}", f"if that is meant: --limit {count}")
    words = [key for key in axes if key not in NAMES]
    for key in words:
        if not any(f"{{{key}}}" in str(row.values.get("prompt", "")) for row in found.rows):
            near = (
                "" if any(WORD.search(str(r.values.get("prompt", ""))) for r in found.rows) else nearest_of(key, NAMES)
            )
            raise UsageError(f"no prompt has the word {{{key}}}{near}", "write {" + key + "} where its values go")
    if not axes:
        return found.rows
    return [_filled(row, dict(zip(axes, values, strict=True)), words)
            for row in found.rows for values in itertools.product(*axes.values())]  # fmt: skip


def _filled(row: Raw, values: dict[str, Any], words: list[str]) -> Raw:
    prompt = str(row.values.get("prompt", ""))
    unknown = [word for word in WORD.findall(prompt) if words and word not in words]
    fault = row.fault or (f"the cross has no word {{{unknown[0]}}}" if unknown else "")
    if words:
        prompt = WORD.sub(lambda match: str(values.get(match[1], match[0])), prompt)
    own = {key: value for key, value in values.items() if key in NAMES}
    return Raw(row.place, row.values | ({"prompt": prompt} if prompt else {}) | own, fault)


def make_rows(
    raws: Sequence[Raw], base: Mapping[str, Any], seeds: Sequence[int] | int = 1
) -> tuple[list[Row], list[str]]:
    """Make and check rows; return them, and what is wrong, a line for each bad one, with its place.

    base: settings for all rows, over which a row's own are laid. seeds: the seeds of every row, or how many it has:
    its own and those that follow. Pictures are opened and models looked for, none is loaded.
    """
    rows: list[Row] = []
    faults: list[str] = []
    known: dict[Any, str] = {}
    for number, raw in enumerate(raws):
        try:
            settings, drawn = _settings(raw, base)
            missing = (_once(known, key, look) for key, look in _needed(settings))
            if fault := raw.fault or next(filter(None, missing), ""):
                raise UsageError(fault)
            first = settings.seed
            for seed in range(first, first + seeds) if isinstance(seeds, int) else seeds:
                if not 0 <= seed < 2**63:
                    raise UsageError(f"the seed {seed} is out of range")
                changed = settings.model_copy(update={"seed": seed})
                rows.append(Row(raw.place, number, changed, drawn and isinstance(seeds, int)))
        except VqclipError as error:
            meant = f" ({error.hint})" if error.hint.startswith("did you mean") else ""
            faults.append(f"{raw.place}: {error.what}{meant}")
    return rows, faults


def check_base(base: Mapping[str, Any]) -> None:
    """Check what is given for all rows, as if a row gave nothing but a prompt. Raises VqclipError."""
    settings, _ = _settings(Raw("", {}), {**base, "prompt": base.get("prompt") or "-"})
    for _, look in _needed(settings):
        look()


def _settings(raw: Raw, base: Mapping[str, Any]) -> tuple[Settings, bool]:
    values: dict[str, Any] = dict(base)
    for key, value in ({} if raw.fault else raw.values).items():
        name = key.strip().replace("-", "_")
        if name not in NAMES:
            raise UsageError(f"unknown setting {brief(key)}{nearest_of(name, NAMES)}")
        values[name] = from_text(name, value) if isinstance(value, str) and name != "preset" else value
    if raw.fault:
        values.setdefault("prompt", "-")
    seed, preset_name = values.pop("seed", None), values.pop("preset", None) or "auto"
    prompt = values.pop("prompt", "")
    if not isinstance(preset_name, str) or not isinstance(prompt, str):
        raise UsageError("prompt and preset are text; write them in quotes")
    if "clips" in values and isinstance(values["clips"], str):
        values["clips"] = (values["clips"],)
    settings = resolve(prompt, preset_name, secrets.randbelow(2**31) if seed is None else seed, **values)
    return settings, seed is None


def _needed(settings: Settings) -> Iterator[tuple[Any, Callable[[], object]]]:
    """Return each model and picture that is to be there: a key, and what raises VqclipError where it is not."""
    for kind, name in (("vqgan", settings.vqgan), *(("clip", name) for name in settings.clips)):
        yield (kind, name), partial(find, kind, name)
    if settings.drawn():
        yield ("dalle", settings.dalle, settings.vqgan), partial(_dalle, settings)
    for path in settings.pictures():
        yield path, partial(load_image, Path(path))


def _dalle(settings: Settings) -> None:
    if not settings.dalle:
        hint = "use --vqgan tiny or imagenet_f16_16384"
        raise ModelError(f"no Mini DALL-E is known that writes the codes of the VQGAN {settings.vqgan}", hint)
    find("dalle", settings.dalle)


def _once(known: dict[Any, str], key: Any, look: Callable[[], object]) -> str:
    if key not in known:
        try:
            look()
            known[key] = ""
        except VqclipError as error:
            known[key] = error.what
    return known[key]
