"""Prompts longer than a CLIP reads: split between words and averaged, or cut; never without a word."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import FakeClip
from vqclip.core.targets import embed_texts, long_prompt_notes, parts
from vqclip.runs.api import generate, prepare
from vqclip.settings.schema import Settings

CLIP = FakeClip()  # reads 20 words
LONG = " ".join(f"{number:02}th" for number in range(50))


class Letters(FakeClip):
    """Reads ten letters."""

    def fits(self, text):
        return len(text) <= 10


def test_a_text_that_fits_is_embedded_as_it_is():
    assert torch.equal(embed_texts(CLIP, ["a cat", "a dog"]), CLIP.encode_text(["a cat", "a dog"]))


def test_a_longer_one_is_read_in_a_few_parts_about_equally_long():
    pieces = parts(CLIP, LONG)
    assert len(pieces) == 3
    assert " ".join(pieces) == LONG
    assert max(len(piece.split()) for piece in pieces) - min(len(piece.split()) for piece in pieces) <= 2


def test_its_embedding_is_the_mean_of_its_parts_by_their_lengths():
    text = " ".join(["aa"] * 20 + ["bbbbbb"] * 20)
    pieces = parts(CLIP, text)
    mean = sum(CLIP.encode_text([piece])[0] * len(piece) for piece in pieces)
    assert torch.allclose(embed_texts(CLIP, [text])[0], F.normalize(mean, dim=0), atol=1e-6)


def test_the_length_is_one_whatever_the_parts():
    assert embed_texts(CLIP, [LONG, "a cat"]).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_cut_leaves_it_to_the_clip():
    assert torch.equal(embed_texts(CLIP, [LONG], "cut"), CLIP.encode_text([LONG]))


@pytest.mark.parametrize("text", ["x" * 35, "絵" * 25, "a-hyphenated-word-of-many-parts"])
def test_a_text_without_spaces_is_split_where_it_must_be(text):
    pieces = parts(Letters(), text)
    assert all(len(piece) <= 10 for piece in pieces)
    assert "".join(pieces) == text


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60).map(lambda text: " ".join(text.split()))


@given(WORDS.filter(bool))
def test_no_word_is_lost(text):
    assert "".join("".join(parts(Letters(), text)).split()) == "".join(text.split())


def test_what_no_part_can_fit_ends():
    class Blind(FakeClip):
        def fits(self, text):
            return False

    assert "".join(parts(Blind(), "abcdef")) == "abcdef"


def test_both_ways_are_said():
    assert long_prompt_notes(CLIP, ["a cat"]) == []
    assert "fake-clip reads a long prompt in 3 parts, averaged" in long_prompt_notes(CLIP, ["a cat", LONG])[0]
    assert "no further than its context" in long_prompt_notes(CLIP, [LONG], "cut")[0]


@pytest.mark.parametrize(("how", "told"), [("split", "in 3 parts"), ("cut", "no further")])
def test_a_run_says_so_and_does_so(networks, how, told):
    session = prepare(Settings(prompt=f"{LONG}:0.5 | a cat", long_prompts=how, size=(32, 32)), "cpu")
    assert sum(told in note for note in session.notes) == 1
    expected = torch.cat([embed_texts(CLIP, [LONG], how), CLIP.encode_text(["a cat"])])
    assert torch.equal(session.targets[0].embeds, expected)


def test_the_two_ways_aim_at_different_things(networks):
    made = {
        how: generate(LONG, seed=3, steps=2, size=(32, 32), cutouts=2, long_prompts=how) for how in ("split", "cut")
    }
    assert made["split"].distance != made["cut"].distance


def test_shares_reach_the_targets(networks):
    settings = Settings(prompt="x", clips=("tiny", "tiny"), clip_weights=(2, 0.5), size=(32, 32))
    assert [target.weight for target in prepare(settings, "cpu").targets] == [2.0, 0.5]
