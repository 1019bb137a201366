"""resume(): a run that was stopped anywhere, by anything, ends with the bytes of the run that was never stopped.

Real processes that are killed are in test_crash.py, the loop's state and its file in test_checkpoint.py.
"""

import errno
import json
import os
import shutil
import threading

import pytest
import torch
from PIL import Image

import vqclip.models.catalogue
from tests.support.runs import Stopped, contents, differing, kill_after_every_step, metrics_of, record_of, touched
from vqclip.config.resolve import resolve
from vqclip.core.interfaces import LoopInputs
from vqclip.core.loop import State, optimize
from vqclip.core.optimizers import Moments
from vqclip.errors import Diverged, InputError, IntegrityError, OutputError, OutputExists, UsageError
from vqclip.runs.api import generate, prepare, resume
from vqclip.runs.checkpoint import NAME, PREVIOUS, load_state, save_state
from vqclip.runs.run_dir import RunDir

STEPS = 6  # of which three are coarse
QUICK = {"steps": STEPS, "coarse": 0.5, "size": (32, 32), "tries": 1, "cutouts": 2, "seed": 7}
EVERY = {"frames_every": 3, "checkpoint_every": "2"}  # so that frames and metrics lie beyond the checkpoint

pytestmark = pytest.mark.usefixtures("networks")


def draw(prompt="a red heart", **more):
    return generate(prompt, **(QUICK | EVERY | more))


def until(last):
    """Return an on_step that stops a run in good order."""
    return lambda step: step.step == last


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "red.png"
    Image.new("RGB", (40, 40), "red").save(path)
    return path


# the same bytes


CASES = {
    "plain": {},
    "no frames": {"frames_every": 0},
    "a frame every step": {"frames_every": 1},
    "a checkpoint every step": {"checkpoint_every": "1"},
    "no checkpoint on the way": {"checkpoint_every": "0"},
    "no metadata": {"metadata": False},
    "no coarse leg": {"coarse": 0.0},
    "coarse to the last step": {"coarse": 1.0},
    "init image": {"init_image": "red.png", "init_weight": 1.0},
    "coarse init image": {"init_image": "red.png", "coarse": 0.5},
    "image prompt": {"image_prompts": ("red.png",)},
    "no average": {"ema": 0.0},
    "negative prompts": {"prompt": "a red heart | blue:-0.5 | text:-1"},
    "the best of several starts": {"init": "smooth", "tries": 3},
    "an odd number of places": {"size": (36, 28)},
    "noise prompts": {"noise_prompts": ("14:0.5", "3:{t}"), "latent_noise": "0.3 * t"},
    "target": {"target_image": "red.png", "target_weight": "0: 1, 1: 0"},
    "image prompts of weights": {"image_prompts": ("red.png",), "image_prompt_weights": ("t",)},
    "regions": {"regions": ("a:{t}@left", "b@red.png")},
    "curves": {
        "prompt": "a:{0: 1, 0.6: 0} | b:{t}",
        "tv": "0: 3, 1: 0",
        "cutouts": "0: 2, 1: 4",
        "step_size": "1 - t / 2",
    },
    "a palette": {"palette": ("red", "white"), "palette_snap": "dither"},
    "halves copied in the coarse leg": {"symmetry": "x", "symmetry_until": 0.35},
    "halves copied beyond it": {"symmetry": "both", "symmetry_until": 0.7},
    "the best image": {"final": "best"},
    "logits": {"latent": "logits", "final": "best", "optimizer": "diffgrad"},
    "an early end": {"stop_after": 5, "min_gain": 5.0, "coarse": 0.0, "steps": 13, "final": "best"},
}


@pytest.fixture(params=CASES)
def case(request, red):
    given = {"init_image": str(red)} if "init_image" in CASES[request.param] else {}
    if "target_image" in CASES[request.param]:
        given["target_image"] = str(red)
    if "regions" in CASES[request.param]:
        given["regions"] = ("a:{t}@left", f"b@{red}")
    return CASES[request.param] | given | ({"image_prompts": (str(red),)} if "image" in request.param else {})


@pytest.mark.full
def test_a_run_that_is_killed_after_any_step_ends_as_if_it_had_not_been(tmp_path, case):
    whole, copies = kill_after_every_step(tmp_path, lambda **hooks: draw(runs=tmp_path / "runs", **case, **hooks))
    assert list(copies) == ["start", *range(1, max(STEPS + 1, len(copies)))]
    for step, copy in copies.items():
        resume(copy)
        assert differing(contents(copy), whole) == [], f"killed after step {step}"


