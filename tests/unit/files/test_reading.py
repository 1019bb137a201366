"""The one door for files from outside: regular, of limited size, decoded, parsed, validated."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from vqclip.errors import InputError
from vqclip.files.reading import (
    MAX_DIGITS,
    decode,
    parse_json,
    parse_toml,
    parse_yaml,
    read_bytes,
    read_json,
    read_record,
)


class Point(BaseModel):
    x: int
    name: str = ""


def test_a_file_of_the_limits_size_is_read_and_a_larger_one_is_not(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, 10) == b"x" * 10
    with pytest.raises(InputError, match="over 9 bytes"):
        read_bytes(path, 9)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(InputError, match=r"not a (regular )?file"):
        read_bytes(tmp_path / "a", 10)


@pytest.mark.parametrize("name", ["missing", "a\0b", "x" * 5000])
def test_a_path_without_a_file_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError):
        read_bytes(tmp_path / name, 10)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", *(f"utf-{bits}{order}" for bits in (16, 32) for order in ("", "-le", "-be"))]
)
def test_text_is_decoded_by_its_mark(encoding):
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    assert decode((mark + "ä\r\nb\rc").encode(encoding), "f").lstrip("\ufeff") == "ä\nb\nc"


def test_utf_16_without_a_mark_is_no_text():
    with pytest.raises(InputError, match="f:1"):
        decode("a heart".encode("utf-16-le"), "f")


def test_bytes_that_are_no_text_are_named_with_their_line():
    with pytest.raises(InputError, match="f:3"):
        decode(b"a\nb\n\xff\n", "f")


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "1e999", "{", "[" * 100_000, "[" * 65 + "]" * 65, '{"a":' * 500 + "1" + "}" * 500,
     "1" * (MAX_DIGITS + 1), "", "[" + "[]," * 3_000_000 + "0]"],
)  # fmt: skip
def test_json_that_is_none_or_costs_much_is_refused(text):
    with pytest.raises(InputError):
        parse_json(text, "f")


def test_a_name_that_is_given_twice_is_refused_where_asked():
    assert parse_json('{"a": 1, "a": 2}', "f") == {"a": 2}
    with pytest.raises(InputError, match="'a'"):
        parse_json('{"a": 1, "a": 2}', "f", unique=True)


def test_what_is_nested_as_deep_as_may_be_is_read():
    assert parse_json("[" * 64 + "]" * 64, "f")


@pytest.mark.full
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["a: &b [1]\nc: *b", "!!python/object/apply:os.system [x]", "[", "- " * 100_000, "? [a]\n: b", "a: " + "9" * 500,
     "a: 0x" + "F" * 500, "a: !!int x", "a: !!bool x", "a: !!timestamp x", "a: 2001-99-99", "a: =", "{" * 50_000,
     "- {a: 1}\n" * 100_000],
)  # fmt: skip
def test_yaml_that_is_more_than_plain_values_is_refused(text):
    with pytest.raises(InputError):
        parse_yaml(text, "f")


def test_names_in_yaml_are_texts():
    assert parse_yaml("1: 2\nyes: {null: x}", "f") == {"1": 2, "yes": {"null": "x"}}


def test_yaml_lists_know_their_lines():
    assert parse_yaml("# x\n- a\n-\n  b\n", "f").lines == (2, 4)


def test_toml_that_is_wrong_is_an_input_error():
    assert parse_toml("a = 1", "f") == {"a": 1}
    with pytest.raises(InputError, match="f:2"):
        parse_toml("b = 1\na = ?", "f")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["a." * 50_000 + "b = 1", "[" + '."a"' * 5000 + "]", "x = {" + "a . " * 5000 + "b = 1}", "a = " + "{a = " * 200,
     "a = " + "[" * 70 + "]" * 70, "a = 0x" + "F" * 1000, "a = " + "9" * 5000,
     "a = '" + "x" * 5_000_000 + "'"],
)  # fmt: skip
def test_toml_that_costs_much_is_refused(text):
    with pytest.raises(InputError):
        parse_toml(text, "f")


def test_a_record_is_validated_and_the_wrong_field_is_named(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"x": 3}')
    assert read_record(path, Point, 100) == Point(x=3)
    for text, what in (('{"x": "three"}', "x: 'three' is not a whole number"), ("[]", r"\[\] is not a table")):
        path.write_text(text)
        with pytest.raises(InputError, match=what):
            read_record(path, Point, 100)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=4)))
def test_json_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "v.json"
    path.write_text(json.dumps(value))
    assert read_json(path, 1_000_000) == value
