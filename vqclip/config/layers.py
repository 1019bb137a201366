"""Where settings come from: options, a file, the environment, a folder's vqclip.toml, a preset; with the origin."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, UsageError
from ..files.reading import decode, parse_json, parse_toml, read_bytes
from ..models.catalogue import preset
from ..settings.schema import CONTROL, Settings, check_name, check_value, fields_with, from_text
from ..text import brief
from .resolve import base_layers, is_any_seed, resolve

FOLDER_FILE = "vqclip.toml"
PREFIX = "VQCLIP_"
MAX_CONFIG = 20_000  # bytes; all settings take 2,000, and a reader of TOML some minutes for a hostile 100,000
DISPLAY = ("preview",)  # no settings of the image: how it is shown while it is drawn
HINT = "it must be a .toml or .json file of settings"
SYNTAX = {".toml": 'write a value behind each =, text in quotes: steps = 200, prompt = "an owl"',
          ".json": 'write {"steps": 200, "prompt": "an owl"}'}  # fmt: skip
# What a setting puts out of force where it was given farther below.
RATES = {"learning_rate": "step_size", "step_size": "learning_rate"}
REPLACED = {"clips": "clip_weights", **RATES}  # the weights are those of other CLIPs


def gather(
    flags: Mapping[str, Any],
    *,
    config: Path | None,
    preset_name: str | None,
    environ: Mapping[str, str],
    folder: Path,
    prompt: str = "",
) -> tuple[Settings, dict[str, str]]:
    """Return complete settings, and for each field where its value came from.

    flags, the settings that were given, win over `config`, over VQCLIP_* variables, over the folder's vqclip.toml,
    over the preset and the defaults. prompt: where none of them has one. Raises InputError for a file, UsageError for
    a flag or a variable, before anything heavy is loaded.
    """
    values, origins = layered(flags, config=config, preset_name=preset_name, environ=environ, folder=folder)
    chosen = values.pop("preset", None) or "auto"
    seed = values.pop("seed", None)
    values["prompt"] = values.get("prompt", prompt)
    try:
        settings = resolve(preset_name=chosen, seed=seed, **values)
    except UsageError as error:  # values that are valid alone but not together
        raise _with_origin(error, origins) from None
    below = {name: origin for origin, layer in base_layers(chosen, values).items() for name in layer}
    drawn = {"seed": "drawn"} if is_any_seed(seed) else {}
    return settings, dict.fromkeys(Settings.model_fields, "default") | below | origins | drawn


def layered(
    flags: Mapping[str, Any], *, config: Path | None, preset_name: str | None, environ: Mapping[str, str], folder: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that are given, `preset` among them, and where each came from. Raises as `gather` does."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if (folder / FOLDER_FILE).is_file():
        layers.append((FOLDER_FILE, read_config(folder / FOLDER_FILE)))
    layers.append(("environment", read_environment(environ)))
    if config:
        layers.append((str(config), read_config(config)))
    options = {name: value for name, value in {**flags, "preset": preset_name}.items() if value is not None}
    layers.append(("command line", {name: _read(name, value) for name, value in options.items()}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        if given.get("learning_rate") and origin != "command line":
            given.pop("step_size", None)  # a file that a run saved has all settings
        values = laid_over(values, given)
        origins = {name: origin if name in given else origins[name] for name in values}
    return values, origins


def laid_over(
    below: Mapping[str, Any], given: Mapping[str, Any], replaced: Mapping[str, str] = REPLACED
) -> dict[str, Any]:
    """Return values with others over them, without those that these put out of force."""
    gone = {other for name, other in replaced.items() if given.get(name)}
    return {name: value for name, value in below.items() if name not in gone} | dict(given)


def read_config(path: Path) -> dict[str, Any]:
    """Read a .toml or .json file of settings (and `preset`). Raises InputError with the line of what is wrong."""
    text, values = _parse_config(path)
    read = {}
    for name, value in values.items():
        field = name.replace("-", "_")
        if field in DISPLAY:
            continue
        try:
            read[field] = _read(field, value)
        except (UsageError, ModelError) as error:
            raise InputError(f"{path}{_line(text, name)}: {error.what}", error.hint) from None
    return read


def _parse_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a file's text, and its values as they are. Raises InputError."""
    text = decode(read_bytes(path, MAX_CONFIG, HINT, pipes=True), str(path))
    parse = parse_json if path.suffix.lower() == ".json" else parse_toml
    values = parse(text, str(path), SYNTAX.get(path.suffix.lower(), HINT))
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings", "write one a line: steps = 200")
    return text, values