@pytest.mark.parametrize("frames_every", [0, 3])
def test_a_run_that_is_stopped_after_any_step_ends_as_if_it_had_not_been(tmp_path, frames_every):
    case = {"frames_every": frames_every}
    whole = contents(draw(runs=tmp_path / "whole", **case).run)
    for step in range(1, STEPS + 1):
        run = draw(runs=tmp_path / "stopped", **case, on_step=until(step)).run
        status = "stopped" if step < STEPS else "done"
        assert (record_of(run)["status"], record_of(run)["steps_done"]) == (status, step)
        resume(run)
        assert differing(contents(run), whole) == [], f"stopped after step {step}"


def test_a_run_that_is_stopped_after_each_single_step_ends_as_if_it_had_not_been(tmp_path):
    whole = contents(draw(runs=tmp_path / "whole").run)
    run = draw(runs=tmp_path / "stopped", on_step=until(1)).run
    sittings = 1
    while record_of(run)["status"] != "done":
        resume(run, on_step=lambda step: True)
        sittings += 1
    assert sittings == STEPS
    assert differing(contents(run), whole) == []


def test_the_runs_of_these_cases_are_not_all_the_same(tmp_path):
    one, two = draw(runs=tmp_path).run, draw("a blue sea", runs=tmp_path).run
    assert {"final.png", "metrics.jsonl", "run.json", NAME} <= set(differing(contents(one), contents(two)))


def test_a_resumed_run_returns_the_result_of_the_whole(tmp_path):
    whole = draw(runs=tmp_path / "whole")
    run = draw(runs=tmp_path / "stopped", on_step=until(2)).run
    result = resume(run)
    assert result.picture.tobytes() == whole.picture.tobytes()
    assert (result.settings, result.steps, result.distance) == (whole.settings, whole.steps, whole.distance)
    assert (result.run, result.path) == (run, run / "final.png")


def test_a_resumed_run_yields_the_steps_that_are_left(tmp_path):
    run = draw(runs=tmp_path, on_step=until(2)).run
    seen = []
    resume(run, on_step=lambda step: seen.append(step.step))
    assert seen == [3, 4, 5, 6]


@pytest.fixture
def killed(tmp_path):
    """Return a run killed after step 5, with a checkpoint of step 4, and the contents of the whole one."""
    whole, copies = kill_after_every_step(
        tmp_path, lambda **hooks: draw(runs=tmp_path / "runs", **hooks, frames_every=1)
    )
    return copies[5], whole


def test_frames_before_the_checkpoint_are_left_as_they_are_and_those_after_it_made_again(killed):
    run, _ = killed
    before = {path.name: path.stat().st_mtime_ns for path in (run / "frames").iterdir()}
    assert sorted(before) == [f"00000{k}.png" for k in range(6)]
    resume(run)
    after = {path.name: path.stat().st_mtime_ns for path in (run / "frames").iterdir()}
    assert {name for name, at in before.items() if after[name] != at} == {"000005.png"}


def test_what_lies_beyond_the_checkpoint_is_not_used(killed):
    run, whole = killed
    (run / "frames" / "000005.png").write_bytes(b"junk")
    (run / "frames" / "000006.png").write_bytes(b"junk")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    resume(run)
    assert differing(contents(run), whole) == []


def test_parts_that_a_killed_process_left_are_swept_up(killed):
    run, whole = killed
    for folder in (run, run / "frames"):
        (folder / ".0123456789abcdef.part").write_bytes(b"half a")
    resume(run)
    assert differing(contents(run), whole) == []


def test_the_users_own_files_stay(killed):
    run, _ = killed
    for name in ("notes.txt", "frames/best.png", "a.part"):
        (run / name).write_bytes(b"mine")
    resume(run)
    assert [(run / name).read_bytes() for name in ("notes.txt", "frames/best.png", "a.part")] == [b"mine"] * 3


def test_a_run_can_be_moved_and_named_as_people_do(killed, monkeypatch):
    run, whole = killed
    moved = run.rename(run.parent / "it's mine")
    monkeypatch.chdir(moved.parent)
    resume("it's mine/")
    assert differing(contents(moved), whole) == []


def test_on_the_same_machine_nothing_is_noted(killed):
    notes = []
    resume(killed[0], on_start=lambda session, run: notes.extend(session.notes))
    assert notes == []


def test_another_version_is_noted_and_the_run_goes_on(killed):
    run, _ = killed
    record = record_of(run)
    record["versions"]["torch"] = "1.0"
    (run / "run.json").write_text(json.dumps(record))
    notes = []
    resume(run, on_start=lambda session, run: notes.extend(session.notes))
    (note,) = notes
    assert "torch 1.0" in note
    assert "may differ" in note


