"""Several images by one call: prompts, alternatives, seeds; ranked, on a grid; and a prompt without a command."""

import gc
import io
import json
import re
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip
from tests.conftest import QUICK
from tests.support.runs import contents
from vqclip.config.resolve import resolve, seeded
from vqclip.errors import ModelError, UsageError
from vqclip.runs.networks import Networks
from vqclip.runs.rank import Ranker, judge_of, said_of
from vqclip.settings.remarks import remarks
from vqclip.settings.schema import from_text

SETTINGS = {"steps": 2, "size": 32, "cutouts": 2}


def run_json(path):
    return json.loads((Path(path).parent / "run.json").read_text(encoding="utf-8"))


def drawn(outcome):
    """Return (prompt, seed) of each path that was printed."""
    settings = [run_json(path)["settings"] for path in outcome.out.split()]
    return [(each["prompt"], each["seed"]) for each in settings]


@pytest.mark.parametrize(
    ("words", "images"),
    [
        (["a fox"], {("a fox", 7)}),
        (["a fox", "an owl"], {("a fox", 7), ("an owl", 7)}),
        (["a {red|blue} fox", "-n", "2"], {(f"a {c} fox", s) for c in ("red", "blue") for s in (7, 8)}),
        (["a fox", "--count", "3"], {("a fox", 7), ("a fox", 8), ("a fox", 9)}),
        (["a {b..c}", "an owl"], {("a b", 7), ("a c", 7), ("an owl", 7)}),
    ],
)
def test_every_prompt_and_seed_is_drawn_with_models_loaded_once(vq, networks, words, images):
    done = vq("generate", *words, *QUICK)
    assert done.code == 0
    assert set(drawn(done)) == images
    assert len(drawn(done)) == len(images)
    assert networks.loaded.count("tiny") <= 3  # the VQGAN, the CLIP, and the CLIP that ranks


def test_an_image_of_several_has_the_bytes_that_it_has_alone(vq):
    paths = vq("generate", "a fox", "-n", "2", *QUICK).out.split()
    for path in paths:
        alone = vq("generate", "a fox", *QUICK, "--seed", run_json(path)["settings"]["seed"], "--runs", "alone").out
        assert contents(Path(path).parent) == contents(Path(alone.strip()).parent)


def test_the_best_comes_last_and_the_grid_has_all(vq):
    done = vq("generate", "a fox | a sky:-0.5", "-n", "4", *QUICK, "--json", "-o", "best.png")
    record = json.loads(done.out)
    scores = [image["score"] for image in record["images"]]
    assert scores == sorted(scores, reverse=True)
    assert [image["rank"] for image in record["images"]] == [1, 2, 3, 4]
    best = record["images"][0]
    ranker = Ranker("tiny")
    settings = vqclip.Settings(**run_json(best["path"])["settings"])
    image = Image.open(best["path"]).convert("RGB")
    assert ranker.score(image, ranker.target(settings)) == pytest.approx(best["score"], abs=1e-6)
    assert (record["path"], Path("best.png").read_bytes()) == ("best.png", Path(best["path"]).read_bytes())
    with Image.open(record["grid"]) as grid:
        assert grid.width > 2 * 32
    again = vq("generate", "a fox | a sky:-0.5", "-n", "4", *QUICK, "--runs", "again")
    assert Path(again.out.split()[-1]).read_bytes() == Path("best.png").read_bytes()


