"""What somebody may have meant by a name that is not known."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names that look like `name`, the likest first."""
    return difflib.get_close_matches(name, sorted(set(known)), count, 0.5)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known names that look like `name`; `otherwise` if none does."""
    close = nearest(name, known)
    return f"did you mean {', '.join(map(repr, close))}?" if close else otherwise
