"""Sheets of what CLIP is shown: the very tensors of those steps, the same after a resume."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip
from tests.support.runs import contents, differing
from vqclip.files.images import to_tensor

SETTINGS = {"seed": 7, "steps": 6, "size": 32, "cutouts": 5, "init": "grey", "upscale": 0, "chunk": 2, "coarse": 0.0}


@pytest.fixture
def draw(networks, tmp_path):
    return lambda name, **more: vqclip.generate("x", runs=tmp_path / name, **(SETTINGS | more))


def test_the_sheet_shows_the_cutouts_that_clip_is_shown(draw, networks):
    shown = []
    encode = networks.clip.encode_image
    networks.clip.encode_image = lambda image: shown.append(image.detach().clone()) or encode(image)
    run = draw("a", save_cutouts=4).run
    assert sorted(path.name for path in (run / "cutouts").iterdir()) == ["000001.png", "000004.png"]
    chunks = [chunk for chunk in shown if len(chunk) <= 2][
        -3 * 6 - 1 : -1
    ]  # three a step; the last sees the whole image
    with Image.open(run / "cutouts" / "000004.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 2, 2 * 16 + 2)
        for k, cutout in enumerate(torch.cat(chunks[9:12])):
            left, top = k % 3 * 18, k // 3 * 18
            cell = to_tensor(sheet.convert("RGB").crop((left, top, left + 16, top + 16)))
            torch.testing.assert_close(cell[0], cutout.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)


def test_they_are_the_same_after_a_resume_and_change_nothing_else(draw, tmp_path):
    whole = draw("whole", save_cutouts=2).run
    plain = draw("plain").run
    part = draw("part", save_cutouts=2, on_step=lambda step: step.step == 3).run
    (part / "cutouts" / "000004.png").write_bytes(b"of a step that a kill undid")
    vqclip.resume(part)
    assert differing(contents(whole), contents(part)) == []
    assert set(differing(contents(whole), contents(plain))) == {
        "run.json", *(str(Path("cutouts") / f"{k:06d}.png") for k in (1, 2, 4, 6)),
    }  # fmt: skip


def test_each_clip_has_its_own(draw):
    run = draw("two", clips=["tiny", "tiny"], save_cutouts=6).run
    assert sorted(path.name for path in (run / "cutouts").iterdir()) == [
        "000001-2.png", "000001.png", "000006-2.png", "000006.png",
    ]  # fmt: skip


def test_a_step_that_is_made_again_shows_its_cutouts_once(draw, networks):
    encode, calls = networks.clip.encode_image, []

    def diverging(image):
        calls.append(len(image))
        return encode(image) * (float("nan") if len(calls) == 11 else 1)  # in step 4, of three chunks each

    networks.clip.encode_image = diverging
    notes = []
    run = draw("again", save_cutouts=4, fit=False, on_note=notes.append).run
    assert any("going on from step 3" in note for note in notes)
    with Image.open(run / "cutouts" / "000004.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 2, 2 * 16 + 2)


def test_a_negative_number_is_refused(draw):
    with pytest.raises(vqclip.VqclipError):
        draw("no", save_cutouts=-1)