def test_a_resumed_run_that_is_interrupted_before_its_first_step_keeps_the_picture_so_far(tmp_path):
    def interrupt(session, run):
        raise KeyboardInterrupt

    run = draw(runs=tmp_path, on_step=until(4)).run
    before = (run / "final.png").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        resume(run, on_start=interrupt)
    assert (run / "final.png").read_bytes() == before
    assert record_of(run)["steps_done"] == 4


# a run that is done


@pytest.fixture
def done(tmp_path):
    return draw(runs=tmp_path / "runs").run


def test_a_run_that_is_done_is_left_as_it_is_and_loads_no_model(done, networks):
    before, networks.loaded = touched(done), []
    result = resume(done)
    assert (touched(done), networks.loaded) == (before, [])
    assert (result.steps, result.run, result.path) == (STEPS, done, done / "final.png")
    assert result.picture.tobytes() == Image.open(done / "final.png").tobytes()


def test_a_setting_that_has_that_value_already_is_no_change(done):
    before = touched(done)
    resume(done, steps=STEPS, seed=7, size=(32, 32), step_size=None)
    assert touched(done) == before


def test_a_run_that_is_done_gives_its_picture_once_more(done, tmp_path):
    before = contents(done)
    result = resume(done, out=tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == before["final.png"]
    assert result.path == tmp_path / "again.png"
    assert differing(contents(done), before) == []


def test_a_final_picture_that_was_deleted_is_made_again(done):
    before = contents(done)
    (done / "final.png").unlink()
    resume(done)
    assert differing(contents(done), before) == []


# changes on the way


def picture_after(*legs):
    """Return the picture of a run of several sittings by the loop alone: each (until step, settings)."""
    state = None
    for last, changes in legs:
        session = prepare(resolve(**({"prompt": "a red heart"} | QUICK | changes)), "cpu")
        inputs = LoopInputs(session.vqgan, session.clips, session.targets, session.settings)
        for step in optimize(inputs, session.start().z, state=state):
            state = step.state
            if step.step == last:
                break
    return session.picture(state.ema)


def test_a_run_made_longer_goes_on_from_its_last_step_by_the_schedule_of_its_new_length(done):
    result = resume(done, steps=9)
    assert result.steps == 9
    assert result.picture.tobytes() == picture_after((6, {}), (9, {"steps": 9})).tobytes()
    assert result.picture.tobytes() != picture_after((9, {"steps": 9})).tobytes()  # never was shorter


def test_a_run_made_longer_keeps_what_it_had_but_for_the_odd_frame_of_its_end(tmp_path):
    done = draw(runs=tmp_path, frames_every=4).run
    before = contents(done)
    resume(done, steps=9)
    after = contents(done)
    assert after["metrics.jsonl"][:6] == before["metrics.jsonl"]
    assert [line["step"] for line in after["metrics.jsonl"]] == list(range(1, 10))
    assert {k for k in before if k.startswith("frames")} == {f"frames/00000{k}.png" for k in (0, 4, 6)}
    assert {k for k in after if k.startswith("frames")} == {f"frames/00000{k}.png" for k in (0, 4, 8, 9)}
    assert [after[f"frames/00000{k}.png"] == before[f"frames/00000{k}.png"] for k in (0, 4)] == [True, True]


CHANGES = {
    "steps": {"steps": 9},
    "step size": {"step_size": 0.25},
    "no coarse leg": {"coarse": 0.0},
    "prompt": {"prompt": "a blue sea"},
    "cutouts and augments": {"cutouts": 3, "augments": ("flip",)},
    "two": {"tv": 0.0, "ema": 0.0},
}


@pytest.mark.full
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("after", [2, 4])
def test_a_change_counts_from_the_step_where_the_run_was_stopped_and_is_recorded(tmp_path, change, after):
    run = draw(runs=tmp_path, on_step=until(after)).run
    result = resume(run, **change)
    told = json.loads(json.dumps(change))
    assert record_of(run)["changes"] == [{"after": after, "settings": told}]
    assert {key: record_of(run)["settings"][key] for key in change} == told
    assert result.picture.tobytes() == picture_after((after, {}), (change.get("steps", STEPS), change)).tobytes()
    with Image.open(run / "final.png") as picture:
        assert json.loads(picture.text["vqclip"])["changes"] == record_of(run)["changes"]


@pytest.mark.full
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path, change):
    stopped = draw(runs=tmp_path, on_step=until(3)).run
    shutil.copytree(stopped, tmp_path / "again")
    whole, copies = kill_after_every_step(tmp_path, lambda **hooks: resume(stopped, **change, **hooks))
    assert len(copies) == change.get("steps", STEPS) - 3 + 1
    for step, copy in copies.items():
        resume(copy)
        assert differing(contents(copy), whole) == [], f"killed after step {step}"
    resume(tmp_path / "again", **change)
    assert differing(contents(tmp_path / "again"), whole) == []


