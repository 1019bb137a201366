"""vqclip settings: every setting, its value here and where that comes from, its range and meaning."""

import json
import os
from pathlib import Path
from typing import Annotated

from ..config.layers import gather
from ..settings.schema import Settings
from ..text import as_text
from .columns import print_rows
from .commands import MACHINE, command
from .options import OUTPUT, Config, Preset, describe, limits, option
from .progress import put


@command(MACHINE)
def settings(
    config: Config = None,
    preset: Preset = None,
    schema: Annotated[bool, option(OUTPUT, "--json", "Print the JSON schema instead.")] = False,
) -> None:
    """Print every setting: its value here, where that comes from, its range and meaning."""
    if schema:
        put(json.dumps(Settings.model_json_schema(), indent=2))
        return
    here, origins = gather({}, config=config, preset_name=preset, environ=os.environ, folder=Path(), prompt="-")
    rows = []
    for name, field in Settings.model_fields.items():
        text, origin = as_text(name, getattr(here, name)) or "-", origins[name]
        if origin == "drawn":  # for this call; each run draws its own
            text = "-"
        about = ", ".join(filter(None, [describe(name), limits(name)]))
        if origin not in ("default", "drawn") and (default := as_text(name, field.default)):
            about += f" [{default}]"
        rows.append((name, text, origin, about))
    print_rows(rows, ("setting", "value", "from", "meaning, range [default]"))
