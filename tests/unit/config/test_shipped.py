"""The preset tiny as users have it: the start is drawn where there is a text to draw, and the end is enlarged."""

import os
from dataclasses import replace

import pytest

from vqclip.batch.manifest import Manifest
from vqclip.batch.prompt_files import read_rows
from vqclip.batch.rows import make_rows
from vqclip.config.layers import gather
from vqclip.config.resolve import REFINE, resolve

pytestmark = pytest.mark.as_shipped
DRAWN = {"init": "sample", **REFINE, "upscale": 4}
GREY = {"init": "grey", "steps": 100, "coarse": 0.7, "step_size": 1.0, "init_weight": 0.0, "upscale": 4}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, DRAWN),
        ({"init": "sample"}, DRAWN),
        ({"init": None, "steps": 3, "upscale": 0}, DRAWN | {"steps": 3, "upscale": 0}),
        ({"init": "grey"}, GREY),
        ({"init": "codes", "upscale": 2}, GREY | {"init": "codes", "upscale": 2}),
        ({"init_image": "a.png"}, GREY | {"coarse": 0.0}),
        ({"prompt": "", "image_prompts": ("a.png",)}, GREY),
        ({"prompt": "a cat:-1"}, GREY),
        ({"vqgan": "imagenet_f16_16384"}, GREY | {"upscale": 0}),
        ({"vqgan": "tiny"}, DRAWN),
        ({"preset_name": "standard"}, GREY | {"steps": 300, "upscale": 0}),
        ({"preset_name": "standard", "init": "sample"}, DRAWN | {"upscale": 0}),
    ],
)
def test_the_start_is_drawn_where_that_can_be_and_nothing_else_is_said(given, expected):
    settings = resolve(**{"prompt": "a red heart", "seed": 1} | given)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize("source", ["environ", "folder", "config"])
def test_an_init_from_anywhere_wins(tmp_path, source):
    file = tmp_path / ("vqclip.toml" if source == "folder" else "own.toml")
    if source != "environ":
        file.write_text('init = "grey"\n')
    settings, origins = gather(
        {}, config=file if source == "config" else None, preset_name=None, folder=tmp_path, prompt="a red heart",
        environ={"VQCLIP_INIT": "grey"} if source == "environ" else {},
    )  # fmt: skip
    assert (settings.init, settings.steps) == ("grey", 100)
    assert origins["upscale"] == "preset auto"


def test_a_preset_of_ones_own_keeps_what_it_says_beside_its_start(tmp_path):
    (tmp_path / "catalogue.toml").write_text('[preset.mine]\nvqgan = "tiny"\ninit = "sample"\nsteps = 50\n')
    settings = resolve("a red heart", "mine", 1)
    assert (settings.init, settings.steps, settings.coarse) == ("sample", 50, 0.0)


def test_a_batch_of_an_earlier_release_is_known(tmp_path):
    file = read_rows("p.txt", b"a red heart\na red heart\nan owl\n", "txt")
    rows, _ = make_rows(file.rows, {"seed": 3}, 2)
    folder = Manifest(tmp_path)
    before = folder.add([replace(row, settings=row.earlier(), earlier=None) for row in rows], "{index}")
    assert {(entry.settings.init, entry.settings.upscale) for entry in before} == {("grey", 0)}
    assert [entry.name for entry in folder.add(rows, "{index}")] == [entry.name for entry in before]
    folder.close()
    new = Manifest(tmp_path / "new")
    assert {entry.settings.upscale for entry in new.add(rows, "{index}")} == {4}
    new.close()


def test_the_commands_take_it_from_there(vq):
    assert os.environ.get("VQCLIP_INIT") is None
    told = {line.split()[0]: line.split()[1] for line in vq("settings").out.splitlines()}
    assert (told["init"], told["steps"], told["upscale"]) == ("sample", "10", "4")