def test_a_change_is_recorded_with_the_first_word_of_the_new_sitting(tmp_path, monkeypatch):
    stopped, write = draw(runs=tmp_path, on_step=until(3)).run, RunDir.write_json

    def write_and_keep(self, record):
        write(self, record)
        if not (tmp_path / "killed").exists():
            shutil.copytree(self.path, tmp_path / "killed")

    monkeypatch.setattr(RunDir, "write_json", write_and_keep)
    resume(stopped, step_size=0.25)
    resume(tmp_path / "killed")
    assert differing(contents(tmp_path / "killed"), contents(stopped)) == []


def test_changes_of_several_sittings_are_recorded_in_their_order(tmp_path):
    run = draw(runs=tmp_path, on_step=until(2)).run
    resume(run, step_size=0.5, on_step=until(4))
    resume(run, on_step=until(5))
    resume(run, tv=0.0)
    assert record_of(run)["changes"] == [
        {"after": 2, "settings": {"step_size": 0.5}},
        {"after": 5, "settings": {"tv": 0.0}},
    ]


def test_a_run_that_had_no_checkpoint_has_the_changed_settings_from_its_start(tmp_path):
    _, copies = kill_after_every_step(
        tmp_path, lambda **hooks: draw(runs=tmp_path / "runs", checkpoint_every="0", **hooks)
    )
    resume(copies[3], step_size=0.5)
    assert differing(contents(copies[3]), contents(draw(runs=tmp_path, step_size=0.5).run)) == ["run.json"]
    assert "changes" not in record_of(copies[3])


# what is refused leaves the run as it was


@pytest.fixture
def stopped(tmp_path, red):
    """Return a run with a picture, stopped after step 4."""
    (tmp_path / "given").mkdir()
    shutil.copy(red, tmp_path / "given" / "red.png")
    return draw(runs=tmp_path / "runs", image_prompts=(tmp_path / "given" / "red.png",), on_step=until(4)).run


def refusal(run, kind, **changes):
    """Resume, which must be refused and must not touch the run; return the error."""
    before = touched(run)
    with pytest.raises(kind) as caught:
        resume(run, **changes)
    assert touched(run) == before
    assert caught.value.hint or "did you mean" in caught.value.what
    return caught.value


BEGUN = {
    "size": (64, 64),
    "vqgan": "other",
    "init": "codes",
    "init_image": "red.png",
    "tries": 9,
    "seed": 8,
    "latent": "logits",
}


@pytest.mark.parametrize("name", BEGUN)
def test_what_decides_the_start_cannot_change(stopped, name):
    error = refusal(stopped, UsageError, **{name: BEGUN[name]})
    assert name.replace("_", "-") in error.what


@pytest.mark.parametrize("changes", [{"stepsize": 1}, {"step_size": -1}, {"steps": "many"}, {"prompt": "a |"}])
def test_a_wrong_change_is_a_usage_error(stopped, changes):
    assert refusal(stopped, UsageError, **changes).exit_code == 2


@pytest.mark.parametrize(
    "given",
    [
        {"runs": "runs"},
        {"metadata": False},
        {"frames_every": 1},
        {"checkpoint_every": "1"},
        {"save_latents": True},
        {"save_cutouts": 2},
    ],
)
def test_what_a_run_writes_cannot_change(stopped, given):
    assert next(iter(given)).replace("_", "-") in refusal(stopped, UsageError, **given).what


def test_another_model_under_the_same_name_is_refused(stopped, monkeypatch):
    monkeypatch.setattr(vqclip.models.catalogue.ModelEntry, "sha256", lambda card: "f" * 64)
    error = refusal(stopped, InputError)
    assert error.exit_code == 4
    assert "vqgan, clips" in error.what


def test_a_picture_that_was_changed_is_refused_and_named(stopped, tmp_path):
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "given" / "red.png")
    assert str(tmp_path / "given" / "red.png") in refusal(stopped, InputError).what


def test_a_picture_that_was_removed_is_refused_and_named(stopped, tmp_path):
    (tmp_path / "given" / "red.png").unlink()
    assert str(tmp_path / "given" / "red.png") in refusal(stopped, InputError).what


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema": "vqclip-run/2"}', '{"schema": "vqclip-run/1"}', "[" * 100_000, "\0" * 2_000_000],
    ids=["empty", "cut", "a list", "no schema", "another schema", "no settings", "deep", "large"],
)
def test_a_damaged_record_is_an_input_error(stopped, text):
    (stopped / "run.json").write_text(text)
    assert refusal(stopped, InputError).exit_code == 4


