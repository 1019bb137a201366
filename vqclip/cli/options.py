"""Options that commands share. Those of settings are made from the fields of Settings: name, range, default, help."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ..errors import UsageError
from ..files.paths import expand
from ..settings.facts import IMAGE, LOOP, MODELS
from ..settings.schema import Settings, facts, fields_with, flag, from_text
from ..text import as_text, pasted

OUTPUT = "Output and machine"
PRESETS = "Models and the settings that suit them: auto, tiny, standard, fine, painting or your own."
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
Command = Callable[..., None]


def option(panel: str, flag: str, help_text: str, *short: str, **more: Any) -> Any:
    """Return an option in a panel of the help."""
    return typer.Option(flag, *short, help=help_text, rich_help_panel=panel, **more)


Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", parser=expand, metavar="FILE", help="Also write the final picture here: .png, .jpg or .webp.",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Let a file that is there already be replaced.", rich_help_panel=OUTPUT),
]
Runs = Annotated[
    Path,
    typer.Option(
        "--runs", parser=expand, metavar="DIR", help="Where run directories are made.", rich_help_panel=OUTPUT
    ),
]
FramesEvery = Annotated[
    int,
    typer.Option(
        "--frames-every", metavar="N", help="Save a progress frame every N steps; 0 for none.", rich_help_panel=OUTPUT
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every", metavar="N|TIME", rich_help_panel=OUTPUT,
        help="Save what `vqclip resume` goes on from every 50 steps (50) or 30 seconds (30s); 0: at the end alone.",
    ),
]  # fmt: skip
SaveLatents = Annotated[
    bool,
    typer.Option(
        "--save-latents", rich_help_panel=OUTPUT,
        help="Keep each frame's latent too, for `vqclip video --between latent`.",
    ),
]  # fmt: skip
NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata", help="Leave prompt and settings out of the pictures.", rich_help_panel=OUTPUT
    ),
]  # fmt: skip
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of the path.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=OUTPUT)]
Fit = Annotated[
    bool,
    typer.Option(
        "--fit", rich_help_panel=LOOP,
        help="Where memory does not suffice, let CLIP see the cutouts in smaller parts; slower.",
    ),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", parser=expand, metavar="FILE", rich_help_panel=IMAGE,
        help="Settings from a .toml or .json file; options on the command line win.",
    ),
]  # fmt: skip
Preset = Annotated[str | None, option(MODELS, "--preset", rf"{PRESETS} \[auto]", show_default=False)]
Changes = Annotated[
    list[str] | None,
    option(IMAGE, "--set", "Any setting by its name (see: vqclip settings); may be repeated.", metavar="NAME=VALUE"),
]


def takes_settings(
    names: Iterable[str] | None = None,
    *,
    without: Iterable[str] = (),
    texts: Mapping[str, str] = {},
    flags: Mapping[str, tuple[str, ...]] = {},
    defaults: bool = True,
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each of these settings, and --set.

    The options stand in the help where the command has its parameter `values`, through which it receives the settings
    that were given, name -> value. names: which settings, None for all. texts: setting -> what its option says here
    instead of the setting's description and default. flags: setting -> more names that its option has here.
    defaults: whether the help shows them.
    """
    chosen = [name for name in names or fields_with("panel") if facts(name).panel and name not in set(without)]
    options: dict[str, Any] = {}
    for name in chosen:
        text = texts.get(name) or describe(name, sampling="init" not in chosen)
        default = defaults and name not in texts
        options[name] = _option(name, text, default=default, flags=flags.get(name, ()))

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = read_changes(given.pop("changes"))
            values |= {name: _as_setting(name, value) for name in chosen if (value := given.pop(name)) is not None}
            command(values=values, **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == "values":
                made = {**options, "changes": Changes}.items()
                parameters += [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in made]
            else:
                parameters.append(parameter.replace(kind=keyword))
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}  # the signature has them all
        return run

    return decorate


@functools.cache
def _option(name: str, text: str, *, default: bool, flags: tuple[str, ...]) -> Any:
    """Return the annotated type of a setting's option."""
    field, about = Settings.model_fields[name], facts(name)
    if not about.at_random:
        text += f" ({', '.join(bounds(name))})" if bounds(name) else ""
        text += rf" \[{as_text(name, field.default)}]" if default and field.default not in ("", (), None) else ""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    kind: Any = field.annotation if field.annotation in (int, float) else Path if about.names == "file" else str
    made = typer.Option(
        flag(name), *flags, *filter(None, [about.short]), help=text[0].upper() + text[1:],
        rich_help_panel=about.panel, show_default=False, metavar=about.metavar or "|".join(choices) or None,
        parser=expand if kind is Path else None,
    )  # fmt: skip
    return Annotated[(list[kind] | None if about.flag else kind | None, made)]


def describe(name: str, *, sampling: bool = False) -> str:
    """Return a setting's description; sampling: where a Mini DALL-E draws in any case."""
    text = Settings.model_fields[name].description or name
    return f"with init sample, {text}" if facts(name).dalle and not sampling else text


def bounds(name: str) -> list[str]:
    """Return the limits of a number: [">= 0", "<= 1"]."""
    limits = Settings.model_fields[name].metadata
    return [f"{sign} {getattr(limit, key)}" for limit in limits for key, sign in SIGNS.items() if hasattr(limit, key)]


def _as_setting(name: str, value: Any) -> Any:
    """Turn an option's value into a setting's: text is read as people write it, paths become text."""
    if isinstance(value, str):
        return from_text(name, value)
    return tuple(map(str, value)) if isinstance(value, list) else str(value) if isinstance(value, Path) else value


def read_changes(pairs: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs. Raises UsageError."""
    changes = {}
    for pair in pairs or []:
        name, given, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not given:
            raise UsageError(f"--set {pair!r} has no value", "write --set NAME=VALUE")
        if name == "preset":
            raise UsageError("a preset is no setting", f"use --preset {pasted(value)}, where the command has that")
        changes[name] = from_text(name, value)
    return changes
