"""Options that commands share. Those of settings are made from the fields of Settings: name, range, default, help."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from ..config.resolve import TINY
from ..errors import UsageError
from ..files.metadata import WRITERS
from ..files.paths import expand
from ..files.reading import decode
from ..settings.expansion import check_plain
from ..settings.facts import IMAGE, LOOP, MODELS
from ..settings.ranges import describe_range
from ..settings.schema import WITH_CURVES, Settings, facts, fields_with, flag, from_text
from ..text import as_text, brief, pasted
from .progress import say

OUTPUT = "Output and machine"
MAX_STDIN = 100_000  # bytes; a prompt has 2,000 characters at most
ENDINGS = ", ".join(WRITERS)
PRESETS = (
    "Models and the settings that suit them: auto (tiny until standard is pulled), tiny, standard, fine, painting, "
    "another tool's (see: vqclip models list) or your own."
)
Command = Callable[..., None]


def option(panel: str, flag: str, help_text: str, *short: str, **more: Any) -> Any:
    """Return an option in a panel of the help."""
    return typer.Option(flag, *short, help=help_text, rich_help_panel=panel, **more)


Out = Annotated[
    Path | None,
    option(
        OUTPUT,
        "--out",
        f"Also write the final image here, of several the best: {ENDINGS}; or all into a folder that is there.",
        "-o",
        parser=expand,
        metavar="FILE|DIR",
    ),
]
Overwrite = Annotated[bool, option(OUTPUT, "--overwrite", "Replace a file that exists already.")]
Runs = Annotated[Path, option(OUTPUT, "--runs", "Where run directories are made.", parser=expand, metavar="DIR")]
FramesEvery = Annotated[
    int, option(OUTPUT, "--frames-every", "Save a progress frame every N steps; 0 for none.", metavar="N")
]
EVERY = "Save what `vqclip resume` goes on from every 50 steps (50) or 30 seconds (30s); 0: only at the end."
CheckpointEvery = Annotated[str, option(OUTPUT, "--checkpoint-every", EVERY, metavar="N|TIME")]
LATENTS = "Keep each frame's latent too, for `vqclip video --between latent`."
SaveLatents = Annotated[bool, option(OUTPUT, "--save-latents", LATENTS)]
CUTOUTS = "Save what CLIP is shown in every Nth step, and the first, as cutouts/NNNNNN.png; 0 for none."
SaveCutouts = Annotated[int, option(OUTPUT, "--save-cutouts", CUTOUTS, metavar="N")]
NoMetadata = Annotated[bool, option(OUTPUT, "--no-metadata", "Leave prompt and settings out of the images.")]
Device = Annotated[str, option(OUTPUT, "--device", "auto, cpu, cuda, cuda:N or mps.", metavar="NAME")]
AsJson = Annotated[bool, option(OUTPUT, "--json", "Print the result as JSON.")]
Quiet = Annotated[bool, option(OUTPUT, "--quiet", "Print nothing but the result and errors.", "-q")]
Open = Annotated[bool, option(OUTPUT, "--open", "Show it in the browser while it is made.")]
SHOWN = "Show it in the terminal while it is drawn, where there is one; also preview = true in vqclip.toml."
ShowPreview = Annotated[bool, option(OUTPUT, "--preview", SHOWN)]
SKIP = "Leave out images that are damaged or none, instead of ending with the first."
SkipBad = Annotated[bool, option(OUTPUT, "--skip-bad", SKIP)]
FIT = "Where memory does not suffice, let CLIP see the cutouts in smaller parts; slower."
Fit = Annotated[bool, option(LOOP, "--fit", FIT)]
CONFIG = "Settings from a .toml or .json file; options on the command line win."
Config = Annotated[Path | None, option(IMAGE, "--config", CONFIG, parser=expand, metavar="FILE")]
Preset = Annotated[str | None, option(MODELS, "--preset", rf"{PRESETS} \[auto]", show_default=False, metavar="NAME")]
SET = "Any setting by its name (see: vqclip settings); may be repeated."
ALLOW_URL = "Fetch images that are given by an https address; they are kept in `downloads` beside the runs."
AllowUrl = Annotated[bool, option(OUTPUT, "--allow-url", ALLOW_URL)]
DRY = "Say what would be made, and about how long that takes; make nothing."
DryRun = Annotated[bool, option(OUTPUT, "--dry-run", DRY)]
STYLE = "Words around each prompt, from styles.toml here or beside your models.toml; may be repeated."
Style = Annotated[list[str] | None, option(IMAGE, "--style", STYLE, metavar="NAME", show_default=False)]
StepsByN = Annotated[int | None, typer.Option("-n", hidden=True)]  # as it was once, where no images are counted
Changes = Annotated[list[str] | None, option(IMAGE, "--set", SET, metavar="NAME=VALUE")]


def rate(text: str) -> float:
    """Read a number of frames a second: 24, 29.97 or 30000/1001. Raises BadParameter."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise typer.BadParameter(f"{brief(text)} is not a number of frames, such as 24, 29.97 or 30000/1001") from None