def test_a_prompt_that_fades_out_still_ranks(vq):
    images = json.loads(vq("generate", "a fox:{1-t}", "-n", "2", *QUICK, "--ema", "0", "--json").out)["images"]
    assert images[0]["score"] != images[1]["score"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["a {red} fox"], 2),
        (["a fox", "-n", "0"], 2),
        (["a fox", "-n", "101"], 2),
        (["{1..60} {1..60}"], 2),
        (["a __nothing__ fox"], 4),
        (["a fox", "--style", "nothing"], 2),
        (["a fox", "-n", "2", "--video", "a.mp4"], 2),
        (["a fox", "an owl", "-o", "a.png"], 2),
        (["a {red|blue} fox", "-o", "-"], 2),
        (["a fox", "-n", "2", "--ranker", "nothing"], 5),
        (["a fox", "-n", "2", "--seed", str(2**63 - 1)], 2),
    ],
)
def test_what_makes_no_sense_is_said_before_models_load(vq, networks, words, code):
    done = vq("generate", *QUICK, *words)
    assert (done.code, done.out, len(done.lines)) == (code, "", 2)
    assert not networks.loaded
    assert not Path("runs").exists()


def test_a_count_that_may_be_steps_says_so(vq):
    assert "--steps 300" in vq("generate", "a fox", "-n", "300").err


def test_steps_by_n_still_work_where_nothing_is_counted(vq):
    path = vq("generate", "a fox", *QUICK).out.strip()
    done = vq("resume", str(Path(path).parent), "-n", "5")
    assert (done.code, run_json(path)["steps_done"]) == (0, 5)
    assert "--steps 5" in done.err
    assert vq("resume", str(Path(path).parent), "-n", "6", "--quiet").err == ""


@pytest.mark.parametrize("command", [["sample"], ["story"], ["restyle", "clip.mp4"]])
def test_a_command_of_one_prompt_refuses_braces(vq, command):
    done = vq(*command, "a {red|blue} fox")
    assert (done.code, len(done.lines)) == (2, 2)
    assert "{red|blue}" in done.err


def test_a_prompt_of_the_folder_expands_too(vq):
    Path("vqclip.toml").write_text('prompt = "a {red|blue} fox"\n')
    assert {prompt for prompt, _ in drawn(vq("generate", *QUICK))} == {"a red fox", "a blue fox"}


def test_prompts_without_a_seed_share_one_that_is_drawn(vq):
    words = [word for word in QUICK if word not in ("--seed", "7")]
    assert len({seed for _, seed in drawn(vq("generate", "{a|b} fox", *words))}) == 1


@pytest.mark.parametrize("prompt", ["a red fox", "a|b", "{red|blue} fox", "\U0001f98a"])
def test_a_prompt_in_place_of_a_command_is_drawn(vq, prompt):
    done = vq(prompt, *QUICK)
    assert done.code == 0
    assert Path(done.out.split()[-1]).is_file()


@pytest.mark.full
def test_the_pixels_of_earlier_images_are_not_kept(vq, monkeypatch):
    from vqclip.runs import several

    generate, made, alive = several.generate, [], []

    def counted(*args, **more):
        gc.collect()
        alive.append(sum(image() is not None for image in made))
        result = generate(*args, **more)
        made.append(weakref.ref(result.picture))
        return result

    monkeypatch.setattr(several, "generate", counted)
    assert vq("generate", "a fox", "-n", "4", *QUICK).code == 0
    assert max(alive) <= 1


def test_an_image_that_was_calmed_is_ranked_with_the_others_of_its_prompt(networks):
    from vqclip.runs.output import Output
    from vqclip.runs.several import generate_several, ranked

    asked = seeded([vqclip.Settings(prompt="a fox", seed=3, **SETTINGS | {"size": (32, 32)})], 3)
    results = list(generate_several(asked, Output()))
    results[1] = replace(results[1], settings=asked[1].model_copy(update={"step_size": 0.5}))
    (group,) = ranked(asked, results)
    assert sorted(item.result.settings.seed for item in group) == [3, 4, 5]


def test_a_signal_ends_it_after_the_image_at_hand(vq, monkeypatch):
    from vqclip.cli.progress import Reporter

    step = Reporter.step

    def stop(self, made):
        step(self, made)
        if self.steps == 4:  # the first of the second image
            self.stopped_by = 15

    monkeypatch.setattr(Reporter, "step", stop)
    done = vq("generate", "a fox", "-n", "3", *QUICK, "--frames-every", "0")
    assert done.code == 143
    assert sorted(seed for _, seed in drawn(done)) == [7, 8]
    assert run_json(next(p for p in done.out.split() if "-8" in p))["status"] == "stopped"
    assert "vqclip resume runs/a-fox-8" in done.err


