"""Regions as they are typed."""

import pytest

from vqclip.errors import UsageError
from vqclip.settings.curves import Curve
from vqclip.settings.regions import PLACES, parse_region
from vqclip.settings.schema import files_of, from_text, make_settings, with_files


@pytest.mark.parametrize(
    ("text", "texts", "box", "file"),
    [
        ("a red heart@left", ["a red heart"], PLACES["left"], ""),
        ("a | b:0.5 @ Centre ", ["a", "b"], PLACES["centre"], ""),
        ("me@home:2@0.5, 0,0.5,1", ["me@home"], (0.5, 0, 0.5, 1), ""),
        ("a@masks/left.png", ["a"], None, "masks/left.png"),
        ("a@/left", ["a"], None, "/left"),
        ("a@./mask", ["a"], None, "./mask"),
    ],
)
def test_a_region_is_a_text_and_a_place(text, texts, box, file):
    region = parse_region(text)
    assert ([prompt.text for prompt in region.prompts], region.box, region.file) == (texts, box, file)


def test_weights_may_be_curves():
    (prompt,) = parse_region("a:{0: 1, 1: 0}@left").prompts
    assert prompt.weight == Curve("0: 1, 1: 0")
    with pytest.raises(UsageError, match=r"t = 0\.5"):
        make_settings(prompt="x", regions=("a:{1000 + floor(2 * t)}@left",), steps=4)


@pytest.mark.parametrize(
    "text", ["", "a", "@left", "a@", "a@lefft", "a@0,0,0,1", "a@0.6,0,0.5,1", "a@0,0,..,1", "a:9999@left"]
)
def test_what_is_no_region_is_refused(text):
    with pytest.raises(UsageError):
        parse_region(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [("a red apple", "no place"), ("@left", "no text"), ("a@middle", "'middle'"), ("a@top left", "'top left'")],
)
def test_what_a_region_lacks_is_named(text, word):
    with pytest.raises(UsageError, match=word):
        parse_region(text)


def test_lists_of_regions_end_in_semicolons():
    assert from_text("regions", "a@0,0,1,1; b@left") == ("a@0,0,1,1", "b@left")


def test_the_file_in_a_region_is_changed_alone():
    regions = ("a@left", "b:2@m.png", "c@n.png")
    assert files_of("regions", regions) == ["m.png", "n.png"]
    assert with_files("regions", regions, ["/x/m.png", "/n.png"]) == ("a@left", "b:2@/x/m.png", "c@/n.png")


def test_a_region_has_no_place_in_a_tile():
    with pytest.raises(UsageError, match="tile"):
        make_settings(prompt="a", regions=("b@left",), tile="x")


def test_curves_of_more_values_than_can_be_checked_at_once_are_refused():
    regions = tuple(f"a:{{0: 1, 1: 0.{number:02d}1}}@left" for number in range(40))
    with pytest.raises(UsageError, match="curves"):
        make_settings(prompt="x", regions=regions, steps=100_000)
    assert make_settings(prompt="x", regions=regions, steps=50).regions == regions
