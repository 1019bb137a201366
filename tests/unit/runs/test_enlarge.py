"""Enlarging by windows: they cover the image, fade into each other, take the memory of one, and know their regions."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.fakes import aim
from vqclip.errors import UsageError
from vqclip.runs import enlarge
from vqclip.runs.api import generate
from vqclip.runs.enlarge import Window, fading, of_window, settings_for, windows
from vqclip.runs.upscale import Enlarger

QUICK = {"steps": 3, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}


@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 50), (100, 64)])
@pytest.mark.parametrize("overlap", [0.1, 0.25, 0.75])
def test_windows_cover_the_image_and_overlap(width, height, overlap):
    parts, weights = list(windows(width, height, 32, 32, overlap)), torch.zeros(height, width)
    for part in parts:
        assert 0 <= part.left <= width - 32
        assert 0 <= part.top <= height - 32
        weights[part.top : part.top + 32, part.left : part.left + 32] += fading(part, width, height, overlap)[0, 0]
    assert weights.min() > 0.1
    for starts in ({part.left for part in parts}, {part.top for part in parts}):
        assert all(b - a <= 32 * (1 - overlap) + 1 for a, b in itertools.pairwise(sorted(starts)))


@pytest.fixture
def drawn(networks, tmp_path):
    return generate("a red heart", runs=tmp_path, **QUICK | {"size": (48, 32)}).run


def enlarged(drawn, **more):
    settings = settings_for(drawn, "", "auto", {"steps": 2, "size": (32, 32), **more})
    image = Image.open(enlarge.source_image(drawn))
    done = []
    with image:
        large = enlarge.enlarge(
            image.convert("RGB"), settings, Enlarger(factor=2), on_window=lambda *at: done.append(at)
        )
    return np.asarray(large, float), done


def test_each_window_is_drawn_with_the_memory_of_one(networks, drawn, monkeypatch):
    sizes, decode = set(), type(networks.vqgan).decode
    monkeypatch.setattr(type(networks.vqgan), "decode", lambda self, z: (sizes.add(tuple(z.shape)), decode(self, z))[1])
    large, done = enlarged(drawn)
    assert large.shape == (64, 96, 3)
    assert done == [(k, 12) for k in range(13)]  # three rows of four windows
    assert sizes == {(1, 8, 8, 8)}
    assert np.array_equal(enlarged(drawn)[0], large)
    seeds = [enlarged(drawn, seed=seed, step_size=5.0)[0] for seed in (7, 8)]
    assert not np.array_equal(*seeds)


def test_windows_that_differ_leave_no_seam(drawn, monkeypatch):
    """Each window is drawn in a brightness of its own, the worst case of windows that disagree."""
    monkeypatch.setattr(
        enlarge, "_refine", lambda session, image, part, shape, number: image * 0 + 0.5 + number % 2 * 0.4
    )
    large, _ = enlarged(drawn)
    steps = np.abs(np.diff(large[..., 0], axis=1))
    assert steps.max() < 0.4 * 255 / 3  # an edge would be a step of 0.4 at once
    edges = [part.left for part in windows(96, 64, 32, 32, 0.25) if part.left]
    assert steps[:, [edge - 1 for edge in edges]].mean() < steps.mean()


def test_a_region_counts_in_the_windows_that_it_lies_in(networks):
    target = aim([networks.clip], "x | y")[0]
    masks = torch.zeros(2, 8, 8)
    masks[0, :, :4], masks[1] = 1, 1
    target = type(target)(target.embeds, target.weights, target.stops, region_masks=masks)
    left, right = (of_window(target, Window(x, 0, 32, 32), torch.Size((1, 3, 64, 64))) for x in (0, 32))
    assert left.region_masks[0].min() == 1
    assert right.region_masks[0].max() == 0
    assert left.region_masks[1].min() == right.region_masks[1].min() == 1


def test_the_command_takes_a_run_or_an_image_that_says_what_it_shows(vq, drawn, tmp_path):
    done = vq("enlarge", drawn, "--steps", "1", "--window", "32", "-o", tmp_path / "large.png")
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "large.png"))
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (96, 64)
        assert "a red heart" in image.text["vqclip"]
    assert vq("enlarge", drawn, "-o", tmp_path / "large.png").code == 10
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.jpg")
    assert vq("enlarge", tmp_path / "photo.jpg").code == 2
    done = vq(
        "enlarge", tmp_path / "photo.jpg", "--prompt", "a wall", "--steps", "1", "--window", "40", "--set", "cutouts=2"
    )
    assert (done.code, done.out.strip()) == (0, "photo-enlarged.jpg")


def test_what_does_not_fit_is_refused(drawn):
    with pytest.raises(UsageError):
        settings_for(drawn, "", "auto", {"steps": 0})
