"""Options that commands share. Help texts and defaults come from the fields of Settings."""

from typing import Any

import typer

from ..settings import Settings

PICTURE, START, LOOP, VIEWS, OUTPUT = "Picture", "Start", "Loop", "Cutouts", "Output and machine"


def setting(field: str, flag: str, panel: str, *short: str, **more: Any) -> Any:
    """Return an option for a field of Settings: its description, and its default for the reader."""
    info = Settings.model_fields[field]
    default = info.default
    if isinstance(default, tuple):
        default = ("x" if field == "size" else ",").join(map(str, default))
    bounds = {type(m).__name__.lower(): getattr(m, type(m).__name__.lower()) for m in info.metadata
              if type(m).__name__.lower() in ("ge", "gt", "le", "lt")}  # fmt: skip
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = ", ".join(f"{words[key]} {value:g}" for key, value in bounds.items() if abs(value) < 10**15)
    text = f"{info.description}" + (f"; {limits}" if limits else "")
    if default not in (None, "") and more.pop("show", True):
        text += f" [{default}]"
    return typer.Option(flag, *short, help=text.replace("[", r"\["), rich_help_panel=panel, show_default=False, **more)
