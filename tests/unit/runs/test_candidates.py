"""Candidates that are kept: samples and drawn starts that are stopped, killed, gone on with; in batches and reruns."""

import dataclasses
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip
import vqclip.runs.memory
import vqclip.runs.sample
import vqclip.runs.sample_dir
import vqclip.runs.session
import vqclip.video.frames
from tests.support.runs import AskAfterSteps, row
from tests.unit.runs.test_sample import models, settings  # noqa: F401
from vqclip.batch.worker import Work, Worker
from vqclip.core.targets import embed_image_prompt
from vqclip.errors import InputError, OutOfMemory, OutputExists, RunLocked
from vqclip.files.atomic import write_atomic
from vqclip.models.catalogue import ModelEntry
from vqclip.models.dalle import Dalle
from vqclip.models.dalle.checkpoints import memory_needed
from vqclip.runs.api import sample
from vqclip.runs.networks import LOADERS, Networks
from vqclip.runs.output import Output
from vqclip.runs.sample import resume
from vqclip.runs.sample_dir import SampleDir

CODES = 9  # of a picture
LANES_CODES = 8 * CODES


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"}  # fmt: skip


def after(codes):
    return lambda done, total: done > codes


@pytest.fixture
def drawn(monkeypatch):
    """Return the candidates that are drawn from here on, a group a time."""
    found, plain = [], Dalle.sample

    def watched(self, text, candidates, **more):
        found.append(list(candidates))
        return plain(self, text, candidates, **more)

    monkeypatch.setattr(Dalle, "sample", watched)
    return found


# ---- vqclip sample


@pytest.mark.parametrize("way", ["same call", "resume"])
@pytest.mark.parametrize("codes", [0, 30, LANES_CODES, LANES_CODES + 20, 2 * LANES_CODES])
def test_a_sample_that_was_stopped_ends_with_the_same_bytes(tmp_path, drawn, way, codes):
    sample("a", count=19, keep=3, seed=3, out=tmp_path / "whole")
    part = sample("a", count=19, keep=3, seed=3, out=tmp_path / "part", on_code=after(codes))
    whole_groups = codes // LANES_CODES
    assert len(part.candidates) == 8 * whole_groups
    assert len(part.paths) == (3 if whole_groups else 0)
    drawn.clear()
    made = (
        resume(tmp_path / "part") if way == "resume" else sample("a", count=19, keep=3, seed=3, out=tmp_path / "part")
    )
    assert drawn == [list(range(0, 8)), list(range(8, 16)), list(range(16, 19))][whole_groups:]
    assert len(made.candidates) == 19
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_what_was_ranked_when_it_was_stopped_makes_room(tmp_path):
    part = sample("a", count=16, keep=2, seed=3, out=tmp_path, on_code=after(LANES_CODES))
    assert all(path.is_file() for path in part.paths)
    made = resume(tmp_path)
    assert {path.name for path in tmp_path.glob("*-candidate-*")} == {path.name for path in made.paths}


def test_a_seed_that_was_drawn_is_kept(tmp_path):
    first = sample("a", count=9, out=tmp_path, on_code=after(LANES_CODES))
    assert sample("a", count=9, out=tmp_path).seed == first.seed


def test_a_sample_that_is_done_is_written_again_the_same(tmp_path, drawn):
    sample("a", count=9, seed=3, out=tmp_path)
    before = files(tmp_path)
    drawn.clear()
    resume(tmp_path)
    assert (files(tmp_path), drawn) == (before, [])


