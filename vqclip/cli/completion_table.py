"""The table by which config/completion.py answers: all commands, their options, and the values that these take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from PIL import ImageColor
from typer.core import TyperGroup

from ..config.completion import stamp
from ..models import store
from ..models.catalogue import KINDS, catalogue
from ..settings.augmentations import AUGMENTS
from ..settings.schema import Settings, facts, flag
from ..video.writer import ENCODERS
from . import app

HERE = Path(__file__).parents[1]  # the package
MANY = ("augments", "palette")  # settings whose values are joined by commas


def make_table() -> dict[str, Any]:
    """Return the table."""
    models = [store.own_catalogue(), HERE / "models" / "catalogue.toml", *(store.root() / kind for kind in KINDS)]
    sources = [*models, *(HERE / "cli").glob("*.py"), *(HERE / "settings").glob("*.py")]
    return {
        "made from": {str(path): stamp(str(path)) for path in sources},
        "commands": _node(typer.main.get_command(app), _known()),
    }


def _node(command: Any, known: dict[str, Iterable[str]]) -> dict[str, Any]:
    options, argument = {}, _values([])
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            names = parameter.name in ("name", "names")
            argument = _values([*_named(*KINDS), *catalogue().presets] if names else [])
            continue
        for name in parameter.opts:
            values = _values([]) if parameter.is_flag else _of_option(name, parameter.metavar, known)
            text = (parameter.help or "").partition(". ")[0].replace("\\", "").strip()
            options[name] = {"help": text, "takes": not parameter.is_flag} | values
    below = command.commands.items() if isinstance(command, TyperGroup) else ()
    return {
        "help": command.get_short_help_str(60),
        "options": {name: options[name] for name in sorted(options)},
        "argument": argument,
        "commands": {name: _node(each, known) for name, each in sorted(below)},
    }


def _of_option(name: str, metavar: str | None, known: dict[str, Iterable[str]]) -> dict[str, Any]:
    """Return the values of an option: a model's names, or the words that its help has in place of a value."""
    setting = next((field for field in Settings.model_fields if flag(field) == name), "")
    if setting and (kind := facts(setting).names) in KINDS:
        return _values(_named(kind))
    words = [word for word in (metavar or "").split("|") if word.islower()]
    return _values([*words, *known.get(name, ())], many=setting in MANY)


def _named(*kinds: str) -> list[str]:
    return [name for kind in kinds for name in (*catalogue().models[kind], *store.installed(kind))]


def _values(names: list[str], *, many: bool = False) -> dict[str, Any]:
    return {"values": [*dict.fromkeys(names)], "many": many}


def _known() -> dict[str, Iterable[str]]:
    """Return what options take that are not settings with choices. Not at import: the user's catalogue may be wrong."""
    return {
        "--augments": AUGMENTS,
        "--codec": ENCODERS,
        "--device": ("auto", "cpu", "cuda", "mps"),
        "--format": ("txt", "csv", "tsv", "json", "jsonl", "yaml", "toml"),
        "--kind": KINDS,
        "--palette": tuple(ImageColor.colormap),
        "--pixels": ("signed", "unit"),
        "--preset": ("auto", *catalogue().presets),
        "--ranker": tuple(_named("clip")),
    }
