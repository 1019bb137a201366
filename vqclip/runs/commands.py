"""The command that makes something again, as one can paste it into a shell: what differs from the preset tiny."""

from collections.abc import Iterator
from typing import Any

from ..config.resolve import complete
from ..models.catalogue import preset
from ..settings.schema import Settings, make_settings
from ..text import as_text, pasted

FLAGS = {"clips": "--clip", "image_prompts": "--image-prompt"}  # said once for each value
SAMPLE = {"candidates": "--count", "seed": "--seed", "dalle": "--dalle", "vqgan": "--vqgan", "clips": "--clip",
          "guidance": "--guidance", "temperature": "--temperature", "top_k": "--top-k"}  # fmt: skip
UNSAID = ("clip_weights", "long_prompts")  # settings that count in a sample, for which it has no option


def command(settings: Settings) -> str:
    """Return the command that makes a run's picture again."""
    options = []
    for name, value in _differing(settings):
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        options += [(flag, text) for text in (value if name in FLAGS else [as_text(name, value)])]
    return _line("generate", settings.prompt, options)


def sample_command(settings: Settings, keep: int | None = None) -> str:
    """Return the command that draws a sample again; keep: how many of it to write, if not as many as usual."""
    options, before = [], ""
    for name, value in _differing(settings, init="sample"):
        if name in UNSAID:
            before += f"VQCLIP_{name.upper()}={pasted(as_text(name, value))} "
        elif name in SAMPLE:
            options += [(SAMPLE[name], text) for text in (value if name in FLAGS else [as_text(name, value)])]
    options += [("--keep", str(keep))] if keep else []
    return before + _line("sample", settings.prompt, options)


def _differing(settings: Settings, **usual: Any) -> Iterator[tuple[str, Any]]:
    """Return the settings that are not the preset tiny's, and the seed."""
    tiny = complete(make_settings(**(preset("tiny") | {"prompt": "x"} | usual)))
    for name, value in settings:
        if name == "seed" or (name != "prompt" and value != getattr(tiny, name)):
            yield name, value


def _line(name: str, prompt: str, options: list[tuple[str, str]]) -> str:
    words = ["--preset", "tiny", *(word for pair in options for word in pair)]
    words = [*words, "--", prompt] if prompt.startswith("-") else [prompt, *words]
    return " ".join(map(pasted, ["vqclip", name, *words]))
