"""What somebody may have meant by a name that is not known; and what is written as people type it."""

import contextlib
import difflib
import os
import re
import shlex
from collections.abc import Iterable
from typing import Any


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names that look like `name`, the likest first."""
    return difflib.get_close_matches(name, sorted(set(known)), count, 0.5)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known names that look like `name`; `otherwise` if none does."""
    close = nearest(name, known)
    return f"did you mean {', '.join(map(repr, close))}?" if close else otherwise


def as_text(name: str, value: Any) -> str:
    """Return a setting's value as people write it: what settings.from_text reads."""
    if isinstance(value, tuple | list):
        return ("x" if name == "size" else ",").join(map(str, value))
    return "" if value is None else str(value)


def pasted(text: str) -> str:
    """Return text as one can paste it into a shell, whatever is in it: nothing unprintable comes out."""
    if text.isprintable():
        return shlex.quote(text)
    signs = {"\\": "\\\\", "'": "\\'"}
    letters = (c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in text)
    return f"$'{''.join(signs.get(c, c) for c in letters)}'"


def last_parts(path: str) -> str:
    """Return the end of a path that may be a name: of one just below a folder in this one both, as in "ViT-B/32"."""
    with contextlib.suppress(OSError, ValueError):  # this folder is gone; another drive
        below = os.path.relpath(path)  # it may have been made absolute
        if re.fullmatch(r"[^/\\.][^/\\]*[/\\][^/\\]+", below):
            return below
    return re.split(r"[/\\]", path)[-1]


def nearest_of(name: str, known: Any) -> str:
    """Return a hint that names the nearest known spelling, or all of them."""
    close = nearest(name, known, 1)
    return f": did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def brief(value: Any) -> str:
    """Return a value as code for an error's one line; of a long one the beginning."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits, lists in lists in lists
        text = f"a large {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
