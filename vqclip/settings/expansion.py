"""Alternatives in prompt text: {red|blue}, {1..5}, {a..c} and __list__; every combination is a prompt of its own.

Of nested braces the inner ones are alternatives within one. What would be made is counted before any of it is.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from ..errors import UsageError
from ..text import brief, joined, plural

LIST = r"(?<!\w)__([A-Za-z0-9](?:[\w/-]*[A-Za-z0-9])?)__(?!\w)"
RANGE = re.compile(r"\s*(?:(-?\d{1,9})\.\.(-?\d{1,9})|([a-z])\.\.([a-z])|([A-Z])\.\.([A-Z]))\s*")
WEIGHT = r"(?<!\\)[:\uff1a]\s*\{(?![^{}|]*\.\.)[^{}|]*\}"  # braces that hold the curve of a weight: prompts.py
TOKEN = re.compile(rf"({WEIGHT}|\\[|｜]|[{{}}|]|{LIST})")
DEEPEST = 16  # braces in each other
HINT = "write alternatives as {red|blue}, {1..5} or {a..c}"
WORD = "{word} is filled in by vqclip batch: a column of that name, or --cross word=red,blue"

Part = str | list["Text"]  # plain text, or alternatives
Text = list[Part]
Lists = Callable[[str], Sequence[str]]  # name -> the lines of a list


def expand(source: str, lists: Lists, limit: int) -> list[str]:
    """Return every prompt that a text with alternatives stands for, the last braces varying fastest.

    Raises UsageError for braces that are not understood, and for more prompts than `limit`, before they are built; and
    what `lists` raises.
    """
    if not has_alternatives(source):
        return [source]
    text = _parse(source, lists, limit)
    if _count(text, limit) > limit:
        raise UsageError(f"{brief(source)} makes more than {plural(limit, 'prompt')}", "write fewer alternatives")
    return list(_build(text))


def has_alternatives(source: str) -> bool:
    """Say whether a text has braces, other than those of a weight, or names a list."""
    return bool(re.search(rf"[{{}}]|{LIST}", re.sub(WEIGHT, "", source)))


def check_plain(source: str) -> str:
    """Return a text, where no alternatives are drawn. Raises UsageError for one that has some."""
    plain = re.sub(WEIGHT, "", source) if isinstance(source, str) else ""  # what is no text is refused as a setting
    if match := re.search(r"\{[^{}]*\}|[{}]", plain):
        what = f"{brief(match[0])} is expanded in the prompts of vqclip generate, and in the rows of a batch"
        raise UsageError(what, "write a prompt without braces here")
    return source


def _parse(source: str, lists: Lists, limit: int) -> Text:
    """Return a text as its parts."""
    open_braces: list[list[Text]] = [[[]]]  # of each its alternatives so far; the first is the whole text
    position = 0
    for match in TOKEN.finditer(source):
        alternatives = open_braces[-1]
        alternatives[-1].append(source[position : match.start()])
        position = match.end()
        sign = match[0]
        if match[2]:
            alternatives[-1].append([_parse(line, _no_lists, limit) for line in lists(match[2])])
        elif sign == "{" and len(open_braces) > DEEPEST:
            raise UsageError(f"over {DEEPEST} braces stand in each other", HINT)
        elif sign == "{":
            open_braces.append([[]])
        elif sign == "}":
            if len(open_braces) == 1:
                what = f"a brace closes nothing: {brief(source[max(0, match.start() - 20) : position])}"
                raise UsageError(what, HINT)
            closed = open_braces.pop()
            open_braces[-1][-1].append(closed if len(closed) > 1 else _range(closed[0], limit))
        elif sign == "|" and len(open_braces) > 1:
            alternatives.append([])
        else:
            alternatives[-1].append(sign)
    if len(open_braces) > 1:
        raise UsageError(f"a brace is not closed: {brief(source)}", HINT)
    open_braces[0][0].append(source[position:])
    return open_braces[0][0]


def _range(text: Text, limit: int) -> list[Text]:
    """Return the alternatives of braces without a bar: the numbers or letters of a range."""
    plain = "".join(part for part in text if isinstance(part, str))
    match = RANGE.fullmatch(plain) if len(plain) < 30 else None
    if not match:
        raise UsageError(f"{{{plain[:60]}}} holds no alternatives", WORD if plain.strip().isidentifier() else HINT)
    first, last = filter(None, match.groups())
    letters = first.isalpha()
    start, end = (ord(first), ord(last)) if letters else (int(first), int(last))
    numbers = range(start, end + 1) if start <= end else range(start, end - 1, -1)
    if len(numbers) > limit:
        raise UsageError(f"{{{plain}}} makes {plural(len(numbers), 'prompt')}, more than {limit:,}", "write fewer")
    width = len(first) if first.lstrip("-").startswith("0") else 0  # {01..10}
    return [[chr(number) if letters else f"{number:0{width}}"] for number in numbers]


def _no_lists(name: str) -> Sequence[str]:
    raise UsageError(f"a list names a list: __{name}__", "write its words there")


def _count(text: Text, limit: int) -> int:
    """Return how many prompts a text makes; of more than `limit` some number above it."""
    count = 1
    for part in text:
        if not isinstance(part, str):
            count *= sum(_count(alternative, limit) for alternative in part)
        if count > limit:
            break
    return count


def _build(text: Text) -> Iterator[str]:
    options = [[part] if isinstance(part, str) else [s for t in part for s in _build(t)] for part in text]
    return (functools.reduce(joined, parts, "") for parts in itertools.product(*options))