def test_a_sample_that_is_done_loads_no_network(tmp_path, monkeypatch):
    first = sample("a", count=9, seed=3, out=tmp_path)
    before = files(tmp_path)
    for kind in list(LOADERS):
        monkeypatch.delitem(LOADERS, kind)
    for again in (sample("a", count=9, seed=3, out=tmp_path), resume(tmp_path)):
        assert (again.paths, again.drawn, again.total) == (first.paths, 0, 9)
        for one, other in zip(again.candidates, first.candidates, strict=True):
            assert (one.number, one.distance) == (other.number, pytest.approx(other.distance, abs=1e-6))
            assert (one.picture.tobytes(), one.codes.tolist()) == (other.picture.tobytes(), other.codes.tolist())
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["grid.png", "candidates.json", "01", "02"])
@pytest.mark.parametrize("damage", [None, b"damaged"])
def test_what_is_damaged_of_a_sample_that_is_done_is_made_again(tmp_path, name, damage):
    sample("a", count=9, keep=2, seed=3, out=tmp_path)
    whole = files(tmp_path)
    (path,) = tmp_path.glob(f"{name}*")
    path.write_bytes(damage) if damage else path.unlink()
    resume(tmp_path)
    assert files(tmp_path) == whole


def test_what_was_done_before_is_told(run_here):
    args = ("sample", "a", "--count", 2, "--seed", 5, "-o", "here")
    assert "2 candidates in " in run_here(*args).err
    for again in (args, ("resume", "here")):
        assert "2 candidates, all of them done before, seed 5; the best is candidate " in run_here(*again).err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seed": 4}, "seed 3, not 4"),
        ({"count": 10}, "count 9, not 10"),
        ({"keep": 1}, "keep 4, not 1"),
        ({"guidance": 2.0, "top_k": 9}, "guidance 4.0, not 2.0, top-k 256, not 9"),
        ({"clips": ("tiny", "x:y")}, "clip 'tiny', not 'tiny,x:y'"),
        ({"metadata": False}, "metadata True, not False"),
    ],
)
def test_another_commands_candidates_are_left_alone(tmp_path, more, told):
    sample("a", **{"count": 9, "seed": 3}, out=tmp_path, on_code=after(LANES_CODES))
    before = files(tmp_path)
    with pytest.raises(OutputExists, match=f"another command: {re.escape(told)}$"):
        sample("a", **({"count": 9, "seed": 3} | more), out=tmp_path)
    assert files(tmp_path) == before


def test_overwriting_leaves_nothing_of_before(tmp_path):
    sample("a", count=9, keep=9, seed=3, out=tmp_path / "one")
    for name in ("one", "two"):
        sample("a", count=3, keep=1, seed=4, out=tmp_path / name, overwrite=True)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.full
@pytest.mark.parametrize("damage", ["", "[]", "{", '{"schema": "x"}', "cut", "code", "short", "table", "text"])
def test_codes_that_are_damaged_are_drawn_again(tmp_path, drawn, damage):
    whole = files(sample("a", count=9, seed=3, out=tmp_path / "whole").folder)
    sample("a", count=9, seed=3, out=tmp_path / "part", on_code=after(LANES_CODES))
    path = tmp_path / "part" / "candidates.json"
    told = json.loads(path.read_text())
    if damage == "code":
        told["codes"][0][0] = 64
    if damage == "short":
        told["codes"][0].pop()
    if damage in ("table", "text"):
        told["codes"] = {} if damage == "table" else ""
    text = {"cut": path.read_text()[:-9]} | dict.fromkeys(("code", "short", "table", "text"), json.dumps(told))
    text = text.get(damage, damage)
    path.write_text(text)
    drawn.clear()
    resume(tmp_path / "part")
    assert drawn == [list(range(8)), [8]]
    assert files(tmp_path / "part") == whole


def test_no_two_processes_fill_one_folder(tmp_path):
    with SampleDir(tmp_path), pytest.raises(RunLocked):
        sample("a", count=1, seed=1, out=tmp_path)


def test_other_models_are_refused(tmp_path, monkeypatch):
    sample("a", count=9, seed=3, out=tmp_path, on_code=after(LANES_CODES))
    monkeypatch.setattr(ModelEntry, "sha256", lambda card: "f" * 64)
    with pytest.raises(InputError, match="other models"):
        resume(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "vqclip-sample/1", "plan": {"keep": 0}}'])
def test_a_damaged_record_is_said(tmp_path, text):
    (tmp_path / "sample.json").write_text(text)
    with pytest.raises(InputError, match=r"sample\.json can't be read"):
        resume(tmp_path)
    with pytest.raises(OutputExists):
        sample("a", count=1, seed=1, out=tmp_path)


