"""Tables: wrapped to a terminal of any width, a line a row in a pipe; what is being loaded leaves no letter behind."""

import io
import sys

import pytest

from tests.support.screen import Screen
from vqclip.cli.columns import print_rows

ROWS = [
    ("steps", "100", "updates of the latent; 0 only with init sample"),
    ("clips", "tiny", "word " * 30),
    ("a", "b", ""),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """Return what a terminal of so many columns shows; of 0 columns it is a pipe."""

    def show(columns, rows=ROWS, **how):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream := (Terminal if columns else io.StringIO)())
            patch.setenv("COLUMNS", str(columns))
            print_rows(rows, ("name", "value", "meaning"), **how)
        return stream.getvalue().splitlines()

    return show


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(shown, columns):
    lines = shown(columns)
    assert max(map(len, lines)) < columns
    assert " ".join(lines).split() == " ".join(["name value meaning", *(" ".join(row) for row in ROWS)]).split()


@pytest.mark.parametrize("columns", [80, 200])
def test_columns_are_aligned(shown, columns):
    lines = shown(columns)
    start = lines[0].index("meaning")
    assert [line.index(word) for line, word in zip(lines[1:], ["updates", "word"], strict=False)] == [start] * 2
    assert all(line[:start].isspace() for line in lines[3:-1])


def test_a_pipe_gets_a_line_a_row_and_no_heading(shown):
    lines = shown(0)
    assert [line.split()[0] for line in lines] == [row[0] for row in ROWS]


def test_a_cell_that_is_too_long_pushes_nothing_out_of_line(shown):
    lines = shown(80, [*ROWS, ("x" * 60, "value", "meaning")])
    assert max(map(len, lines)) < 80
    assert lines[-1].strip() == "meaning"


@pytest.mark.full
def test_nothing_is_left_of_what_was_being_loaded(tmp_path):
    (tmp_path / "p.txt").write_text("an owl\na frog\n")
    words = ("batch", "p.txt", "-o", "out", "--steps", "2", "--size", "32", "--cutouts", "2", "--init", "grey")
    shown = Screen((*words, "--upscale", "0"), tmp_path)
    assert shown.code == 0, shown.raw
    assert b"loading" in shown.raw
    assert "2 rows" in shown.lines
