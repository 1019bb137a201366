"""Enlarging by windows: they fade into each other, take the memory of one, know their regions, and go on."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vqclip.errors import UsageError
from vqclip.runs import enlarge
from vqclip.runs.api import generate
from vqclip.runs.enlarge import fades, settings_for, starts
from vqclip.runs.output import Output
from vqclip.runs.records import read

QUICK = {"steps": 3, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}
WINDOWS = {"steps": 2, "size": (32, 32), "upscale": 2}


@pytest.mark.parametrize("length", [32, 33, 50, 100])
@pytest.mark.parametrize("overlap", [0.1, 0.25, 0.75])
def test_windows_cover_the_image_overlap_and_count_as_one(length, overlap):
    begun = starts(length, 32, overlap)
    assert (begun[0], begun[-1]) == (0, length - 32)
    assert all(b - a <= 32 * (1 - overlap) + 1 for a, b in itertools.pairwise(begun))
    total = torch.zeros(length)
    for start, weights in zip(begun, fades(begun, length, 32, overlap), strict=True):
        total[start : start + 32] += weights
    assert torch.allclose(total, torch.ones(length))


@pytest.fixture
def drawn(networks, tmp_path):
    return generate("a red heart", runs=tmp_path, **QUICK | {"size": (48, 32)}).run


def enlarged(run, tmp_path, **more):
    settings, done = settings_for(run, None, WINDOWS | more), []
    output = Output(out=tmp_path / "large.png", overwrite=True)
    enlarge.enlarge(settings, 0.25, output, on_window=lambda *at: done.append(at))
    with Image.open(tmp_path / "large.png") as image:
        return np.asarray(image, float), done


@pytest.mark.full
def test_each_window_is_drawn_with_the_memory_of_one(networks, drawn, tmp_path, monkeypatch):
    sizes, decode = set(), type(networks.vqgan).decode
    monkeypatch.setattr(type(networks.vqgan), "decode", lambda self, z: (sizes.add(tuple(z.shape)), decode(self, z))[1])
    large, done = enlarged(drawn, tmp_path)
    assert large.shape == (64, 96, 3)
    assert done == [(k, 12) for k in range(13)]  # three rows of four windows
    assert sizes == {(1, 8, 8, 8)}
    assert np.array_equal(enlarged(drawn, tmp_path)[0], large)
    seeds = [enlarged(drawn, tmp_path, seed=seed, step_size=5.0)[0] for seed in (7, 8)]
    assert not np.array_equal(*seeds)


@pytest.mark.parametrize("kept", [True, False])
def test_windows_that_differ_keep_their_details_and_leave_no_seam(networks, tmp_path, monkeypatch, kept):
    """Each window is drawn in a brightness of its own, the worst case of windows that disagree, and with fine stripes.

    kept: with the source's colours in what is coarse, as it is; without, the windows show on a flat ground.
    """

    def differ(session, image, part, number):
        stripes = (torch.arange(32) + round(part[0] * 96)) % 2 * 0.2 - 0.1
        return image + stripes + number % 2 * 0.3

    monkeypatch.setattr(enlarge, "_refine", differ)
    if not kept:
        monkeypatch.setattr(enlarge, "with_colours_of", lambda image, refined: refined)
    Image.new("RGB", (48, 32), (100, 110, 120)).save(tmp_path / "flat.png")
    large, _ = enlarged(tmp_path / "flat.png", tmp_path, prompt="a wall")
    pairs = large.reshape(64, 48, 2, 3)
    assert np.abs(np.diff(pairs, axis=2)).min() > 0.15 * 255  # the stripes
    ground = pairs.mean(2)
    apart = np.abs(ground - (100, 110, 120)).max()
    assert apart < 8 if kept else apart > 60
    assert max(np.abs(np.diff(ground, axis=axis)).max() for axis in (0, 1)) < 0.3 * 255 / 3  # an edge: 0.3 at once


@pytest.mark.parametrize("place", ["0,0,0.25,1", "mask.png"])
def test_a_windows_prompts_are_those_of_its_part(networks, tmp_path, monkeypatch, place):
    """Of a wide image, whose mask is as wide, the first quarter; and nothing that belongs to the whole counts."""
    mask = np.zeros((32, 64), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (64, 32), "red").save(tmp_path / "target.png")
    place = str(tmp_path / place) if place.endswith("png") else place
    whole = {"regions": [f"a tree@{place}"], "target_image": str(tmp_path / "target.png")}
    run = generate("a sky", runs=tmp_path, **QUICK | whole | {"size": (64, 32)}).run
    seen = []
    monkeypatch.setattr(enlarge, "optimize", lambda inputs, z, **more: (seen.append(inputs), iter(()))[1])
    enlarged(run, tmp_path)
    masks = torch.stack([inputs.targets[0].region_masks for inputs in seen])
    assert masks.shape == (3 * 5, 2, 128, 128)
    assert torch.equal(masks[:, 0], torch.ones_like(masks[:, 0]))
    lefts = starts(128, 32, 0.25)
    inside = [max(0, min(32, 32 - left)) / 32 for left in lefts] * 3
    assert masks[:, 1].mean((1, 2)).tolist() == pytest.approx(inside, abs=1e-6)
    assert all(inputs.z_target is None for inputs in seen)


def test_the_command_takes_a_run_or_an_image_that_says_what_it_shows(vq, drawn, tmp_path):
    assert vq("enlarge", drawn, "--steps", "1", "--window", "32", "-o", tmp_path / "large.png").code == 0
    assert vq("enlarge", drawn, "-o", tmp_path / "large.png").code == 10
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.jpg")
    assert vq("enlarge", tmp_path / "photo.jpg").code == 2
    words = ("--prompt", "a wall", "--steps", "1", "--window", "40", "--set", "cutouts=2")
    done = vq("enlarge", tmp_path / "photo.jpg", *words)
    assert (done.code, done.out.strip()) == (0, "photo-enlarged.jpg")
    assert [path.name for path in Path().iterdir()] == ["photo-enlarged.jpg"]


def test_the_command_says_first_what_comes_and_a_dry_run_makes_nothing(vq, drawn, monkeypatch):
    """A run's finished image may be larger than what comes, as --by counts from the image as it was drawn."""
    Image.new("RGB", (144, 96)).save(drawn / "final.png")
    words = ("enlarge", drawn, "--steps", 1, "--window", 32)
    monkeypatch.setattr("vqclip.cli.enlarge.SHORT_S", 0)
    plan = vq(*words, "--dry-run")
    first, last = plan.out.splitlines()
    assert not list(Path().iterdir())
    assert all(text in first for text in ("48x32", "96x64", "12 windows", "32x32", "144x96", "--by 4"))
    assert "about" in last
    done = vq(*words)
    assert done.lines[0] == first
    assert sum("about" in line for line in done.lines) == 1
    assert "--by 4" not in vq(*words, "--by", 4, "--dry-run").out
    assert json.loads(vq(*words, "--dry-run", "--json").out)["windows"] == 12
    Image.new("RGB", (500, 400)).save(drawn / "final.png")
    assert f"vqclip enlarge {drawn / 'final.png'}" in vq(*words, "--dry-run").out


