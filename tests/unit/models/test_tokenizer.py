"""Mini DALL-E's words: by hand, from what byte-pair encoding is."""

import json

import pytest

from vqclip.errors import IntegrityError, ModelError
from vqclip.models.dalle.tokenizer import Tokenizer, commas, plain, read_tokenizer

# "\u0120" is the space before a word.
PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
    "\u0120",
    "a",
    "c",
    "t",
    ",",
    "at",
    "\u0120c",
    "\u0120cat",
    "\u0120a",
]
MERGES = [("a", "t"), ("\u0120", "c"), ("\u0120c", "at"), ("\u0120", "a")]


@pytest.fixture
def words():
    return Tokenizer({piece: number for number, piece in enumerate(PIECES)}, MERGES)


def named(words, text, length=64):
    return [PIECES[number] for number in words.encode(text, length)]


def test_pairs_are_joined_in_the_order_of_the_merges(words):
    # _ c a t -> _ c at -> _c at -> _cat
    assert named(words, "cat") == ["<s>", "\u0120cat", "</s>"]


def test_an_earlier_merge_goes_first_even_further_right(words):
    # "_ a t": a+t comes before _+a
    assert named(words, "at") == ["<s>", "\u0120", "at", "</s>"]


def test_every_word_has_its_space(words):
    assert named(words, "a cat") == ["<s>", "\u0120a", "\u0120cat", "</s>"]


def test_signs_part_from_words(words):
    assert named(words, "cat, cat") == ["<s>", "\u0120cat", ",", "\u0120cat", "</s>"]


def test_what_has_no_number_is_unknown(words):
    assert named(words, "z") == ["<s>", "\u0120", "<unk>", "</s>"]


def test_no_text_is_begin_and_end(words):
    assert words.encode("", 64) == words.encode("  ", 64) == [0, 2]


def test_a_long_text_is_cut_and_still_ends(words):
    assert named(words, "a " * 100, 5) == ["<s>", "\u0120a", "\u0120a", "\u0120a", "</s>"]


def test_fits_counts_begin_and_end(words):
    assert words.fits("a a a", 5)
    assert not words.fits("a a a a", 5)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A  Cat", " a cat"),
        ("café", " cafe"),
        ("ﬁsh &amp; chips", " fish & chips"),
        ("a\n\tcat", " a cat"),
        ("日本 a", " a"),
    ],
)
def test_plain(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A  Cat", " a cat"),
        ("a black-and-white cat.", " a black and white cat"),
        ("a cat; a dog: a fox!", " a cat, a dog, a fox"),
        ("(a cat) [2]", " a cat"),
        ("'the scream' by munch", ' " the scream " by munch'),
        ("the artist's cat isn't here", " the artist's cat isn't here"),
        ("3.5 of 1,000,000 on 12/10", " 3.5 of 1000000 on 12/10"),
        ("50% cat & dog and/or fox", " 50 % cat & dog and, or fox"),
        ("<b>cat</b> https://a.b/c d", " cat d"),
        ("soooooo   good!!!!", " so good"),
        ("snake_case #tag", " snake case tag"),
        ("well... yes--no", " well, yes, no"),
        ("Beyonc\u00e9 &amp;amp; co", " beyonce & co"),
        (", ,", " "),
    ],
)
def test_punctuation_as_dalle_mini_was_trained_on_it(text, shown):
    """By its TextNormalizer's own output, but for the last spaces."""
    assert commas(text) == shown


def test_typographic_signs_are_read_as_those_of_a_keyboard():
    assert (
        commas("it\u2019s \u201ca cat\u201d \u2013 well\u2026")
        == commas('it\'s "a cat" - well...')
        == ' it\'s " a cat ", well'
    )


def test_files_in_the_published_form(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(PIECES)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES), encoding="utf-8")
    assert read_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt").encode("cat", 9) == [0, 12, 2]


def test_missing_files_are_said(tmp_path):
    with pytest.raises(ModelError, match="needs its tokenizer"):
        read_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")


@pytest.mark.parametrize("vocab", ["", "[]", '{"a": 1}', '{"<s>": "0", "</s>": 2, "<unk>": 3}'])
def test_damaged_words_are_said(tmp_path, vocab):
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(IntegrityError, match="damaged"):
        read_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
