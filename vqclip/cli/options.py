"""Options that commands share. Help texts, ranges and defaults come from the fields of Settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..files.paths import expand
from ..settings.schema import Settings, from_text
from ..text import as_text, pasted

PICTURE, START, LOOP, VIEWS, OUTPUT = "Picture", "Start", "Loop", "Cutouts", "Output and machine"
MANY = {"image_prompts": "image_prompt", "clips": "clip"}  # settings whose option is said once for each value
PRESETS = "Models and the settings that suit them: auto, tiny, standard, fine, painting or your own."
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def bounds(field: str) -> list[str]:
    """Return what a number must keep to: [">= 0", "<= 1"]."""
    limits = Settings.model_fields[field].metadata
    return [f"{sign} {getattr(limit, key)}" for limit in limits for key, sign in SIGNS.items() if hasattr(limit, key)]


def setting(field: str, flag: str, panel: str, *short: str, show: bool = True, **more: Any) -> Any:
    """Return an option for a field of Settings: its description, range and default, for the reader."""
    info = Settings.model_fields[field]
    text = info.description or field
    if show and bounds(field):
        text += f" ({', '.join(bounds(field))})"
    if show and info.default not in (None, "", ()):
        text += rf" \[{as_text(field, info.default)}]"
    help_text = text[0].upper() + text[1:]
    return typer.Option(flag, *short, help=help_text, rich_help_panel=panel, show_default=False, **more)


def option(panel: str, flag: str, help_text: str, *short: str, **more: Any) -> Any:
    """Return an option in a panel of the help."""
    return typer.Option(flag, *short, help=help_text, rich_help_panel=panel, **more)


Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", parser=expand, metavar="FILE", help="Also write the final picture here: .png, .jpg or .webp.",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Let a file that is there already be replaced.", rich_help_panel=OUTPUT),
]
Runs = Annotated[
    Path,
    typer.Option(
        "--runs", parser=expand, metavar="DIR", help="Where run directories are made.", rich_help_panel=OUTPUT
    ),
]
FramesEvery = Annotated[
    int,
    typer.Option(
        "--frames-every", metavar="N", help="Save a progress frame every N steps; 0 for none.", rich_help_panel=OUTPUT
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every", metavar="N|TIME", rich_help_panel=OUTPUT,
        help="Save what `vqclip resume` goes on from every 50 steps (50) or 30 seconds (30s); 0: at the end alone.",
    ),
]  # fmt: skip
SaveLatents = Annotated[
    bool,
    typer.Option(
        "--save-latents", rich_help_panel=OUTPUT,
        help="Keep each frame's latent too, for `vqclip video --between latent`.",
    ),
]  # fmt: skip
NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata", help="Leave prompt and settings out of the pictures.", rich_help_panel=OUTPUT
    ),
]  # fmt: skip
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of the path.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=OUTPUT)]
Fit = Annotated[
    bool,
    typer.Option(
        "--fit", rich_help_panel=LOOP,
        help="Where memory does not suffice, let CLIP see the cutouts in smaller parts; slower.",
    ),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", parser=expand, metavar="FILE", rich_help_panel=PICTURE,
        help="Settings from a .toml or .json file; options on the command line win.",
    ),
]  # fmt: skip
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting (see: vqclip settings); may be repeated."),
]


def _as_setting(name: str, value: Any) -> Any:
    """Turn an option's value into a setting's: text is read as people write it, paths become text."""
    if isinstance(value, str):
        return from_text(name, value)
    return tuple(map(str, value)) if isinstance(value, list) else str(value) if isinstance(value, Path) else value


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among a command's options, by their names, that were given."""
    values = {field: given.get(MANY.get(field, field)) for field in Settings.model_fields}
    return {field: _as_setting(field, value) for field, value in values.items() if value is not None}


def read_changes(pairs: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs. Raises UsageError."""
    changes = {}
    for pair in pairs or []:
        name, given, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not given:
            raise UsageError(f"--set {pair!r} has no value", "write --set NAME=VALUE")
        if name == "preset":
            raise UsageError("a preset is no setting", f"use --preset {pasted(value)}, where the command has that")
        changes[name] = from_text(name, value)
    return changes