class Stdout(io.TextIOWrapper):
    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8")


@pytest.mark.parametrize("words", [["generate", "a fox"], ["generate", "a fox", "-n", "2"]])
def test_the_image_itself_goes_to_stdout(vq, monkeypatch, words):
    stdout = Stdout()
    monkeypatch.setattr(sys, "stdout", stdout)
    done = vq(*words, *QUICK, "-o", "-")
    assert done.code == 0
    data = stdout.buffer.getvalue()
    assert data in [path.read_bytes() for path in Path("runs").glob("*/final.png")]
    assert not Path("-").exists()


def test_a_folder_that_is_there_takes_all_images_and_replaces_none(vq):
    Path("up").mkdir()
    assert vq("generate", "a fox", "a fox", "an owl", "-n", "2", *QUICK, "-o", "up").code == 0
    names = {f"a-fox-{end}" for end in ("7", "8", "7-2", "8-2")} | {"an-owl-7", "an-owl-8"}
    assert {path.stem for path in Path("up").iterdir()} == names
    path = Path(vq("generate", "an owl", *QUICK, "-o", "up").out.strip())
    assert path == Path("up/an-owl-7-2.png")
    assert path.read_bytes() == Path("up/an-owl-7.png").read_bytes()
    assert vq("rerun", path, "-o", "up").out.strip() == "up/an-owl-7-3.png"
    assert vq("resume", "runs/an-owl-7", "-o", "up").out.strip() == "up/an-owl-7-4.png"


def test_resume_and_rerun_write_to_stdout_too(vq, monkeypatch):
    path = Path(vq("generate", "a fox", *QUICK).out.strip())
    for words in (["resume", path.parent], ["rerun", path]):
        with monkeypatch.context() as patch:
            stdout = Stdout()
            patch.setattr(sys, "stdout", stdout)
            assert vq(*words, "-o", "-").code == 0
            assert stdout.buffer.getvalue() == path.read_bytes()


def test_stdout_has_no_room_for_json_too(vq):
    assert vq("generate", "a fox", *QUICK, "-o", "-", "--json").code == 2


def test_a_bundled_clip_that_was_not_optimised_judges(monkeypatch):
    from vqclip.models import catalogue

    assert judge_of(["tiny"]) == "tiny"  # there is no other yet
    assert "vqclip models pull" in said_of("tiny", ["tiny"])
    assert "pull" not in said_of("tiny", ["other"])
    facts = catalogue.catalogue().models["clip"]
    monkeypatch.setitem(facts, "judge", facts["tiny"])
    assert judge_of(["tiny"]) == "judge"
    assert judge_of(["judge"]) == "tiny"
    assert judge_of(["ViT-B-32:openai"]) in ("tiny", "judge")


def test_python_makes_many(networks):
    networks_kept = Networks()
    results = vqclip.generate_many("a {red|blue} fox", count=2, seed=3, networks=networks_kept, **SETTINGS)
    assert {(r.settings.prompt, r.settings.seed) for r in results[:2]} == {("a red fox", 3), ("a red fox", 4)}
    assert {r.settings.prompt for r in results[2:]} == {"a blue fox"}
    with pytest.raises(vqclip.VqclipError):
        vqclip.generate("a {red|blue} fox", **SETTINGS)
    with pytest.raises(vqclip.VqclipError):
        vqclip.generate_many("a", out="a.png")