@pytest.mark.parametrize(
    "changed", [{"seed": "x"}, {"seed": None}, {"seed": -1}, {"init": "grey"}, {"init_image": "a.png"}, {"top_k": None}]
)
def test_settings_that_no_sample_has_are_said(tmp_path, changed):
    sample("a", count=1, seed=1, out=tmp_path)
    record = json.loads((tmp_path / "sample.json").read_text())
    settings = {name: value for name, value in (record["settings"] | changed).items() if value is not None}
    (tmp_path / "sample.json").write_text(json.dumps(record | {"settings": settings}))
    with pytest.raises(InputError, match=r"sample\.json: "):
        resume(tmp_path)
    with pytest.raises(OutputExists):
        sample("a", count=1, out=tmp_path)


@pytest.fixture
def one_thread():
    """No thread of torch's own: a forked child would wait for ever for those that its parent had."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def killed(act):
    """Do something in a child that is killed on its way; say whether it was. Needs `one_thread`."""
    child = os.fork()
    if not child:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.full
def test_a_sample_that_is_killed_at_any_write_ends_with_the_same_bytes(tmp_path, monkeypatch, one_thread):
    """Before each file that is put in its place, and after it."""
    whole = files(sample("a", count=17, keep=2, seed=3, out=tmp_path / "whole").folder)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    writes, die_at = [0], [0]

    def mortal(path, data, **more):
        writes[0] += 1
        if writes[0] * 2 - 1 == die_at[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomic(path, data, **more)
        if writes[0] * 2 == die_at[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    for module in (vqclip.runs.sample_dir, vqclip.runs.candidates):
        monkeypatch.setattr(module, "write_atomic", mortal)
    for number in range(1, 17):  # record, three groups, grid, two pictures, record: eight writes
        writes[0], die_at[0], out = 0, number, tmp_path / str(number)
        assert killed(lambda out=out: sample("a", count=17, keep=2, seed=3, out=out))
        die_at[0] = 0
        sample("a", count=17, keep=2, seed=3, out=out)
        assert files(out) == whole
    assert not killed(lambda: sample("a", count=17, keep=2, seed=3, out=tmp_path / "last"))


def test_ctrl_c_ranks_what_is_whole_and_says_how_to_go_on(run_here, monkeypatch):
    from vqclip.cli.progress import Reporter

    plain, stop = Reporter.candidates, [True]

    def candidates(self, done, total):
        if stop and done > LANES_CODES:
            stop.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, done, total)

    monkeypatch.setattr(Reporter, "candidates", candidates)
    args = ("sample", "a", "--count", 12, "--keep", 2, "--seed", 5)
    done = run_here(*args, "-o", "part")
    assert (done.code, len(done.out.splitlines())) == (130, 2)
    assert "8 of 12 candidates" in done.err
    assert done.lines[-1] == "go on with: vqclip resume part"
    resumed, whole = run_here("resume", "part"), run_here(*args, "-o", "whole")
    assert (resumed.code, whole.code) == (0, 0)
    assert resumed.out == whole.out.replace("whole", "part")
    assert "12 candidates, 4 of them now, in " in resumed.err


def test_ctrl_c_before_any_candidate_is_whole_says_when_they_get_so(run_here, monkeypatch):
    from vqclip.cli.progress import Reporter

    monkeypatch.setattr(Reporter, "candidates", lambda self, done, total: os.kill(os.getpid(), signal.SIGINT))
    done = run_here("sample", "a", "--count", 12, "--seed", 5, "-o", "part")
    assert (done.code, done.out) == (130, "")
    assert "0 of 12 candidates (candidates are finished in groups of 8) in " in done.err
    assert done.lines[-1] == "go on with: vqclip resume part"


def test_fewer_candidates_than_are_to_be_kept_are_told(run_here):
    assert "keep is 5, of 3 candidates" in run_here("sample", "a", "--count", 3, "--keep", 5).err
    assert "keep is" not in run_here("sample", "a", "--count", 3).err


def test_a_samples_folder_says_what_of_it_can_be_filmed(run_here):
    run_here("sample", "a", "--count", 2, "--seed", 5, "-o", "here")
    done = run_here("video", "here")
    assert (done.code, done.lines[0]) == (4, "error: here is a sample's folder, which has no frames")
    assert "vqclip video 'here/*-candidate-*.png'" in done.lines[1]
    assert len(vqclip.video.frames.find_sources(["here/*-candidate-*.png"])[0].frames) == 2


@pytest.mark.full
@pytest.mark.parametrize("codes", [LANES_CODES, 10 * LANES_CODES])
@pytest.mark.parametrize("way", ["same call", "resume"])
def test_a_sample_of_before_a_setting_was_added_goes_on(tmp_path, drawn, monkeypatch, way, codes):
    first = vqclip.runs.sample_dir.FIRST_SETTINGS - {"long_prompts"}
    monkeypatch.setattr(vqclip.runs.sample_dir, "FIRST_SETTINGS", first)
    sample("a", count=19, keep=3, seed=3, out=tmp_path / "whole")
    sample("a", count=19, keep=3, seed=3, out=tmp_path / "part", on_code=after(codes))
    record = json.loads((tmp_path / "part" / "sample.json").read_text())
    del record["settings"]["long_prompts"]
    (tmp_path / "part" / "sample.json").write_text(json.dumps(record))
    drawn.clear()
    if way == "resume":
        resume(tmp_path / "part")
    else:
        sample("a", count=19, keep=3, seed=3, out=tmp_path / "part")
    if codes > 19 * CODES:
        assert drawn == []
    else:
        assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_a_sample_cant_change_on_its_way(run_here):
    run_here("sample", "a", "--count", 2, "--seed", 5, "-o", "here")
    done = run_here("resume", "here", "--steps", 9)
    assert (done.code, "can't change" in done.err) == (2, True)


# ---- generate --init sample


class Stop(KeyboardInterrupt):
    pass


def stop_after(codes):
    def on_code(done, total):
        if done > codes:
            raise Stop

    return on_code


def test_a_run_that_was_stopped_while_its_start_was_drawn_goes_on(tmp_path, drawn):
    whole = vqclip.generate(settings(steps=4, init_weight=0.5), runs=tmp_path / "whole")
    with pytest.raises(Stop):
        vqclip.generate(settings(steps=4, init_weight=0.5), runs=tmp_path / "part", on_code=stop_after(LANES_CODES))
    (run,) = (tmp_path / "part").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert not (run / "final.png").exists()
    drawn.clear()
    done = vqclip.resume(run)
    assert drawn == [[8]]
    assert done.picture.tobytes() == whole.picture.tobytes()
    assert (run / "final.png").read_bytes() == (whole.run / "final.png").read_bytes()


def test_a_run_that_was_killed_while_its_start_was_drawn_goes_on(tmp_path, drawn, one_thread):
    whole = vqclip.generate(settings(steps=4), runs=tmp_path / "whole")

    def die(done, total):
        if done > LANES_CODES:
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: vqclip.generate(settings(steps=4), runs=tmp_path / "part", on_code=die))
    (run,) = (tmp_path / "part").iterdir()
    drawn.clear()
    vqclip.resume(run)
    assert drawn == [[8]]
    assert (run / "final.png").read_bytes() == (whole.run / "final.png").read_bytes()


def test_a_run_that_is_stopped_while_its_start_is_drawn_names_no_file(tmp_path):
    result = vqclip.generate(settings(steps=4), runs=tmp_path / "runs", out=tmp_path / "out.png", on_code=after(0))
    assert (result.status, result.picture, result.path) == ("stopped", None, None)


def test_a_run_that_goes_on_draws_no_candidate_again(tmp_path, drawn):
    part = vqclip.generate(settings(steps=4, init_weight=1.0), runs=tmp_path, on_step=lambda step: step.step == 2)
    drawn.clear()
    vqclip.resume(part.run)
    assert drawn == []


def test_ctrl_c_while_the_start_is_drawn_is_answered(run_here, monkeypatch):
    from vqclip.cli.progress import Reporter

    plain, stop = Reporter.candidates, [True]

    def candidates(self, done, total):
        if stop and done > LANES_CODES:
            stop.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, done, total)

    monkeypatch.setattr(Reporter, "candidates", candidates)
    args = (
        "generate",
        "a",
        "--init",
        "sample",
        "--size",
        12,
        "--steps",
        2,
        "--cutouts",
        2,
        "--candidates",
        9,
        "--seed",
        5,
    )
    done = run_here(*args)
    assert (done.code, done.out) == (130, "")
    assert "go on with: vqclip resume runs/a-5" in done.err
    resumed, whole = run_here("resume", "runs/a-5"), run_here(*args)
    assert (resumed.out.strip(), whole.out.strip()) == ("runs/a-5/final.png", "runs/a-5-2/final.png")
    assert Path("runs/a-5/final.png").read_bytes() == Path("runs/a-5-2/final.png").read_bytes()


def test_a_bar_tells_of_the_codes(capsys, monkeypatch):
    from vqclip.cli import progress

    monkeypatch.setattr(progress, "MOMENT_S", -1.0)
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", -1.0)
    with progress.Reporter() as reporter:
        vqclip.generate(settings(), progress=reporter)
    assert "candidates: code 72 of 81" in capsys.readouterr().err.splitlines()


def test_a_start_that_was_drawn_is_made_again_by_rerun(run_here):
    args = (
        "--init",
        "sample",
        "--size",
        12,
        "--steps",
        2,
        "--cutouts",
        2,
        "--candidates",
        9,
        "--candidate-weight",
        0.5,
    )
    first = run_here("generate", "a", *args, "--seed", 5, "-o", "one.png")
    assert first.code == 0
    again = run_here("rerun", "one.png", "-o", "two.png")
    assert (again.code, again.out) == (0, "two.png\n")
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert (one.tobytes(), one.info) == (two.tobytes(), two.info)


def test_a_weight_makes_the_best_candidate_an_image_prompt():
    plain, pulled = vqclip.prepare(settings()), vqclip.prepare(settings(candidate_weight=0.5))
    starts = plain.start(), pulled.start()
    assert torch.equal(starts[0].z, starts[1].z)
    picture = pulled.picture(starts[1].z)  # what it was decoded from is the start itself
    embed = embed_image_prompt(pulled.clips[0], picture, pulled.device)
    assert torch.allclose(starts[1].targets[0].embeds[-1], embed[0], atol=1e-5)
    assert starts[1].targets[0].weights.tolist() == [1.0, 0.5]
    assert starts[0].targets[0].weights.tolist() == [1.0]


def test_the_pull_is_there_from_the_first_step():
    steps = [next(vqclip.prepare(settings(candidate_weight=weight)).steps()) for weight in (0.0, 5.0)]
    assert steps[0].losses["prompt"] != steps[1].losses["prompt"]


def test_the_pull_is_there_again_when_a_run_goes_on(tmp_path):
    values = settings(steps=4, candidate_weight=2.0)
    whole = vqclip.generate(values, runs=tmp_path / "whole")
    part = vqclip.generate(values, runs=tmp_path / "part", on_step=lambda step: step.step == 2)
    assert vqclip.resume(part.run).picture.tobytes() == whole.picture.tobytes()


def test_a_drawn_start_that_stays_as_near_as_it_was_reads_as_no_harm(run_here):
    still = ("--init", "sample", "--candidates", 2, "--size", 12, "--seed", 5, "--steps", 1, "--step-size", 0.001)
    done = run_here("generate", "a", *still, "--json")
    (line,) = [line for line in done.err.splitlines() if line.startswith("distance of the whole image")]
    assert re.findall(r"\d+\.\d+", line) == [f"{json.loads(done.out)['distance']:.3f}"]


def test_no_steps_are_the_best_candidate_itself(run_here):
    made = sample("a", count=9, seed=5)
    args = ("generate", "a", "--init", "sample", "--candidates", 9, "--size", 12, "--seed", 5, "--steps", 0)
    done = run_here(*args, "--json")
    told = json.loads(done.out)
    assert (done.code, told["status"], told["steps"], told["distance"]) == (
        0, "done", 0, pytest.approx(made.candidates[0].distance, abs=1e-3)
    )  # fmt: skip
    assert "no steps: the best candidate as it is" in done.err
    with Image.open(told["path"]) as picture:
        assert picture.convert("RGB").tobytes() == made.candidates[0].picture.tobytes()


def test_a_run_without_steps_goes_on_as_one_that_had_them_from_the_first(tmp_path, drawn):
    whole = vqclip.generate(settings(steps=3), runs=tmp_path / "whole")
    none = vqclip.generate(settings(steps=0), runs=tmp_path / "none")
    del drawn[:]
    more = vqclip.resume(none.run, steps=3)
    assert (more.steps, drawn) == (3, [])
    assert more.picture.tobytes() == whole.picture.tobytes()


def test_no_steps_want_a_start_that_is_drawn(run_here):
    done = run_here("generate", "a", "--steps", 0)
    assert (done.code, done.out) == (2, "")
    assert "steps" in done.err
    assert "init sample" in done.err


# ---- in batches


def rows(count):
    return [row(f"row-{k}", settings(seed=k, steps=3, candidate_weight=k / 2)) for k in range(count)]


def work(folder, size=1):
    folder.mkdir(exist_ok=True)
    return Work(folder, Output(frames_every=0), "cpu", size)


@pytest.fixture
def loads(monkeypatch):
    found, plain = [], LOADERS["dalle"]
    monkeypatch.setitem(LOADERS, "dalle", lambda name, device: (found.append(name), plain(name, device))[1])
    return found


@pytest.mark.parametrize("size", [1, 3])
def test_rows_load_the_model_once_and_are_the_runs_alone(tmp_path, loads, size):
    outcomes = list(Worker(work(tmp_path / "runs", size)).run(rows(3)))
    assert [(one.status, one.steps) for one in outcomes] == [("done", 3)] * 3
    assert loads == ["tiny"]
    for task in rows(3):
        alone = vqclip.generate(task.settings)
        with Image.open(tmp_path / "runs" / task.name / "final.png") as picture:
            assert picture.tobytes() == alone.picture.tobytes()


@pytest.mark.full
@pytest.mark.parametrize("size", [1, 2])
def test_rows_that_are_stopped_while_they_are_drawn_go_on(tmp_path, drawn, size):
    calls = [0]

    def stop(rows, step, steps):
        calls[0] += 1
        return calls[0] > CODES + 3

    outcomes = list(Worker(work(tmp_path / "runs", size), AskAfterSteps(stop)).run(rows(2)))
    assert {one.status for one in outcomes} == {"stopped"}
    assert {one.steps for one in outcomes} == {0}
    list(Worker(work(tmp_path / "runs", size)).run(rows(2)))
    assert drawn.count(list(range(8))) == 2  # the first row's were kept
    for task in rows(2):
        with Image.open(tmp_path / "runs" / task.name / "final.png") as picture:
            assert picture.tobytes() == vqclip.generate(task.settings).picture.tobytes()


def test_a_batch_file_of_rows_that_are_drawn(run_here, monkeypatch):
    monkeypatch.setattr("vqclip.batch.rows.find", lambda kind, name: None)
    Path("rows.csv").write_text(
        "prompt,init,candidates,size,steps,cutouts,seed\na,sample,9,12,2,2,5\na,sample,3,12,2,2,6\n"
    )
    done = run_here("batch", "rows.csv", "-o", "out")
    assert done.code == 0
    assert len(list(Path("out").glob("*.png"))) == 3  # a picture a row, and the sheet
    assert "2 done" in run_here("batch", "rows.csv", "-o", "out").err


@pytest.mark.parametrize("size", [1, 2])
def test_rows_without_steps_are_what_sample_draws(tmp_path, size):
    """A batch of samples: of every row the best candidate, as it is."""
    tasks = [row(f"row-{k}", settings(seed=k, steps=0)) for k in range(2)]
    outcomes = list(
        Worker(work(tmp_path / "runs", size), AskAfterSteps(lambda rows, step, steps: step > steps)).run(tasks)
    )
    assert [(one.status, one.steps) for one in outcomes] == [("done", 0)] * 2
    for task in tasks:
        best = sample("a", count=9, seed=task.settings.seed).candidates[0]
        with Image.open(tmp_path / "runs" / task.name / "final.png") as picture:
            assert picture.convert("RGB").tobytes() == best.picture.tobytes()


def test_a_batch_file_without_steps(run_here, monkeypatch):
    monkeypatch.setattr("vqclip.batch.rows.find", lambda kind, name: None)
    Path("rows.txt").write_text("a\na a\n")
    args = ("rows.txt", "-o", "out", "--steps", 0, "--set", "init=sample", "--set", "size=12", "--set", "candidates=2")
    done = run_here("batch", *args)
    assert (done.code, len(list(Path("out").glob("*.png")))) == (0, 3)
    assert "2 done" in run_here("batch", *args).err


def test_a_row_whose_model_is_missing_is_named_before_any_is_drawn(run_here, monkeypatch):
    Path("rows.csv").write_text("prompt,init,vqgan\na,sample,wikiart\n")
    done = run_here("batch", "rows.csv", "-o", "out")
    assert done.code == 4
    assert not Path("out").exists()


# ---- folders that others fill


@pytest.mark.parametrize("name", ["grid.png", "latest.png", "candidates.json", "01-candidate-07.png"])
def test_files_that_no_sample_left_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputExists, match=name):
        sample("a", count=1, seed=1, out=tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    sample("a", count=1, seed=1, out=tmp_path, overwrite=True)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    sample("a", count=1, seed=1, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_sample_is_shown_as_its_pictures_are(run_here):
    run_here("sample", "a", "--count", 6, "--seed", 5, "-o", "here")
    done = run_here("show", "here")
    assert done.code == 0
    ranked = json.loads(Path("here/sample.json").read_text())["candidates"]
    told = ", ".join(f"{one['candidate']} ({one['distance']})" for one in ranked[:4])
    for text in (done.out, run_here("show", "here/grid.png").out):
        assert f"best candidates      {told}; 2 more (in brackets the distance)\n" in text
        assert text.count("\ncandidates ") == 1
    assert done.out.startswith("prompt               a\nseed                 5\n")
    assert json.loads(run_here("show", "here", "--json").out)["status"] == "done"


# ---- memory


def test_a_model_is_weighed_by_its_header(tmp_path):
    from safetensors.torch import save_file

    from tests.unit.runs.test_sample import SHAPE, DalleBart

    model = DalleBart(SHAPE)
    save_file(
        {name: value.half().contiguous() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    floats = 4 * sum(p.numel() for p in model.parameters())
    loading, drawing = memory_needed(tmp_path / "model.safetensors", 8)
    assert loading == floats + (tmp_path / "model.safetensors").stat().st_size
    # 1 layer; 16 rows of 9 places and 2 of 6 words, keys and values, 8 wide, in float32
    assert drawing == floats + 2 * 8 * 4 * (16 * 9 + 2 * 6)


def test_what_is_no_model_weighs_nothing(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 30)
    assert memory_needed(tmp_path / "model.safetensors", 8) == (0, 0)


def test_too_little_memory_is_said_before_the_model_is_loaded(tmp_path, monkeypatch, loads):
    monkeypatch.setattr(vqclip.runs.memory, "memory_needed", lambda weights, batch_size: (3 * 2**40, 2**40))
    for act in (lambda: sample("a", seed=1), lambda: vqclip.generate(settings(), runs=tmp_path / "runs")):
        with pytest.raises(OutOfMemory, match=r"the Mini DALL-E 'tiny' needs about \d+"):
            act()
    assert not loads
    assert not (tmp_path / "runs").exists()
    vqclip.generate(settings(init="grey"))


def test_a_model_that_is_there_already_needs_no_room(monkeypatch):
    networks = Networks()
    session = vqclip.prepare(settings(), networks=networks)
    assert session.start()
    monkeypatch.setattr(vqclip.runs.memory, "memory_needed", lambda weights, batch_size: (2**45, 2**45))
    assert vqclip.runs.memory.fit_memory(dataclasses.replace(session), fit=False) == {}
