"""Controls on the bundled models: an image changes inside its mask alone; a tile has no seam."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

import vqclip

QUICK = {"seed": 3, "steps": 8, "cutouts": 4, "init": "grey", "coarse": 0, "upscale": 0, "frames_every": 0}


@pytest.fixture
def photo(tmp_path):
    """Return an init image of noise, and a mask that is white in the middle."""
    image, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.effect_noise((128, 128), 80).convert("RGB").save(image)
    white = Image.new("L", (256, 256), 0)
    ImageDraw.Draw(white).rectangle((64, 64, 191, 191), 255)
    white.save(mask)
    return image, mask


@pytest.mark.parametrize(("upscale", "coarse"), [(0, 0), (4, 0), (0, 0.5)])
def test_outside_of_a_mask_not_a_bit_changes(photo, tmp_path, upscale, coarse):
    image, mask = photo
    more = {"init_image": image, "mask": mask, "upscale": upscale, "coarse": coarse, "runs": tmp_path}
    drawn = vqclip.generate("a red heart", **QUICK | more).picture
    before = Image.open(image).resize(drawn.size, Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(drawn, int) - np.asarray(before, int)).max(2)
    side = drawn.width
    inside = np.zeros_like(difference, bool)
    inside[side // 4 : side * 3 // 4, side // 4 : side * 3 // 4] = True
    assert difference[~inside].max() == 0
    assert difference[inside].mean() > 5


def test_a_frame_has_its_colour(tmp_path):
    drawn = vqclip.generate("a red heart", **QUICK | {"frame": "teal", "runs": tmp_path}).picture
    pixels = np.asarray(drawn, float)
    edge = np.ones(pixels.shape[:2], bool)
    edge[12:-12, 12:-12] = False
    assert np.abs(pixels[edge].mean(0) - (0, 128, 128)).max() < 25
    assert np.abs(pixels[~edge].mean(0) - (0, 128, 128)).max() > 50


@pytest.mark.parametrize("tile", ["none", "both"])
def test_a_tile_has_no_seam(tmp_path, tile):
    drawn = vqclip.generate("green leaves", **QUICK | {"steps": 20, "tile": tile, "runs": tmp_path}).picture
    pixels = np.asarray(drawn, float)
    inner = np.abs(np.diff(pixels, axis=1)).mean()
    seam = np.abs(pixels[:, 0] - pixels[:, -1]).mean()
    assert (seam < 2 * inner) == (tile == "both")
