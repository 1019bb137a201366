"""From the rows of a prompt file to settings: crossed, checked, each with its location. Loads no torch."""

import functools
import itertools
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.addresses import Downloads, fetch_addresses
from ..config.layers import RATES, laid_over
from ..config.resolve import EARLIER, EARLIER_REFINE, is_any_seed, resolve
from ..config.styles import read_list, read_style, styled
from ..errors import InputError, ModelError, UsageError, VqclipError
from ..files.archives import UNPACK, archive_at
from ..files.images import load_image
from ..models.catalogue import find
from ..settings.expansion import expand
from ..settings.remarks import notes_on_prompts
from ..settings.schema import Settings, check_value, from_text, meant
from ..text import brief, nearest, plural
from .prompt_files import MAX_ROWS, NAMES, PLACEHOLDER, FileRow, PromptFile, fill_in

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Row:
    """One image to be made. source: the number of its prompt, from 0; rows that differ in their seeds share it."""

    location: str
    source: int
    settings: Settings
    random_seed: bool = False  # the seed was drawn, not given
    earlier: Callable[[], Settings] | None = None  # gives what 0.1.0 made of the same row

    def notes(self) -> list[str]:
        """Return a line for what in its prompts is read as text, and looks like more."""
        return notes_on_prompts(self.settings)


def cross_rows(file: PromptFile, cross: Mapping[str, Sequence[Any]], limit: int) -> list[FileRow]:
    """Return every row with every combination of the values of `cross` and of the file's own cross.

    A name is a setting, or a word that stands as {word} in prompts. Raises UsageError for more rows than `limit`, and
    for a name that changes nothing.
    """
    axes = {name.replace("-", "_"): list(values) for name, values in (file.cross | dict(cross)).items()}
    if not axes:
        return file.rows
    if empty := [name for name, values in axes.items() if not values]:
        raise UsageError(f"the cross {empty[0]!r} has no values", "write --cross NAME=VALUE,VALUE")
    check_count(len(file.rows) * math.prod(len(values) for values in axes.values()), limit)
    placeholders = {word for row in file.rows for word in PLACEHOLDER.findall(_prompt(row))}
    words = [name for name in axes if name not in NAMES]
    for word in words:
        if word not in placeholders:
            close = nearest(word, placeholders or NAMES, 1)
            similar = f": did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"no prompt has the word {{{word}}}{similar}", "write {" + word + "} where its values go")
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [_cross_row(row, values, words) for row in file.rows for values in combinations]


def expand_rows(rows: Sequence[FileRow], base: Mapping[str, Any], styles: Sequence[str], limit: int) -> list[FileRow]:
    """Return a row for each prompt that the alternatives of a row's prompt make, in these styles.

    base: as of `make_rows`. A row whose braces are not understood carries that as its fault. Raises UsageError for
    more rows than `limit`, and for a style that is unknown.
    """
    chosen = [read_style(name) for name in styles]
    expanded: list[FileRow] = []
    for row in rows:
        prompt = row.values.get("prompt", base.get("prompt"))
        if row.fault or not isinstance(prompt, str) or not prompt.strip():
            expanded.append(row)
            continue
        try:
            texts = [styled(text, chosen) for text in expand(prompt, read_list, limit)]
        except VqclipError as error:
            expanded.append(replace(row, fault=f"{error.what} ({error.hint})"))
            continue
        expanded += [row] if texts == [prompt] else [replace(row, values=row.values | {"prompt": t}) for t in texts]
        if len(expanded) > limit:
            raise UsageError(f"alternatives make more than {plural(limit, 'row')}", "if that is meant: --limit N")
    return expanded


def fetch_images(rows: Sequence[FileRow], downloads: Downloads) -> list[FileRow]:
    """Return rows with files in place of the addresses of images; a row whose image can't be had says that."""
    fetched = []
    for row in rows:
        try:
            fetched.append(replace(row, values=fetch_addresses(row.values, downloads)))
        except VqclipError as error:
            fetched.append(replace(row, fault=row.fault or f"{error.what} ({error.hint})"))
    return fetched


def check_cross(name: str, values: Sequence[Any]) -> None:
    """Raise UsageError for a value that a setting can't have; a name that is no setting is a word of the prompts."""
    if (setting := name.replace("-", "_")) in Settings.model_fields:
        for value in values:
            check_value(setting, from_text(setting, value) if isinstance(value, str) else value)


def list_images(folder: Path) -> list[str]:
    """Return the paths of a folder's images, by their endings, in order. Raises InputError."""
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES and path.name[0] != ".")
    except (OSError, ValueError) as error:
        if archive := archive_at(folder):
            raise InputError(f"{folder} is {archive}, not a folder", UNPACK) from None
        raise InputError(f"{folder} can't be read: {getattr(error, 'strerror', error)}", "give a folder") from None
    if not names:
        raise InputError(f"{folder} holds no images", f"known endings: {', '.join(IMAGES)}")
    return [str(path) for path in names]


