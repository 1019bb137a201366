"""Prompt text. Other tools read "time 10:30" as a weight and crash on "Portrait: a cat"."""

import math
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vqclip.errors import UsageError
from vqclip.settings.curves import Curve
from vqclip.settings.prompts import (
    MAX_LENGTH,
    NEGATIVE_STOP,
    Prompt,
    format_prompts,
    parse_prompts,
    prompt_notes,
    split_weight,
)

anything = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogates and control characters included
printable = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60).filter(lambda text: text.strip())


def tidy(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "a red heart",
        "a clock at 10:30",
        "Alien: the movie poster",
        "16:9 photo",
        "a 16:9 photo",
        "aspect 16:9",
        "C:\\img\\a.png",
        "https://x.y/a.png",
        "a cat:",
        "a cat:nan",
        "a cat:inf",
        "a cat:0.5 or so",
        "a cat^2",
        "été: ☀ 猫",
    ],
)
def test_text_without_a_trailing_weight_is_kept_whole(text):
    assert parse_prompts(text) == [Prompt(text, 1.0, -math.inf)]


@pytest.mark.parametrize(
    ("source", "text", "weight"),
    [
        ("a cat:0.5", "a cat", 0.5),
        ("a cat: 0.5", "a cat", 0.5),
        ("a cat :0.5 ", "a cat", 0.5),
        ("a cat:.5", "a cat", 0.5),
        ("a cat:+2", "a cat", 2.0),
        ("a cat:25e-1", "a cat", 2.5),
        ("a cat:-2", "a cat", -2.0),
        ("a cat:1000", "a cat", 1000.0),
        ("Alien: the movie poster:2", "Alien: the movie poster", 2.0),
        ("https://x.y/a.png:2", "https://x.y/a.png", 2.0),
        ("a clock at 10:30 :2", "a clock at 10:30", 2.0),
        ("unreal engine 5:-1", "unreal engine 5", -1.0),
        ("unreal engine 5:+1", "unreal engine 5", 1.0),
        ("unreal engine 5:0.5", "unreal engine 5", 0.5),
        ("a clock at 10:30:2.5", "a clock at 10:30", 2.5),
        ("a\uff1a2", "a", 2.0),
        ("a:\u22121", "a", -1.0),
        ("a:\u20131", "a", -1.0),
        ("a:1,5", "a", 1.5),
        ("a:50%", "a", 0.5),
        ("a 5:50 %", "a 5", 0.5),
        ("(a heart:1.3)", "a heart", 1.3),
    ],
)
def test_a_number_after_the_last_colon_is_the_weight(source, text, weight):
    (prompt,) = parse_prompts(source)
    assert (prompt.text, prompt.weight) == (text, weight)


@pytest.mark.parametrize(
    ("source", "pairs"),
    [
        ("a red heart::2 blue sky::-0.5", [("a red heart", 2), ("blue sky", -0.5)]),
        ("space::2 ship", [("space", 2), ("ship", 1)]),
        ("a cat::2", [("a cat", 2)]),
        ("a\uff5cb\uff1a0.5", [("a", 1), ("b", 0.5)]),
        ("{red|blue} heart | b", [("{red|blue} heart", 1), ("b", 1)]),
        ("[a|b]:2", [("[a|b]", 2)]),
        ("std::vector", [("std::vector", 1)]),
        ("a [ b | c", [("a [ b", 1), ("c", 1)]),
    ],
)
def test_what_other_tools_write_is_understood_where_it_is_clear(source, pairs):
    assert [(p.text, p.weight) for p in parse_prompts(source)] == pairs


@pytest.mark.parametrize(
    "source",
    ["a castle", "10:30 :2", r"a \| b\: c:-0.5", "a:1:0.8 | b:-2:0.25", "a:0.00001", "(x:2", "a:1000 | b 5:0.0",
     "a\uff1a 猫", "a::2 b", "unreal engine 5:-1:-0.5", "(a heart:1.3)", "[a|b]:2", "std::vector",
     "a:{0: 1, 1: 0} | b:{t}:0.5"],
)  # fmt: skip
def test_formatted_prompts_read_back_to_the_same(source):
    assert parse_prompts(format_prompts(parse_prompts(source))) == parse_prompts(source)


def test_a_weight_after_a_digit_may_have_a_stop():
    assert parse_prompts("unreal engine 5:-1:-0.5") == [Prompt("unreal engine 5", -1.0, -0.5)]


