"""The door for files from outside: what is refused, and on which line."""

import os
import threading

import pytest

from vqclip.errors import InputError
from vqclip.files.locked_folder import LockedFolder
from vqclip.files.reading import parse_json, parse_yaml, read_bytes


def test_json_with_a_name_twice_is_refused_if_asked():
    assert parse_json('{"a": 1, "a": 2}', "x") == {"a": 2}
    with pytest.raises(InputError, match="'a'"):
        parse_json('[{"a": 1, "b": {"a": 1}}, {"a": 1, "a": 2}]', "x", unique=True)
    assert parse_json('[{"a": 1, "b": {"a": 1}}]', "x", unique=True) == [{"a": 1, "b": {"a": 1}}]


def test_yaml_lists_know_the_lines_of_their_items():
    rows = parse_yaml("# rows\nrows:\n- a\n\n- b: 1\n  c: [2,\n    3]\n- [4]\n", "x")["rows"]
    assert rows == ["a", {"b": 1, "c": [2, 3]}, [4]]
    assert rows.lines == (3, 5, 8)
    assert rows[1]["c"].lines == (6, 7)


@pytest.mark.parametrize(
    ("text", "unique", "place"),
    [("- a\n- {b: [\n", False, "x:3"), ("- &a x\n- *a\n", False, "x:2"), ("a: 1\nb: 2\na: 3\n", True, "x:3")],
)
def test_what_is_wrong_in_yaml_is_named_with_its_line(text, unique, place):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x", unique=unique)
    assert caught.value.what.startswith(f"{place} ")
    assert "\n" not in caught.value.what


def test_a_pipe_is_read_only_if_asked(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError):
        read_bytes(tmp_path / "pipe", 10)
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"x"))
    writer.start()
    assert read_bytes(tmp_path / "pipe", 10, pipes=True) == b"x"
    writer.join()


def test_a_new_folder_takes_the_first_free_name(tmp_path):
    for name in ("owl", "owl-2"):
        folder = LockedFolder.create(tmp_path / "runs", "owl")
        folder.close()
        assert folder.path.name == name
