"""Shell completion in a tenth of a second: answered from a table of all commands, which is kept in the user's cache.

The scripts are typer's (`vqclip --install-completion`); bash, zsh and fish are answered here, other shells by typer.
Nothing is imported but Python's own, until the table must be made anew: once after each installation.
"""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "_VQCLIP_COMPLETE"
MAX_TABLE = 2_000_000  # bytes

Table = dict[str, Any]
MakeTable = Callable[[], Table]


def answers(environ: Mapping[str, str], make_table: MakeTable) -> bool:
    """Answer a shell that asks for completions; return whether this was one that is answered here.

    make_table: makes the table from the commands, which takes a second.
    """
    asked = environ.get(VARIABLE, "")
    if asked not in ("complete_bash", "complete_zsh", "complete_fish"):
        return False
    words, begun = typed(environ)
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):  # a wrong catalogue of the user's: commands say so, a Tab says nothing
        found = complete(table(make_table), words, begun)
    if asked == "complete_fish" and environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        sys.exit(0 if found else 1)
    sys.stdout.write(f"{FORMATS[asked](found)}\n")
    return True


def typed(environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the words after `vqclip` that are whole, and the one that is being typed."""
    if "COMP_WORDS" in environ:
        words, at = _split(environ["COMP_WORDS"]), int(environ.get("COMP_CWORD", "0") or 0)
        return words[1:at], words[at] if at < len(words) else ""
    text = environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(text)
    begun = words.pop() if words and not text[-1:].isspace() else ""
    return words[1:], begun


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is still open
        return text.split()


def complete(known: Table, words: list[str], begun: str) -> dict[str, str]:
    """Return what a word may become, with its help: a command, an option, or a value of one."""
    node, rest = known["commands"], [*words]
    while rest and rest[0] in node["commands"]:
        node = node["commands"][rest.pop(0)]
    before = rest[-1] if rest else ""
    if before in node["options"] and node["options"][before]["takes"]:
        return _values(node["options"][before], begun)
    if begun.startswith("-"):
        return {name: option["help"] for name, option in node["options"].items() if name.startswith(begun)}
    if node["commands"]:
        return {name: each["help"] for name, each in node["commands"].items() if name.startswith(begun)}
    return _values(node["argument"], begun)


def _values(parameter: Table, begun: str) -> dict[str, str]:
    earlier, comma, last = begun.rpartition(",") if parameter["many"] else ("", "", begun)
    return dict.fromkeys((f"{earlier}{comma}{name}" for name in parameter["values"] if name.startswith(last)), "")


def table(make_table: MakeTable) -> Table:
    """Return the table; one that is missing, or older than the program or the user's catalogue, is made and kept."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqclip" / "completion.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        if path.stat().st_size < MAX_TABLE:
            kept: Table = json.loads(path.read_bytes())  # noqa: TID251  (its own file, and it must be quick)
            if all(stamp(name) == time for name, time in kept["made from"].items()) and kept["commands"]:
                return kept
    made = make_table()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(made))
        part.replace(path)
    return made


def stamp(path: str) -> int:
    """Return when a file or folder was changed; 0 if there is none."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  (pathlib's is no quicker)
    except OSError:
        return 0


def _fish(found: dict[str, str]) -> str:
    return "\n".join(f"{name}\t{text}" if text else name for name, text in found.items())


def _zsh(found: dict[str, str]) -> str:
    def quoted(text: str) -> str:
        for sign in '\\"$`:':
            text = text.replace(sign, f"\\{'' if sign != ':' else chr(92)}{sign}")
        return text

    pairs = "\n".join(f'"{quoted(name)}"' + (f':"{quoted(text)}"' if text else "") for name, text in found.items())
    return f"_arguments '*: :(({pairs}))'" if found else "_files"


FORMATS = {"complete_bash": "\n".join, "complete_fish": _fish, "complete_zsh": _zsh}
