"""The table by which config/completion.py answers: all commands, their options, and the values that these take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from PIL import ImageColor
from typer.core import TyperGroup

from ..config.completion import stamp
from ..models import store
from ..models.catalogue import KINDS, catalogue
from ..settings.augmentations import AUGMENTS
from ..settings.schema import Settings, facts, flag
from ..video.timing import Timing
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
            values = _values([]) if parameter.is_flag else _of_option(name, known)
            text = (parameter.help or "").partition(". ")[0].replace("\\", "").strip()
            options[name] = {"help": text, "takes": not parameter.is_flag} | values
    below = command.commands.items() if isinstance(command, TyperGroup) else ()
    return {
        "help": command.get_short_help_str(60),
        "options": {name: options[name] for name in sorted(options)},
        "argument": argument,
        "commands": {name: _node(each, known) for name, each in sorted(below)},
    }


def _of_option(name: str, known: dict[str, Iterable[str]]) -> dict[str, Any]:
    setting = next((field for field in Settings.model_fields if flag(field) == name), "")
    if setting:
        annotation, names = Settings.model_fields[setting].annotation, facts(setting).names
        if get_origin(annotation) is not None and all(isinstance(value, str) for value in get_args(annotation)):
            return _values([*get_args(annotation)])  # a Literal
        if names in KINDS:
            return _values(_named(names))
        return _values([*known.get(name, ())], many=setting in MANY)
    return _values([*known.get(name, ())])


def _named(*kinds: str) -> list[str]:
    return [name for kind in kinds for name in (*catalogue().models[kind], *store.installed(kind))]


def _values(names: list[str], *, many: bool = False) -> dict[str, Any]:
    return {"values": [*dict.fromkeys(names)], "many": many}


def _choices(field: str) -> tuple[str, ...]:
    return get_args(Timing.model_fields[field].annotation)


def _known() -> dict[str, Iterable[str]]:
    """Return what options take that are not settings with choices. Not at import: the user's catalogue may be wrong."""
    return {
        "--augments": AUGMENTS,
        "--between": _choices("between"),
        "--border": ("reflect", "edge", "black"),
        "--codec": ENCODERS,
        "--device": ("auto", "cpu", "cuda", "mps"),
        "--ease": _choices("ease"),
        "--engine": ("local", "ray"),
        "--format": ("txt", "csv", "tsv", "json", "jsonl", "yaml", "toml"),
        "--keep": ("all", "best"),
        "--kind": KINDS,
        "--palette": tuple(ImageColor.colormap),
        "--pixels": ("signed", "unit"),
        "--preset": ("auto", *catalogue().presets),
        "--ranker": tuple(_named("clip")),
    }
