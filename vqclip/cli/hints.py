"""What to do about a command line that is not understood: an option that is misspelt, or another tool's."""

import itertools
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from ..settings.ranges import describe_range
from ..settings.schema import Settings, flag
from ..settings.synonyms import synonym
from ..text import nearest, pasted
from .several import SMALL_WORDS

SEE = "see: vqclip --help, vqclip COMMAND --help"
PROMPTS = 'several prompts are one text: "a castle | a night sky:0.5"'
NEGATIVE = 'a negative weight pushes away: "a castle | text:-0.5"'
SEVERAL = "several images of a prompt: --count N"
OUT = "the image goes to --out FILE, run directories to --runs DIR"
EVERY = "frames are saved by --frames-every N, and made a video by vqclip video"
CAMERA = "a camera through prompts: vqclip story"
OTHERS = {  # options of other tools that are no setting here -> what to do
    **dict.fromkeys(("p", "prompts", "text", "txt"), PROMPTS),
    **dict.fromkeys(("negative", "negative_prompt", "negative_prompts", "neg"), NEGATIVE),
    **dict.fromkeys(("n_images", "num_images", "images", "num", "number", "n_batches", "batch_count"), SEVERAL),
    **dict.fromkeys(("output", "outdir", "output_dir", "output_path", "save_path"), OUT),
    **dict.fromkeys(("se", "save_every", "display_freq", "display_rate", "save_freq", "vid", "make_video"), EVERY),
    **dict.fromkeys(("zvid", "zoom_video", "zs", "zse", "zsc", "cpe", "change_prompt_every"), CAMERA),
    **dict.fromkeys(("cd", "cuda_device", "gpu", "cpu", "cuda"), "the device is --device cpu, cuda or cuda:N"),
    **dict.fromkeys(("ar", "aspect", "aspect_ratio"), "the shape is --size WIDTHxHEIGHT"),
    "num_threads": "the number of threads is --threads N",
    **dict.fromkeys(("verbose", "v"), "tracebacks are shown by vqclip --debug COMMAND"),
}


# How pydantic, by which typer reads numbers, begins its messages -> what should have been there.
TYPES = {"Input should be a valid integer": "a whole number", "Input should be a valid number": "a number"}


def misused(error: typer.TyperException) -> tuple[str, str]:
    """Return what is wrong with a command's words, and what to do."""
    context: Any = getattr(error, "ctx", None)
    params = context.command.params if context else []
    command = context.command_path.removeprefix(context.find_root().command_path) if context else ""
    see = f"see: vqclip{command} --help" if command else SEE
    known = [option for parameter in params for option in parameter.opts if option.startswith("-")]
    unknown = getattr(error, "option_name", "") if hasattr(error, "possibilities") else ""
    what = str(error.message) if unknown else error.format_message()
    hint = of_another_tool(known)
    for beginning, kind in TYPES.items():
        if str(error.message).startswith(beginning) and (parameter := getattr(error, "param", None)):
            name = str(parameter.name)
            use = describe_range(Settings.model_fields[name].metadata) if name in Settings.model_fields else ""
            return f"{parameter.opts[0]}: the value is not {kind}", hint or (f"use {use}" if use else see)
    if hint:
        return what, hint
    if unknown:
        by_name = {option.lstrip("-"): option for option in known if option.startswith("--")}
        close = nearest(unknown.lstrip("-"), by_name)
        return what, f"did you mean {', '.join(repr(by_name[name]) for name in close)}?" if close else see
    if match := re.match(r"No such command '([^']+)'\.?", what):
        words = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
        if (
            len(words) > 1
            and not any(map(str.isspace, "".join(words)))
            and (words[0] in SMALL_WORDS or what == match[0])
        ):
            return match[0], f"put a prompt of several words in quotes: vqclip {pasted(' '.join(words))}; {see}"
        return what, f"a prompt of one word is drawn by: vqclip generate {match[1]}; {see}"
    if what.startswith("Got unexpected extra argument") and any(parameter.name == "prompt" for parameter in params):
        return what, f"put a prompt of several words in quotes; {see}"
    return what, see


def of_another_tool(known: Sequence[str] | None = None) -> str:
    """Return a hint if one of the command line's words is an option of other tools.

    known: the command's own options. Without them only words such as "-se" count, which are taken for `-s e`.
    """
    for word in sys.argv[1:]:
        option = word.partition("=")[0]
        name = option.lstrip("-").replace("-", "_").lower()
        if name == option or option in (known or ()) or (known is None and not re.fullmatch("-[a-z]{2,}", option)):
            continue
        setting = synonym(name)
        if setting and (known is None or flag(setting) in known):
            return f"{option}: did you mean {flag(setting)!r}?"
        if name in OTHERS:
            return f"{option}: {OTHERS[name]}"
    return ""
