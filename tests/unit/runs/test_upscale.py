"""The finished image, enlarged (--upscale): what is shown, what stays small, and what no step may depend on."""

import json

import pytest
from PIL import Image

from tests.support.runs import contents, differing, record_of
from vqclip.batch.manifest import Manifest
from vqclip.batch.rows import Row
from vqclip.batch.run import Selection, run_batch, select
from vqclip.batch.worker import Work
from vqclip.config.resolve import resolve
from vqclip.errors import InputError, ModelError, OutOfMemory, UsageError
from vqclip.files.metadata import write_png
from vqclip.models.catalogue import find
from vqclip.models.upscaler import BUNDLED, FACTORS
from vqclip.runs import memory, records, upscale
from vqclip.runs.api import generate, prepare, resume
from vqclip.runs.output import Output
from vqclip.settings.schema import Settings, make_settings

QUICK = {"steps": 5, "size": (32, 32), "tries": 1, "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}


@pytest.fixture(autouse=True)
def _fakes(networks):
    """Let steps be quick; the upscaler is the real one."""


def draw(runs, **more):
    return generate("a red heart", runs=runs, **(QUICK | {"upscale": 4} | more))


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_the_setting_knows_what_the_upscalers_do():
    settings = Settings(prompt="x")
    assert settings.upscaler == BUNDLED
    for factor in range(FACTORS[0], FACTORS[1] + 1):
        assert make_settings(prompt="x", upscale=factor).upscale == factor
    for factor in (-1, 1, "1", FACTORS[1] + 1):
        with pytest.raises(UsageError, match="upscale"):
            make_settings(prompt="x", upscale=factor)
    with pytest.raises(UsageError, match="64 million"):
        make_settings(prompt="x", upscale=8, size=(1024, 1024))


def test_the_end_is_large_and_what_was_drawn_stays(tmp_path):
    shown = []
    made = draw(tmp_path, frames_every=2, out=tmp_path / "a.png",
                on_step=lambda step: shown.append(opened(next(tmp_path.glob("*/latest.png"))).size))  # fmt: skip
    assert made.picture.size == opened(made.run / "final.png").size == opened(tmp_path / "a.png").size == (128, 128)
    assert {opened(path).size for path in made.run.glob("frames/*.png")} == {(32, 32)}
    assert set(shown) == {(128, 128)}
    models = record_of(made.run)["models"]
    assert models["upscaler"] == {"name": BUNDLED, "sha256": find("upscaler", BUNDLED).sha256()}
    texts = opened(made.run / "final.png").text
    record = json.loads(texts["vqclip"])
    assert (record["settings"]["upscale"], record["settings"]["upscaler"]) == (4, BUNDLED)
    assert record["upscale"] == {"factor": 4, "upscaler": models["upscaler"]}
    assert f"Postprocess upscale by: 4, Postprocess upscaler: {BUNDLED}" in texts["parameters"]
    assert "upscale" not in json.loads(opened(made.run / "frames" / "000005.png").text["vqclip"])


def test_the_same_again_gives_the_same_bytes_and_none_gives_those_without_the_setting(tmp_path):
    one, two = (draw(tmp_path / name).run / "final.png" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    none, before = draw(tmp_path / "none", upscale=0), generate("a red heart", runs=tmp_path / "before", **QUICK)
    assert not differing(contents(none.run), contents(before.run))
    assert "upscal" not in (none.run / "run.json").read_text()
    assert records.settings_of(none.run, record_of(none.run)).upscale == 0


@pytest.mark.parametrize("every", [0, 2])
def test_the_last_frame_is_there_and_a_stopped_run_comes_to_the_same(tmp_path, every):
    whole = draw(tmp_path / "whole", frames_every=every).run
    half = draw(tmp_path / "half", frames_every=every, on_step=lambda step: step.step == 3).run
    assert opened(half / "final.png").size == (128, 128)
    resume(half)
    assert not differing(contents(half), contents(whole))
    assert (whole / "frames" / "000005.png").is_file()
    assert every or len(list(whole.glob("frames/*"))) == 1


def test_a_run_that_is_done_is_shown_otherwise_without_a_step(tmp_path):
    run, other = draw(tmp_path / "runs").run, draw(tmp_path / "other", upscale=2).run
    assert resume(run, upscale=2).steps == 5
    assert differing(contents(run), contents(other)) == ["frames/000000.png"]  # which says with what it was made
    resume(run, upscale=0)
    assert opened(run / "final.png").size == (32, 32)
    assert "changes" not in record_of(run)


def test_a_run_of_an_earlier_release_is_not_enlarged(tmp_path):
    run = draw(tmp_path, upscale=0, on_step=lambda step: step.step == 3).run
    resume(run)
    assert opened(run / "final.png").size == (32, 32)


def test_too_little_memory_is_said_before_the_first_step(tmp_path, monkeypatch):
    need = memory.estimate(prepare(resolve("a red heart", **QUICK | {"upscale": 8}), "cpu"))
    assert need.total == need.upscaling > 10**7
    monkeypatch.setattr(memory, "available", lambda device: need.total - 1)
    with pytest.raises(OutOfMemory) as caught:
        draw(tmp_path, upscale=8)
    assert "--upscale" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_what_was_drawn_outlives_an_end_without_memory(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(upscale, "available", lambda device: 1000)
        with pytest.raises(OutOfMemory):
            draw(tmp_path)
    (run,) = tmp_path.iterdir()
    assert record_of(run)["status"] == "failed"
    assert opened(run / "frames" / "000005.png").size == (32, 32)
    assert resume(run, upscale=2).steps == 5
    assert opened(run / "final.png").size == (64, 64)


def test_a_wrong_upscaler_is_said_before_anything_is_written(tmp_path):
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no tensors")
    for name in ("nobodys", str(bad)):
        with pytest.raises(ModelError):
            draw(tmp_path / "runs", upscaler=name)
    assert not (tmp_path / "runs").exists()


def test_a_picture_cannot_name_an_upscaler_of_ours(tmp_path):
    from vqclip.files.metadata import ImageInfo

    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"")
    record = {"settings": make_settings(prompt="x", upscale=2, upscaler=str(mine)).model_dump(mode="json")}
    (tmp_path / "a.png").write_bytes(write_png(Image.new("RGB", (8, 8)), ImageInfo({"vqclip": json.dumps(record)})))
    with pytest.raises(InputError) as caught:
        records.settings_of(tmp_path / "a.png", record)
    assert "--upscaler" in caught.value.hint


def test_a_batch_ranks_what_was_drawn(tmp_path):
    scores = []
    for factor in (0, 4):
        settings = [resolve("a red heart", **QUICK | {"seed": seed, "upscale": factor}) for seed in (1, 2)]
        folder = Manifest(tmp_path / str(factor))
        entries = folder.add([Row("p:1", 0, item) for item in settings], "{seed}")
        entries = run_batch(folder, entries, Work(folder.runs, Output(frames_every=0), "cpu"))
        list(select(folder, entries, Selection()))
        scores.append([(entry.score, entry.distance) for entry in folder.entries.values()])
        folder.close()
        assert opened(tmp_path / str(factor) / "1.png").size == (32 * (factor or 1),) * 2
    assert scores[0] == scores[1]
