"""The command line: every module in this folder that makes a command; none imports torch before a command runs."""

import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..errors import InputError, UsageError, VqclipError, is_out_of_memory
from ..runs import exits
from ..text import without_secrets
from .commands import app
from .hints import misused, of_another_tool
from .progress import put, say

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")


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
    """Text to image with VQGAN+CLIP."""
    if debug:
        os.environ["VQCLIP_DEBUG"] = "1"


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
                put(without_secrets(traceback.format_exc()), "stderr")
            sys.exit(_explain(error))


def _explain(error: BaseException) -> int:
    """Say what went wrong and what to do; return the exit code."""
    if exits.raised():
        what, hint, code = "stopped", "", 128 + exits.raised()
    elif isinstance(error, VqclipError):
        what, hint, code = error.what, error.hint, error.exit_code
        if isinstance(error, UsageError | InputError):
            hint = of_another_tool() or hint
    elif isinstance(error, typer.TyperException):  # its message is empty where the help has just been printed
        (what, hint), code = misused(error), 2
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