def check_count(count: int, limit: int) -> None:
    """Raise UsageError for more rows than the limit, or than MAX_ROWS."""
    if count > MAX_ROWS:
        raise UsageError(f"that makes {plural(count, 'row')}, more than {MAX_ROWS:,}", "make several batches")
    if count > limit:
        hint = f"if that is meant: --limit {count}"
        raise UsageError(f"that makes {plural(count, 'row')}, more than {limit:,}", hint)


def _prompt(row: FileRow) -> str:
    return str(row.values.get("prompt", ""))


def _cross_row(row: FileRow, values: dict[str, Any], words: list[str]) -> FileRow:
    """Return a row with one combination: settings laid over its own, words filled into its prompt."""
    settings = {name: value for name, value in values.items() if name in NAMES}
    prompt = _prompt(row)
    if not words or not prompt:
        return FileRow(row.location, row.values | settings, row.fault)
    unknown = [word for word in PLACEHOLDER.findall(prompt) if word not in words]
    fault = row.fault or (f"the cross has no word {{{unknown[0]}}}" if unknown else "")
    filled = fill_in(prompt, values)
    return FileRow(row.location, row.values | {"prompt": filled} | settings, fault)


def make_rows(
    file_rows: Sequence[FileRow], base: Mapping[str, Any], seeds: Sequence[int] | int = 1
) -> tuple[list[Row], list[str]]:
    """Return the checked rows, and a line for each row that is wrong, with its location.

    base: settings of all rows, over which a row's own are laid. seeds: the seeds of every row, or their number: a
    row's own seed and those that follow it. Images are opened and models looked up, none is loaded.
    """
    rows: list[Row] = []
    faults: list[str] = []
    check = functools.cache(_check_input)
    for source, file_row in enumerate(file_rows):
        try:
            rows += _seeded(file_row, source, base, seeds, check)
        except VqclipError as error:
            similar = f" ({error.hint})" if error.hint.startswith("did you mean") else ""
            faults.append(f"{file_row.location}: {error.what}{similar}")
    return rows, faults


def _seeded(
    file_row: FileRow,
    source: int,
    base: Mapping[str, Any],
    seeds: Sequence[int] | int,
    check: Callable[[str, str], None],
) -> list[Row]:
    """Return a Row for each seed of a file's row. Raises VqclipError for what is wrong with it."""
    if file_row.fault:
        raise UsageError(file_row.fault)
    settings, random_seed, earlier = _settings(file_row.values, base)
    _check_inputs(settings, check)
    numbers = range(settings.seed, settings.seed + seeds) if isinstance(seeds, int) else seeds
    if wrong := [seed for seed in numbers if not 0 <= seed < 2**63]:
        raise UsageError(f"the seed {wrong[0]} is out of range")
    random_seed = random_seed and isinstance(seeds, int)
    return [
        Row(
            file_row.location, source, settings.model_copy(update={"seed": seed}), random_seed,
            functools.partial(earlier, seed),
        )
        for seed in numbers
    ]  # fmt: skip


def check_base(base: Mapping[str, Any]) -> None:
    """Check the settings of all rows, as of a row that gives nothing but a prompt. Raises VqclipError."""
    settings, _, _ = _settings({}, {**base, "prompt": base.get("prompt") or "-"})
    _check_inputs(settings, _check_input)


def _settings(row: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[Settings, bool, Callable[[int], Settings]]:
    """Return a row's settings, whether its seed was drawn, and what gives 0.1.0's with a seed. Raises VqclipError."""
    own: dict[str, Any] = {}
    for key, value in row.items():
        name = key.strip().replace("-", "_")
        if name not in NAMES:
            raise UsageError(f"unknown setting {brief(key)}{meant(name)}")
        own[name] = from_text(name, value) if isinstance(value, str) and name != "preset" else value
    values = laid_over(base, own, RATES)
    seed = values.pop("seed", None)
    preset = values.pop("preset", None) or "auto"
    prompt = values.pop("prompt", "")
    if not isinstance(preset, str) or not isinstance(prompt, str):
        raise UsageError("prompt and preset are text; write them in quotes")
    settings = resolve(prompt, preset, secrets.randbelow(2**31) if is_any_seed(seed) else seed, **values)
    drawn = EARLIER_REFINE if values.get("init") == "sample" and not values.get("init_image") else {}
    before: dict[str, Any] = EARLIER | drawn | values
    return settings, is_any_seed(seed), lambda seed: resolve(prompt, preset, seed, **before)


def _check_inputs(settings: Settings, check: Callable[[str, str], None]) -> None:
    """Check each model and image that settings need. Raises VqclipError."""
    if settings.starts_from_candidates() and not settings.dalle:
        hint = "use --vqgan tiny or imagenet_f16_16384"
        raise ModelError(f"no Mini DALL-E is known that writes the codes of the VQGAN {settings.vqgan}", hint)
    for kind, name in (*settings.models(), *(("image", path) for path in settings.pictures())):
        check(kind, name)


def _check_input(kind: str, name: str) -> None:
    """Raise VqclipError for a model or an image that does not exist."""
    if kind == "image":
        load_image(Path(name))
    else:
        find(kind, name)
