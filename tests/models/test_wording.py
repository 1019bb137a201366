"""What people type becomes the words of the bundled models' captions: one thing, said in several ways, is one text."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqclip.models import load_dalle
from vqclip.models.wording import bundled, normalize

SAME = {
    "a jack o lantern": [
        "jack-o-lantern",
        "Jack O'Lantern",
        "JACK O’LANTERN!",
        "jack o' lantern",
        "\N{JACK-O-LANTERN}",
    ],
    "a thumbs up": ["thumbs up", "thumbs-up", "Thumbsup", "a thumbs up.", "\U0001f44d", "\U0001f44d\U0001f3fd"],
    "a flag of japan": ["flag of Japan", "the flag of japan", "Japanese flag", "japan flag", "\U0001f1ef\U0001f1f5"],
    "a gray elephant": ["a grey elephant", "grey elephants", "the the Gray   elephant"],
    "a red automobile": ["a red car", "red cars", "red automobile"],
    "a red heart": ["heart", "a heart", "hearts", "❤", "❤️", "red ❤️", "a  red_heart"],
    "a blue heart": ["blue heart", "blue ❤", "a blue  Heart"],
    "a wolf": ["wolves", "the wolf", "Wolf"],
    "a two hearts": ["two hearts", "two hearts!"],
    "a cat on blue background": ["a cat on a blue background", "CAT on the blue background"],
    "a red apple and banana": ["an apple and a banana", "apple and banana"],
    "a hot beverage": ["a cup of tea", "coffee", "a mug"],
    "a cafe": ["café", "the cafe"],
    "": ["", "   ", "日本", "the", "!?"],
}


@pytest.mark.parametrize(("expected", "typed"), [(key, each) for key, texts in SAME.items() for each in texts])
def test_one_thing_said_in_several_ways_is_one_text(expected, typed):
    assert normalize(typed) == expected


@given(st.text(max_size=60))
def test_any_text_becomes_plain_words_or_nothing(text):
    assert re.fullmatch(r"(?:a(?: [a-z0-9]+)+)?", normalize(text))


@pytest.mark.parametrize("text", SAME)
def test_what_is_in_the_captions_words_stays(text):
    assert normalize(text) == text


def test_words_of_no_caption_are_named():
    assert bundled().unknown("a red heart in Zanzibarian baroque") == ["zanzibarian", "baroque"]


def test_names_are_those_of_captions():
    wording = bundled()
    for name in wording.concepts.values():
        assert set(name.split()) - wording.words <= {word for word in name.split() if word.isdigit()}, name


def test_the_bundled_mini_dalle_reads_them_with_the_space_in_front_that_it_was_trained_with():
    tokenizer = load_dalle("tiny", torch.device("cpu")).tokenizer
    assert tokenizer.normalize("Thumbs-up!") == " a thumbs up"
    assert tokenizer.normalize("日本") == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a red heart", ""),
        ("an owl", ""),
        ("\U0001f419", ""),
        ("flag of France", ""),
        ("zebrah quuxx", "zebra"),
        ("albert einsteinium", "albert"),
        ("\u4e00\u53ea\u732b", "Latin"),
        ("a castle in the style of Monet", "style of"),
        ("portrait of a cat", "portrait of"),
        ("a city, trending on artstation", "trending on artstation"),
        ("", ""),
    ],
)
def test_what_the_models_can_not_know_is_said_in_one_line(text, named):
    remarks = bundled().remarks(text)
    assert len(remarks) == bool(named)
    assert all(named in remark and "models pull" in remark for remark in remarks)


def test_the_names_that_begin_so_are_listed():
    assert {"owl"} <= set(bundled().names("ow")) <= set(bundled().names())
    assert "flag of france" in bundled().names("France")
    assert bundled().names("qqq") == []