@pytest.mark.parametrize(
    "plan",
    [None, [], {}, {"metadata": True, "frames_every": "x", "checkpoint_every": {}},
     {"metadata": True, "frames_every": 3, "checkpoint_every": {"hours": 1}},
     {"metadata": True, "frames_every": 3, "checkpoint_every": 30},
     {"metadata": True, "frames_every": -1, "checkpoint_every": {"steps": 1, "seconds": 0}},
     {"metadata": True, "frames_every": 3, "checkpoint_every": {"steps": 1, "seconds": None}}],
)  # fmt: skip
def test_a_damaged_plan_is_an_input_error(stopped, plan):
    (stopped / "run.json").write_text(json.dumps(record_of(stopped) | {"plan": plan}))
    refusal(stopped, InputError)


@pytest.mark.full
@pytest.mark.parametrize("key", ["models", "pictures", "changes", "steps_done"])
@pytest.mark.parametrize("junk", [None, "x", 0.5])
def test_a_record_with_a_wrong_part_is_an_input_error(stopped, key, junk):
    (stopped / "run.json").write_text(json.dumps(record_of(stopped) | {key: junk}))
    refusal(stopped, InputError)


@pytest.mark.parametrize("name", ["missing", "given", "given/red.png", ""])
def test_what_is_no_run_is_an_input_error(stopped, tmp_path, name):
    with pytest.raises(InputError, match="run.json" if (tmp_path / name).exists() else "does not exist"):
        resume(tmp_path / name)


def test_a_damaged_state_gives_way_to_the_one_before_with_a_note(killed):
    run, whole = killed
    assert (run / PREVIOUS).exists()
    (run / NAME).write_bytes(b"junk")
    notes = []
    resume(run, on_start=lambda session, run: notes.extend(session.notes))
    assert len(notes) == 1
    assert NAME in notes[0]
    assert differing(contents(run), whole) == []


def test_two_damaged_states_are_an_integrity_error_and_no_start_anew(killed):
    run, _ = killed
    (run / NAME).write_bytes(b"junk")
    (run / PREVIOUS).write_bytes(b"junk")
    assert refusal(run, IntegrityError).exit_code == 6


def test_an_output_that_exists_is_refused(stopped, tmp_path):
    refusal(stopped, OutputExists, out=tmp_path / "given" / "red.png")