def _by_n(steps: int, *, quiet: bool) -> int:
    if not quiet:
        say(f"-n counts images in other commands; steps are --steps {steps}")
    return steps


def takes_settings(
    names: Iterable[str] | None = None,
    *,
    without: Iterable[str] = (),
    texts: Mapping[str, str] = {},
    flags: Mapping[str, tuple[str, ...]] = {},
    defaults: bool = True,
    others: bool = False,
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each of these settings, and --set.

    In the help the options stand where the command has its parameter `values`, a dict of the given settings by name.

    names: which settings, None for all. texts: setting -> what its option says here instead of the setting's
    description and default. flags: setting -> more names that its option has here. defaults: whether the help shows
    them. others: whether --set takes other settings too, which the command itself refuses.
    """
    chosen = [name for name in names or fields_with("panel") if facts(name).panel and name not in set(without)]
    kinds: dict[str, Any] = {}
    for name in chosen:
        text = texts.get(name) or describe(name, sampling="init" not in chosen)
        default = defaults and name not in texts
        tiny = "init" in chosen or name == "upscale"  # what goes with a start that is drawn needs one
        kinds[name] = _option(name, text, default=default, tiny=tiny, flags=flags.get(name, ()))
    kinds["changes"] = Changes
    if "steps" in chosen:
        kinds["steps_by_n"] = StepsByN
    keyword = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in kinds.items()]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        required = [name for name, item in signature.parameters.items() if item.default is inspect.Parameter.empty]
        counts = {"count", "seeds"} & set(signature.parameters)  # what -n is there
        taken = {*chosen, *(() if {"prompt", "prompts"} & set(required) else ("prompt",))}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = read_changes(given.pop("changes"))
            if (steps := given.pop("steps_by_n", None)) is not None:
                values["steps"] = _by_n(steps, quiet=bool(given.get("quiet")))
            if unknown := [name for name in values if not others and name not in taken]:
                raise UsageError(f"{unknown[0]} has no effect in vqclip {command.__name__}", "leave it out")
            for name in chosen:
                if (value := given.pop(name)) is not None:
                    values[name] = from_text(name, value) if isinstance(value, str) else value
            command(values=values, **given)

        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            options = [item for item in made if not (counts and item.name == "steps_by_n")]
            parameters += options if parameter.name == "values" else [parameter.replace(kind=keyword)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {}  # the signature has them all
        return run

    return decorate


@functools.cache
def _option(name: str, text: str, *, default: bool, tiny: bool, flags: tuple[str, ...]) -> Any:
    """Return the annotated type of a setting's option. tiny: whether its help says what preset tiny makes of it."""
    field, about = Settings.model_fields[name], facts(name)
    text += "; may be repeated" if about.flag else ""
    if not about.at_random:
        text += f" ({limits(name)})" if limits(name) else ""
        usual = as_text(name, field.default) if default else ""
        own = as_text(name, TINY.get(name, field.default)) if tiny else usual
        text += rf" \[{usual if own == usual else f'{own} by preset tiny, else {usual}'}]" if usual else ""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    curve = name in WITH_CURVES
    number = field.annotation in (int, float) and not curve
    kind: Any = field.annotation if number else Path if about.names == "file" and not about.behind else str
    made = typer.Option(
        flag(name), *flags, *filter(None, [about.short]), help=text[0].upper() + text[1:],
        rich_help_panel=about.panel, show_default=False,
        metavar=about.metavar or "|".join(choices) or ("N|CURVE" if curve else None),
        parser=expand if kind is Path else None,
    )  # fmt: skip
    return Annotated[(list[kind] | None if about.flag else kind | None, made)]


def describe(name: str, *, sampling: bool = False) -> str:
    """Return a setting's description; sampling: where a Mini DALL-E draws in any case."""
    text = Settings.model_fields[name].description or name
    return f"with init sample, {text}" if facts(name).dalle and not sampling else text


def limits(name: str) -> str:
    """Return the range of a number in words; "" for what is no number."""
    return describe_range(Settings.model_fields[name].metadata)


def typed_prompt(text: str) -> str:
    """Return a prompt as it is typed, or where that is "-" what stdin says. Raises InputError."""
    return decode(sys.stdin.buffer.read(MAX_STDIN), "stdin").strip() if text == "-" else text


def prompt_of(text: str) -> str:
    """Return the one prompt that is typed, or on stdin. Raises InputError, UsageError for alternatives in braces."""
    return check_plain(typed_prompt(text))


def read_changes(pairs: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs of settings. Raises UsageError."""
    changes = {}
    for pair in pairs or []:
        name, sign, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f"--set {pair!r} has no value", "write --set NAME=VALUE")
        if name == "preset":
            raise UsageError("a preset is no setting", f"use --preset {pasted(text)}, where the command has that")
        changes[name] = from_text(name, check_plain(text) if name == "prompt" else text)
    return changes
