"""vqclip sample: what it draws, ranks, writes and refuses; with a small DalleBart of random weights and the fakes."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip.runs.candidates
import vqclip.runs.memory
import vqclip.runs.sample
import vqclip.runs.session
from tests.process.test_power import cut_while
from tests.support.fakes import FakeClip, FakeVqgan
from tests.support.runs import differing
from vqclip.config.resolve import resolve
from vqclip.core.interfaces import Target
from vqclip.errors import InputError, ModelError, OutputExists, UsageError
from vqclip.files.images import to_tensor
from vqclip.models import load_upscaler
from vqclip.models.catalogue import ModelEntry
from vqclip.models.dalle import Dalle, DalleBart, Tokenizer
from vqclip.models.dalle.bart import Shape
from vqclip.runs import records
from vqclip.runs.api import sample
from vqclip.runs.candidates import rank, text_to_draw, vqgan_of_dalle
from vqclip.runs.networks import LOADERS
from vqclip.runs.progress import Progress
from vqclip.runs.sample import resume as resume_sample
from vqclip.settings.schema import Settings, fields_with

SHAPE = Shape(width=8, heads=2, hidden=12, encoder_layers=1, decoder_layers=1, vocabulary=20, rows=65, codes=64,
              text_length=6, image_length=9)  # fmt: skip


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = DalleBart(SHAPE).eval().requires_grad_(False)
    words = Tokenizer({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "\u0120": 4, "a": 5}, [])
    (tmp_path / "config.json").write_text('{"vqgan": "tiny"}')
    dalle = Dalle("tiny", model, words, vqgan="tiny", pixels="vqgan")
    for kind, network in (("vqgan", FakeVqgan()), ("clip", FakeClip()), ("dalle", dalle)):
        monkeypatch.setitem(LOADERS, kind, lambda name, device, network=network: network)
    for module in (vqclip.runs.candidates, vqclip.runs.sample, vqclip.runs.session, vqclip.runs.memory):
        monkeypatch.setattr(module, "find", lambda kind, name: ModelEntry(kind, name, tmp_path))
    monkeypatch.setattr(ModelEntry, "sha256", lambda card: "0123456789abcdef" * 4)


def bytes_of(pictures):
    return [picture.tobytes() for picture in pictures]


def test_the_best_come_first():
    made = sample("a", count=12, seed=1)
    assert [one.distance for one in made.candidates] == sorted(one.distance for one in made.candidates)
    assert sorted(one.number for one in made.candidates) == list(range(12))


def test_the_kept_and_the_grid_are_enlarged(tmp_path, monkeypatch):
    monkeypatch.setitem(LOADERS, "upscaler", load_upscaler)
    small, large = (sample("a", count=5, keep=2, seed=1, upscale=k, out=tmp_path / str(k)) for k in (0, 2))
    assert [item.distance for item in large.candidates] == [item.distance for item in small.candidates]
    assert {item.picture.size for item in large.candidates} == {(24, 24)}
    with Image.open(tmp_path / "2" / "grid.png") as grid, Image.open(large.paths[-1]) as best:
        assert (grid.size, best.size) == ((72, 48), (24, 24))
        assert json.loads(best.text["vqclip"])["upscale"]["factor"] == 2
        assert grid.crop((0, 0, 24, 24)).tobytes() == best.tobytes()
    again = sample("a", count=5, keep=2, seed=1, upscale=2, out=tmp_path / "2")
    assert (again.drawn, bytes_of(item.picture for item in again.candidates)) == (
        0, bytes_of(item.picture for item in large.candidates),
    )  # fmt: skip
    with pytest.raises(OutputExists, match="upscale 2, not 0"):
        sample("a", count=5, keep=2, seed=1, upscale=0, out=tmp_path / "2")
    monkeypatch.setattr(vqclip.runs.sample, "MOST_ENLARGED", 4)
    many = sample("a", count=5, keep=2, seed=1, upscale=2, out=tmp_path / "many")
    with Image.open(tmp_path / "many" / "grid.png") as grid:
        assert grid.size == (36, 24)
    assert many.paths[-1].read_bytes() == large.paths[-1].read_bytes()


def test_the_distance_is_the_loops_own():
    clip, image = FakeClip(size=4), torch.rand(2, 3, 4, 4)
    text = clip.encode_text(["a", "b"])
    found = rank(image, [clip], [Target(text, torch.tensor([2.0, -1.0]), torch.zeros(2))])
    arc = 2 * torch.asin((clip.encode_image(image)[:, None] - text).norm(dim=-1) / 2) ** 2  # Crowson's, in the paper
    assert torch.allclose(found, 2 * arc[:, 0] - arc[:, 1], atol=1e-5)


def test_clips_count_by_their_shares():
    image, clips = torch.rand(2, 3, 4, 4), [FakeClip(size=4), FakeClip(size=2)]
    targets = [Target(clip.encode_text(["a"]), torch.ones(1), torch.zeros(1), share)
               for clip, share in zip(clips, (3.0, 1.0), strict=True)]  # fmt: skip
    first, second = (rank(image, [clip], [target]) for clip, target in zip(clips, targets, strict=True))
    assert torch.allclose(rank(image, clips, targets), 0.75 * first + 0.25 * second)


def test_no_more_than_eight_are_decoded_and_chunk_size(monkeypatch):
    counts = []

    def watched(images, clips, targets):
        counts.append(len(images))
        return rank(images, clips, targets)

    for module in (vqclip.runs.sample, vqclip.runs.candidates):
        monkeypatch.setattr(module, "rank", watched)
    sample("a", count=19, seed=1)
    assert vqclip.prepare(settings(candidates=19)).start()
    assert counts == [8, 8, 3] * 2


def test_the_weights_of_clips_count_in_the_choice(monkeypatch):
    seen = []
    monkeypatch.setattr(vqclip.runs.sample, "rank", lambda images, clips, targets: (
        seen.append([target.weight for target in targets]), rank(images, clips, targets))[1])  # fmt: skip
    sample("a", count=1, seed=1, clips=("tiny", "other"), clip_weights=(2.0, 1.0))
    assert seen == [[2.0, 1.0]]


def test_a_candidate_is_the_same_whatever_the_count():
    many = {one.number: one.picture.tobytes() for one in sample("a", count=11, seed=1).candidates}
    few = {one.number: one.picture.tobytes() for one in sample("a", count=3, seed=1).candidates}
    assert few == {number: many[number] for number in few}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        sample("a", count=9, seed=3, out=tmp_path / name)
    files = {path.name for path in (tmp_path / "one").iterdir() if path.name != ".lock"}
    assert len(files) == 7  # grid.png, sample.json, candidates.json, four pictures
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_the_paths_end_with_the_best(tmp_path):
    made = sample("a", count=5, keep=2, seed=1, out=tmp_path)
    first, second = made.candidates[:2]
    assert [path.name for path in made.paths] == [
        f"02-candidate-{second.number:02d}.png",
        f"01-candidate-{first.number:02d}.png",
    ]
    with Image.open(made.paths[-1]) as picture:
        assert picture.convert("RGB").tobytes() == first.picture.tobytes()


def test_more_are_kept_than_drawn(tmp_path):
    assert len(sample("a", count=2, keep=9, seed=1, out=tmp_path).paths) == 2


def test_the_grid_has_all_best_first(tmp_path):
    made = sample("a", count=5, keep=1, seed=1, out=tmp_path)
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.size == (3 * 12, 2 * 12)
        cells = [sheet.crop((k % 3 * 12, k // 3 * 12, k % 3 * 12 + 12, k // 3 * 12 + 12)) for k in range(5)]
        assert bytes_of(cells) == bytes_of(one.picture for one in made.candidates)


def test_the_codes_are_written_and_make_the_picture_again(tmp_path):
    made = sample("a", count=3, seed=1, out=tmp_path)
    best = json.loads((tmp_path / "sample.json").read_text())["candidates"][0]["candidate"]
    rows = json.loads((tmp_path / "candidates.json").read_text())["codes"]
    vqgan, codes = FakeVqgan(), torch.tensor(rows[best]).view(1, 3, 3)
    image = vqgan.decode(vqgan.codebook[codes].permute(0, 3, 1, 2)).clamp(0, 1)
    assert torch.allclose(to_tensor(made.candidates[0].picture), image, atol=0.51 / 255)


def test_a_picture_says_how_it_was_drawn(tmp_path):
    made = sample("a", count=3, seed=6, guidance=2.5, out=tmp_path)
    record = records.read(made.paths[-1])
    assert (record["settings"]["prompt"], record["settings"]["seed"], record["settings"]["guidance"]) == ("a", 6, 2.5)
    assert record["sample"]["candidate"] == made.candidates[0].number
    with Image.open(made.paths[-1]) as picture:
        assert picture.info["parameters"].startswith("a\nSampler: ")


def test_the_grid_says_how_it_was_drawn(tmp_path):
    made = sample("a", count=3, seed=6, out=tmp_path)
    record = records.read(tmp_path / "grid.png")
    assert record["settings"] == records.read(made.paths[-1])["settings"]
    assert [row["candidate"] for row in record["candidates"]] == [one.number for one in made.candidates]
    with Image.open(tmp_path / "grid.png") as picture:
        assert "Candidate" not in picture.info["parameters"]


@pytest.mark.parametrize("name", ["grid.png", "01-*"])
def test_no_metadata_leaves_it_out(tmp_path, name):
    sample("a", count=1, seed=6, out=tmp_path, metadata=False)
    (path,) = tmp_path.glob(name)
    with Image.open(path) as picture:
        assert "vqclip" not in picture.info


@pytest.mark.parametrize("name", ["here", "here/grid.png", "here/06-*"])
def test_rerun_draws_a_sample_again(run_here, name, monkeypatch):
    monkeypatch.setenv("VQCLIP_LONG_PROMPTS", "cut")
    run_here("sample", "a b's", "--count", 9, "--keep", 6, "--seed", 6, "--clip", "tiny", "--clip", "tiny",
             "--guidance", 2.5, "--temperature", 0.5, "--top-k", 7, "-o", "here")  # fmt: skip
    monkeypatch.delenv("VQCLIP_LONG_PROMPTS")
    (path,) = Path().glob(name)
    done = run_here("rerun", path, "-o", "again")
    assert (done.code, done.out.splitlines()[-1][:16]) == (0, "again/01-candida")
    for file in ("grid.png", "candidates.json", path.name if path.is_file() else "sample.json"):
        assert Path("again", file).read_bytes() == Path("here", file).read_bytes()


def test_rerun_of_a_kept_image_keeps_as_many_as_its_sample(run_here):
    run_here("sample", "a", "--count", 3, "--keep", 1, "--seed", 6, "-o", "here")
    assert len(run_here("rerun", next(Path("here").glob("01-*")), "-o", "again").out.splitlines()) == 1


@pytest.mark.parametrize("name", ["run.json", "batch.json"])
def test_a_sample_is_not_written_into_a_run_or_a_batch(run_here, name):
    Path("other").mkdir()
    Path("other", name).write_text("{}")
    done = run_here("sample", "a", "--count", 2, "--seed", 6, "-o", "other", "--overwrite")
    assert (done.code, [path.name for path in Path("other").iterdir()]) == (10, [name])


def test_rerun_with_another_seed_draws_other_candidates(run_here):
    run_here("sample", "a", "--count", 2, "--seed", 6, "-o", "here")
    assert run_here("rerun", "here", "--seed", 7).out.startswith("runs/a-sample-7/")


@pytest.mark.parametrize("option", [("--init", "grey"), ("--steps", 3), ("--tv", 2), ("--size", 32)])
def test_rerun_of_a_sample_refuses_what_does_not_count_in_one(run_here, option):
    run_here("sample", "a", "--count", 2, "--seed", 6, "-o", "here")
    done = run_here("rerun", "here", *option)
    assert done.code == 2
    assert option[0].strip("-") in done.err


def test_a_sample_is_no_run(run_here):
    run_here("sample", "a", "--count", 2, "--seed", 6, "-o", "here")
    with pytest.raises(InputError, match="drawn by vqclip sample") as error:
        records.settings_of(Path("here"), records.read(Path("here")))
    assert "vqclip rerun here" in error.value.hint


@pytest.mark.parametrize("settings", [{"stepz": 3}, {"prompt": ""}, {"seed": []}])
def test_a_strangers_sample_is_checked(tmp_path, settings):
    with pytest.raises(InputError):
        records.settings_of(tmp_path, {"settings": settings, "sample": []}, sample=True)


@pytest.mark.parametrize(
    ("record", "kept"),
    [({}, 4), ({"plan": {"keep": 2}}, 2), ({"plan": {"keep": "x"}}, 4), ({"sample": {"place": 2}}, 4),
     ({"sample": {"place": 7}}, 7), ({"plan": [], "sample": []}, 4)],
)  # fmt: skip
def test_how_many_are_kept_follows_from_the_record(record, kept):
    assert records.kept_of(record) == kept


def test_candidates_that_are_there_are_not_replaced(tmp_path):
    sample("a", count=1, seed=1, out=tmp_path)
    with pytest.raises(OutputExists):
        sample("a", count=1, seed=2, out=tmp_path)
    sample("a", count=1, seed=2, out=tmp_path, overwrite=True)


def test_runs_get_a_folder_of_their_own(tmp_path):
    folders = [sample("A red heart", count=1, seed=2, runs=tmp_path).folder.name for _ in range(2)]
    assert folders == ["a-red-heart-sample-2", "a-red-heart-sample-2-2"]


def test_a_preview_grows_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(vqclip.runs.sample, "PREVIEW_S", 0.0)
    seen = []

    def look(done, total):
        if (tmp_path / "latest.png").exists():
            with Image.open(tmp_path / "latest.png") as preview:
                seen.append(preview.size)

    sample("a", count=9, seed=1, out=tmp_path, on_code=look)
    assert (seen[0], seen[-1]) == ((36, 36), (36, 36))
    assert not (tmp_path / "latest.png").exists()


def test_it_says_where_it_is_and_shows_the_grid_as_it_grows(tmp_path, monkeypatch):
    class Seen(Progress):
        folders, images = [], []

        def opened(self, folder):
            self.folders.append(folder)

        def image(self, image):
            self.images.append(image.size)

    monkeypatch.setattr(vqclip.runs.sample, "PREVIEW_S", 0.0)
    monkeypatch.setattr(vqclip.runs.sample, "REST", 0)
    sample("a", count=9, seed=1, out=tmp_path, progress=Seen())
    with Image.open(tmp_path / "grid.png") as grid:
        assert Seen.images[-1] == grid.size
    assert Seen.folders == [tmp_path]
    assert len(Seen.images) > 1


def test_previews_take_a_small_part_of_the_time(tmp_path, monkeypatch):
    """Each one takes half a second of a clock that stands still besides, and moves by a tenth with each code."""
    clock, shown = [0.0], []

    def preview(folder, png):
        clock[0] += 0.5
        shown.append(clock[0])

    def code(done, total):
        clock[0] += 0.1

    monkeypatch.setattr(vqclip.runs.sample.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(vqclip.runs.sample.SampleDir, "preview", preview)
    sample("a", count=80, seed=1, out=tmp_path, on_code=code)
    assert len(shown) == 2  # after 2 s, and 5 s after that one; it ends after 9 s and the two halves


def test_progress_counts_codes():
    seen = []
    sample("a", count=9, seed=1, on_code=lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[8], seen[-1]) == ((8, 81), (72, 81), (81, 81))


@pytest.mark.parametrize(
    ("prompt", "text"), [("a cat", "a cat"), ("blur:-1 | a cat:2 | a dog", "a cat"), ("a cat | a dog:3", "a cat")]
)
def test_the_first_that_pulls_is_drawn(prompt, text):
    assert text_to_draw(Settings(prompt=prompt)) == text


def test_a_prompt_that_only_pushes_draws_nothing():
    with pytest.raises(UsageError, match="no text to draw"):
        sample("blur:-1")


@pytest.mark.parametrize(
    "values", [{"count": 0}, {"top_k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}, {"guidance": -1.0}]
)
def test_values_out_of_range(values):
    with pytest.raises(UsageError, match=next(iter(values)).replace("_", "-")):
        sample("a", **values)


def test_no_prompt_is_no_sample():
    with pytest.raises(UsageError, match="no prompt") as error:
        sample(" ")
    assert "vqclip sample" in error.value.hint


def test_keep_is_at_least_one():
    with pytest.raises(UsageError, match="keep"):
        sample("a", keep=0)


def test_another_vqgan_than_its_own_is_refused():
    with pytest.raises(ModelError, match="are those of the VQGAN tiny") as error:
        vqclip.prepare(settings(vqgan="imagenet_f16_16384"))
    assert error.value.hint == "use --vqgan tiny"


def test_another_vqgan_than_its_own_is_not_left_out_in_silence():
    with pytest.raises(ModelError, match="are those of the VQGAN tiny"):
        sample("a", dalle="tiny", vqgan="imagenet")


def test_a_vqgan_is_the_same_under_all_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"vqgan": "imagenet"}')
    assert vqgan_of_dalle("tiny", "imagenet_f16_16384") == "imagenet_f16_16384"
    (tmp_path / "config.json").write_text('{"vqgan": "some/folder"}')
    assert vqgan_of_dalle("tiny", str(tmp_path / "some/folder")) == str(tmp_path / "some/folder")


@pytest.mark.parametrize(
    ("prompt", "said"), [("\U0001f600", "has none"), ("кот", "has none"), ("a " * 9, "6 tokens"), ("a a", "")]
)
def test_what_is_not_read_of_a_prompt_is_said(prompt, said):
    notes = []
    sample(prompt, count=1, seed=1, on_note=notes.append)
    session = vqclip.prepare(settings(prompt=prompt))
    start = session.start()
    assert [said in note for note in notes] == [True] * bool(said)
    assert set(notes) < set(start.notes)


def test_the_command_prints_the_best_last(run_here):
    done = run_here("sample", "a", "--count", 3, "--keep", 2, "--seed", 5)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split("/")[-1][:2] for line in lines] == ["02", "01"]
    assert "seed 5" in done.err


def test_the_command_as_json(run_here):
    told = json.loads(run_here("sample", "a", "--count", 2, "--seed", 5, "-o", "here", "--json", "-q").out)
    assert told["path"] == told["paths"][-1]
    assert [row["distance"] for row in told["ranked"]] == sorted(row["distance"] for row in told["ranked"])


@pytest.mark.parametrize(("args", "code"), [(("sample",), 2), (("sample", "a", "--count", "0"), 2)])
def test_bad_options(run_here, args, code):
    done = run_here(*args)
    assert (done.code, done.out) == (code, "")


# ---- generate --init sample


def settings(**more):
    return Settings(**({"prompt": "a", "init": "sample", "size": (12, 12), "seed": 5, "candidates": 9, "steps": 2,
                        "coarse": 0.0, "cutouts": 2} | more))  # fmt: skip


def test_the_start_is_the_best_candidate():
    made = sample("a", count=9, seed=5)
    session = vqclip.prepare(settings())
    codes = made.candidates[0].codes.view(1, 3, 3)
    assert not session.notes  # nothing is drawn before it is asked for
    start = session.start()
    assert torch.equal(start.z, FakeVqgan().codebook[codes].permute(0, 3, 1, 2))
    assert any(f"candidate {made.candidates[0].number}, the best of 9" in note for note in start.notes)


def test_another_size_starts_from_the_scaled_picture():
    start = vqclip.prepare(settings(size=(32, 16))).start()
    assert start.z.shape[-2:] == (4, 8)


def test_the_record_names_the_model():
    record = vqclip.prepare(settings()).record()
    assert record["models"]["dalle"]["name"] == "tiny"
    assert "dalle" not in vqclip.prepare(settings(init="grey")).record()["models"]


def test_a_picture_given_as_the_start_needs_no_model(tmp_path):
    Image.new("RGB", (12, 12), "red").save(tmp_path / "start.png")
    record = vqclip.prepare(settings(dalle="nowhere", init_image=str(tmp_path / "start.png"))).record()
    assert "dalle" not in record["models"]


def test_settings_of_the_model_are_recorded_only_where_it_draws():
    assert set(fields_with("dalle")) <= set(settings().model_dump())
    assert not set(fields_with("dalle")) & set(settings(init="grey").model_dump())


def test_a_prompt_that_only_pushes_starts_nothing():
    with pytest.raises(UsageError, match="no text to draw"):
        vqclip.prepare(settings(prompt="blur:-1"))


@pytest.mark.parametrize("name", fields_with("dalle"))
def test_the_start_of_a_run_that_has_begun_stays(tmp_path, name):
    made = vqclip.generate(settings(), runs=tmp_path)
    with pytest.raises(UsageError, match=f"{name.replace('_', '-')} can't change"):
        vqclip.resume(made.run, **{name: {"dalle": "mega"}.get(name, 3)})


def test_a_start_that_is_drawn_is_refined_not_redrawn():
    def told(**more):
        found = resolve("a", **more)
        return found.steps, found.coarse, found.step_size, found.init_weight

    assert told(init="sample") == (10, 0, 0.35, 0.5)
    assert told(init="sample", steps=50, coarse=0.5, step_size=1, init_weight=0) == (50, 0.5, 1, 0)
    assert told(init="sample", init_image="a.png") == (100, 0, 1, 0)


def test_a_start_that_shows_something_is_not_halved():
    assert resolve("a", init="sample").coarse == 0
    assert resolve("a", init="sample", coarse=0.5).coarse == 0.5


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    whole = vqclip.generate(settings(steps=4), runs=tmp_path / "whole")
    part = vqclip.generate(settings(steps=4), runs=tmp_path / "part", on_step=lambda step: step.step == 2)
    assert part.steps == 2
    assert vqclip.resume(part.run).picture.tobytes() == whole.picture.tobytes()


def test_a_strangers_picture_names_no_folder_of_ours(tmp_path):
    record = {"settings": settings(dalle="/etc").model_dump(mode="json")}
    with pytest.raises(InputError, match="made with the dalle"):
        records.settings_of(tmp_path / "x.png", record)


# killed, and cut off


def whole_sample(folder):
    """Return the bytes of a sample's files, but for what tells of the sitting: the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", "latest.png")}


DRAWN = {"count": 20, "keep": 3, "seed": 1, "device": "cpu"}


@pytest.mark.full
def test_a_sample_that_is_killed_at_any_code_goes_on_to_the_same_bytes(tmp_path):
    copies = []

    def keep(done, total):
        copies.append(tmp_path / f"killed-{done}")
        shutil.copytree(tmp_path / "made", copies[-1])

    sample("a", **DRAWN, out=tmp_path / "made", on_code=keep)
    whole = whole_sample(tmp_path / "made")
    assert len(copies) > 20
    for copy in copies[::5]:
        resume_sample(copy, device="cpu")
        assert differing(whole_sample(copy), whole) == [], copy


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders can't be flushed there")
def test_a_cut_of_power_costs_no_sample(tmp_path, monkeypatch):
    copies = cut_while(
        lambda folder: sample("a", **DRAWN, out=folder / "made"), tmp_path, monkeypatch, share=1, draws=2, seed=2
    )
    whole = whole_sample(tmp_path / "runs" / "made")
    begun = [copy / "made" for copy in copies if (copy / "made" / "sample.json").exists()]
    for copy in begun:
        resume_sample(copy, device="cpu")
        assert differing(whole_sample(copy), whole) == [], copy
    assert len(begun) > 3