def read_only(monkeypatch):
    """Let every attempt to write be refused, as on a disk that is mounted read-only."""
    really = os.open

    def refuse(path, flags, *more, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return really(path, flags, *more, **named)

    monkeypatch.setattr("os.open", refuse)


def test_a_run_that_became_read_only_is_refused_before_a_model_loads(stopped, monkeypatch, networks):
    read_only(monkeypatch)
    networks.loaded = []
    assert refusal(stopped, OutputError).exit_code == 8
    assert networks.loaded == []


def test_a_run_that_vanishes_on_the_way_is_an_output_error(stopped):
    with pytest.raises(OutputError) as caught:
        resume(stopped, on_step=lambda step: shutil.rmtree(stopped))
    assert caught.value.exit_code == 8
    assert not stopped.exists()


def test_a_run_whose_frames_vanished_goes_on(killed):
    run, _ = killed
    shutil.rmtree(run / "frames")
    assert resume(run).steps == STEPS


def test_after_a_refusal_the_run_can_go_on(stopped):
    refusal(stopped, UsageError, seed=8)
    assert resume(stopped).steps == STEPS


# divergence


def diverge(networks, monkeypatch, *, calls=(), gradient=False):
    """Let what CLIP sees be not a number at these calls; with the fakes, one call is one step. Count the calls."""
    monkeypatch.setattr("vqclip.runs.memory.estimate", lambda session: None)  # the estimate would be a call
    really, count = networks.clip.encode_image, [0]

    def encode_image(image):
        count[0] += 1
        embeds = really(image)
        if count[0] not in calls:
            return embeds
        if not gradient:
            return embeds * float("nan")
        embeds = embeds.clone()
        embeds.register_hook(lambda grad: grad * float("nan"))
        return embeds

    monkeypatch.setattr(networks.clip, "encode_image", encode_image)
    return count


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("bad", [2, 4, 6])
def test_a_run_that_diverges_once_goes_on_with_half_the_step_size(tmp_path, networks, monkeypatch, bad, gradient):
    expected = picture_after((bad - 1, {}), (STEPS, {"step_size": 0.5}))
    diverge(networks, monkeypatch, calls=[bad], gradient=gradient)
    result = draw(runs=tmp_path)
    assert result.picture.tobytes() == expected.tobytes()
    record = record_of(result.run)
    assert record["changes"] == [{"after": bad - 1, "settings": {"step_size": 0.5}}]
    assert (record["status"], record["settings"]["step_size"]) == ("done", 0.5)
    assert [line["step"] for line in metrics_of(result.run)] == list(range(1, STEPS + 1))


def test_divergence_is_told(tmp_path, networks, monkeypatch):
    diverge(networks, monkeypatch, calls=[4])
    notes = []
    draw(on_note=notes.append)
    (note,) = notes
    assert "from step 3 with step size 0.5" in note


@pytest.mark.full
@pytest.mark.parametrize("checkpoint_every", ["0", "1", "2"])
def test_a_run_that_is_killed_after_it_diverged_ends_as_if_it_had_not_been(
    tmp_path, networks, monkeypatch, checkpoint_every
):
    diverge(networks, monkeypatch, calls=[4])
    whole, copies = kill_after_every_step(
        tmp_path, lambda **hooks: draw(runs=tmp_path / "runs", checkpoint_every=checkpoint_every, **hooks)
    )
    for step in (4, 5, 6):
        resume(copies[step])
        assert differing(contents(copies[step]), whole) == [], f"killed after step {step}"


@pytest.fixture
def diverged(tmp_path, networks, monkeypatch):
    """Return a run that diverges at step 4, again and again, and how CLIP is made well."""
    with monkeypatch.context() as patch:
        diverge(networks, patch, calls=range(4, 100))
        with pytest.raises(Diverged) as caught:
            draw(runs=tmp_path, frames_every=1)
    assert caught.value.exit_code == 9
    return tmp_path / "a-red-heart-7"


def test_a_run_that_diverges_again_keeps_the_picture_of_its_last_good_step(diverged):
    record = record_of(diverged)
    assert (record["status"], record["steps_done"]) == ("failed", 3)
    with Image.open(diverged / "final.png") as final:
        assert final.convert("RGB").tobytes() == picture_after((3, {})).tobytes()
        assert final.getextrema() != ((0, 0),) * 3


def test_a_run_that_diverged_can_go_on_from_its_last_good_step(diverged):
    result = resume(diverged)
    assert result.steps == STEPS
    assert result.picture.tobytes() == picture_after((3, {}), (STEPS, {"step_size": 0.5})).tobytes()


def test_a_run_that_diverges_at_its_first_step_leaves_no_picture(tmp_path, networks, monkeypatch):
    diverge(networks, monkeypatch, calls=[1])
    with pytest.raises(Diverged):
        draw(runs=tmp_path)
    run = tmp_path / "a-red-heart-7"
    assert not (run / "final.png").exists()
    assert record_of(run)["status"] == "failed"


def test_a_resumed_run_that_diverges_at_once_goes_on_from_its_state(tmp_path, networks, monkeypatch):
    run = draw(runs=tmp_path, on_step=until(4)).run
    diverge(networks, monkeypatch, calls=[1])
    resume(run)
    assert record_of(run)["changes"] == [{"after": 4, "settings": {"step_size": 0.5}}]


# writes that fail


def full_disk():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_at(monkeypatch, number, error, *, once):
    """Let the flush of the `number`-th file fail, or of every file from there on. Return a counter."""
    count = [0]

    def fsync(handle):
        count[0] += 1
        if count[0] == number or (count[0] > number and not once):
            raise error

    monkeypatch.setattr("os.fsync", fsync)
    return count


FAILURES = {
    "a disk that is full": (full_disk, OutputError, False),
    "a disk that was full for a moment": (full_disk, OutputError, True),
    "an interrupt": (KeyboardInterrupt, KeyboardInterrupt, True),
}


@pytest.mark.full
@pytest.mark.parametrize("failure", FAILURES)
def test_a_run_goes_on_to_the_same_bytes_whichever_write_fails(tmp_path, monkeypatch, failure):
    error, raised, once = FAILURES[failure]
    with monkeypatch.context() as patch:
        writes = fail_at(patch, 0, None, once=True)
        whole = contents(draw(runs=tmp_path / "whole").run)
    # The two new folders; then a file and its folder each: run.json twice; a frame and latest.png, three times;
    # state and run.json, three times; final.png. And metrics, three times.
    assert writes[0] == 2 + 2 * (2 + 3 * 2 + 3 * 2 + 1) + 3
    for number in range(4, writes[0] + 1):  # without the first three, up to run.json, there is no run
        runs = tmp_path / str(number)
        with monkeypatch.context() as patch:
            fail_at(patch, number, error(), once=once)
            with pytest.raises(raised) as caught:
                draw(runs=runs)
        assert getattr(caught.value, "exit_code", 8) == 8
        run = runs / "a-red-heart-7"
        assert [path for path in run.rglob("*.part")] == []
        for path in run.rglob("*.png"):
            with Image.open(path) as image:
                image.load()
        resume(run)
        assert differing(contents(run), whole) == [], f"write {number}"


def test_a_line_of_metrics_that_fails_is_written_when_the_run_goes_on(tmp_path, monkeypatch):
    whole, write = contents(draw(runs=tmp_path / "whole").run), RunDir.add_metrics

    def half(self, record):
        if record["step"] < 4:
            return write(self, record)
        self._metrics.write(json.dumps(record)[:10])
        raise OutputError("the disk is full", "free some")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "add_metrics", half)
        with pytest.raises(OutputError):
            draw(runs=tmp_path)
    resume(tmp_path / "a-red-heart-7")
    assert differing(contents(tmp_path / "a-red-heart-7"), whole) == []


