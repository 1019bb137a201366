"""vqclip models: what is installed, and how to get more."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError, IntegrityError, ModelError, OutputExists, UsageError
from ..files.paths import expand
from ..models import store
from ..models.catalogue import KINDS, ModelEntry, all_entries, catalogue, find, is_name, model_entry, models_of, preset
from ..text import as_text, did_you_mean, without_secrets
from .columns import in_columns, print_rows
from .commands import MACHINE, Command, Group
from .commands import app as parent
from .options import AsJson, Quiet
from .progress import progress_bar, put, say

if TYPE_CHECKING:
    from ..models.install import InstallContext

app = typer.Typer(cls=Group, no_args_is_help=True, help="Show, download and convert models.")
parent.add_typer(app, name="models", rich_help_panel=MACHINE)

Name = Annotated[str, typer.Argument(help="A model's name, or a preset's.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Models' or presets' names.", show_default=False)]
Yaml = Annotated[
    Path | None, typer.Option("--config", metavar="YAML", help="The checkpoint's own config, to check it against.")
]
NoConfig = Annotated[bool, typer.Option("--no-config", help="Leave the .yaml beside the checkpoint alone.")]
Pixels = Annotated[
    Literal["signed", "unit"] | None,
    typer.Option("--pixels", help="A VQGAN trained on images in -1..1 or 0..1.", show_default="by the file"),
]
EXAMPLES = """
Examples:

  vqclip models pull standard                        # a preset's models

  vqclip models import last.ckpt --name my-own       # a file that is here

  vqclip models import ViT-B-32.pt --name my-clip   # or FILE@ARCHITECTURE
"""


@app.callback(epilog=EXAMPLES)
def models() -> None:
    """Show, download and convert models."""


def _entries(name: str) -> list[ModelEntry]:
    """Return the models that a name stands for: a preset's, and those of every kind. Raises ModelError."""
    known = catalogue()
    of_preset = models_of(name) if name in known.presets else []
    name = known.aliases.get(name, name)
    if matches := dict.fromkeys([*of_preset, *((kind, name) for kind in KINDS if is_name(kind, name))]):
        return [model_entry(kind, model) for kind, model in matches]
    names = {*known.presets, *known.aliases, *(entry.name for entry in all_entries())}
    hint = did_you_mean(name, names, "see: vqclip models list")
    raise ModelError(f"there is no model or preset named {name!r}", hint)


def _row(entry: ModelEntry) -> dict[str, Any]:
    installed = entry.installed()
    return {
        "kind": entry.kind,
        "name": entry.name,
        "bytes": entry.weights.stat().st_size if installed else entry.download_size,
        "installed": installed,
        "bundled": entry.bundled,
        "about": entry.about,
        "data": entry.facts.data,
        "licence": entry.licence,
    }


@app.command("list", cls=Command)
def list_models(as_json: AsJson = False) -> None:
    """List all models and presets; of what is not here the size is that of the download."""
    rows = [_row(entry) for entry in all_entries()]
    if as_json:
        put(json.dumps(rows, indent=2))
        return
    lines = []
    for row in rows:
        state = "bundled" if row["bundled"] else "installed" if row["installed"] else "no"
        size = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "unknown"
        lines.append((row["kind"], row["name"], state, f"{size:>9}", row["about"]))
    presets = catalogue().presets.items()
    lines += [("preset", name, "", "", str(values.get("about", ""))) for name, values in presets]
    print_rows(lines, ("kind", "name", "here", f"{'size':>9}", "about (models show NAME tells data and licence)"))


