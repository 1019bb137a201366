"""Tiles: what is shown of them beside the image, and that an enlarged one still joins itself."""

import numpy as np
import pytest
from PIL import Image

from vqclip.errors import UsageError
from vqclip.files.images import wrapped
from vqclip.runs.api import generate, resume
from vqclip.settings.schema import make_settings

QUICK = {"steps": 3, "size": (32, 16), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, float)


@pytest.mark.parametrize(("axes", "repeats"), [("x", (1, 3)), ("y", (3, 1)), ("both", (3, 3))])
def test_tiles_are_shown_side_by_side(networks, tmp_path, axes, repeats):
    run = generate("x", runs=tmp_path, tile=axes, tile_preview=3, **QUICK).run
    assert np.array_equal(pixels(run / "tiled.png"), np.tile(pixels(run / "final.png"), (*repeats, 1)))


def test_they_are_shown_where_that_is_asked_for(networks, tmp_path):
    run = generate("x", runs=tmp_path, tile="x", **QUICK).run
    assert not (run / "tiled.png").exists()
    resume(run, tile_preview=2)
    assert pixels(run / "tiled.png").shape == (16, 64, 3)
    with pytest.raises(UsageError, match="tile-preview"):
        make_settings(prompt="x", tile="both", tile_preview=8, size=(1024, 1024))


def test_wrapped_is_the_middle_of_many():
    image = Image.effect_noise((7, 5), 100)
    many = np.tile(np.asarray(image), (3, 3))
    assert np.array_equal(np.asarray(wrapped(image, 3, 2)), many[5 - 2 : 10 + 2, 7 - 3 : 14 + 3])


def test_an_enlarged_tile_joins_itself(networks, tmp_path):
    seams = {}
    for axes in ("none", "x"):
        drawn = generate("x", runs=tmp_path, tile=axes, **QUICK | {"upscale": 4}).picture
        image = np.asarray(drawn, float)
        seams[axes] = np.abs(image[:, 0] - image[:, -1]).mean() / np.abs(np.diff(image, axis=1)).mean()
    assert seams["x"] < 0.6 * seams["none"]
