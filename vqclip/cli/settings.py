"""vqclip settings: every setting, its value here and where that comes from, its range and meaning."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ..config.layers import gather
from ..errors import UsageError
from ..settings.schema import Settings, meant
from ..text import as_text, brief
from .columns import print_rows
from .commands import MACHINE, command
from .options import OUTPUT, AsJson, Config, Preset, describe, limits, option
from .progress import put


@command(MACHINE)
def settings(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only those whose names have this.", show_default=False)
    ] = None,
    config: Config = None,
    preset: Preset = None,
    as_json: AsJson = False,
    schema: Annotated[bool, option(OUTPUT, "--schema", "Print the JSON schema instead.")] = False,
) -> None:
    """Print settings, all or some: their values here, where these come from, their ranges and meanings.

    In brackets: what it is where nothing is said, without a preset and what goes with its start (init sample).
    """
    if schema:
        put(json.dumps(Settings.model_json_schema(), indent=2))
        return
    here, origins = gather({}, config=config, preset_name=preset, environ=os.environ, folder=Path(), prompt="-")
    parts = [word.strip("-").replace("-", "_") for word in words or [""]]
    chosen = [name for name in Settings.model_fields if any(part in name for part in parts)]
    if unknown := [part for part in parts if not any(part in name for name in chosen)]:
        raise UsageError(f"no setting is called {brief(unknown[0])}{meant(unknown[0])}", "see: vqclip settings")
    if as_json:
        values = {name: value for name, value in here.model_dump(mode="json").items() if name in chosen}
        put(json.dumps({name: {"value": value, "from": origins[name]} for name, value in values.items()}))
        return
    rows = []
    for name in chosen:
        field = Settings.model_fields[name]
        text, origin = as_text(name, getattr(here, name)) or "-", origins[name]
        if origin == "drawn":  # for this call; each run draws its own
            text = "-"
        about = ", ".join(filter(None, [describe(name), limits(name)]))
        if origin not in ("default", "drawn") and (default := as_text(name, field.default)):
            about += f" [{default}]"
        rows.append((name, text, origin, about))
    print_rows(rows, ("setting", "value", "from", "meaning, range [default]"))
