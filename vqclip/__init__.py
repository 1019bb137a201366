"""vqclip: text to image with VQGAN+CLIP. Names load on first use: `import vqclip` loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

_HOMES = dict.fromkeys(("generate", "generate_many", "prepare", "resume", "sample"), "runs.api") | {
    "Settings": "settings.schema",
    "Step": "core.loop",
    "VqclipError": "errors",
    "expand_prompts": "config.styles",
    "parse_prompts": "settings.prompts",
}
__all__ = [
    "Settings",
    "Step",
    "VqclipError",
    "__version__",
    "expand_prompts",
    "generate",
    "generate_many",
    "parse_prompts",
    "prepare",
    "resume",
    "sample",
]

if TYPE_CHECKING:
    from .config.styles import expand_prompts
    from .core.loop import Step
    from .errors import VqclipError
    from .runs.api import generate, generate_many, prepare, resume, sample
    from .settings.prompts import parse_prompts
    from .settings.schema import Settings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqclip' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
