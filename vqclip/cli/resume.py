"""vqclip resume: go on with a run that was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, Changes, Device, Fit, Out, Overwrite, Quiet, read_changes
from .progress import Reporter, report

if TYPE_CHECKING:
    from ..pipeline import Result

EXAMPLES = """
Examples:

  vqclip resume runs/a-red-heart-7

  vqclip resume runs/a-red-heart-7 --steps 200 --set step_size=0.5
"""


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    steps: Annotated[int | None, typer.Option("--steps", "-n", help="Steps in all; more adds to it.")] = None,
    changes: Changes = None,
    out: Out = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    fit: Fit = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Go on with a run that was stopped by anything, to the picture it would have become; print its path."""
    values = read_changes(changes) | ({"steps": steps} if steps is not None else {})

    def draw(reporter: Reporter) -> "Result":
        from .. import pipeline

        return pipeline.resume(
            run, out=out, overwrite=overwrite, device=device, fit=fit,
            on_start=reporter.start, on_step=reporter.step, **values,
        )  # fmt: skip

    report(draw, as_json=as_json, quiet=quiet)
