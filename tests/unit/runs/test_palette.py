"""A palette: out of an image, and as the only colours of the finished image."""

import json

import pytest
from PIL import Image

from tests.support.runs import record_of, touched
from vqclip.config.palette import colours_of
from vqclip.config.resolve import resolve
from vqclip.errors import InputError, UsageError
from vqclip.runs.api import generate, resume
from vqclip.runs.records import settings_of

QUICK = {"steps": 3, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}
FLAG = ("#0055a4", "#ffffff", "#ef4135")

pytestmark = pytest.mark.usefixtures("networks")


def colours(path):
    """Return the colours of an image's file."""
    with Image.open(path) as image:
        counted = image.convert("RGB").getcolors(2**24)
    return {"#" + bytes(colour).hex() for _, colour in counted}


@pytest.fixture
def flag(tmp_path):
    """Return an image of three stripes, the middle one the widest."""
    image = Image.new("RGB", (30, 10), FLAG[1])
    image.paste(FLAG[0], (0, 0, 9, 10))
    image.paste(FLAG[2], (22, 0, 30, 10))
    image.save(tmp_path / "flag.png")
    return tmp_path / "flag.png"


def test_an_image_of_few_colours_gives_all_of_them(flag):
    settings = resolve("x", palette=f"@{flag},black", **QUICK)
    assert settings.palette == (FLAG[1], FLAG[0], FLAG[2], "#000000")
    assert resolve("x", palette=("black", f"@{flag}"), **QUICK).palette[0] == "#000000"


def test_an_image_of_many_colours_gives_those_that_stand_for_them():
    image = Image.effect_noise((64, 64), 20).convert("RGB")  # around mid-grey
    image.paste("red", (0, 0, 64, 20))
    found = colours_of(image)
    assert 2 < len(found) <= 16
    assert min(sum(abs(a - b) for a, b in zip(colour, (255, 0, 0), strict=True)) for colour in found) < 12


def test_a_record_cannot_have_an_image_read(flag, tmp_path):
    picture = generate("x", out=tmp_path / "x.png", palette=("red",), **QUICK).path
    with Image.open(picture) as image:
        record = json.loads(image.text["vqclip"])
    record["settings"]["palette"] = [f"@{flag}"]
    with pytest.raises(InputError, match="palette"):
        settings_of(picture, record)
    with pytest.raises(InputError, match="exist"):
        resolve("x", palette="@nowhere.png", **QUICK)


@pytest.mark.parametrize(("how", "upscale"), [("nearest", 0), ("dither", 2)])
def test_the_finished_image_has_the_colours_of_the_palette_alone(tmp_path, how, upscale):
    more = {"palette": FLAG, "palette_snap": how, "upscale": upscale}
    made = generate("x", runs=tmp_path, out=tmp_path / "x.webp", frames_every=3, **QUICK | more)
    assert made.picture.width == 32 * max(1, upscale)
    assert colours(made.run / "final.png") <= set(FLAG)
    assert not colours(made.run / "frames" / "000003.png") <= set(FLAG)  # as it was drawn


def test_a_run_that_is_done_may_be_given_its_colours(tmp_path):
    run = generate("x", runs=tmp_path / "a", palette=FLAG, **QUICK).run
    frames = [path for path in touched(run) if path.parent.name == "frames"]
    resume(run, palette_snap="nearest")
    assert colours(run / "final.png") <= set(FLAG)
    assert [path for path in touched(run) if path.parent.name == "frames"] == frames
    assert record_of(run)["settings"]["palette_snap"] == "nearest"


def test_what_a_mask_keeps_is_not_given_other_colours(flag):
    with pytest.raises(UsageError, match="palette-snap"):
        resolve("x", palette="red", palette_snap="nearest", mask=str(flag), init_image=str(flag), **QUICK)