@pytest.mark.parametrize(
    ("source", "snippet"),
    [
        ("a castle:0.5, fog", ":0.5"),
        ("a castle:2, fog", ":2"),
        ("(a heart:1.3) in the sky", "(a heart:1.3)"),
        ("an owl --ar 16:9", "--ar 16:9"),
        ('"an owl" -n4', "-n4"),
        ("an owl -s 7", "-s 7"),
        ("/imagine an owl", "/imagine"),
        ("an owl\nNegative prompt: text, blur", "Negative prompt: text, blur"),
        ("an owl ### text", "### text"),
        ("[a|b] owl", "[a|b]"),
        ("a flower | blue -0.5", "-0.5"),
        ("a fox +2", "+2"),
        ("a ((yellow)) flower", "((yellow))"),
        ("a [red] heart", "[red]"),
        ("{red|blue} heart", "{red|blue}"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5]"),
        ("a cat AND a dog", "AND"),
        ("<lora:x:0.8> a cat", "<lora:x:0.8>"),
        ("hot:: dog", "hot::"),
        ("a ^ b", "^"),
        ('{"0": "a", "30": "b"}', '{"0":'),
        ("a __thing__", "__thing__"),
    ],
)
def test_what_looks_like_more_than_text_is_noted(source, snippet):
    (note,) = prompt_notes(source)
    assert note.startswith(repr(snippet))


def test_another_tools_settings_are_noted():
    notes = prompt_notes("an owl\nSteps: 20, CFG scale: 7, Seed: 5")
    assert any("--steps" in note for note in notes)


@pytest.mark.parametrize(
    "source",
    ["a red heart", "a clock at 10:30", "a 16:9 photo", "Alien: the movie", "été: ☀ 猫", "BLACK AND WHITE", "a - b",
     "a well-lit room, f/1.8", "std::vector", "https://x.y/a.png:2", "a cat^2", "风景：山", "a | b:-0.5", "Verse: 3:16",
     "(a heart)", "a fox -", "1990 - 2000", "temperature 20", "wow!!!"],
)  # fmt: skip
def test_plain_text_is_not_noted(source):
    assert prompt_notes(source) == []


def test_weights_that_are_all_negative_are_noted():
    assert len(prompt_notes("a:-1 | b:-2")) == 1


def test_a_bar_separates_prompts_in_order():
    assert [(p.text, p.weight) for p in parse_prompts("a | b:2|c d :-0.5")] == [("a", 1), ("b", 2), ("c d", -0.5)]


def test_a_second_number_is_the_stop():
    assert parse_prompts("x:-1:-0.5") == [Prompt("x", -1.0, -0.5)]


def test_a_positive_prompt_never_stops_by_default():
    assert parse_prompts("x:2")[0].stop == -math.inf


def test_a_negative_prompt_stops_by_default():
    assert parse_prompts("x:-2")[0].stop == NEGATIVE_STOP


def test_the_default_stop_is_an_angle_of_79_degrees():
    assert math.degrees(math.sqrt(2 * -NEGATIVE_STOP)) == pytest.approx(79, abs=0.5)


@pytest.mark.parametrize(
    ("source", "text"),
    [(r"a\|b", "a|b"), (r"a cat\:2", "a cat:2"), (r"\|", "|"), (r"a\:1\:2", "a:1:2"), (r"C:\|x", "C:|x")],
)
def test_an_escaped_bar_or_colon_is_text(source, text):
    assert parse_prompts(source) == [Prompt(text)]


def test_an_escaped_colon_may_stand_before_a_weight():
    assert parse_prompts(r"ratio\:x:2") == [Prompt("ratio:x", 2.0)]


def test_a_backslash_before_anything_else_is_text():
    assert parse_prompts(r"a\b \n\\")[0].text == r"a\b \n\\"


def test_runs_of_white_space_become_one_blank():
    assert parse_prompts(" a\t red\n\n heart \u3000")[0].text == "a red heart"


def test_a_prompt_of_weight_zero_is_kept_beside_others():
    assert [p.weight for p in parse_prompts("a:0|b")] == [0.0, 1.0]


@pytest.mark.parametrize(
    "source", ["", "   ", "\n", "\u3000", "a|", "|a", "a||b", "|", " :2", ":2", "a|:2", " :-1:-0.5"]
)
def test_a_prompt_without_words_is_refused(source):
    with pytest.raises(UsageError):
        parse_prompts(source)


