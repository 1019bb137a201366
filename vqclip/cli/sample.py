"""vqclip sample: candidates from a prompt, the best of them kept."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..disk import check_here
from .options import OUTPUT, AsJson, Device, NoMetadata, Overwrite, Quiet, Runs
from .progress import Counting, put, say

EXAMPLES = """
Examples:

  vqclip sample "a red heart"

  vqclip sample "an owl | a white background:0.5" --count 32 --keep 8 --seed 7 -o owls
"""


def sample(
    prompt: Annotated[str, typer.Argument(help="What to draw. Of several prompts the first is drawn; all rank.", show_default=False)],
    count: Annotated[int, typer.Option("--count", "-n", help="Candidates to draw.")] = 16,
    keep: Annotated[int, typer.Option("--keep", "-k", help="How many of the best to write.")] = 4,
    seed: Annotated[int | None, typer.Option("--seed", "-S", help="Decides everything random.", show_default="drawn")] = None,
    dalle: Annotated[str, typer.Option("--dalle", help="A Mini DALL-E: mini or mega, once pulled, or a folder.")] = "mini",
    clip: Annotated[list[str] | None, typer.Option("--clip", help="CLIPs that rank.", show_default="as preset auto")] = None,
    guidance: Annotated[float, typer.Option("--guidance", help="How strictly the text is followed; 1 is not beyond it.")] = 4.0,
    temperature: Annotated[float, typer.Option("--temperature", help="Below 1 safer, above 1 wilder.")] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Codes that each place is drawn from.")] = 256,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write here instead of a new folder below --runs.", rich_help_panel=OUTPUT)] = None,
    runs: Runs = Path("runs"),
    overwrite: Overwrite = False,
    no_metadata: NoMetadata = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw candidates with a Mini DALL-E, rank them by CLIP; print the paths of the best, the very best last."""
    check_here()
    from ..sampling import sample as draw

    with Counting("code", quiet=quiet) as counting:
        made = draw(
            prompt, count=count, keep=keep, seed=seed, dalle=dalle, clips=tuple(clip) if clip else None, top_k=top_k,
            temperature=temperature, guidance=guidance, out=out, runs=None if out else runs, overwrite=overwrite,
            metadata=not no_metadata, device=device, on_code=counting.at,
        )  # fmt: skip
    if not quiet:
        best = made.candidates[0]
        say(f"{count} candidates in {made.seconds:.1f} s, seed {made.seed}; the best is number {best.number}, "
            f"distance {best.distance:.3f}; all are in {made.folder}/grid.png, best first")  # fmt: skip
    if as_json:
        ranked = [{"candidate": one.number, "distance": round(one.distance, 6)} for one in made.candidates]
        put(json.dumps({"path": str(made.paths[-1]), "paths": [str(path) for path in made.paths], "seed": made.seed,
                        "folder": str(made.folder), "ranked": ranked, "seconds": round(made.seconds, 2)}))  # fmt: skip
    else:
        for path in made.paths:
            put(str(path))
