"""Suggestions for misspelt names, and values as people write them."""

import contextlib
import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

SECRET = ("TOKEN", "KEY", "SECRET", "PASSW", "CREDENTIAL")  # in names of variables
SHORTEST_SECRET = 6  # characters
SIMILAR = 0.7  # of 1: "stpes" is like "steps" (0.8), "style" is not (0.6)


def plural(count: int, noun: str) -> str:
    """Return a number of things: "1 row", "1,200 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def joined(before: str, after: str) -> str:
    """Return two texts as one; an article at the end of the first becomes the one that goes with the second."""
    if not (match := re.search(r"(?<!\S)([Aa])n?(\s+)$", before)) or not re.match(r"[A-Za-z]", after):
        return before + after
    n = "n" * bool(
        re.match(r"(?i)(?!one\b|once\b|eu|ewe|uni|us[eua]|ut[ei]|ur[aei])[aeiou]|hour|hono|hones|heir", after)
    )
    return f"{before[: match.start()]}{match[1]}{n}{match[2]}{after}"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names that a misspelt one may stand for, the most similar first."""
    return difflib.get_close_matches(name, sorted(set(known)), count, SIMILAR)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known names that are similar to `name`; `otherwise` if none is."""
    close = nearest(name, known)
    return f"did you mean {', '.join(map(repr, close))}?" if close else otherwise


def as_text(name: str, value: Any) -> str:
    """Return a setting's value as people write it: what settings.from_text reads."""
    if isinstance(value, tuple | list):
        return {"size": "x", "regions": ";"}.get(name, ",").join(map(str, value))
    return "" if value is None else str(value)


def split_list(text: str, separator: str = ",") -> list[str]:
    """Split a text at commas, or at another sign, but for those in brackets, where every bracket is closed."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return text.split(separator) if depth else parts


def pasted(text: str) -> str:
    """Return text quoted for a shell, without unprintable characters."""
    if text.isprintable():
        return shlex.quote(text)
    signs = {"\\": "\\\\", "'": "\\'"}
    letters = (c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in text)
    return f"$'{''.join(signs.get(c, c) for c in letters)}'"


def last_parts(path: str) -> str:
    """Return the last part of a path that may be a misspelt name; two parts of one like "ViT-B/32" in this folder."""
    with contextlib.suppress(OSError, ValueError):  # this folder is gone; another drive
        below = os.path.relpath(path)  # it may have been made absolute
        if re.fullmatch(r"[^/\\.][^/\\]*[/\\][^/\\]+", below):
            return below
    return re.split(r"[/\\]", path)[-1]


def nearest_of(name: str, known: Any) -> str:
    """Return a hint with the most similar known name, or all of them."""
    close = nearest(name, known, 1)
    return f": did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


# How pydantic's kinds of errors begin -> what should have been there.
KINDS = {"int": "a whole number", "float": "a number", "finite": "a number", "bool": "true or false", "string": "text",
         "tuple": "a list", "list": "a list", "dict": "a table", "model": "a table"}  # fmt: skip
OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "int_parsing_size")
UNNAMED = ("string_pattern_mismatch", "string_too_long", "string_too_short")


def fault_of(error: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a value (`errors()[0]`): "1.5 is not a whole number"."""
    kind, value = error["type"], brief(error["input"])
    if kind in OUT_OF_RANGE:
        return f"{value} is out of range"
    if kind in ("missing", "extra_forbidden"):
        return "it is missing" if kind == "missing" else "it is unknown"
    if kind == "literal_error":
        return f"{value} is unknown"
    if kind in ("too_long", "too_short"):
        return f"a list of {error['ctx'].get('actual_length')} is out of range"
    kinds = [words for beginning, words in KINDS.items() if kind.startswith(f"{beginning}_") and kind not in UNNAMED]
    return f"{value} is not {kinds[0]}" if kinds else str(error["msg"]).removeprefix("Value error, ")


def brief(value: Any) -> str:
    """Return a value as Python writes it, of a long one the beginning: for the one line of an error."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits, lists in lists in lists
        text = f"a large {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def without_secrets(text: str) -> str:
    """Return text without what variables of the environment keep secret, or addresses say of a user."""
    for name, value in os.environ.items():
        if any(word in name.upper() for word in SECRET):
            for part in filter(lambda part: len(part) >= SHORTEST_SECRET, [value, *value.splitlines()]):
                text = text.replace(part, "(secret)")
    return re.sub(r"(?<=://)[^/\s]+@", "(secret)@", text)  # to the last @, which a password may have too