def test_an_enlarged_image_says_how_it_was_made_and_is_made_again(vq, drawn, tmp_path):
    words = ("--prompt", "a red rose", "--window", "32", "--overlap", 0.5, "--set", "seed=3", "--set", "steps=2")
    assert vq("enlarge", drawn, "--by", 3, *words, "-o", "large.png").code == 0
    record = read(Path("large.png"))
    settings = record["settings"]
    assert [settings[name] for name in ("prompt", "upscale", "size", "seed", "steps", "init_image")] == [
        "a red rose", 3, [32, 32], 3, 2, "000003.png"]  # fmt: skip
    assert record["enlarge"] == {"overlap": 0.5, "size": [48, 32]}
    shown = " ".join(vq("show", "large.png").out.split())
    assert all(text in shown for text in ("a red rose", "000003.png", "overlap 0.5", "size 48x32", "factor 3"))
    with Image.open("large.png") as image:
        assert "Size: 48x32" in image.text["parameters"]
    refused = vq("rerun", "large.png", "-o", "again.png")
    assert (refused.code, len(refused.lines)) == (4, 2)
    assert "--init-image" in refused.err
    source = drawn / "frames" / "000003.png"
    assert vq("rerun", "large.png", "--init-image", source, "-o", "again.png").code == 0
    assert Path("again.png").read_bytes() == Path("large.png").read_bytes()
    Image.new("RGB", (40, 40), "red").save("other.png")
    other = vq("rerun", "large.png", "--init-image", "other.png", "--upscale", 2, "-o", "other-large.png")
    assert "not the image" in other.err
    with Image.open("other-large.png") as image:
        assert image.size == (80, 80)


