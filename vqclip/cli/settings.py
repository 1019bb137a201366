"""vqclip settings: every setting, its default and meaning."""

import json
from typing import Annotated

import typer

from ..augment import AUGMENTS
from ..settings import Settings
from .options import default_text


def settings(schema: Annotated[bool, typer.Option("--json", help="Print the JSON schema instead.")] = False) -> None:
    """Print every setting with its default and meaning, and the names of augmentations."""
    if schema:
        typer.echo(json.dumps(Settings.model_json_schema(), indent=2))
        return
    for name, field in Settings.model_fields.items():
        typer.echo(f"{name:<20} {default_text(name) or '-':<34} {field.description}")
    typer.echo(f"\naugmentations: {', '.join(AUGMENTS)}")
