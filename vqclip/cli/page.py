"""vqclip page and rank: look at runs and images, and put them in order."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files.paths import expand
from ..models.catalogue import is_public
from ..runs.records import read
from ..settings.prompts import prompt_notes
from ..settings.schema import Settings
from ..text import brief
from .commands import LOOK, command
from .options import IMAGE, MODELS, OUTPUT, AsJson, Device, Quiet, SkipBad, option, prompt_of
from .progress import progress_bar, put, say, say_all


@command(LOOK)
def page(
    sources: Annotated[list[Path], typer.Argument(metavar="RUN|DIR", help="Runs, a batch's or a sample's folder, or a folder of runs.", show_default=False)],
    out: Annotated[Path | None, option(OUTPUT, "--out", "Where to; otherwise index.html in the folder, or of several here.", "-o", metavar="FILE", show_default=False)] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make one HTML page of runs, which needs no other file and no network; print its path."""
    from ..report.page import check_page, find_runs, write_page

    folders = [expand(source) for source in sources]
    runs = [run for folder in dict.fromkeys(folders) for run in find_runs(folder)]
    folder = folders[0] if len(folders) == 1 else Path()
    target = expand(out) if out else folder / "index.html"
    check_page(target)
    with progress_bar("run", quiet=quiet) as bar:
        write_page(target, runs, folder.absolute(), bar.at)
    put(str(target))


@command(LOOK)
def rank(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images.", show_default=False)],
    prompt: Annotated[str, option(IMAGE, "--prompt", 'What they should show: "text[:weight] | ...".', "-p", show_default=False)],
    ranker: Annotated[str | None, option(MODELS, "--ranker", "The CLIP that ranks: one that made none of them is best.", "--clip", metavar="CLIP", show_default=False)] = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Rank images by how near a CLIP finds them to a prompt; print their paths, the best last."""
    from ..runs.rank import judge_of, said_of
    from ..runs.rank import rank as ranked

    prompt = prompt_of(prompt)
    say_all(prompt_notes(prompt), quiet=quiet)
    paths = [expand(image) for image in images]
    makers = {name for path in paths for name in _clips(path)}
    if not ranker and len(makers) == 1 and not is_public("clip", min(makers)):
        raise InputError(f"the images were made with the clip {brief(min(makers))}", "say which ranks: --ranker CLIP")
    default = str(Settings.model_fields["clips"].default[0])
    clip = ranker or judge_of([min(makers) if len(makers) == 1 else default])
    if clip in makers and not quiet:
        say(said_of(clip, list(makers)))
    with progress_bar("image", quiet=quiet) as bar:
        ranking = ranked(paths, prompt, clip, device, bar.at, say if skip_bad else None)
    if as_json:
        rows = [{"path": str(path), "score": round(score, 6)} for path, score in ranking]
        put(json.dumps({"prompt": prompt, "clip": clip, "ranking": rows}))
        return
    say_all((f"{score:.4f}  {path}" for path, score in reversed(ranking)), quiet=quiet)
    for path, _ in reversed(ranking):
        put(str(path))


def _clips(path: Path) -> list[str]:
    """Return the CLIPs that an image of vqclip was made with; none for any other image."""
    try:
        settings = read(path).get("settings")
    except InputError:
        return []
    clips = settings.get("clips") if isinstance(settings, dict) else None
    return list(map(str, clips)) if isinstance(clips, list) else []
