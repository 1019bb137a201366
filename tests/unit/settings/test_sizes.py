"""Sizes by name: shapes of as many pixels as before, finished sizes, and that of the init image."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUICK
from vqclip.config.resolve import change, resolve
from vqclip.errors import UsageError
from vqclip.settings.sizes import SMALLEST, as_size, named_size


@pytest.mark.parametrize(
    ("name", "more", "size", "upscale"),
    [
        ("square", {}, (128, 128), 0),
        ("landscape", {}, (160, 112), 0),
        ("portrait", {}, (112, 160), 0),
        ("wide", {}, (176, 96), 0),
        ("16:9", {}, (176, 96), 0),
        (" Wide ", {}, (176, 96), 0),
        ("1:1", {}, (128, 128), 0),
        ("icon", {}, (256, 256), 0),
        ("icon", {"upscale": 4}, (128, 128), 2),
        ("icon", {"upscale": 2}, (128, 128), 2),
        ("1080p", {}, (1920, 1080), 0),
        ("1080p", {"upscale": 4}, (480, 270), 4),
        ("720p", {"upscale": 4}, (320, 180), 4),
        ("landscape", {"upscale": 4}, (160, 112), 4),
    ],
)
def test_a_named_size(name, more, size, upscale):
    settings = resolve("x", "tiny", 1, size=name, **more)
    assert (settings.size, settings.upscale) == (size, upscale)


@pytest.mark.parametrize("preset", ["standard", "fine"])
def test_a_shape_keeps_the_pixels_of_the_preset(preset):
    plain, wide = resolve("x", preset, 1).size, resolve("x", preset, 1, size="wide").size
    assert wide[0] * wide[1] == pytest.approx(plain[0] * plain[1], rel=0.1)
    assert wide[0] / wide[1] == pytest.approx(16 / 9, rel=0.1)


def test_auto_is_the_init_images_shape(tmp_path):
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    assert resolve("x", "tiny", 1, size="auto", init_image=str(tmp_path / "a.png")).size == (224, 80)
    with pytest.raises(UsageError) as error:
        resolve("x", "tiny", 1, size="auto")
    assert error.value.field == "size"
    Image.new("RGB", (300, 10)).save(tmp_path / "b.png")
    with pytest.raises(UsageError):
        resolve("x", "tiny", 1, size="auto", init_image=str(tmp_path / "b.png"))


def test_a_variation_takes_a_shape_too():
    assert change(resolve("x", "tiny", 1, size=(256, 256)), {"size": "2:1"}).size == (368, 176)


@pytest.mark.parametrize("value", ["0:1", "1:0", "17:1", "a:b", "1:2:3", "auto2", "squared", "", 5.5, "1080"])
def test_what_is_no_name(value):
    if value != "17:1":
        assert not named_size(value)
    if value != "1080":
        with pytest.raises(UsageError):
            resolve("x", "tiny", 1, size=value)


def test_a_size_in_pixels_is_as_before():
    assert as_size("192x128") == (192, 128)
    assert SMALLEST <= 128


@pytest.mark.parametrize("where", ["option", "file", "environment", "batch"])
def test_a_named_size_counts_wherever_it_is_given(vq, monkeypatch, where):
    words = [word for word in QUICK if word not in ("--size", "32x32")]
    if where == "file":
        Path("vqclip.toml").write_text('size = "2:1"\n')
    if where == "environment":
        monkeypatch.setenv("VQCLIP_SIZE", "2:1")
    if where == "batch":
        Path("p.csv").write_text("prompt,size\na fox,2:1\n")
        assert vq("batch", "p.csv", "-o", "out", *words).code == 0
        record = next(Path("out/runs").glob("*/run.json"))
    else:
        done = vq("generate", "a fox", *words, *(["--size", "2:1"] if where == "option" else []))
        assert done.code == 0
        record = Path(done.out.strip()).parent / "run.json"
    assert json.loads(record.read_text())["settings"]["size"] == [176, 96]