@app.command(cls=Command)
def show(name: Name, as_json: AsJson = False) -> None:
    """Print all that is known of a model: place, size, hash, mirrors, data, licence; of a preset its settings too."""
    rows: list[dict[str, Any]] = []
    if name in catalogue().presets:
        about = catalogue().presets[name].get("about", "")
        rows.append({"kind": "preset", "name": name, "about": about, "settings": preset(name)})
    rows += [_row(entry) | _details(entry) for entry in _entries(name)]
    if as_json:
        put(json.dumps(rows, indent=2))
        return
    for number, row in enumerate(rows):
        if number:
            put("")
        for key, value in row.items():
            lines = value if isinstance(value, list) else [value] if value != "" else []
            if isinstance(value, dict):
                lines = [f"{field} {as_text(field, text)}" for field, text in value.items()]
            print_rows([(f"{key:<16}", str(line)) for line in lines])


def _details(entry: ModelEntry) -> dict[str, Any]:
    shown = ("f", "codes", "dim", "pixels", "scale", "sha256", "mirrors", "check")
    facts = {key: getattr(entry.facts, key) for key in shown}
    facts["mirrors"] = [without_secrets(mirror) for mirror in entry.facts.mirrors]  # one's own may have a password
    facts["files"] = [f"{file.name} {' '.join([*file.mirrors, file.mirror]).strip()}" for file in entry.facts.files]
    record = store.read_record(entry.folder)
    recorded = {"weights_sha256": record["sha256"], "source": record.get("source")} if "sha256" in record else {}
    known = {key: value for key, value in facts.items() if value}
    return {"path": str(entry.file or entry.folder)} | known | recorded


@contextlib.contextmanager
def _installing(*, quiet: bool, offline: bool = False) -> Iterator["InstallContext"]:
    """Return a context with what an installation needs: it shows its bytes on bars, and its messages between them."""
    from ..models.install import InstallContext

    def note(text: str) -> None:
        bar.close()
        if not quiet:
            say(text)

    with progress_bar("B", quiet=quiet, delay=0, line=_megabytes, unit_scale=True) as bar:
        yield InstallContext(bar.at, note, offline)


def _megabytes(done: float, total: float) -> str:
    return f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"


