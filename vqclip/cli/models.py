"""vqclip models: what is installed."""

import json
from typing import Annotated

import typer

from ..models.cards import catalogue, find
from .progress import put

app = typer.Typer(no_args_is_help=True, help="Show the models.")


@app.callback()
def models() -> None:
    """Show the models."""


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """List every model: kind, name, size on disk, what it is."""
    rows = []
    for kind in ("vqgan", "clip"):
        for name in catalogue()[kind]:
            card = find(kind, name)
            size = card.weights.stat().st_size if card.weights.exists() else 0
            rows.append(
                {
                    "kind": kind,
                    "name": name,
                    "bytes": size,
                    "installed": size > 0,
                    "about": card.about,
                    "licence": card.licence,
                }
            )
    if as_json:
        put(json.dumps(rows, indent=2))
        return
    for row in rows:
        put(f"{row['kind']:<6} {row['name']:<8} {row['bytes'] / 1e6:6.1f} MB  {row['about']}")
