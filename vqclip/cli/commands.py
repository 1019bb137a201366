"""The application, and what makes a function one of its commands: a module in this folder needs nothing else."""

import functools
import inspect
import os
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from .options import OUTPUT, option

DRAW, ANIMATE, LOOK, MACHINE = "Make images", "Make videos", "Look at images", "Models and machine"
PANELS = (DRAW, ANIMATE, LOOK, MACHINE)  # of `vqclip --help`, in this order

THREADS = "CPU threads that compute at a time; so many cores by default."
Threads = Annotated[int | None, option(OUTPUT, "--threads", THREADS, metavar="N")]


class _Plain:
    """A command whose help shows what is to be typed, not Python's types: nothing for a switch, N for a number."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's parameters."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in params:
            if isinstance(parameter, TyperArgument):  # beside its name
                parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
            elif parameter.is_flag:
                parameter.metavar = ""
            elif parameter.metavar is None:
                parameter.metavar = "N" if parameter.display_type(ctx) in ("<int>", "<float>") else "TEXT"
        return params


class Command(_Plain, TyperCommand):
    """A command."""


class Group(_Plain, TyperGroup):
    """A command that has commands, which its help lists panel by panel."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of its commands."""

        def order(name: str) -> tuple[int, str]:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            return (PANELS.index(panel), name) if panel in PANELS else (-1, "")

        return sorted(self.commands, key=order)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is named; what can be no command's name is a prompt to draw."""
        if args[0] not in self.commands and "generate" in self.commands and re.search(r"[\s|{}]|[^\x00-\x7f]", args[0]):
            args = ["generate", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="vqclip",
    cls=Group,
    help="Text to image with VQGAN+CLIP.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(panel: str, *, examples: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a command of `vqclip`, in a panel of its help."""
    register = app.command(cls=Command, epilog=examples or None, rich_help_panel=panel)
    return lambda function: register(_with_threads(function))


def _with_threads(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has --threads too, if it has --device."""
    signature = inspect.signature(function)
    if "device" not in signature.parameters:
        return function

    @functools.wraps(function)
    def run(*, threads: int | None = None, **given: Any) -> None:
        if threads is not None:
            os.environ["VQCLIP_THREADS"] = str(threads)
        function(**given)

    keyword, parameters = inspect.Parameter.KEYWORD_ONLY, []
    for parameter in signature.parameters.values():
        parameters.append(parameter.replace(kind=keyword))
        if parameter.name == "device":
            parameters.append(inspect.Parameter("threads", keyword, default=None, annotation=Threads))
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}  # the signature has them all
    return run
