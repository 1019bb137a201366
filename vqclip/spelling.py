"""What somebody may have meant by a name that is not known."""

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names that look like `name`, the likest first."""
    return difflib.get_close_matches(name, sorted(set(known)), count, 0.5)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known names that look like `name`; `otherwise` if none does."""
    close = nearest(name, known)
    return f"did you mean {', '.join(map(repr, close))}?" if close else otherwise


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