@app.command(cls=Command)
def words(
    prefix: Annotated[str, typer.Argument(help="Only those with a word that begins so.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Print the words and names that the bundled models were trained on, one a line."""
    from ..models.wording import bundled

    names = bundled().names(prefix)
    if as_json:
        put(json.dumps(names))
    elif names:
        put("\n".join(in_columns(names)))
        if not prefix:
            say(f"{len(names):,} names, as those who drew the drawings wrote them; of a word: vqclip models words owl")
    else:
        raise InputError(f"no name has a word that begins with {prefix!r}", "try fewer letters")


@app.command(cls=Command)
def pull(
    names: Names,
    no_network: Annotated[bool, typer.Option("--offline", help="Use no network; also VQCLIP_OFFLINE=1.")] = False,
    quiet: Quiet = False,
) -> None:
    """Download models, check them, and keep them as plain tensors; print where they are."""
    from ..models import install

    entries = [entry for name in names for entry in _entries(name)]  # a wrong name is an error before any download
    for entry in entries:
        with _installing(quiet=quiet, offline=no_network) as context:
            if not entry.installed():
                amount = f", {entry.download_size / 1e6:,.0f} MB" if entry.download_size else ""
                data = entry.facts.data or "unknown"
                context.say(f"{entry.name}{amount}; data: {data}; licence: {entry.licence}")
            try:
                install.pull(entry.kind, entry.name, context)
            except (KeyboardInterrupt, SystemExit):
                context.say(f"what has come is kept: vqclip models pull {entry.name} goes on")
                raise
        put(str(entry.file or entry.folder))


@app.command(cls=Command)
def verify(names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="All, if none.")] = None) -> None:
    """Compare models with the hashes that they were installed with."""
    named = [_installed(entry) for name in names or () for entry in _entries(name)]
    damaged = []
    for entry in named or [entry for entry in all_entries() if entry.installed()]:
        try:
            entry.verified(whole=True)
            say(f"{entry.kind} {entry.name}: sound", to="stdout")
        except IntegrityError as error:
            say(f"{entry.kind} {entry.name}: damaged", to="stdout")
            damaged.append(error)
    if damaged:
        raise damaged[0]


@app.command(cls=Command)
def check(name: Name, as_json: AsJson = False) -> None:
    """Measure what a model makes of a drawn image, and compare that with what is known of it; print the figures.

    So a wrong range of pixels, mean and std or activation shows, which is no error otherwise, only a worse image.
    """
    from ..models import checking

    faults = []
    entries = [_installed(entry) for entry in _entries(name)]
    for entry in [entry for entry in entries if entry.kind in checking.CHECKS] or entries:
        result = checking.check(entry)
        faults += [f"{entry.kind} {entry.name}: {fault}" for fault in result.faults]
        if as_json:
            put(
                json.dumps({"kind": entry.kind, "name": entry.name, "figures": result.figures, "faults": result.faults})
            )
            continue
        put(checking.as_toml(entry, result.figures))
        if not entry.facts.check:
            say(f"nobody has reported figures of {entry.name} yet: please send this line, and where the file is from")
    if faults:
        raise IntegrityError("; ".join(faults), "is it the right file, and the right FILE@ARCHITECTURE or --pixels?")


def _installed(entry: ModelEntry) -> ModelEntry:
    """Return a model that is installed. Raises ModelError for another one, with what to do."""
    return entry if entry.installed() else find(entry.kind, entry.name)


@app.command(cls=Command)
def convert(
    file: Annotated[Path, typer.Argument(help="A VQGAN's checkpoint, of any layout.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="The folder to make.")] = None,
    config: Yaml = None,
    no_config: NoConfig = False,
    pixels: Pixels = None,
) -> None:
    """Turn a checkpoint into a folder of plain tensors, for --vqgan; print the folder."""
    from ..models.vqgan import checkpoints

    path = expand(file)
    folder = (expand(out) if out else path.parent / f"{path.stem}-vqgan").absolute()
    if folder.exists():
        raise OutputExists(f"{folder} exists already", "give another with -o")
    with store.appearing_folder(folder) as draft:
        checkpoints.convert(path, draft, config or not no_config, pixels=pixels or "", note=say)
    put(str(folder))


@app.command("import", cls=Command)
def import_model(
    file: Annotated[
        str,
        typer.Argument(
            help="A VQGAN's file; a CLIP's, also as FILE@ARCHITECTURE; a Mini DALL-E's folder; an upscaler's file.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="The name it gets; a catalogue's takes only that very file.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", help=f"What it is: {', '.join(KINDS)}; otherwise by name and contents.", show_default=False
        ),
    ] = None,
    config: Yaml = None,
    no_config: NoConfig = False,
    pixels: Pixels = None,
    quiet: Quiet = False,
) -> None:
    """Install a model from a file on this machine; print where it is."""
    from ..models import install

    if kind not in (None, *KINDS):
        raise UsageError(f"there is no kind {kind!r} of model", f"use {', '.join(KINDS)}")
    name = catalogue().aliases.get(name, name)
    with _installing(quiet=quiet) as context:
        try:
            entry = install.import_file(
                kind or install.kind_of(name, file), name, file, context, config or not no_config, pixels=pixels or ""
            )
        except ModelError as error:
            also = "" if kind else f"; --kind says what it is: {', '.join(KINDS)}"
            raise type(error)(error.what, error.hint + also) from None
    put(str(entry.folder))


@app.command(cls=Command)
def remove(names: Names) -> None:
    """Delete installed models."""
    from ..models import install

    for entry in [entry for name in names for entry in _entries(name)]:
        install.remove(entry, say)
        say(f"{entry.kind} {entry.name} is deleted")


@app.command(cls=Command)
def path(name: Annotated[str | None, typer.Argument(help="A model; none: the folder of all.")] = None) -> None:
    """Print where a model is, or where all that are installed are."""
    if name is None:
        put(str(store.root()))
        return
    for entry in _entries(name):
        _installed(entry)
        put(str(entry.file or entry.folder))
