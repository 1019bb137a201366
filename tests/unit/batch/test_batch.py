"""A file of prompts becomes a folder of pictures, whatever happens on the way."""

import csv
import io
import json
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip
from tests.support.runs import AskAfterSteps, contents, differing, frames_at_once, row, touched
from vqclip.batch.manifest import Entry, Manifest, read_manifest
from vqclip.batch.progress import BatchProgress
from vqclip.batch.rows import Row
from vqclip.batch.run import run_batch
from vqclip.batch.worker import Work, Worker
from vqclip.config.resolve import resolve
from vqclip.errors import ModelError, OutputError
from vqclip.files.images import load_image, to_tensor
from vqclip.report.tables import write_tables
from vqclip.runs.networks import LOADERS
from vqclip.runs.output import Interval, Output
from vqclip.runs.rank import rank

FAST = {"steps": 3, "size": (32, 32), "cutouts": 2, "preset_name": "tiny"}
SET = ("--steps", "3", "--size", "32x32", "--set", "cutouts=2")
PROMPTS = ["a red heart", "an owl | text:-0.5", "a tree:2 | a lake | night:0.5"]


def settings(prompt, seed, **more):
    return resolve(prompt, seed=seed, **(FAST | more))


def work(folder, **more):
    return Work(folder / "runs", Output(frames_every=1, checkpoint_every=Interval(steps=1)), "cpu", **more)


def tasks():
    return [row(f"row-{k}", settings(prompt, k)) for k, prompt in enumerate(PROMPTS)]


def solo(folder, task):
    """Make the run alone, by generate; return its contents."""
    made = vqclip.generate(task.settings, runs=folder / task.name, frames_every=1, checkpoint_every="1", device="cpu")
    return contents(made.run)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_row_is_its_solo_run_byte_by_byte_however_many_stand_beside_it(networks, tmp_path, size):
    (tmp_path / "runs").mkdir()
    ended = list(Worker(work(tmp_path, batch_size=size)).run(tasks()))
    assert [outcome.status for outcome in ended] == ["done"] * 3
    for task in tasks():
        assert differing(contents(tmp_path / "runs" / task.name), solo(tmp_path / "solo", task)) == []


def test_a_batch_makes_a_folder_of_pictures(vq, tmp_path):
    (tmp_path / "p.txt").write_text("# two\na red heart\n\nan owl\n", encoding="utf-8")
    done = vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--seeds", "4-5", *SET)
    assert (done.code, done.out) == (0, f"{tmp_path / 'out'}\n")
    names = ["0001-a-red-heart-4", "0002-a-red-heart-5", "0003-an-owl-4", "0004-an-owl-5"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("0*.png")) == names
    for name in names:
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == (
            tmp_path / "out/runs" / name / "final.png"
        ).read_bytes()


def rows(prompts=PROMPTS, **more):
    return [Row(f"p.txt:{k + 1}", k, settings(prompt, k, **more)) for k, prompt in enumerate(prompts)]


def batch(folder, given, *, step=lambda *_: False, size=1, retry=False):
    """Run a batch; return its entries."""
    manifest = Manifest(folder)
    try:
        return run_batch(
            manifest,
            manifest.add(given, "{index}-{slug}-{seed}"),
            work(folder, batch_size=size),
            retry=retry,
            progress=AskAfterSteps(step),
        )
    finally:
        manifest.close()


def alone(folder, given):
    """Return the contents of each row's solo run."""
    return [solo(folder, row(str(k), one.settings)) for k, one in enumerate(given)]


def compare(folder, entries, expected):
    for entry, whole in zip(entries, expected, strict=True):
        assert differing(contents(folder / "runs" / entry.name), whole) == []
        assert (folder / f"{entry.name}.png").read_bytes() == whole["final.png"]


def after(count, act):
    """Return an on_step that acts once, at the so-manieth step."""
    seen = [0]

    def step(*_):
        seen[0] += 1
        return act() if seen[0] == count else False

    return step


def test_rows_run_side_by_side_to_the_same_bytes(networks, tmp_path, monkeypatch):
    monkeypatch.setenv("VQCLIP_THREADS", "3")
    seen = set()
    entries = batch(tmp_path / "a", rows(), step=lambda *_: bool(seen.add(threading.get_ident())))
    assert [entry.status for entry in entries] == ["done"] * 3
    assert len(seen) > 1
    assert networks.loaded == ["tiny", "tiny"]  # a VQGAN and a CLIP for all rows
    compare(tmp_path / "a", entries, alone(tmp_path / "solo", rows()))