@pytest.mark.parametrize("shape", [(1, 3, 2, 9), (3, 4, 4, 4), (0, 4, 4, 4), (1, 5, 4, 4)])
def test_a_state_of_another_picture_is_an_integrity_error(stopped, shape):
    zeros = torch.zeros(shape)
    for name in (NAME, PREVIOUS):
        (stopped / name).unlink(missing_ok=True)
    save_state(stopped, State(4, "full", zeros, zeros, Moments(zeros, zeros, 4)))
    assert "another image" in refusal(stopped, IntegrityError).what


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
@pytest.mark.parametrize(("name", "error"), [("metrics.jsonl", InputError), (NAME, IntegrityError)])
def test_a_pipe_in_a_files_place_is_not_waited_for(stopped, name, error):
    (stopped / PREVIOUS).unlink(missing_ok=True)
    (stopped / name).unlink()
    os.mkfifo(stopped / name)
    with pytest.raises(error, match="pipe"):
        resume(stopped)


def test_a_resume_that_is_stopped_while_models_load_makes_no_step(stopped):
    before = contents(stopped)
    result = resume(stopped, progress=Stopped())
    assert (result.status, result.steps, result.run) == ("stopped", 4, stopped)
    assert differing(contents(stopped), before) == []
    assert resume(stopped).steps == STEPS


def test_the_seconds_of_all_sittings_are_counted(stopped):
    record = record_of(stopped) | {"seconds": 1000.0}
    (stopped / "run.json").write_text(json.dumps(record))
    resume(stopped)
    assert 1000 < record_of(stopped)["seconds"] < 1100


@pytest.mark.parametrize("seconds", [10**399, -1, float("nan"), float("inf"), None, "long", []])
def test_seconds_that_are_no_number_are_an_input_error(stopped, seconds):
    (stopped / "run.json").write_text(json.dumps(record_of(stopped) | {"seconds": seconds}))
    refusal(stopped, InputError)


def test_a_run_that_is_stopped_at_its_last_step_is_done(tmp_path):
    assert record_of(draw(runs=tmp_path, on_step=until(STEPS)).run)["status"] == "done"


# a folder that changes under a run


def swap(run):
    """Move a run's folder away and put a stranger's in its place."""
    run.rename(run.with_name("moved"))
    run.mkdir()
    (run / "run.json").write_text("mine")
    (run / "final.png").write_text("mine")


def link_frames(run):
    (run / "frames").rename(run / "old")
    (run.parent / "elsewhere").mkdir()
    (run / "frames").symlink_to(run.parent / "elsewhere")


@pytest.mark.parametrize("change", [swap, link_frames, shutil.rmtree])
def test_a_folder_that_is_not_the_runs_any_more_is_not_written_to(tmp_path, change):
    run, made = tmp_path / "a-red-heart-7", []

    def on_step(step):
        made.append(step.step)
        if step.step == 2:
            change(run)

    with pytest.raises(OutputError, match="is gone, or another folder"):
        draw(runs=tmp_path, on_step=on_step, frames_every=0)
    assert made == [1, 2]
    if change is swap:
        assert {path.name: path.read_text() for path in run.iterdir()} == {"run.json": "mine", "final.png": "mine"}
    assert change is not link_frames or list((tmp_path / "elsewhere").iterdir()) == []


def test_a_picture_that_is_done_is_kept_where_it_was_wanted_though_the_runs_folder_is_gone(tmp_path):
    run, out = tmp_path / "a-red-heart-7", tmp_path / "out.png"
    last = until(4)
    with pytest.raises(OutputError):
        draw(runs=tmp_path, out=out, on_step=lambda step: last(step) and (shutil.rmtree(run), True)[1])
    with Image.open(out) as picture:
        assert picture.size == (32, 32)


