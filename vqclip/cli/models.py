"""vqclip models: what is there, and how to get more."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import IntegrityError, ModelError, OutputExists
from ..files.paths import expand
from ..models import store
from ..models.catalogue import KINDS, TAGGED, Card, card, catalogue, every_card, find, is_name, models_of, preset
from ..text import as_text, did_you_mean
from .options import Quiet
from .progress import put, say
from .transfer import Transfer

app = typer.Typer(no_args_is_help=True, help="Show, download and convert models.")

Name = Annotated[str, typer.Argument(help="A model's name, or a preset's.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Models' or presets' names.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yaml = Annotated[
    Path | None, typer.Option("--config", metavar="YAML", help="The checkpoint's own config, to check it against.")
]
EXAMPLES = """
Examples:

  vqclip models pull standard                        # a preset's models

  vqclip models import last.ckpt --name my-own       # a file that is here

  vqclip models import a.pt@ViT-B-32 --name my-clip  # a CLIP and its shape
"""


@app.callback(epilog=EXAMPLES)
def models() -> None:
    """Show, download and convert models."""


def _cards(name: str) -> list[Card]:
    """Return the cards that a name stands for: a preset's models, and those of every kind. Raises ModelError."""
    tables = catalogue()
    of_preset = models_of(name) if name in tables["preset"] else []
    own = tables["alias"].get(name, name)
    if found := dict.fromkeys([*of_preset, *((kind, own) for kind in KINDS if is_name(kind, own))]):
        return [card(kind, model) for kind, model in found]
    known = {*tables["preset"], *tables["alias"], *(one.name for one in every_card())}
    hint = did_you_mean(own, known, "see: vqclip models list")
    raise ModelError(f"there is no model or preset named {own!r}", hint)


def _row(found: Card) -> dict[str, Any]:
    entry, there = found.entry, found.installed()
    return {
        "kind": found.kind,
        "name": found.name,
        "bytes": found.weights.stat().st_size if there else entry.get("size", entry.get("roughly", 0)),
        "installed": there,
        "bundled": found.bundled,
        "about": found.about,
        "data": entry.get("data", ""),
        "licence": found.licence,
    }


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List all models and presets; of what is not here the size is that of the download."""
    rows = [_row(one) for one in every_card()]
    if as_json:
        put(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    say(f"{'kind':<6} {'name':<{width}} {'here':<9} {'size':>10}  about (models show NAME tells data and licence)")
    for row in rows:
        state = "bundled" if row["bundled"] else "installed" if row["installed"] else "no"
        size = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "unknown"
        say(f"{row['kind']:<6} {row['name']:<{width}} {state:<9} {size:>10}  {row['about']}", to="stdout")
    for name, values in catalogue()["preset"].items():
        say(f"preset {name:<{width}} {'':<9} {'':>10}  {values.get('about', '')}", to="stdout")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Print all that is known of a model: place, size, hash, mirrors, data, licence; of a preset its settings too."""
    rows: list[dict[str, Any]] = []
    if name in catalogue()["preset"]:
        about = catalogue()["preset"][name].get("about", "")
        rows.append({"kind": "preset", "name": name, "about": about, "settings": preset(name)})
    for found in _cards(name):
        told = store.record(found.folder)
        more = {key: found.entry[key] for key in ("f", "codes", "dim", "sha256", "mirrors") if key in found.entry}
        kept = {"weights_sha256": told["sha256"], "source": told.get("source")} if "sha256" in told else {}
        rows.append(_row(found) | {"path": str(found.file or found.folder)} | more | kept)
    if as_json:
        put(json.dumps(rows, indent=2))
        return
    for number, row in enumerate(rows):
        if number:
            put("")
        for key, value in row.items():
            lines = value if isinstance(value, list) else [value] if value != "" else []
            if isinstance(value, dict):
                lines = [f"{name} {as_text(name, one)}" for name, one in value.items()]
            for line in lines:
                say(f"{key:<16} {line}", to="stdout")


@app.command()
def pull(
    names: Names,
    no_network: Annotated[bool, typer.Option("--offline", help="Use no network; also VQCLIP_OFFLINE=1.")] = False,
    quiet: Quiet = False,
) -> None:
    """Download models, check them, and keep them as plain tensors; print where they are."""
    from ..models import install

    wanted = [found for name in names for found in _cards(name)]  # a wrong name is said before anything is fetched
    for found in wanted:
        with Transfer(quiet=quiet) as transfer:
            if not found.installed():
                size = found.entry.get("size", found.entry.get("roughly", 0))
                amount = f", {size / 1e6:,.0f} MB" if size else ""
                data = found.entry.get("data", "unknown")
                transfer.say(f"{found.name}{amount}; data: {data}; licence: {found.licence}")
            talk = install.Talk(transfer.progress, transfer.say, no_network)
            try:
                install.pull(found.kind, found.name, talk)
            except KeyboardInterrupt:
                transfer.say(f"what has come is kept: vqclip models pull {found.name} goes on")
                raise
        put(str(found.file or found.folder))


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="All, if none.")] = None,
) -> None:
    """Compare models with the hashes that they were installed with."""
    named = [found for name in names or () for found in _cards(name)]
    wanted = named or [one for one in every_card() if one.installed()]
    damaged = []
    for found in wanted:
        if not found.installed():
            find(found.kind, found.name)  # says what to do
        try:
            found.verified(whole=True)
            say(f"{found.kind} {found.name}: sound", to="stdout")
        except IntegrityError as error:
            say(f"{found.kind} {found.name}: damaged", to="stdout")
            damaged.append(error)
    if damaged:
        raise damaged[0]


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A VQGAN's checkpoint, of any layout.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="The folder to make.")] = None,
    config: Yaml = None,
) -> None:
    """Turn a checkpoint into a folder of plain tensors, for --vqgan; print the folder."""
    from ..models.vqgan.convert import convert as write

    path = expand(file)
    folder = (expand(out) if out else path.parent / f"{path.stem}-vqgan").absolute()
    if folder.exists():
        raise OutputExists(f"{folder} exists already", "give another with -o")
    with store.appearing_folder(folder) as draft:
        write(path, draft, config)
    put(str(folder))


@app.command("import")
def import_model(
    file: Annotated[
        str,
        typer.Argument(
            help="A checkpoint; a CLIP's may be FILE@ARCHITECTURE; a Mini DALL-E's folder.", show_default=False
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="The name it gets; a catalogue's takes only that very file.")],
    config: Yaml = None,
    quiet: Quiet = False,
) -> None:
    """Install a model from a file on this machine; print where it is."""
    from ..models import install

    name = catalogue()["alias"].get(name, name)
    shaped = "@" in file and not expand(file).exists()
    is_clip = shaped or TAGGED.fullmatch(name) or name in catalogue()["clip"]
    kind = "clip" if is_clip else "dalle" if expand(file).is_dir() else "vqgan"
    with Transfer(quiet=quiet) as transfer:
        found = install.import_file(kind, name, file, install.Talk(transfer.progress, transfer.say), config)
    put(str(found.folder))


@app.command()
def remove(names: Names) -> None:
    """Delete installed models."""
    from ..models import install

    for found in [found for name in names for found in _cards(name)]:
        install.remove(found, say)
        say(f"{found.kind} {found.name} is deleted")


@app.command()
def path(name: Annotated[str | None, typer.Argument(help="A model; none: the folder of all.")] = None) -> None:
    """Print where a model is, or where all that are installed are."""
    if name is None:
        put(str(store.root()))
        return
    for found in _cards(name):
        if not found.installed():
            find(found.kind, found.name)  # says what to do
        put(str(found.file or found.folder))
