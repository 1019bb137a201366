"""The command line. One file a command; nothing here imports torch before a command runs."""

import os
import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import VqclipError
from . import generate, models, settings
from .progress import say

app = typer.Typer(
    name="vqclip",
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
app.command()(settings.settings)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; errors become one line, a hint and an exit code."""
    try:
        app()
    except VqclipError as error:
        if os.environ.get("VQCLIP_DEBUG"):
            raise
        say(f"error: {error.what}")
        if error.hint:
            say(f"  {error.hint}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("VQCLIP_DEBUG"):
            raise
        say(f"error: a fault in vqclip: {type(error).__name__}: {error}")
        say("  run it again as vqclip --debug ... and report what it prints")
        sys.exit(1)