def test_a_run_whose_frames_were_tidied_up_can_be_made_longer(tmp_path):
    run = draw(runs=tmp_path).run
    shutil.rmtree(run / "frames")
    resume(run, steps=STEPS + 3)
    assert [path.name for path in (run / "frames").iterdir()] == ["000009.png"]


def test_a_disk_without_room_costs_no_frames(tmp_path, monkeypatch):
    run = draw(runs=tmp_path, on_step=until(5)).run
    before = sorted(run.rglob("*.png"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(OutputError, match="free"):
        resume(run, steps=STEPS + 30)
    assert sorted(run.rglob("*.png")) == before


# -- frames that are written while the next step is made


def test_a_frame_is_written_while_the_next_step_is_made(tmp_path, monkeypatch):
    write, heard, waited = RunDir.write_frame, threading.Event(), []

    def slowly(self, step, *png):
        if step == 1:
            waited.append(heard.wait(20))
        write(self, step, *png)

    monkeypatch.setattr(RunDir, "write_frame", slowly)
    draw(runs=tmp_path, frames_every=1, on_step=lambda step: heard.set())
    assert waited == [True]


@pytest.mark.parametrize("every", ["1", "0"])
def test_no_state_is_saved_beyond_a_frame_that_could_not_be_written(tmp_path, monkeypatch, every):
    whole = contents(draw(runs=tmp_path / "whole", frames_every=1, checkpoint_every=every).run)
    write = RunDir.write_frame

    def write_but_one(self, step, *png):
        if step == 3:
            raise OutputError("the disk is full", "free some space")
        write(self, step, *png)

    monkeypatch.setattr(RunDir, "write_frame", write_but_one)
    with pytest.raises(OutputError, match="the disk is full"):
        draw(runs=tmp_path / "runs", frames_every=1, checkpoint_every=every)
    monkeypatch.setattr(RunDir, "write_frame", write)
    run = next((tmp_path / "runs").iterdir())
    state, _ = load_state(run)
    assert record_of(run)["status"] == "failed"
    assert state.step == 2
    resume(run)
    assert differing(contents(run), whole) == []


# the end of a run is never wasted


@pytest.mark.parametrize("changes", [{"prompt": "an owl"}, {"cutouts": 4}, {"tv": 1.0}], ids=str)
def test_a_change_that_would_count_in_no_step_is_refused_and_not_recorded(done, changes):
    before = touched(done)
    with pytest.raises(UsageError):
        resume(done, **changes)
    assert touched(done) == before


def test_a_run_that_is_done_and_goes_on_with_another_prompt_keeps_its_picture(done):
    before = (done / "final.png").read_bytes()
    resume(done, prompt="an owl", steps=STEPS + 2)
    resume(done, prompt="a tree", steps=STEPS + 3)
    assert (done / f"final-{STEPS:06d}.png").read_bytes() == before
    assert (done / f"final-{STEPS + 2:06d}.png").exists()
    assert (done / "final.png").read_bytes() != before


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_the_picture_of_a_run_that_is_done_is_copied_without_its_models(done, networks, tmp_path, ending):
    before, networks.loaded = touched(done), []
    out = tmp_path / f"again{ending}"
    assert resume(done, out=out).path == out
    assert (touched(done), networks.loaded) == (before, [])
    with Image.open(out) as image:
        assert image.size == (32, 32)
    assert ending != ".png" or out.read_bytes() == (done / "final.png").read_bytes()


@pytest.mark.parametrize("end", ["exists by now", "its folder is gone"])
def test_a_run_whose_copy_can_not_be_written_at_the_end_is_done(tmp_path, vq, end, monkeypatch):
    (tmp_path / "here" / "to").mkdir()
    out = tmp_path / "here" / "to" / "heart.png"

    def meddle(*_):
        shutil.rmtree(out.parent)
        if end == "exists by now":
            out.parent.mkdir()
            out.write_bytes(b"of another")

    monkeypatch.setattr("vqclip.cli.progress.Reporter.started", meddle)
    ended = vq("generate", "a red heart", "--seed", "7", "--steps", "2", "--size", "32", "--cutouts", "2", "-o", out)
    run = tmp_path / "here" / "runs" / "a-red-heart-7"
    assert ended.code == (10 if end == "exists by now" else 8)
    assert ended.out == "runs/a-red-heart-7/final.png\n"
    assert record_of(run)["status"] == "done"
    out.parent.mkdir(exist_ok=True)
    command = next(line for line in ended.lines if "vqclip resume" in line).split("vqclip ")[1].replace("FILE", "x.png")
    assert vq(*command.split()).code == 0
    assert (tmp_path / "here" / "x.png").read_bytes() == (run / "final.png").read_bytes()