@pytest.mark.parametrize(
    ("enlarged", "settings", "code"),
    [
        ({"overlap": 0.25}, {}, 4),
        ({"overlap": 0.25}, {"init_image": "a.png"}, 4),
        ({"overlap": 5.0}, {}, 4),
        ({"overlap": float("nan")}, {}, 4),
        ([], {}, 4),
    ],
)
def test_a_record_that_is_none_of_ours_does_no_harm(vq, networks, enlarged, settings, code):
    record = {"settings": {"prompt": "a", **settings}, "enlarge": enlarged}
    info = PngInfo()
    info.add_itxt("vqclip", json.dumps(record))
    Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
    assert vq("rerun", "a.png", "-o", "b.png").code == code
    assert not networks.loaded
    assert not Path("b.png").exists()


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {"steps": 20, "step_size": 0.15, "prompt": "a red heart", "seed": 7}),
        ({"steps": 5, "learning_rate": 0.1}, {"steps": 5, "learning_rate": 0.1}),
        ({"step_size": 0.5}, {"step_size": 0.5, "learning_rate": 0.0}),
    ],
)
def test_a_setting_of_windows_is_as_it_was_given(drawn, given, settings):
    windows = {name: value for name, value in WINDOWS.items() if name != "steps"}
    made = settings_for(drawn, None, windows | given).model_dump()
    assert {name: made.get(name, 0.0) for name in settings} == settings


@pytest.mark.parametrize(
    ("preset", "given"),
    [
        (None, {"steps": 0}),
        (None, {"tile": "x"}),
        (None, {"init_image": "a.png"}),
        ("tiny", {}),
        (None, {"upscale": 9}),
    ],
)
def test_what_does_not_fit_windows_is_refused(drawn, preset, given):
    with pytest.raises(UsageError):
        settings_for(drawn, preset, WINDOWS | given)


@pytest.mark.parametrize(("source", "words"), [(".", "run.json"), ("nothing.png", "does not exist")])
def test_what_is_no_image_and_no_run_is_said(vq, source, words):
    done = vq("enlarge", source)
    assert (done.code, len(done.lines), words in done.lines[0], source in done.lines[0]) == (4, 2, True, True)


@pytest.mark.parametrize(("option", "value"), [("--by", 1), ("--by", 9), ("--overlap", 0.05), ("--overlap", 0.9)])
def test_what_is_out_of_range_is_named_as_it_was_typed(vq, option, value):
    done = vq("enlarge", "a.png", option, value)
    assert (done.code, len(done.lines)) == (2, 2)
    assert f"{option.removeprefix('--')}: {value}" in done.lines[0]


@pytest.mark.parametrize(("name", "schema"), [("run.json", "vqclip-motion/1"), ("sample.json", "vqclip-sample/1")])
def test_a_folder_of_several_images_is_refused(vq, name, schema):
    Path("many").mkdir()
    Path("many", name).write_text(json.dumps({"schema": schema, "settings": {"prompt": "a"}}))
    done = vq("enlarge", "many")
    assert (done.code, len(done.lines), "many" in done.lines[0], "frames" in done.lines[1]) == (2, 2, True, True)


def test_what_was_stopped_goes_on_with_the_next_window(vq, drawn, monkeypatch):
    words = ("enlarge", drawn, "--steps", 2, "--window", 32)
    assert vq(*words, "-o", "whole.png").code == 0
    refine, made, stops = enlarge._refine, [], []

    def refine_five(*args):
        if len(made) == 5 and not stops:
            stops.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        made.append(args[-1])
        return refine(*args)

    monkeypatch.setattr(enlarge, "_refine", refine_five)
    stopped = vq(*words, "-o", "parts.png")
    assert (stopped.code, stopped.out) == (130, "")
    assert "5 of 12" in stopped.err
    (folder,) = Path().glob("parts-windows-*")
    (folder / "00001.png").write_bytes(b"damaged")
    Image.new("RGB", (16, 16)).save(folder / "00003.png")  # none of its windows
    assert vq(*words, "--quiet", "-o", "parts.png").code == 0
    assert made[5:] == [1, 3, *range(5, 12)]
    assert Path("parts.png").read_bytes() == Path("whole.png").read_bytes()
    assert not folder.exists()
    assert json.loads(vq(*words, "-o", "more.png", "--json").out)["size"] == [96, 64]
