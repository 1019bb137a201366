"""vqclip watch: runs in the browser, while they grow."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files.paths import expand
from .commands import LOOK, command
from .options import OUTPUT, Open, Quiet, option
from .progress import put, say_all

EVERY_S = 1.0

EXAMPLES = """
Examples:

  vqclip watch runs --open           # all runs of a folder; new ones appear

  vqclip watch runs/an-owl-3 --bell  # one run

On a machine without a screen: vqclip watch runs --port 8765 there, and here ssh -L 8765:localhost:8765 MACHINE.
"""


@command(LOOK, examples=EXAMPLES)
def watch(
    source: Annotated[Path, typer.Argument(metavar="RUN|FOLDER", help="A run, a batch's or a sample's folder, or a folder of runs, which may be empty yet.", show_default=False)],
    show: Open = False,
    bell: Annotated[bool, option(OUTPUT, "--bell", "Ring the terminal's bell when a run ends.")] = False,
    port: Annotated[int, option(OUTPUT, "--port", "The port of this machine to use, up to 65535; 0: any free one.", metavar="N")] = 0,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Show runs in the browser while they grow; print the address, which only this machine reaches. Ctrl-C ends it."""
    folder = expand(source)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}", "give a run directory, or a folder that has runs or will have")
    from ..report.watch import WatchServer, open_browser

    with WatchServer(folder, port) as server, contextlib.suppress(KeyboardInterrupt):
        put(server.url)
        say_all(["shows what is there and what comes; Ctrl-C ends it"], quiet=quiet)
        if show:
            open_browser(server.url)
        before = server.watched.statuses()
        while True:
            time.sleep(EVERY_S)
            now = server.watched.statuses()
            for run, status in now.items():
                if before.get(run) == "running" != status:
                    _announce(run, status, bell=bell, quiet=quiet)
            before = now


def _announce(run: Path, status: str, *, bell: bool, quiet: bool) -> None:
    say_all([f"{run.name}: {status}"], quiet=quiet)
    if bell and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            sys.stderr.write("\a")
            sys.stderr.flush()
