"""vqclip sample: candidates from a prompt, the best of them kept."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.layers import layered
from ..files.atomic import check_here
from ..files.metadata import check_no_file
from ..files.paths import expand
from ..runs.progress import Observers
from ..runs.records import KEEP
from ..settings.schema import fields_with
from ..text import plural
from .commands import DRAW, command
from .options import (
    OUTPUT,
    AsJson,
    Config,
    Device,
    NoMetadata,
    Open,
    Overwrite,
    Preset,
    Quiet,
    Runs,
    ShowPreview,
    prompt_of,
    takes_settings,
)
from .preview import Preview, browser
from .progress import Reporter, put, say, typed

if TYPE_CHECKING:
    from ..runs.sample import Sampled

EXAMPLES = """
Examples:

  vqclip sample "a red heart"

  vqclip sample "an owl | a white ground:0.5" --count 32 --keep 8 -o owls
"""


@command(DRAW, examples=EXAMPLES)
@takes_settings([name for name in fields_with("sample") if name != "init"], flags={"candidates": ("--count", "-n")})
def sample(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw. Of several prompts the first is drawn; all rank.", show_default=False)],
    keep: Annotated[int, typer.Option("--keep", "-k", help="How many of the best to write, 1 or more.")] = KEEP,
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write here instead of a new folder below --runs; what was stopped here goes on.", rich_help_panel=OUTPUT)] = None,
    runs: Runs = Path("runs"),
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    show: Open = False,
    preview: ShowPreview = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw candidates with a Mini DALL-E, rank them by CLIP; print the paths of the best, the very best last."""
    check_here()
    if out:
        check_no_file(expand(out))
    values, _ = layered(values, config=config, preset_name=preset, environ=os.environ, folder=Path())
    values.pop("prompt", None)
    chosen = values.pop("preset", None) or "auto"

    seen = Preview.chosen(preview, config=config, quiet=quiet)
    with seen, Reporter(quiet=quiet) as reporter, browser(show) as view:
        from ..runs.api import sample as draw

        sampled = draw(
            prompt_of(prompt), keep=keep, preset=chosen, out=out, runs=None if out else runs, overwrite=overwrite,
            metadata=not no_metadata, device=device, progress=Observers(seen, reporter, view), **values,
        )  # fmt: skip
    report_sample(sampled, reporter, as_json=as_json)


def report_sample(made: "Sampled", reporter: Reporter, *, as_json: bool) -> None:
    """Say what was drawn, and how to go on if it was stopped; print the paths or one JSON object."""
    from ..models.dalle import BATCH_SIZE

    count, whole = len(made.candidates), len(made.candidates) == made.total
    quiet = reporter.quiet
    if not quiet:
        summary = plural(count, "candidate") if whole else f"{count} of {plural(made.total, 'candidate')}"
        summary += "" if count else f" (candidates are finished in groups of {BATCH_SIZE})"
        now = f", {made.drawn} of them now," if 0 < made.drawn < count else ""
        summary += ", all of them done before" if whole and not made.drawn else f"{now} in {made.seconds:.1f} s"
        best = made.candidates[0] if count else None
        also = f"; the best is candidate {best.number}, distance {best.distance:.3f}" if best else ""
        also += f"; all are in {made.folder}/grid.png, best first" if count else ""
        say(f"{summary}, seed {made.seed}{also}")
    if as_json:
        ranked = [{"candidate": item.number, "distance": round(item.distance, 6)} for item in made.candidates]
        paths = [str(path) for path in made.paths]
        put(json.dumps({"path": paths[-1] if paths else None, "paths": paths, "seed": made.seed,
                        "status": "done" if whole else "stopped", "folder": str(made.folder), "ranked": ranked,
                        "seconds": round(made.seconds, 2)}))  # fmt: skip
    else:
        for path in made.paths:
            put(str(path))
    if not whole:
        if not quiet:
            say(f"go on with: vqclip resume {typed(made.folder)}")
        raise typer.Exit(128 + reporter.stopped_by)