def read_display(name: str, *, config: Path | None, environ: Mapping[str, str], folder: Path) -> str:
    """Return what a file, the environment or the folder says of DISPLAY, as text; "1" for true, "" if none does.

    Raises InputError.
    """
    files = [path for path in (config, folder / FOLDER_FILE) if path and path.is_file()]  # no pipe is read twice
    said = [_parse_config(path)[1].get(name) for path in files]
    said.insert(1 if config in files else 0, environ.get(PREFIX + name.upper()))
    value = next((value for value in said if value not in (None, "")), "")
    return str(int(value)) if isinstance(value, bool) else str(value)


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read VQCLIP_STEPS and the like; other variables that begin with VQCLIP_ are ignored. Raises UsageError."""
    known = {PREFIX + name.upper(): name for name in (*Settings.model_fields, "preset")}
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in known:
            if close := difflib.get_close_matches(variable, known, 1, 0.9):
                raise UsageError(f"{variable} is no setting: did you mean {close[0]}?", "see: vqclip settings")
        elif text:
            try:
                values[known[variable]] = _read(known[variable], text)
            except (UsageError, ModelError) as error:
                raise type(error)(f"{variable}: {error.what}", error.hint) from None
    return values


def _read(name: str, value: Any) -> Any:
    """Return one value as Settings takes it, checked by itself.

    Raises UsageError, and ModelError for an unknown preset.
    """
    if name == "preset":
        if not isinstance(value, str):
            raise UsageError(f"preset: input should be a name (given: {brief(value)})", "write it in quotes")
        if value:
            preset(value)
        return value
    check_name(name)
    value = from_text(name, value) if isinstance(value, str) else value
    if not (name == "seed" and is_any_seed(value)):
        check_value(name, value)
    return value


def _with_origin(error: UsageError, origins: Mapping[str, str]) -> UsageError | InputError:
    """Return an error of a setting with the file or the variable that the setting came from."""
    origin = origins.get(error.field, "command line")
    if origin == "environment":
        return UsageError(f"{PREFIX}{error.field.upper()}: {error.what}", error.hint, error.field)
    return error if origin == "command line" else InputError(f"{origin}: {error.what}", error.hint)


def _line(text: str, name: str) -> str:
    """Return ":LINE" for where a file gives a name: `name = `, `[name]`, `name.more = `, or in JSON `"name":`."""
    match = re.search(
        rf"""^[ \t]*\[*["']?{re.escape(name)}["']?[ \t]*[]=:.]|"{re.escape(name)}"\s*:""", text, re.MULTILINE
    )
    return f":{text.count(chr(10), 0, match.end()) + 1}" if match else ""


def write_config(settings: Settings) -> str:
    """Return settings as TOML that `read_config` reads back to the same."""
    values = settings.model_dump(mode="json", exclude_none=True)
    left_out = {name: getattr(settings, name) for name in (*fields_with("upscaling"), *CONTROL)}  # where not in use
    values |= {name: list(value) if isinstance(value, tuple) else value for name, value in left_out.items()}
    return "".join(
        f"{name} = {_toml(values[name])}\n" for name in Settings.model_fields if values.get(name) is not None
    )


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A JSON string, number or boolean is a TOML one, but for DEL; a curve is text.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