def test_one_distance_is_said_of_a_finished_image_wherever_it_is_said(vq, tmp_path):
    from vqclip.core.targets import make_target
    from vqclip.files.images import load_image, to_tensor
    from vqclip.runs.candidates import rank

    wish = ("generate", "a fox", "--steps", "40", "--size", "32", "--cutouts", "2", "--seed", "7", "--tv", "0")
    done = vq(*wish, "--json")
    told = json.loads(done.out)
    (line,) = [line for line in done.lines if "at the start" in line]
    start, end = (float(part) for part in re.findall(r"\d+\.\d+", line))
    run = Path(told["run"])
    settings = vqclip.Settings(**run_json(run / "final.png")["settings"])
    clip = Networks().clip("tiny", torch.device("cpu"))
    target = make_target(clip, settings, [], torch.device("cpu"))
    images = [to_tensor(load_image(run / name)) for name in ("frames/000000.png", "final.png")]
    assert rank(torch.cat(images), [clip], [target]).tolist() == pytest.approx([start, end], abs=6e-4)
    assert end < start
    assert told["distance"] == run_json(told["path"])["distance"] == pytest.approx(end, abs=6e-4)
    assert json.loads(vq("resume", run, "--json").out)["distance"] == told["distance"]
    page = Path(vq("page", run).out.strip()).read_text(encoding="utf-8")
    assert f"<dt>distance</dt><dd>{told['distance']:.4f}</dd>" in page
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\n", encoding="utf-8")
    assert vq("batch", prompts, "-o", tmp_path / "batch", *wish[2:]).code == 0
    (row,) = (tmp_path / "batch" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(row)["distance"] == pytest.approx(end, abs=6e-4)
    assert "at the start" not in vq("generate", "a fox", *QUICK, "--quiet").err


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(vq):
    done = vq("generate", "a {red|blue} fox", "-n", "2", *QUICK, "--dry-run")
    assert (done.code, len(done.out.splitlines())) == (0, 5)
    assert all(
        f"a {colour} fox, seed {seed}, 32x32, 3 steps" in done.out for colour in ("red", "blue") for seed in (7, 8)
    )
    record = json.loads(vq("generate", "a fox", *QUICK, "--dry-run", "--json").out)
    assert record["images"][0]["prompt"] == "a fox"
    assert record["seconds"] >= 0
    assert not Path("runs").exists()
    for words, code in ((("--clip", "ViT-B/32"), 5), (("--init-image", "none.png"), 4), (("--report", "nope"), 2)):
        assert vq("generate", "a fox", *words, "--dry-run").code == code


def test_a_dry_run_says_how_it_reads_prompts_and_sizes(vq):
    words = ("generate", "a flower | blue -0.5 | red:-1", "--steps", "3", "--cutouts", "2", "--dry-run")
    done = vq(*words, "--size", "100x70", "--region", "a fox:0.5@left")
    assert (done.code, " 96x72," in done.out) == (0, True)
    assert all(
        part in done.out for part in ("'blue -0.5' with weight 1", "'red' with weight -1", "'a fox' with weight 0.5")
    )
    assert "'-0.5' is read as text" in done.err
    assert json.loads(vq(*words, "--size", "100x70", "--json").out)["images"][0]["size"] == [96, 72]
    run = Path(vq(*words[:-1], "--size", "32").out.strip())
    assert "'red' with weight -1" in vq("show", str(run)).out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--size", "512", "--upscale", "4"], "2048x2048"),
        (["--size", "128", "--upscale", "4"], ""),
        (["--size", "1080p"], ""),
        (["--region", "a fox@left", "--init", "sample"], "--overview"),
        (["--region", "a fox@left", "--init", "smooth"], ""),
    ],
)
def test_what_may_not_be_expected_is_said(given, words):
    values = {
        name.lstrip("-").replace("region", "regions"): from_text(name.lstrip("-").replace("region", "regions"), value)
        for name, value in zip(given[::2], given[1::2], strict=True)
    }
    notes = remarks(resolve("an owl", **values))
    assert (len(notes), words in "".join(notes)) == (bool(words), True)


@pytest.mark.parametrize(
    "words", [["--init-image", "wide.png", "--mask", "black.png"], ["--region", "a fox@black.png"]]
)
def test_a_mask_without_white_is_refused_before_models_load(vq, networks, words):
    for name, colour in (("wide.png", "red"), ("black.png", "black")):
        Image.new("RGB", (60, 40), colour).save(name)
    done = vq("generate", "an owl", *QUICK, *words)
    assert (done.code, networks.loaded) == (4, [])
    assert "black.png" in done.lines[0]


