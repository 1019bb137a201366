"""Alternatives in prompts: every combination, counted before it is built, and no brace left over."""

import time

import pytest

from vqclip.errors import UsageError
from vqclip.settings.expansion import check_plain, expand

LISTS = {"colours": ["red", "deep {blue|green}"], "cats": ["tabby"], "big/cats": ["lion"]}


def no_list(name):
    raise AssertionError(f"the list {name} was read")


@pytest.mark.parametrize(
    ("source", "prompts"),
    [
        ("a heart", ["a heart"]),
        ("a | b:0.5", ["a | b:0.5"]),
        (r"a \| b \: c", [r"a \| b \: c"]),
        ("a {red|blue} heart", ["a red heart", "a blue heart"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("{a|b:0.5} | c", ["a | c", "b:0.5 | c"]),
        ("a {|dark }wood", ["a wood", "a dark wood"]),
        (r"{a\|b|c}", [r"a\|b", "c"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("a {owl|fox|unicorn|hour|horse}", ["an owl", "a fox", "a unicorn", "an hour", "a horse"]),
        ("An {owl|{dark |}fox}", ["An owl", "A dark fox", "A fox"]),
        ("{1..3}", ["1", "2", "3"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{-1..1}", ["-1", "0", "1"]),
        ("{08..10}", ["08", "09", "10"]),
        ("letter {a..c}", ["letter a", "letter b", "letter c"]),
        ("letter {C..A}", ["letter C", "letter B", "letter A"]),
        ("a __colours__ cat", ["a red cat", "a deep blue cat", "a deep green cat"]),
        ("__colours__ __cats__", ["red tabby", "deep blue tabby", "deep green tabby"]),
        ("a __big/cats__", ["a lion"]),
        ("{__cats__|dog}", ["tabby", "dog"]),
        ("a fox:{0: 1, 0.6: 0} | an owl: {t}", ["a fox:{0: 1, 0.6: 0} | an owl: {t}"]),
        ("a {red|blue} fox:{0: 1, 1: 0}", ["a red fox:{0: 1, 1: 0}", "a blue fox:{0: 1, 1: 0}"]),
        ("a fox:{1|2} | b:{1..2}", ["a fox:1 | b:1", "a fox:1 | b:2", "a fox:2 | b:1", "a fox:2 | b:2"]),
        ("my__colours__ and __ alone __", ["my__colours__ and __ alone __"]),
    ],
)
def test_alternatives_expand(source, prompts):
    assert expand(source, LISTS.__getitem__, 100) == prompts


@pytest.mark.parametrize("source", ["a {red} heart", "a { heart", "a } heart", "{}", "{a|{b}", "{1..b}", "{1..2..3}",
                                    "{" * 17 + "a|b" + "}" * 17, '{"0": "a"}'])  # fmt: skip
def test_braces_that_are_not_understood_are_refused(source):
    with pytest.raises(UsageError):
        expand(source, no_list, 100)


@pytest.mark.parametrize("source", ["{a|b}" * 7, "{1..101}", "{1..999999999}", "{a|b}" * 5000, "{{1..50}|{1..51}}",
                                    "{0..9}" * 300])  # fmt: skip
def test_too_many_are_counted_and_not_built(source):
    began = time.process_time()
    with pytest.raises(UsageError) as error:
        expand(source, no_list, 100)
    assert "100" in error.value.what
    assert time.process_time() - began < 1


def test_as_many_as_the_limit_are_made():
    assert len(expand("{1..10}{1..10}", no_list, 100)) == 100


@pytest.mark.parametrize("source", ["a {red|blue} heart", "{x", "x}"])
def test_what_takes_one_prompt_refuses_braces(source):
    with pytest.raises(UsageError):
        check_plain(source)


@pytest.mark.parametrize("source", ["a | b __c__", "a:{0: 1, 1: 0} | b"])
def test_other_prompts_are_taken_as_they_are(source):
    assert check_plain(source) == source
