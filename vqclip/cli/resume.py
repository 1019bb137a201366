"""vqclip resume: go on with a run that was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, UsageError
from ..files.paths import expand
from ..runs.output import Output
from ..runs.progress import Observers
from ..runs.records import is_batch, is_motion, is_sample
from ..settings.schema import facts, fields_with
from ..video.make import VideoOptions
from .animation import AnimationBar, report_animation
from .commands import DRAW, command
from .options import OUTPUT, AsJson, Device, Fit, Out, Overwrite, Quiet, ShowPreview, option, takes_settings
from .outcome import goes_to_stdout, into_folder, report
from .preview import Preview
from .progress import Reporter
from .sample import report_sample
from .video import Ffmpeg

if TYPE_CHECKING:
    from ..animate.run import Result as AnimationResult

EXAMPLES = """
Examples:

  vqclip resume runs/a-red-heart-7

  vqclip resume runs/a-red-heart-7 --steps 200 --step-size 0.5
"""


@command(DRAW, examples=EXAMPLES)
@takes_settings(
    without=fields_with("fixed"), texts={"steps": "steps in all; more adds to it"}, defaults=False, others=True
)
def resume(
    *,
    run: Annotated[Path, typer.Argument(parser=expand, metavar="RUN", help="A run directory.", show_default=False)],
    values: dict[str, Any],
    out: Out = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    fit: Fit = False,
    ffmpeg: Ffmpeg = None,
    footage: Annotated[Path | None, option(OUTPUT, "--footage", "Of a restyled clip: where the clip is now.", metavar="FILE", parser=expand, show_default=False)] = None,
    preview: ShowPreview = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Go on with a run that was stopped by anything, to the image or video it would have become; print its path."""
    others = [name for name in values if not facts(name).names]  # than where files are by now
    seen = Preview.chosen(preview, config=None, quiet=quiet)
    if is_motion(run):
        if others:
            raise UsageError(f"{', '.join(others)} can't change in a video that has begun", "make a new one")

        def make(bar: AnimationBar) -> "AnimationResult":
            from ..animate.run import resume

            options = VideoOptions(overwrite=overwrite, ffmpeg=ffmpeg)
            return resume(run, options=options, out=out, files=values, footage=footage, device=device, progress=bar)

        report_animation(make, out, overwrite, seen, as_json=as_json, quiet=quiet)
        return
    if is_sample(run):
        if others or out:
            raise UsageError("a sample that has begun can't change", f"make a new one, or look into {run}")
        with seen, Reporter(quiet=quiet) as reporter:
            from ..runs.sample import resume as resume_sample

            sampled = resume_sample(run, values, device=device, progress=Observers(seen, reporter))
        report_sample(sampled, reporter, as_json=as_json)
        return
    if is_batch(run):
        raise InputError(f"{run} is a batch's folder", "the same vqclip batch command goes on with it")
    to_stdout = goes_to_stdout(out, as_json=as_json)
    out = next(iter(into_folder(out, [run.absolute().name])), out)
    output = Output(out=None if to_stdout else out, overwrite=overwrite, fit=fit)
    output.check()  # before torch is loaded, which takes seconds
    with seen, Reporter(quiet=quiet) as reporter:
        from ..runs.resume import resume as resume_run

        result = resume_run(run, values, output, device=device, progress=Observers(seen, reporter))
    report(result, reporter, as_json=as_json, to_stdout=to_stdout)