@pytest.mark.parametrize(("size", "more"), [(1, {}), (2, {}), (2, {"latent": "logits", "optimizer": "diffgrad"})])
def test_a_batch_that_was_stopped_goes_on_to_the_same_bytes(networks, tmp_path, size, more):
    given = rows(**more)
    first = batch(tmp_path / "a", given, step=after(2, lambda: True), size=size)
    assert sorted(entry.status for entry in first) == ["pending"] * (3 - size) + ["stopped"] * size
    second = batch(tmp_path / "a", given, size=size)
    assert [entry.status for entry in second] == ["done"] * 3
    compare(tmp_path / "a", second, alone(tmp_path / "solo", given))


def test_rows_that_were_stopped_at_different_steps_go_on_to_the_same_bytes(networks, tmp_path):
    first = batch(tmp_path / "a", rows(), step=after(2, lambda: True), size=3)
    behind = tmp_path / "a/runs" / first[1].name / "state.safetensors"
    behind.with_suffix(".safetensors.prev").replace(behind)  # as if it had been killed a step before the others
    second = batch(tmp_path / "a", rows(), size=3)
    compare(tmp_path / "a", second, alone(tmp_path / "solo", rows()))


def test_what_sigkill_leaves_goes_on_to_the_same_bytes(networks, tmp_path):
    def keep():
        shutil.copytree(tmp_path / "a", tmp_path / f"b{len(copies)}")
        copies.append(tmp_path / f"b{len(copies)}")

    copies = []
    with frames_at_once():
        batch(tmp_path / "a", rows(), step=lambda *_: keep(), size=2)
    expected = alone(tmp_path / "solo", rows())
    assert len(copies) == 6  # three steps of two rows, and three of one
    for copy in copies:
        compare(copy, batch(copy, rows(), size=2), expected)


def test_what_is_done_is_left_alone(networks, tmp_path):
    batch(tmp_path, rows())
    before = touched(tmp_path / "runs")
    steps = []
    batch(tmp_path, rows(), step=lambda *numbers: steps.append(numbers))
    assert steps == []
    assert touched(tmp_path / "runs") == before


def test_new_lines_are_drawn_and_old_ones_keep_their_names(networks, tmp_path):
    first = batch(tmp_path, rows())
    more = [Row("p.txt:1", 0, settings("a new one", 9)), *rows()]
    second = batch(tmp_path, more)
    assert [entry.name for entry in second] == ["4-a-new-one-9", *(entry.name for entry in first)]
    assert [entry.status for entry in second] == ["done"] * 4


def test_a_drawn_seed_is_kept_for_the_next_call(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\nan owl\n")
    assert vq("batch", tmp_path / "p.txt", "-o", "out", *SET).code == 0
    names = {path.name for path in (tmp_path / "here/out/runs").iterdir()}
    again = vq("batch", tmp_path / "p.txt", "-o", "out", *SET)
    assert "2 rows, 2 of them done already" in again.err
    assert {path.name for path in (tmp_path / "here/out/runs").iterdir()} == names


@pytest.fixture
def poison(networks, monkeypatch):
    """Let the text "poison" have no embedding."""
    whole = networks.clip.encode_text

    def encode_text(texts):
        return torch.stack([row * (float("nan") if text == "poison" else 1) for text, row in zip(texts, whole(texts))])

    monkeypatch.setattr(networks.clip, "encode_text", encode_text)
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_row_that_diverges_stops_no_other(poison, tmp_path, size):
    given = rows(["a red heart", "poison", "an owl", "a tree"])
    ended = batch(tmp_path / "a", given, size=size)
    assert [entry.status for entry in ended] == ["done", "failed", "done", "done"]
    assert "not a number" in ended[1].error or "nan" in ended[1].error
    sound = [0, 2, 3]
    compare(tmp_path / "a", [ended[k] for k in sound], alone(tmp_path / "solo", [given[k] for k in sound]))


def test_a_row_that_can_not_be_written_stops_no_other(networks, tmp_path, monkeypatch):
    from vqclip.runs.recorder import Recorder

    whole = Recorder.record

    def step(self, step):
        if self.session.settings.seed == 1 and step.step == 2:
            raise OutputError("the disk is full", "free some")
        whole(self, step)

    monkeypatch.setattr(Recorder, "record", step)
    ended = batch(tmp_path / "a", rows(), size=3)
    assert [(entry.status, entry.error) for entry in ended] == [
        ("done", ""),
        ("failed", "the disk is full"),
        ("done", ""),
    ]
    monkeypatch.undo()


def test_failed_rows_wait_to_be_asked_for(poison, tmp_path, monkeypatch):
    given = rows(["a red heart", "poison"])
    batch(tmp_path, given)
    assert [entry.status for entry in batch(tmp_path, given)] == ["done", "failed"]
    monkeypatch.undo()


def test_rows_whose_memory_runs_out_together_go_on_alone(networks, tmp_path, monkeypatch):
    import vqclip.batch.stacked

    whole, sizes = vqclip.batch.stacked.optimize, []

    def optimize(inputs, z, **more):
        sizes.append(len(z))
        for step in whole(inputs, z, **more):
            yield step
            if step.step == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vqclip.batch.stacked, "optimize", optimize)
    given = rows([*PROMPTS, "a fish"])
    ended = batch(tmp_path / "a", given, size=4)
    assert sizes == [4]
    assert [entry.status for entry in ended] == ["done"] * 4
    compare(tmp_path / "a", ended, alone(tmp_path / "solo", given))


