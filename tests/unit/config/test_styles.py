"""Styles and lists of words, kept in files here or beside one's own catalogue."""

import pytest

from vqclip.config.styles import expand_prompts
from vqclip.errors import InputError, UsageError

STYLES = """
[oil]
prefix = "an oil painting of"
suffix = ", on canvas"
[clean]
add = "text:-0.5"
[bare]
prefix = "a"
[tail]
suffix = "at 10:30"
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    (folder / "wildcards").mkdir(parents=True)
    (folder / "styles.toml").write_text(STYLES)
    (folder / "wildcards" / "colours.txt").write_text("# warm\nred\n\norange\n")
    (tmp_path / "wildcards").mkdir()  # beside the catalogue, as conftest has it
    (tmp_path / "wildcards" / "animals.txt").write_text("a cat\n")
    (tmp_path / "styles.toml").write_text('[oil]\nprefix = "hidden"\n[ink]\nprefix = "ink of"\n')
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("source", "styles", "prompts"),
    [
        ("a fox | a sky:0.5 | text:-0.5", ["oil"],
         ["an oil painting of a fox, on canvas | an oil painting of a sky, on canvas :0.5 | text :-0.5"]),
        ("a fox", ["oil", "clean"], ["an oil painting of a fox, on canvas | text :-0.5"]),
        ("a clock", ["tail"], [r"a clock at 10\:30"]),
        ("a {red|blue} fox", ["ink"], ["ink of a red fox", "ink of a blue fox"]),
        ("a __colours__ hat", [], ["a red hat", "an orange hat"]),
        ("owl | fox", ["bare"], ["an owl | a fox"]),
        ("__animals__", [], ["a cat"]),
    ],
)  # fmt: skip
def test_styles_and_lists(source, styles, prompts):
    assert expand_prompts(source, styles) == prompts


def test_what_is_not_there_is_said():
    with pytest.raises(UsageError, match="oil"):
        expand_prompts("a", ["oill"])
    with pytest.raises(InputError, match="birds"):
        expand_prompts("a __birds__")


@pytest.mark.parametrize("text", ["[a]\nprefx = 'x'", "[a]\nprefix = '{x|y}'", "[a]\nprefix = 3", "[a", "a = 1"])
def test_a_wrong_file_of_styles_is_refused(tmp_path, text):
    (tmp_path / "folder" / "styles.toml").write_text(text)
    with pytest.raises(InputError, match=r"styles\.toml"):
        expand_prompts("x", ["a"])


def test_a_list_that_is_empty_or_names_a_list_is_refused(tmp_path):
    (tmp_path / "folder" / "wildcards" / "none.txt").write_text("# nothing\n")
    (tmp_path / "folder" / "wildcards" / "loop.txt").write_text("__loop__\n")
    with pytest.raises(InputError):
        expand_prompts("__none__")
    with pytest.raises(UsageError):
        expand_prompts("__loop__")
