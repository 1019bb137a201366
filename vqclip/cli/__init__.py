"""The command line. One file a command; nothing here imports torch before a command runs."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__, exits
from ..errors import VqclipError, is_out_of_memory
from ..text import did_you_mean
from . import (
    batch,
    bench,
    doctor,
    generate,
    models,
    page,
    reconstruct,
    rerun,
    restyle,
    resume,
    sample,
    settings,
    story,
    upscale,
    video,
)
from .progress import say


class _Plain:
    """A command whose help shows no type for a switch: there is none to be typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's parameters."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in params:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return params


class _Command(_Plain, TyperCommand): ...


class _Group(_Plain, TyperGroup): ...


app = typer.Typer(
    name="vqclip",
    cls=_Group,
    help="Text to picture with VQGAN+CLIP.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vqclip {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Text to picture with VQGAN+CLIP."""
    if debug:
        os.environ["VQCLIP_DEBUG"] = "1"


app.command(epilog=generate.EXAMPLES)(generate.generate)
app.command(epilog=batch.EXAMPLES)(batch.batch)
app.command()(page.page)
app.command()(page.rank)
app.command(epilog=sample.EXAMPLES)(sample.sample)
app.command(epilog=resume.EXAMPLES)(resume.resume)
app.command(epilog=rerun.EXAMPLES)(rerun.rerun)
app.command()(rerun.show)
app.command(epilog=video.EXAMPLES)(video.video)
app.command(epilog=story.EXAMPLES)(story.story)
app.command(epilog=restyle.EXAMPLES)(restyle.restyle)
app.command(epilog=reconstruct.EXAMPLES)(reconstruct.reconstruct)
app.command(epilog=upscale.EXAMPLES)(upscale.upscale)
app.command()(settings.settings)
app.command()(doctor.doctor)
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.add_typer(models.app, name="models", cls=_Group)
for command in (*app.registered_commands, *models.app.registered_commands):
    command.cls = _Command


def main() -> None:
    """Run the command line; errors become one line, a hint and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us: the next file opened would take its place
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # a path comes out as it went in
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    with exits.ending_in_order():
        try:
            sys.exit(app(standalone_mode=False) or 0)
        except SystemExit as ended:
            if isinstance(ended.__context__, BrokenPipeError):  # typer's help, of which no more was read: `| head`
                sys.exit(0)
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("VQCLIP_DEBUG") and not isinstance(error, typer.TyperException):
                traceback.print_exc()
            sys.exit(_explain(error))


def _explain(error: BaseException) -> int:
    """Say what went wrong and what to do; return the exit code."""
    if exits.raised():
        what, hint, code = "stopped", "", 128 + exits.raised()
    elif isinstance(error, VqclipError):
        what, hint, code = error.what, error.hint, error.exit_code
    elif isinstance(error, typer.TyperException):  # its message is empty where the help has just been printed
        (what, hint), code = _misused(error), 2
    elif is_out_of_memory(error):
        what, hint, code = f"there is too little memory to begin: {error}", "let this process have more (ulimit -v)", 7
    elif isinstance(error, KeyboardInterrupt | typer.Abort):
        what, hint, code = "stopped", "", 130
    else:
        what = f"a fault in vqclip: {type(error).__name__}: {error}"
        hint, code = "run it again as vqclip --debug ... and report what it prints", 1
    if what:
        say(f"error: {what}")
        if hint:
            say(f"  {hint}")
    return code


def _misused(error: typer.TyperException) -> tuple[str, str]:
    """Return what is wrong with a command's words, and what to do."""
    see, options = "see: vqclip --help, vqclip COMMAND --help", getattr(error, "possibilities", None)
    if options:
        return str(error.message), did_you_mean(getattr(error, "option_name", ""), options, see)
    context = getattr(error, "ctx", None)
    prompted = context is not None and any(parameter.name == "prompt" for parameter in context.command.params)
    if prompted and error.message.startswith("Got unexpected extra argument"):
        return error.message, f"put a prompt of several words in quotes; {see}"
    return error.format_message(), see