def test_cutouts_are_seen_in_a_batch_as_in_a_run_alone(networks, tmp_path, monkeypatch):
    seen, plain = [], type(networks.clip).encode_image
    monkeypatch.setattr(networks.clip, "encode_image", lambda x: seen.append(len(x)) or plain(networks.clip, x))
    batch(tmp_path / "a", rows(PROMPTS[:2], steps=1, coarse=0.0, cutouts=12), size=2)
    # after the estimates: what a run alone shows at once, of one image after the other; then the finished images
    assert seen[-6:] == [8, 8, 4, 4, 1, 1]


def test_models_are_loaded_once(networks, tmp_path):
    batch(tmp_path, rows())
    assert networks.loaded == ["tiny", "tiny"]


def test_a_batch_with_failures_has_exit_code_3(poison, run_here, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\npoison\n")
    done = run_here("batch", tmp_path / "p.txt", "-o", "out", "--preset", "tiny", *SET)
    assert done.code == 3
    assert "1 done, 1 failed" in done.lines
    assert any("p.txt:2) failed: " in line for line in done.lines)


def test_a_batch_that_is_stopped_has_exit_code_130(vq, tmp_path, monkeypatch):
    from vqclip.cli.batch_bar import BatchReporter

    whole = BatchReporter.step

    def step(self, *numbers):
        if numbers[1] == 2:
            signal.raise_signal(signal.SIGINT)
        return whole(self, *numbers)

    monkeypatch.setattr(BatchReporter, "step", step)
    (tmp_path / "p.txt").write_text("a red heart\nan owl\n")
    done = vq("batch", tmp_path / "p.txt", "-o", "out", "--preset", "tiny", *SET)
    assert done.code == 130
    assert [entry.status for entry in read_manifest(tmp_path / "here/out").values()] == ["stopped", "pending"]
    monkeypatch.setattr(BatchReporter, "step", whole)
    assert vq("batch", tmp_path / "p.txt", "-o", "out", "--preset", "tiny", *SET).code == 0


def test_two_calls_at_once_are_refused(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\n")
    held = Manifest(tmp_path / "out")
    assert vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--preset", "tiny", *SET).code == 11
    held.close()


def test_pictures_are_ranked_by_how_a_clip_likes_them(networks, tmp_path):
    for k, colour in enumerate(["red", "lime", "blue"]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{k}.png")
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    ranking = rank(paths, "a red heart:2 | an owl:-1", "tiny", "cpu")
    heart, owl = networks.clip.encode_text(["a red heart", "an owl"])
    for path, score in ranking:  # a flat picture looks alike whole and in parts
        seen = networks.clip.encode_image(to_tensor(load_image(path).resize((16, 16))))[0]
        assert score == pytest.approx(float(2 * heart @ seen - owl @ seen) / 3, abs=1e-5)
    assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)


def test_a_folder_of_images_is_a_row_each_and_strict_refuses_what_is_noted(vq, tmp_path):
    Path("in").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8), "red").save(f"in/{name}")
    Path("in/notes.txt").write_text("x")
    Path("p.csv").write_text("prompt,style\nan owl,oil\n")
    refused = vq("batch", "p.csv", "-o", "out", "--strict")
    assert refused.code == 4
    assert "style" in refused.err
    done = vq("batch", "p.csv", "-o", "out", "--init-images", "in", *SET)
    assert done.code == 0, done.err
    assert "style" in done.err
    entries = read_manifest(Path("out")).values()
    assert [Path(entry.settings.init_image).name for entry in entries] == ["a.png", "b.jpg"]


