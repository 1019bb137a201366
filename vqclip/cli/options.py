"""Options that commands share. Help texts, ranges and defaults come from the fields of Settings."""

from typing import Any

import typer

from ..settings import Settings

PICTURE, START, LOOP, VIEWS, OUTPUT = "Picture", "Start", "Loop", "Cutouts", "Output and machine"
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def setting(field: str, flag: str, panel: str, *short: str, show: bool = True, **more: Any) -> Any:
    """Return an option for a field of Settings: its description, range and default, for the reader."""
    info = Settings.model_fields[field]
    text = info.description or field
    bounds = [
        (sign, getattr(limit, key)) for limit in info.metadata for key, sign in SIGNS.items() if hasattr(limit, key)
    ]
    if show and bounds:
        text += f" ({', '.join(f'{sign} {value:g}' for sign, value in bounds)})"
    if show and info.default not in (None, "", ()):
        text += rf" \[{default_text(field)}]"
    help_text = text[0].upper() + text[1:]
    return typer.Option(flag, *short, help=help_text, rich_help_panel=panel, show_default=False, **more)


def default_text(field: str) -> str:
    """Return a field's default as one would type it."""
    default = Settings.model_fields[field].default
    if isinstance(default, tuple):
        return ("x" if field == "size" else ",").join(map(str, default))
    return "" if default is None else str(default)
