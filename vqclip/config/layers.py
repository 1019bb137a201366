"""Where settings come from: flags, a file, the environment, a folder's vqclip.toml, the preset; each with its place."""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, UsageError
from ..models.catalogue import preset
from ..settings.schema import Settings, from_text, make_settings
from ..text import brief, nearest_of
from .resolve import resolve

FOLDER_FILE = "vqclip.toml"
PREFIX = "VQCLIP_"
MAX_CONFIG = 20_000  # bytes; all settings take 2,000, and a reader of TOML some minutes for a hostile 100,000


def gather(
    flags: Mapping[str, Any],
    *,
    config: Path | None,
    preset_name: str | None,
    environ: Mapping[str, str],
    folder: Path,
    prompt: str = "",
) -> tuple[Settings, dict[str, str]]:
    """Lay flags over `config`, over VQCLIP_* variables, over the folder's vqclip.toml, over the preset and defaults.

    flags: name -> value of the settings that were given. prompt: for where there is none. Returns the settings, and
    for each field where its value came from. Raises InputError for a file, UsageError for a flag or a variable,
    before anything heavy is loaded.
    """
    values, origins = layered(flags, config=config, preset_name=preset_name, environ=environ, folder=folder)
    chosen = values.pop("preset", None) or "auto"
    seed = values.pop("seed", None)
    settings = resolve(values.pop("prompt", prompt), chosen, seed, **values)
    from_preset = dict.fromkeys(preset(chosen), f"preset {chosen}")
    drawn = {} if seed is not None else {"seed": "drawn"}
    return settings, dict.fromkeys(Settings.model_fields, "default") | from_preset | origins | drawn


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
    given = {name: value for name, value in {**flags, "preset": preset_name}.items() if value is not None}
    layers.append(("command line", {name: _checked(name, value, drawn=True) for name, value in given.items()}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        if layer.get("clips"):  # weights of other CLIPs don't fit them
            values.pop("clip_weights", None)
        for name, value in layer.items():
            if value is not None:
                values[name], origins[name] = value, origin
    return values, origins


def read_config(path: Path) -> dict[str, Any]:
    """Read a .toml or .json file of settings (and `preset`). Raises InputError with the line of what is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
        if len(data) > MAX_CONFIG:
            raise ValueError(f"it is over {MAX_CONFIG // 1000} kB")
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} can't be read: {reason}", "it must be a .toml or .json file of settings") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings", "write one a line: steps = 200")
    read = {}
    for name, value in values.items():
        field = name.replace("-", "_")
        try:
            if field != "preset" and field not in Settings.model_fields:
                near = nearest_of(field, Settings.model_fields)
                raise UsageError(f"unknown setting {brief(name)}{near}", "see: vqclip settings")
            read[field] = _checked(field, value, drawn=values.get("init") == "sample")
        except (UsageError, ModelError) as error:
            raise InputError(f"{path}{_line(text, name)}: {error.what}", error.hint) from None
    return read


def _checked(name: str, value: Any, drawn: bool) -> Any:
    """Return one value as Settings takes it. Raises UsageError, and ModelError for an unknown preset.

    drawn: whether init may be "sample", beside which alone some values are right.
    """
    if name == "preset":
        if not isinstance(value, str):
            raise UsageError(f"preset: input should be a name (given: {brief(value)})", "write it in quotes")
        if value:
            preset(value)
        return value
    value = from_text(name, value) if isinstance(value, str) else value
    if name == "clip_weights" and isinstance(value, list | tuple):  # how many CLIPs there are is not known yet
        make_settings(prompt="x", clips=("x",) * len(value) or ("x",), clip_weights=value)
    elif name != "prompt" or value != "":  # none may stand beside pictures
        make_settings(**({"prompt": "x"} | ({"init": "sample"} if drawn else {}) | {name: value}))
    return value


def _line(text: str, name: str) -> str:
    """Say on which line a name is given: `name = `, `[name]`, `name.more = `, or in JSON `"name":`."""
    found = re.search(
        rf"""^[ \t]*\[*["']?{re.escape(name)}["']?[ \t]*[]=:.]|"{re.escape(name)}"\s*:""", text, re.MULTILINE
    )
    return f":{text.count(chr(10), 0, found.end()) + 1}" if found else ""


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read VQCLIP_STEPS and the like; a VQCLIP_ variable that is like none of them is not ours. Raises UsageError."""
    values: dict[str, Any] = {}
    known = [PREFIX + name.upper() for name in (*Settings.model_fields, "preset")]
    for name in environ:
        close = difflib.get_close_matches(name, known, 1, 0.9) if name.startswith(PREFIX) else []
        if close and name not in known:
            raise UsageError(f"{name} is no setting: did you mean {close[0]}?", "see: vqclip settings")
    for name in (*Settings.model_fields, "preset"):
        text = environ.get(PREFIX + name.upper())
        if text:
            try:
                values[name] = _checked(name, text, drawn=environ.get(f"{PREFIX}INIT") == "sample")
            except (UsageError, ModelError) as error:
                raise type(error)(f"{PREFIX}{name.upper()}: {error.what}", error.hint) from None
    return values


def write_config(settings: Settings) -> str:
    """Return settings as TOML that `read_config` reads back to the same."""
    lines = []
    for name, value in settings.model_dump(mode="json").items():
        if value is not None:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A JSON string, number or boolean is a TOML one, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