@pytest.mark.parametrize("prompt", ["=1+1", "+x", "-x", "@sum", "\tx"])
def test_no_cell_of_the_table_is_a_formula(tmp_path, prompt):
    settings = resolve("x", seed=1).model_copy(update={"prompt": prompt})
    entry = Entry(name="a", index=1, source=0, location="p:1", key="k", settings=settings, score=-0.5)
    write_tables(tmp_path, [entry])
    (row,) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert (row["prompt"], row["score"]) == (f"'{prompt}", "-0.5")
    assert json.loads((tmp_path / "results.jsonl").read_text())["prompt"] == prompt


def test_rank_prints_the_best_last(vq, tmp_path):
    for k, colour in enumerate(["red", "lime", "blue"]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{k}.png")
    names = [str(tmp_path / f"{k}.png") for k in range(3)]
    printed_json = json.loads(vq("rank", *names, "--prompt", "an owl", "--json").out)
    printed = vq("rank", *names, "--prompt", "an owl").out.splitlines()
    assert printed == [row["path"] for row in reversed(printed_json["ranking"])]
    assert vq("rank", tmp_path / "none.png", "--prompt", "an owl").code == 4


def test_rows_come_from_stdin_and_crosses_from_the_command_line(vq, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a {colour} heart\n")))
    done = vq("batch", "-", "-o", "out", "--cross", "colour=red,blue", "--cross", "seed=1-2", "--preset", "tiny", *SET)
    assert done.code == 0, done.err
    entries = list(read_manifest(tmp_path / "here/out").values())
    assert [entry.name for entry in entries] == [
        "0001-a-red-heart-1", "0002-a-red-heart-2", "0003-a-blue-heart-1", "0004-a-blue-heart-2"]  # fmt: skip
    assert [entry.location for entry in entries] == ["stdin:1"] * 4
    assert sorted(entry.rank for entry in entries) == [1, 1, 2, 2]  # seeds of a cross are ranked too


def test_a_ranker_that_is_not_there_is_said_before_any_work(vq, networks, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\n")
    assert vq("batch", tmp_path / "p.txt", "-o", "out", "--ranker", "nope", "--preset", "tiny", *SET).code == 5
    assert networks.loaded == []


def test_a_ranker_of_its_own_gives_every_row_a_score(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\nan owl\n")
    done = vq("batch", tmp_path / "p.txt", "-o", "out", "--ranker", "tiny", "--preset", "tiny", *SET, "--json")
    assert json.loads(done.out) == {"path": "out", "done": 2}
    assert any("tiny" in line and "--ranker" in line for line in done.lines)
    assert all(entry.score is not None for entry in read_manifest(tmp_path / "here/out").values())


def test_damaged_pictures_are_made_again(networks, tmp_path):
    first = batch(tmp_path / "a", rows())
    (tmp_path / "a/runs" / first[0].name / "final.png").write_bytes(b"\x89PNG")
    (tmp_path / "a" / f"{first[0].name}.png").unlink()
    (tmp_path / "a" / f"{first[1].name}.png").write_bytes(b"half")
    compare(tmp_path / "a", batch(tmp_path / "a", rows()), alone(tmp_path / "solo", rows()))


def test_a_picture_that_was_taken_away_is_missed_on_the_sheet_alone(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\nan owl\n")
    call = ("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--seeds", "4-4", "--preset", "tiny", *SET)
    assert vq(*call).code == 0
    (tmp_path / "out/0002-an-owl-4.png").unlink()
    (tmp_path / "p.txt").write_text("a red heart\n")
    done = vq(*call)
    assert done.code == 0, done.err


def test_a_ranker_that_fails_costs_no_table(vq, tmp_path, monkeypatch):
    def broken(name, device):
        raise ModelError("the ranker is damaged", "pull it again")

    (tmp_path / "p.txt").write_text("a red heart\n")
    call = ("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--preset", "tiny", *SET)
    assert vq(*call).code == 0
    reports = {"results.csv", "index.html", "sheet.png"}
    for name in reports:
        (tmp_path / "out" / name).unlink()
    monkeypatch.setitem(LOADERS, "clip", broken)
    assert vq(*call, "--ranker", "tiny").code == 5
    assert reports <= {path.name for path in (tmp_path / "out").iterdir()}


def test_what_ended_untold_has_its_seconds_and_its_distance(networks, tmp_path):
    ended = batch(tmp_path, rows())
    manifest = json.loads((tmp_path / "batch.json").read_text())
    for each in manifest["rows"]:
        each |= {"status": "pending", "error": "lost", "distance": None, "seconds": 0.0}
    (tmp_path / "batch.json").write_text(json.dumps(manifest))
    for before, after in zip(ended, batch(tmp_path, rows()), strict=True):
        assert (after.status, after.error, after.seconds) == ("done", "", before.seconds)
        assert after.distance == pytest.approx(before.distance, abs=1e-6)


def test_seconds_are_those_of_all_sittings(networks, tmp_path):
    batch(tmp_path, rows()[:1], step=after(2, lambda: True))
    run = tmp_path / "runs/1-a-red-heart-0/run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"seconds": 5000.0}))
    (entry,) = batch(tmp_path, rows()[:1])
    assert entry.seconds >= 5000  # rounded


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    (tmp_path / f".{'0' * 16}.part").touch()
    Manifest(tmp_path).close()
    assert not list(tmp_path.glob("*.part"))


def test_rows_of_the_same_networks_follow_each_other():
    from vqclip.batch.worker import _networks_first

    given = [row(f"{net}{steps}", settings("x", 1, steps=steps).model_copy(update={"vqgan": net}))
             for steps in (3, 4) for net in ("a", "b")]  # fmt: skip
    assert [task.name[0] for task in sorted(given, key=_networks_first)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(("command", "hint"), [("resume", "same vqclip batch command"), ("show", "one of its runs")])
def test_a_batchs_folder_is_no_run(vq, tmp_path, command, hint):
    (tmp_path / "here/batch.json").write_text("{}")
    done = vq(command, ".")
    assert (done.code, done.out, done.lines[0]) == (4, "", "error: . is a batch's folder")
    assert hint in done.lines[1]


def test_a_row_that_lost_against_its_seeds_is_kept_when_it_stands_alone(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\n")
    call = ("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--preset", "tiny", *SET)
    assert vq(*call, "--seeds", "4-5", "--keep", "best").code == 0
    lost = next(entry for entry in read_manifest(tmp_path / "out").values() if not entry.kept)
    assert vq(*call, "--seeds", f"{lost.settings.seed}-{lost.settings.seed}").code == 0
    assert (tmp_path / "out" / f"{lost.name}.png").is_file()
    assert read_manifest(tmp_path / "out")[lost.name].rank is None


def test_a_bad_row_is_named_once_however_often_it_is_crossed(vq, tmp_path):
    (tmp_path / "p.csv").write_text("prompt,steps\na,0\n")
    done = vq("batch", tmp_path / "p.csv", "-o", "out", "--cross", "seed=1-8")
    assert [line for line in done.lines if "p.csv:2" in line] == done.lines[:1]


def test_a_wrong_value_to_cross_with_is_not_blamed_on_the_file(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a\n")
    done = vq("batch", tmp_path / "p.txt", "-o", "out", "--cross", "steps=1,x")
    assert (done.code, "p.txt" in done.err, "'x'" in done.lines[0]) == (2, False, True)


def test_the_rate_is_that_of_this_sitting(monkeypatch, capsys):
    from vqclip.cli import batch_bar

    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    shown = batch_bar.BatchReporter()
    shown.rows(0, 2)
    for step, seconds in ((31, 500), (32, 20), (33, 20)):  # of 60; 30 were made before, and 500 s are loading
        clock[0] += seconds
        shown.step(["a"], step, 60)
    # 2 steps in 40 s, and 87 are left: 29 minutes; a twentieth of a row in a minute: 3 an hour
    assert capsys.readouterr().err.splitlines()[-1] == "rows 0 of 2, 3 an hour, 29.0 min left"


def test_the_bar_of_a_batch_that_is_stopped_never_goes_back(monkeypatch):
    from types import SimpleNamespace

    from vqclip.cli import batch_bar

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with batch_bar.BatchReporter() as shown:
        shown.rows(0, 3)
        shown.step(["a"], 1, 5)
        shown.step(["a"], 2, 5)
        shown.row(SimpleNamespace(name="a", status="stopped"))
        shown.step([], 0, 1)
    assert "0.4/3" in terminal.getvalue()
    assert "row/s" in terminal.getvalue()
    assert "-" not in terminal.getvalue()


def test_the_bar_adds_up_the_rows_that_are_drawn_at_a_time(monkeypatch):
    from types import SimpleNamespace

    from vqclip.cli import batch_bar

    monkeypatch.setattr("sys.stderr", Terminal())
    with batch_bar.BatchReporter() as shown:
        at = []
        monkeypatch.setattr(shown._bar, "at", lambda done, total: at.append(round(done, 2)))
        shown.rows(0, 3)
        shown.step(["a"], 2, 4)
        shown.step(["b"], 1, 4)
        shown.step([], 0, 1)  # no news
        shown.row(SimpleNamespace(name="a", status="done"))
        shown.step(["c"], 0, 4)  # its start is being drawn
        shown.step(["b", "c"], 2, 4)
    assert at == [0, 0.5, 0.75, 0.75, 1.25, 1.25, 2.0]


class Terminal(io.StringIO):
    """What takes a bar."""

    def isatty(self):
        return True


def test_a_manifest_that_is_slow_to_write_is_written_seldom(tmp_path, monkeypatch):
    import vqclip.batch.run

    def run(engine, work, entries, progress):
        for k, entry in enumerate(entries):
            yield entry.model_copy(update={"status": "failed" if k == 20 else "stopped"})

    def save(manifest, write=Manifest.save):
        saves.append(1)
        time.sleep(0.02)
        write(manifest)

    class Progress(BatchProgress):
        def row(self, entry):
            check_row(entry)

    def check_row(entry):
        if entry.status == "failed":
            assert read_manifest(tmp_path)[entry.name].status == "failed"

    saves = []
    monkeypatch.setattr(vqclip.batch.run.Engine, "run", run)
    monkeypatch.setattr(Manifest, "save", save)
    manifest = Manifest(tmp_path)
    wanted = manifest.add(rows(["an owl"] * 60), "{index}")
    run_batch(manifest, wanted, work(tmp_path), progress=Progress())
    manifest.close()
    assert 3 <= len(saves) < 30
    assert sorted(entry.status for entry in read_manifest(tmp_path).values()) == ["failed"] + ["stopped"] * 59


@pytest.mark.parametrize("part", ["write_page", "write_sheet", "write_tables"])
def test_a_report_that_can_not_be_written_wastes_no_image(vq, tmp_path, monkeypatch, part):
    def fail(*_):
        raise OutputError("the disk is full", "free some space")

    (tmp_path / "p.txt").write_text("a red heart\n", encoding="utf-8")
    monkeypatch.setattr(f"vqclip.report.{part}", fail)
    words = ("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--set", "seed=4", *SET)
    done = vq(*words)
    assert (done.code, done.out) == (8, f"{tmp_path / 'out'}\n")
    assert "1 done" in done.err
    assert (tmp_path / "out" / "0001-a-red-heart-4.png").exists()


def test_what_is_wrong_with_all_rows_is_said_once_and_a_column_for_a_word_is_suggested(run_here):
    Path("p.csv").write_text("prompt,colour,stps\na {color} fox,red,3\nan owl,red,3\na key,red,4\n")
    done = run_here("batch", "p.csv", "-o", "out")
    assert (done.code, done.err.count("did you mean 'steps'"), "did you mean 'color'" in done.err) == (4, 1, True)
    Path("p.csv").write_text("prompt\nan owl\n")
    assert len(run_here("batch", "p.csv", "-o", "out", "--cross", "colour=red,blue").err) < 200
