"""vqclip resume: go on with a run that was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, UsageError
from ..files.metadata import check_target
from ..files.paths import expand
from ..runs.metadata import is_batch, is_motion, is_sample
from ..settings.schema import fields_with
from .animation import AnimationBar, report_animation
from .options import AsJson, Device, Fit, Out, Overwrite, Quiet, takes_settings
from .outcome import report
from .progress import Reporter
from .sample import Drawing, report_sample

if TYPE_CHECKING:
    from ..animate.run import Result as AnimationResult
    from ..runs.generate import Result

EXAMPLES = """
Examples:

  vqclip resume runs/a-red-heart-7

  vqclip resume runs/a-red-heart-7 --steps 200 --step-size 0.5
"""


@takes_settings(without=fields_with("fixed"), texts={"steps": "steps in all; more adds to it"}, defaults=False)
def resume(
    *,
    run: Annotated[Path, typer.Argument(parser=expand, metavar="RUN", help="A run directory.", show_default=False)],
    values: dict[str, Any],
    out: Out = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    fit: Fit = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Go on with a run that was stopped by anything, to the picture or video it would have become; print its path."""
    if is_motion(expand(run)):
        if values:
            raise UsageError(f"{', '.join(values)} can't change in a video that has begun", "make a new one")

        def make(bar: AnimationBar) -> "AnimationResult":
            from ..animate.run import resume

            return resume(run, out=out, overwrite=overwrite, device=device, progress=bar)

        report_animation(make, out, overwrite, as_json=as_json, quiet=quiet)
        return
    if is_sample(expand(run)):
        if values or out:
            raise UsageError("a sample that has begun can't change", f"make a new one, or look into {run}")
        with Drawing(quiet=quiet) as drawing:
            from ..runs.sample import resume as go_on_drawing

            made = go_on_drawing(run, device=device, on_code=drawing.at, on_note=drawing.note)
        report_sample(made, drawing, as_json=as_json, quiet=quiet)
        return
    if is_batch(expand(run)):
        raise InputError(f"{run} is a batch's folder", "the same vqclip batch command goes on with it")
    check_target(out, overwrite)  # before torch is loaded, which takes seconds

    def draw(reporter: Reporter) -> "Result":
        from ..runs import generate as pipeline

        return pipeline.resume(
            run, out=out, overwrite=overwrite, device=device, fit=fit,
            on_start=reporter.start, on_step=reporter.step, on_draw=reporter.draw, **values,
        )  # fmt: skip

    report(draw, as_json=as_json, quiet=quiet)