def test_an_init_image_that_is_cropped_is_said(vq):
    Image.new("RGB", (90, 30), "red").save("wide.png")
    for size, said in (("32x32", True), ("auto", False)):
        done = vq("generate", "an owl", *QUICK, "--init-image", "wide.png", "--size", size)
        assert (done.code, "--size auto" in done.err) == (0, said)


def state_of(folder):
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(Path(folder).rglob("*"))}


def test_a_dry_run_changes_nothing_on_disk(vq):
    assert vq("generate", "a fox", *QUICK, "-o", "new/a.png", "--dry-run").code == 0
    assert not Path("new").exists()
    Path("p.txt").write_text("a fox\n")
    assert vq("batch", "p.txt", "-o", "out", *QUICK).code == 0
    Path("out/.lock").unlink(missing_ok=True)
    Path(f"out/.{'0' * 16}.part").write_text("half of what another process writes")
    before = state_of(".")
    assert vq("batch", "p.txt", "-o", "out", *QUICK, "--dry-run").code == 0
    assert state_of(".") == before


def test_a_dry_run_of_a_batch_knows_what_is_done(vq):
    Path("p.txt").write_text("a fox\nan owl\n")
    words = ("batch", "p.txt", "-o", "out", *QUICK)
    assert "2 images" in vq(*words, "--dry-run").out
    planned = vq(*words, "--dry-run", "--shard", "2/2").out.splitlines()
    assert [line[:7] for line in planned] == ["0002-an", "1 image"]
    assert not Path("out").exists()
    assert vq(*words).code == 0
    assert Path("out", f"{planned[0].partition(':')[0]}.png").is_file()
    Path("p.txt").write_text("a fox\nan owl\na key\n")
    before = Path("out/batch.json").read_bytes()
    done = vq(*words, "--dry-run")
    assert "1 image," in done.out
    assert "2 more are done already" in done.out
    assert Path("out/batch.json").read_bytes() == before


def test_all_weights_count_where_candidates_are_ranked():
    from tests.support.fakes import FakeClip, aim
    from vqclip.runs.candidates import rank

    clip, images = FakeClip(), torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    best = {prompt: int(rank(images, [clip], aim([clip], prompt)).argmin()) for prompt in
            ("a", "a | b:-0.7", "a | b:-3", "a | b:0.7", "b")}  # fmt: skip
    seen = {p: rank(images, [clip], aim([clip], p)) for p in ("a", "b")}
    for prompt, weight in (("a | b:-0.7", -0.7), ("a | b:-3", -3.0), ("a | b:0.7", 0.7)):
        assert best[prompt] == int((seen["a"] + weight * seen["b"]).argmin())
    assert len(set(best.values())) > 2


@pytest.mark.parametrize("name", ["runs.several.Ranker", "report.sheet.make_sheet"])
def test_what_fails_after_the_images_costs_none(vq, monkeypatch, name):
    def fail(*args):
        raise ModelError("something is gone", "get it again")

    monkeypatch.setattr(f"vqclip.{name}", fail)
    done = vq("generate", "a", "--count", 2, *QUICK)
    assert (done.code, len(done.out.split())) == (5, 2)
    assert "something is gone" in done.err


def test_an_image_that_came_no_nearer_ends_no_series(vq):
    words = ("generate", "a", "--count", 2, *QUICK, "--steps", 12, "--coarse", 0, "--stop-after", 1, "--min-gain", 1)
    done = vq(*words)
    assert [run_json(path)["status"] for path in done.out.split()] == ["converged", "converged"]
    assert "go on with" not in done.err


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_a_count_that_counts_no_images_is_refused(count):
    with pytest.raises(UsageError, match="count"):
        seeded([vqclip.Settings(prompt="a fox")], count)