@pytest.mark.parametrize("source", ["a:0", "a:0|b:-0.0", "a:0.0|b:0"])
def test_weights_that_are_all_zero_are_refused(source):
    with pytest.raises(UsageError, match="weight 0"):
        parse_prompts(source)


@pytest.mark.parametrize("source", ["a:1001", "a:-1001", "a:1e999", "a:" + "9" * 400])
def test_a_weight_out_of_range_is_refused(source):
    with pytest.raises(UsageError, match="out of range"):
        parse_prompts(source)


@pytest.mark.parametrize("source", ["a:1:5.0", "a:-1:-9.5"])
def test_a_stop_farther_than_any_distance_is_refused(source):
    with pytest.raises(UsageError):  # every cutout would be held, and nothing drawn
        parse_prompts(source)


@pytest.mark.parametrize("source", ["Verse: 3:16", "Time: 10:30", "aspect ratio:16:9", "a:1:1e999", "a:-1.:0.3"])
def test_two_numbers_without_a_decimal_stop_are_text(source):
    text = source if source != "a:-1.:0.3" else "a:-1."
    assert parse_prompts(source)[0].text == text


@pytest.mark.parametrize(("source", "stop"), [("a:-1:0.9", -0.9), ("a:-1:-0.9", -0.9), ("a:2:0.5", 0.5)])
def test_a_stop_takes_the_weights_sign(source, stop):
    assert parse_prompts(source)[0].stop == stop


@pytest.mark.parametrize("source", ["a\x00b", "a\x1b[31m", "\x07"])
def test_control_characters_are_refused(source):
    with pytest.raises(UsageError, match="control"):
        parse_prompts(source)


def test_bytes_that_are_not_text_are_refused():
    with pytest.raises(UsageError, match="not valid text"):
        parse_prompts(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_the_longest_text_is_taken():
    assert len(parse_prompts("a" * MAX_LENGTH)[0].text) == MAX_LENGTH


def test_longer_text_is_refused():
    with pytest.raises(UsageError, match=str(MAX_LENGTH)):
        parse_prompts("a" * (MAX_LENGTH + 1))


@pytest.mark.parametrize(
    "source",
    ["a:" + "1" * 1990 + "x", "a:1" * 660, ":" * 2000, "a:" + " " * 1990 + "x", "\\|" * 1000, "[:" * 1000, "(" * 2000,
     "[" + "a|" * 900 + "b", "{" * 1000 + "|" + "}" * 990, "1:" * 1000, "1:1.5x" * 333, "<a:" * 600, "-a " * 600,
     "a::" * 600, "_" * 2000, "a:.5" * 500, "(" + "a:1" * 600],
)  # fmt: skip
def test_hostile_text_is_read_at_once(source):
    start = time.process_time()
    prompt_notes(source)
    assert time.process_time() - start < 1


@given(anything)
@example("a:1:1:1|\\")
def test_any_text_gives_prompts_or_a_usage_error(source):
    try:
        prompts = parse_prompts(source)
    except UsageError:
        return
    assert prompts
    assert all(p.text and math.isfinite(p.weight) for p in prompts)


@given(printable.filter(lambda text: not set(text) & set("|:\uff5c\uff1a")))
def test_text_without_bar_or_colon_comes_back_the_same(text):
    assert parse_prompts(text) == [Prompt(tidy(text))]


@given(printable)
@example("a|:2")
@example("10:30|")
def test_escaping_every_bar_and_colon_keeps_any_text(text):
    escaped = re.sub(r"([|:\uff5c\uff1a])", r"\\\1", text)
    assert parse_prompts(escaped) == [Prompt(tidy(text))]


@given(printable.filter(lambda text: not set(text) & set("|:\\(\uff5c\uff1a")), st.floats(-1000, 1000).filter(bool))
def test_a_weight_after_blank_and_colon_is_always_read(text, weight):
    (prompt,) = parse_prompts(f"{text} :{weight!r}")
    assert (prompt.text, prompt.weight) == (tidy(text), weight)


@given(st.lists(printable.filter(lambda text: not set(text) & set("|:\\[{\uff5c\uff1a")), min_size=1, max_size=5))
def test_a_joined_list_of_texts_comes_back_as_that_list(texts):
    assert [p.text for p in parse_prompts("|".join(texts))] == [tidy(text) for text in texts]


@pytest.mark.parametrize("weighed", ["14:{}", "a.png:{}"])
def test_a_weight_of_empty_braces_is_a_curve_that_is_refused(weighed):
    _, curve = split_weight(weighed)
    with pytest.raises(UsageError):
        Curve.parse("weight", curve)
