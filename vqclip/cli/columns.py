"""Rows of text in columns: wrapped to the terminal; for a pipe aligned alone, a line a row."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from .progress import say

GAP = 2
WIDEST = 34  # of a column that others follow; what is longer pushes them
NARROW = 36  # characters: where less is left for the last column, it stands below the others
INDENT = 4


def print_rows(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, margin: int = 0, to: str = "stdout") -> None:
    """Print rows of equally many cells, of which the last may be long. head: says on a terminal what they are.

    margin: spaces before each row.
    """
    columns = _columns(to)
    head = head if columns else ()
    widths = [min(WIDEST, max(map(len, cells))) for cells in list(zip(*filter(None, (head, *rows)), strict=True))[:-1]]
    left = margin + sum(widths) + GAP * len(widths)
    below = bool(columns) and columns - left < NARROW
    for row in filter(None, (head, *rows)):
        *cells, last = row
        first = " " * margin + "".join(f"{cell:<{w}}{' ' * GAP}" for cell, w in zip(cells, widths, strict=True))
        if not columns:
            say((first + last).rstrip(), to)
            continue
        indent = margin + INDENT if below else left
        if below or len(first) > left:  # a cell that is too long: the last one begins on a line of its own
            say(first.rstrip(), to)
            first = " " * indent
        wrapped = textwrap.wrap(
            last, columns - 1, initial_indent=first, subsequent_indent=" " * indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        for line in wrapped or ([] if below else [first.rstrip()]):
            say(line, to)


def in_columns(names: Sequence[str]) -> list[str]:
    """Return names as lines: several in columns, read downwards, on a terminal; else one each."""
    columns, width = _columns("stdout"), max(map(len, names), default=0) + GAP
    rows = -(-len(names) // max(1, columns // width)) if columns else len(names)
    return ["".join(f"{name:<{width}}" for name in names[row::rows]).rstrip() for row in range(rows)]


def _columns(to: str) -> int:
    """Return how wide the terminal is; 0 where there is none."""
    stream = getattr(sys, to)
    if not stream.isatty():
        return 0
    try:
        return max(20, int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns
