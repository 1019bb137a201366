"""Controls in every command that draws: the same image by itself, made again and as a row; and frames of a story."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import QUICK

CONTROLS = [
    ("--palette", "@style.png,red", "--palette-snap", "nearest"),
    ("--symmetry", "both", "--symmetry-until", "0.5", "--frame", "teal"),
    ("--stop-after", "1", "--min-gain", "9", "--final", "best", "--steps", "12"),
    ("--style-image", "style.png", "--style-weight", "2"),
    ("--tile", "x", "--tile-preview", "2"),
]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.full
@pytest.mark.parametrize("words", CONTROLS, ids=lambda words: words[0])
def test_controls_work_in_every_command_that_draws(vq, words):
    Image.radial_gradient("L").convert("RGB").save("style.png")
    words = (*QUICK, *words, "--coarse", "0")
    drawn = vq("generate", "a red heart", *words)
    assert drawn.code == 0, drawn.err
    image = pixels(drawn.out.strip())
    again = vq("rerun", Path(drawn.out.strip()).parent)
    assert np.array_equal(pixels(again.out.strip()), image)
    assert np.array_equal(pixels(vq("rerun", drawn.out.strip(), *of_image(words)).out.strip()), image)
    Path("p.txt").write_text("a red heart\n")
    assert vq("batch", "p.txt", "-o", "rows", *words).code == 0
    (row,) = Path("rows").glob("0001*.png")
    assert np.array_equal(pixels(row), image)
    story = vq("story", "a red heart", "a tree", "--frames", "2", "--frame-steps", "2", "--runs", "stories", *words)
    assert story.code == 0, story.err


def of_image(words):
    """Return what must be given again where the settings are an image's: files that it names."""
    return words[words.index("--style-image") :][:2] if "--style-image" in words else ()
