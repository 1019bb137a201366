"""generate() as a function: what it makes, what it leaves behind however it ends, and what it refuses."""

import contextlib
import errno
import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqclip
from tests import conftest
from tests.support.runs import Stopped, contents, differing
from vqclip.config.resolve import resolve
from vqclip.core.devices import choose_device
from vqclip.core.loop import Step
from vqclip.core.targets import embed_image_prompt
from vqclip.errors import (
    Diverged,
    InputError,
    ModelError,
    OutOfMemory,
    OutputError,
    OutputExists,
    UsageError,
    VqclipError,
)
from vqclip.files.images import to_tensor
from vqclip.models.catalogue import find
from vqclip.runs.api import generate, prepare, resume
from vqclip.runs.checkpoint import load_state
from vqclip.runs.networks import LOADERS, Networks
from vqclip.runs.output import Output
from vqclip.runs.progress import Progress
from vqclip.runs.run_dir import RunDir
from vqclip.runs.session import Session

QUICK = {"steps": 5, "size": (32, 32), "tries": 1, "cutouts": 2}  # with the fakes, some 20 ms


def draw(prompt="a red heart", **more):
    """Generate with the fakes, in few steps."""
    return generate(prompt, **(QUICK | {"seed": 7} | more))


def ready(prompt="a red heart", **more):
    """Prepare a session with the fakes, for few steps."""
    return prepare(prompt, "cpu", seed=7, **(QUICK | more))


def pixels(path):
    with Image.open(path) as image:
        return image.size, image.convert("RGB").tobytes()


def note(run):
    """Return run.json."""
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def frames(run):
    return [int(path.stem) for path in sorted((run / "frames").iterdir())]


def files(folder):
    """List what is there, but for the lock."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def flat(colour, size=(40, 40)):
    return Image.new("RGB", size, colour)


@pytest.fixture
def red(tmp_path):
    """Return the path of a red picture, in a folder of its own."""
    (tmp_path / "given").mkdir()
    flat("red").save(tmp_path / "given" / "red.png")
    return tmp_path / "given" / "red.png"


pytestmark = pytest.mark.usefixtures("networks")


# what is told of a run


def test_the_run_records_a_given_pictures_path_and_hash(tmp_path, red):
    run = draw(init_image=red, image_prompts=(red,), runs=tmp_path).run
    assert note(run)["settings"]["init_image"] == "../given/red.png"  # from the run's folder
    assert note(run)["pictures"] == {"../given/red.png": hashlib.sha256(red.read_bytes()).hexdigest()}


def test_a_picture_to_give_away_tells_file_names_and_not_where_they_lie(tmp_path, red):
    with Image.open(draw(init_image=red, image_prompts=(red,), runs=tmp_path).path) as image:
        told = str(image.text["vqclip"])
    assert json.loads(told)["settings"]["init_image"] == "red.png"
    assert json.loads(told)["pictures"] == {"red.png": hashlib.sha256(red.read_bytes()).hexdigest()}
    assert str(tmp_path) not in told


def test_a_prompt_that_looks_like_a_path_is_told_whole(tmp_path):
    with Image.open(draw("/a/red/heart", runs=tmp_path).path) as image:
        assert json.loads(str(image.text["vqclip"]))["settings"]["prompt"] == "/a/red/heart"


def test_a_session_notes_a_prompt_that_clip_reads_in_part():
    assert [n.split(" reads")[0] for n in ready(" ".join(["heart"] * 21)).notes] == ["CLIP fake-clip"]


def test_a_session_that_does_as_asked_notes_nothing():
    assert ready().notes == []


# a run that ends well


def test_a_finished_run_holds_settings_frames_metrics_and_the_final_picture(tmp_path):
    result = draw(runs=tmp_path, frames_every=2)
    assert files(result.run) == [
        "final.png", "frames", "frames/000000.png", "frames/000002.png", "frames/000004.png", "frames/000005.png",
        "metrics.jsonl", "run.json", "state.safetensors",
    ]  # fmt: skip


def test_the_runs_folder_holds_the_run_alone(tmp_path):
    draw(runs=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a-red-heart-7"]


def test_a_second_run_of_the_same_name_is_counted_up(tmp_path):
    assert [draw(runs=tmp_path).run.name for _ in range(2)] == ["a-red-heart-7", "a-red-heart-7-2"]


def test_a_run_of_pictures_alone_is_named_after_the_first(tmp_path, red):
    assert draw("", image_prompts=(red,), runs=tmp_path).run.name == "red-7"


def test_a_run_with_a_blank_prompt_and_a_picture_is_named_after_the_picture(tmp_path, red):
    assert draw("  ", image_prompts=(red,), runs=tmp_path).run.name == "red-7"


def test_a_finished_run_is_done(tmp_path):
    assert note(draw(runs=tmp_path).run)["status"] == "done"


def test_a_finished_run_says_how_many_steps_were_done(tmp_path):
    assert note(draw(runs=tmp_path).run)["steps_done"] == 5


def test_a_run_says_that_it_is_running_before_its_first_step(tmp_path):
    seen = []
    draw(runs=tmp_path, on_start=lambda session, run: seen.append(note(run.path)["status"]))
    assert seen == ["running"]


@pytest.mark.parametrize("key", ["settings", "models", "versions", "device", "threads"])
def test_run_json_records(tmp_path, key):
    assert note(draw(runs=tmp_path).run)[key]


def test_run_json_names_the_models_and_their_hashes(tmp_path):
    card = {"name": "tiny", "sha256": "0123456789abcdef" * 4}
    assert note(draw(runs=tmp_path).run)["models"] == {"vqgan": card, "clips": [card]}


def test_the_settings_of_run_json_are_those_of_the_result(tmp_path):
    result = draw(runs=tmp_path, noise=0.03)
    assert vqclip.Settings(**note(result.run)["settings"]) == result.settings


def test_there_is_one_line_of_metrics_a_step(tmp_path):
    lines = (draw(runs=tmp_path).run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_metrics_name_every_loss_that_counts(tmp_path):
    lines = (draw(runs=tmp_path, tv=0.1, init_weight=0.1).run / "metrics.jsonl").read_text().splitlines()
    assert {"prompt", "tv", "init", "changed", "seconds"} <= set(json.loads(lines[0]))


def test_the_result_holds_the_picture_of_the_file(tmp_path):
    result = draw(runs=tmp_path)
    assert pixels(result.path) == (result.picture.size, result.picture.tobytes())


def test_the_result_points_to_the_final_picture_of_the_run(tmp_path):
    result = draw(runs=tmp_path)
    assert result.path == result.run / "final.png"


def test_the_result_counts_the_steps():
    assert draw().steps == 5


def test_without_a_runs_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = draw()
    assert (files(tmp_path), result.run, result.path) == ([], None, None)


def test_the_caller_sees_every_step():
    seen = []
    draw(on_step=lambda step: seen.append(step.step))
    assert seen == [1, 2, 3, 4, 5]


def test_the_public_name_is_the_same_function():
    assert vqclip.generate is generate


@pytest.mark.parametrize("prompt", [None, ["a"], 3])
def test_a_prompt_that_is_no_text_is_a_usage_error(prompt):
    with pytest.raises(UsageError, match="prompt"):
        generate(prompt)


def test_an_unknown_setting_is_a_usage_error():
    with pytest.raises(UsageError, match="step_sise") as refused:
        draw(step_sise=0.1)
    assert refused.value.__suppress_context__  # pydantic's own says less


# frames


def test_frames_come_every_so_many_steps_from_the_start_and_at_the_end(tmp_path):
    assert frames(draw(runs=tmp_path, steps=7, frames_every=3).run) == [0, 3, 6, 7]


def test_a_frame_that_falls_on_the_last_step_is_there_once(tmp_path):
    assert frames(draw(runs=tmp_path, steps=6, frames_every=3).run) == [0, 3, 6]


def test_a_run_shorter_than_the_distance_of_frames_has_its_start_and_its_end(tmp_path):
    assert frames(draw(runs=tmp_path, frames_every=100).run) == [0, 5]


def test_no_frames_are_made_when_none_are_asked_for(tmp_path):
    assert files(draw(runs=tmp_path, frames_every=0).run) == [
        "final.png", "frames", "metrics.jsonl", "run.json", "state.safetensors",
    ]  # fmt: skip


def test_a_negative_distance_of_frames_is_a_usage_error():
    with pytest.raises(UsageError):
        draw(frames_every=-1)


@pytest.mark.parametrize("steps", [4, 5])
def test_the_last_frame_is_the_final_picture(tmp_path, steps):
    run = draw(runs=tmp_path, steps=steps, frames_every=2).run
    assert pixels(run / "frames" / f"{steps:06d}.png") == pixels(run / "final.png")


@pytest.mark.parametrize("every", [0, 2, 3, 100])
def test_the_final_picture_is_that_of_the_last_step(tmp_path, every):
    seen = {}
    result = draw(runs=tmp_path, frames_every=every, on_start=lambda session, run: seen.update(session=session),
                  on_step=lambda step: seen.update(latent=step.latent.clone()))  # fmt: skip
    assert pixels(result.path)[1] == seen["session"].picture(seen["latent"]).tobytes()


def test_the_first_frame_is_the_start(tmp_path):
    starts = []
    result = draw(runs=tmp_path, on_start=lambda session, run: starts.append(session.picture(session.start().z)))
    assert pixels(result.run / "frames" / "000000.png")[1] == starts[0].tobytes()


def test_the_picture_changes_over_the_run(tmp_path):
    run = draw(runs=tmp_path, steps=20).run
    assert pixels(run / "frames" / "000000.png") != pixels(run / "final.png")


def test_the_latest_picture_is_there_while_the_run_goes_on(tmp_path):
    there = []
    draw(
        runs=tmp_path, on_step=lambda step: there.append((tmp_path / "a-red-heart-7" / "latest.png").is_file()) and None
    )
    assert all(there)


def test_frames_of_the_coarse_steps_have_the_full_size(tmp_path):
    if "coarse" not in vqclip.Settings.model_fields:
        pytest.skip("there are no coarse steps")
    run = draw(runs=tmp_path, steps=4, frames_every=1, coarse=0.5).run
    assert {pixels(path)[0] for path in (run / "frames").iterdir()} == {(32, 32)}


# metadata


def chunk(path, key="vqclip"):
    with Image.open(path) as image:
        image.load()
        return getattr(image, "text", {}).get(key)


def test_the_final_picture_carries_its_settings(tmp_path):
    result = draw(runs=tmp_path)
    assert vqclip.Settings(**json.loads(chunk(result.path))["settings"]) == result.settings


def test_a_picture_can_be_made_again_from_what_it_carries(tmp_path):
    first = draw(runs=tmp_path / "a", noise=0.03, augments=("flip",))
    values = json.loads(chunk(first.path))["settings"]
    assert generate(values.pop("prompt"), runs=tmp_path / "b", **values).path.read_bytes() == first.path.read_bytes()


@pytest.mark.parametrize(("name", "step"), [("frames/000000.png", 0), ("frames/000004.png", 4), ("final.png", 5)])
def test_a_picture_carries_its_own_step(tmp_path, name, step):
    assert json.loads(chunk(draw(runs=tmp_path, frames_every=2).run / name))["step"] == step


def test_without_metadata_no_picture_says_anything(tmp_path):
    result = draw(runs=tmp_path, frames_every=2, metadata=False, out=tmp_path / "a.png")
    assert [chunk(path) for path in (*result.run.rglob("*.png"), tmp_path / "a.png")] == [None] * 6


# a run that is stopped, and one that fails


def stop_at(number):
    return lambda step: step.step == number


def fail_at(number, error):
    def fail(step):
        if step.step == number:
            raise error

    return fail


def test_a_run_ends_after_the_step_at_which_the_caller_says_so():
    assert draw(on_step=stop_at(3)).steps == 3


def test_a_run_that_is_stopped_while_models_load_makes_nothing(tmp_path):
    result = draw(runs=tmp_path / "runs", out=tmp_path / "out.png", progress=Stopped())
    assert (result.status, result.steps, result.picture, result.path) == ("stopped", 0, None, None)
    assert not any(tmp_path.iterdir())


def test_a_run_that_is_stopped_while_its_start_is_chosen_makes_no_step(tmp_path):
    class StoppedAtStart(Progress):
        stopped = False

        def start(self, session, run):
            self.stopped = True

        def step(self, step):
            pytest.fail("a step was made")

    result = draw(runs=tmp_path, progress=StoppedAtStart())
    assert (result.status, result.steps, note(result.run)["status"]) == ("stopped", 0, "stopped")
    assert resume(result.run).picture.tobytes() == draw().picture.tobytes()


def test_a_stopped_run_says_so(tmp_path):
    assert note(draw(runs=tmp_path, on_step=stop_at(3)).run)["status"] == "stopped"


def test_a_stopped_run_says_how_far_it_got(tmp_path):
    assert note(draw(runs=tmp_path, on_step=stop_at(3)).run)["steps_done"] == 3


def test_a_stopped_run_keeps_the_picture_so_far(tmp_path):
    seen = []

    def stop(step):
        seen.append(step.latent.clone())
        return step.step == 3

    result = draw(runs=tmp_path, on_step=stop)
    assert pixels(result.path)[1] == ready().picture(seen[-1]).tobytes()


def test_a_stopped_run_has_a_frame_of_its_last_step(tmp_path):
    assert frames(draw(runs=tmp_path, frames_every=2, on_step=stop_at(3)).run) == [0, 2, 3]


def test_a_stopped_run_writes_the_output_too(tmp_path):
    result = draw(out=tmp_path / "a.png", on_step=stop_at(3))
    assert pixels(tmp_path / "a.png")[1] == result.picture.tobytes()


def test_an_error_of_the_caller_reaches_it():
    with pytest.raises(ZeroDivisionError):
        draw(on_step=fail_at(3, ZeroDivisionError()))


@pytest.fixture(params=[ZeroDivisionError(), KeyboardInterrupt()], ids=["error", "interrupt"])
def broken(tmp_path, request):
    """Return the run directory of a run that broke at its third step."""
    with pytest.raises(type(request.param)):
        draw(runs=tmp_path, out=tmp_path / "a.png", frames_every=2, on_step=fail_at(3, request.param))
    return tmp_path / "a-red-heart-7"


def test_a_broken_run_keeps_the_picture_so_far(broken):
    reference = draw(on_step=stop_at(3)).picture
    assert pixels(broken / "final.png")[1] == reference.tobytes()


def test_a_run_writes_the_output_only_if_it_did_not_fail(broken):
    assert (broken.parent / "a.png").exists() == (note(broken)["status"] == "stopped")


def test_a_broken_run_is_not_called_done_or_running(broken):
    assert note(broken)["status"] in ("failed", "stopped")


def test_a_broken_run_says_how_far_it_got(broken):
    assert note(broken)["steps_done"] == 3


def test_a_broken_run_leaves_no_parts(broken):
    assert files(broken) == [
        "final.png",
        "frames",
        "frames/000000.png",
        "frames/000002.png",
        "frames/000003.png",
        "metrics.jsonl",
        "run.json",
        "state.safetensors",
    ]


def test_a_run_that_an_error_broke_has_failed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        draw(runs=tmp_path, on_step=fail_at(3, ZeroDivisionError()))
    assert note(tmp_path / "a-red-heart-7")["status"] == "failed"


def test_a_run_that_fails_before_its_first_step_is_not_left_running(tmp_path):
    def fail(session, run):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw(runs=tmp_path, on_start=fail)
    assert note(tmp_path / "a-red-heart-7")["status"] == "failed"


def break_down(networks, error):
    """Return an on_step after whose third step every decoding fails."""

    def fail(*_):
        raise error

    def on_step(step):
        if step.step == 3:
            networks.vqgan.decode = fail

    return on_step


def test_a_run_whose_networks_break_down_has_failed(tmp_path, networks):
    with pytest.raises(OutOfMemory):
        draw(runs=tmp_path, on_step=break_down(networks, MemoryError()))
    assert note(tmp_path / "a-red-heart-7")["status"] == "failed"


def open_files(name):
    links = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(handle.readlink()))
    return [link for link in links if link.endswith(name)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_whose_networks_break_down_leaves_no_file_open(tmp_path, networks):
    try:
        draw(runs=tmp_path, on_step=break_down(networks, MemoryError()))
    except OutOfMemory as error:
        caught = error  # its traceback keeps the frames alive, and with them what they forgot to close
    still_open = open_files(str(tmp_path / "a-red-heart-7" / "metrics.jsonl"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del caught
        gc.collect()
    assert still_open == []


def test_a_loss_that_is_not_finite_is_divergence(networks):
    networks.vqgan.decode = lambda z: torch.full((1, 3, 32, 32), float("nan")) * z.sum()
    with pytest.raises(Diverged):
        draw()


def test_a_disk_that_fills_up_is_an_output_error(tmp_path, monkeypatch):
    with pytest.raises(OutputError):
        draw(runs=tmp_path, frames_every=1, on_step=fill_disk_at(3, monkeypatch))


def test_a_disk_that_fills_up_leaves_the_frames_before(tmp_path, monkeypatch):
    with pytest.raises(OutputError):
        draw(runs=tmp_path, frames_every=1, on_step=fill_disk_at(3, monkeypatch))
    frames = [pixels(path)[0] for path in sorted((tmp_path / "a-red-heart-7" / "frames").iterdir())]
    assert frames in ([(32, 32)] * 3, [(32, 32)] * 4)  # that of the step itself was on its way


def test_a_disk_that_fills_up_leaves_no_parts(tmp_path, monkeypatch):
    with pytest.raises(OutputError):
        draw(runs=tmp_path, frames_every=1, on_step=fill_disk_at(3, monkeypatch))
    assert [name for name in files(tmp_path) if name.endswith(".part")] == []


@pytest.mark.full
@pytest.mark.parametrize("checkpoint_every", ["0", "1"])
@pytest.mark.parametrize("number", [2, 4, 6])
def test_a_frame_that_cannot_be_written_costs_no_step_before_it(tmp_path, monkeypatch, checkpoint_every, number):
    def refuse(run, step, *png):
        if step == number:
            raise OutputError("the disk is full", "free some space")
        return written(run, step, *png)

    written, how = RunDir.write_frame, {"steps": 6, "frames_every": 2, "checkpoint_every": checkpoint_every}
    with monkeypatch.context() as patched:
        patched.setattr(RunDir, "write_frame", refuse)
        with pytest.raises(OutputError, match="the disk is full"):
            draw(runs=tmp_path, out=tmp_path / "a.png", **how)
    run = tmp_path / "a-red-heart-7"
    assert note(run)["status"] == "failed"
    assert not (tmp_path / "a.png").exists()
    assert load_state(run)[0].step == note(run)["steps_done"] == number - 1
    whole = draw(runs=tmp_path / "whole", **how).run
    assert resume(run).steps == 6
    assert differing(contents(run), contents(whole)) == []


def fill_disk_at(number, monkeypatch):
    """Return an on_step after which nothing more can be flushed to the disk."""

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda step: monkeypatch.setattr("os.fsync", full) if step.step == number else None


# memory


def too_large():
    """Return the error by which torch really refuses memory here."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except (RuntimeError, MemoryError) as error:
        return error


MEMORY = {
    "Python": MemoryError(),
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CPU": too_large(),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 123 bytes."),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 5.40 GB, max allowed: 6.80 GB)."),
}


@pytest.fixture(params=MEMORY, scope="module")
def shortage(request):
    return MEMORY[request.param]


def test_too_little_memory_in_the_loop_has_exit_code_7(networks, shortage):
    with pytest.raises(VqclipError) as caught:
        draw(on_step=fail_at(2, shortage))
    assert caught.value.exit_code == 7


def test_too_little_memory_for_loading_has_exit_code_7(networks, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setitem(LOADERS, "clip", fail)
    with pytest.raises(OutOfMemory):
        draw()


def test_too_little_memory_comes_with_the_size_and_advice():
    with pytest.raises(OutOfMemory) as caught:
        draw(on_step=fail_at(2, MemoryError()))
    assert "32x32" in caught.value.what
    assert "--size" in caught.value.hint
    assert "--fit" in caught.value.hint


def test_another_runtime_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes differ"):
        draw(on_step=fail_at(2, RuntimeError("shapes differ")))


# the seed


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    assert draw(runs=tmp_path / "a").path.read_bytes() == draw(runs=tmp_path / "b").path.read_bytes()


def test_every_frame_of_the_same_seed_is_the_same(tmp_path):
    one, two = (draw(runs=tmp_path / name, frames_every=1).run / "frames" for name in "ab")
    assert [p.read_bytes() for p in sorted(one.iterdir())] == [p.read_bytes() for p in sorted(two.iterdir())]


def test_what_was_drawn_before_does_not_matter():
    first = draw().picture
    torch.manual_seed(99)
    torch.rand(10)
    assert draw().picture.tobytes() == first.tobytes()


def test_complete_settings_can_be_given_in_place_of_a_prompt(tmp_path):
    by_prompt = draw(runs=tmp_path / "a")
    assert generate(by_prompt.settings, runs=tmp_path / "b").path.read_bytes() == by_prompt.path.read_bytes()


@pytest.mark.parametrize("more", [{"steps": 2}, {"seed": 8}])
def test_values_beside_complete_settings_are_not_silently_dropped(more):
    complete = resolve("a red heart", seed=7, **QUICK)
    with pytest.raises((UsageError, TypeError)):
        generate(complete, **more)


def test_a_run_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    draw()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_watching_a_run_does_not_change_it(tmp_path):
    plain = draw().picture
    assert draw(runs=tmp_path, frames_every=1, on_step=lambda step: None).picture.tobytes() == plain.tobytes()


def test_another_seed_gives_another_picture():
    assert draw(seed=8).picture.tobytes() != draw().picture.tobytes()


def test_without_a_seed_two_runs_differ():
    assert draw(seed=None).settings.seed != draw(seed=None).settings.seed


def test_a_seed_that_was_drawn_is_recorded(tmp_path):
    result = draw(seed=None, runs=tmp_path)
    assert note(result.run)["settings"]["seed"] == result.settings.seed


def test_a_seed_that_was_drawn_makes_the_picture_again():
    drawn = draw(seed=None)
    assert draw(seed=drawn.settings.seed).picture.tobytes() == drawn.picture.tobytes()


def test_seed_0_is_a_seed(tmp_path):
    result = draw(seed=0, runs=tmp_path)
    assert (result.settings.seed, result.run.name) == (0, "a-red-heart-0")


@pytest.mark.parametrize("init", ["smooth", "codes", "grey"])
def test_the_largest_seed_works_with_every_start(init):
    assert draw(seed=2**63 - 1, init=init, tries=3).settings.seed == 2**63 - 1


@pytest.mark.parametrize("seed", [-2, 2**63, 2**64])
def test_a_seed_out_of_range_is_a_usage_error(seed):
    with pytest.raises(UsageError, match="seed"):
        draw(seed=seed)


# the size


@pytest.mark.parametrize(
    ("asked", "made"), [((32, 48), (32, 48)), ((33, 46), (32, 48)), ((101, 67), (100, 68)), ((8, 9), (8, 8))]
)
def test_the_size_is_the_nearest_multiple_of_the_vqgans_f(asked, made):
    assert draw(size=asked).picture.size == made


def test_the_rounded_size_is_recorded(tmp_path):
    assert note(draw(size=(33, 46), runs=tmp_path).run)["settings"]["size"] == [32, 48]


@pytest.mark.parametrize("size", [(7, 64), (64, 7), (1, 1)])
def test_a_size_below_two_places_a_side_is_a_usage_error(size):
    with pytest.raises(UsageError, match="too small"):
        draw(size=size)


def test_a_size_that_is_too_small_leaves_nothing_behind(tmp_path):
    with contextlib.suppress(UsageError):
        draw(size=(7, 64), runs=tmp_path / "runs", out=tmp_path / "a.png")
    assert files(tmp_path) == []


# -o


def test_the_final_picture_also_goes_where_it_is_wanted(tmp_path):
    result = draw(runs=tmp_path / "runs", out=tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == pixels(result.run / "final.png")


def test_the_result_points_to_the_output_that_was_asked_for(tmp_path):
    assert draw(runs=tmp_path / "runs", out=tmp_path / "a.png").path == tmp_path / "a.png"


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_the_outputs_ending_decides_its_format(tmp_path, name, kind):
    draw(out=tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


def test_an_output_that_exists_has_exit_code_10(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputExists) as caught:
        draw(out=tmp_path / "a.png")
    assert caught.value.exit_code == 10


def test_an_output_that_exists_is_left_as_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with contextlib.suppress(OutputExists):
        draw(out=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_an_output_that_exists_is_refused_before_a_model_loads(tmp_path, networks):
    (tmp_path / "a.png").write_bytes(b"mine")
    with contextlib.suppress(OutputExists):
        draw(out=tmp_path / "a.png")
    assert networks.loaded == []


def test_an_output_that_exists_is_replaced_when_that_is_asked_for(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    draw(out=tmp_path / "a.png", overwrite=True)
    assert pixels(tmp_path / "a.png")[0] == (32, 32)


def test_an_output_that_exists_is_still_whole_if_the_run_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    with contextlib.suppress(UsageError):
        draw(out=tmp_path / "a.png", overwrite=True, size=(1, 1))
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a.gif", UsageError),
        ("a", UsageError),
        ("folder.png", OutputError),
        ("a-file/a.png", OutputError),
        ("a" * 300 + ".png", OutputError),
        pytest.param("~no-such-user/a.png", OutputError, id="no-such-user"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, error):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a-file").touch()
    with pytest.raises(error):
        draw(out=name if name.startswith("~") else tmp_path / name)


def test_asking_for_an_output_leaves_nothing_if_the_run_is_refused(tmp_path):
    with contextlib.suppress(UsageError):
        draw(out=tmp_path / "a.png", size=(1, 1))
    assert files(tmp_path) == []


def test_a_runs_folder_that_cannot_be_made_is_refused_before_a_model_loads(tmp_path, networks):
    (tmp_path / "a-file").touch()
    with contextlib.suppress(OutputError):
        draw(runs=tmp_path / "a-file")
    assert networks.loaded == []


# pictures that are given


def bands(size, colours):
    """Return a picture of equal upright bands."""
    picture = Image.new("RGB", size)
    width = size[0] // len(colours)
    for index, colour in enumerate(colours):
        picture.paste(Image.new("RGB", (width, size[1]), colour), (index * width, 0))
    return picture


def inner(z):
    """Leave out the places at the edge, which resampling blends."""
    return z[..., 2:-2, 2:-2]


def test_a_wide_init_image_is_cropped_not_squashed(tmp_path, networks):
    bands((192, 64), ["red", "lime", "blue"]).save(tmp_path / "wide.png")
    session = ready(init_image=tmp_path / "wide.png", size=(64, 64))
    green = networks.vqgan.encode(to_tensor(flat("lime", (64, 64))))
    assert torch.allclose(inner(session.start().z), inner(green), atol=1e-3)


def test_a_tall_init_image_is_cropped_not_squashed(tmp_path, networks):
    bands((192, 64), ["red", "lime", "blue"]).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    session = ready(init_image=tmp_path / "tall.png", size=(64, 64))
    green = networks.vqgan.encode(to_tensor(flat("lime", (64, 64))))
    assert torch.allclose(inner(session.start().z), inner(green), atol=1e-3)


def test_an_init_image_fills_the_size_that_was_asked_for(red):
    assert ready(init_image=red, size=(64, 32)).start().z.shape[-2:] == (8, 16)


def test_a_start_from_an_init_image_does_not_depend_on_the_seed(red):
    one, two = (prepare(resolve("a red heart", seed=seed, init_image=red, **QUICK)) for seed in (7, 8))
    assert torch.equal(one.start().z, two.start().z)


def test_the_path_of_an_init_image_is_recorded_whole(red, monkeypatch):
    monkeypatch.chdir(red.parent)
    assert draw(init_image="red.png").settings.init_image == str(red)


def test_the_path_of_an_image_prompt_is_recorded_whole(red, monkeypatch):
    monkeypatch.chdir(red.parent)
    assert draw(image_prompts=("red.png",)).settings.image_prompts == (str(red),)


def test_an_image_prompt_is_embedded_as_the_picture_it_shows(red, networks):
    target = ready("", image_prompts=(red,)).targets[0]
    side = networks.clip.size
    assert torch.allclose(target.embeds, networks.clip.encode_image(to_tensor(flat("red", (side, side)))), atol=1e-5)


def test_an_image_prompt_is_seen_as_a_whole_and_by_its_four_corners(networks):
    corners = bands((80, 80), ["red", "lime", "blue", "white"])
    views = [corners, *(corners.crop((x, y, x + 64, y + 64)) for x, y in [(0, 0), (16, 0), (0, 16), (16, 16)])]
    small = [to_tensor(view.resize((16, 16), Image.Resampling.LANCZOS)) for view in views]
    mean = torch.stack([networks.clip.encode_image(view)[0] for view in small]).mean(0)
    found = embed_image_prompt(networks.clip, corners, torch.device("cpu"))
    assert torch.allclose(found[0], mean / mean.norm(), atol=1e-4)


def test_an_embedded_picture_has_unit_length(networks):
    found = embed_image_prompt(networks.clip, bands((90, 30), ["red", "lime", "blue"]), torch.device("cpu"))
    assert found.norm(dim=1).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_a_picture_of_any_shape_can_be_a_prompt(networks, size):
    assert torch.isfinite(embed_image_prompt(networks.clip, flat("red", size), torch.device("cpu"))).all()


def test_texts_and_pictures_are_targets_together(red):
    target = ready("a red heart:2 | a face:-1", image_prompts=(red,), image_prompt_weight=0.5).targets[0]
    assert target.weights.tolist() == [2, -1, 0.5]


def test_there_is_one_embedding_for_every_weight_and_stop(red):
    target = ready("a red heart:2 | a face:-1", image_prompts=(red, red)).targets[0]
    assert len(target.embeds) == len(target.weights) == len(target.stops) == 4


def test_an_image_prompt_of_negative_weight_cannot_run_away(red):
    assert torch.isfinite(ready(image_prompts=(red,), image_prompt_weight=-1.0).targets[0].stops[-1])


def test_an_image_prompt_of_positive_weight_has_no_stop(red):
    assert ready(image_prompts=(red,)).targets[0].stops[-1] == float("-inf")


def test_a_picture_alone_is_prompt_enough(red):
    assert draw("", image_prompts=(red,)).steps == 5


def test_an_image_prompt_changes_the_picture(red):
    assert draw(image_prompts=(red,), steps=20).picture.tobytes() != draw(steps=20).picture.tobytes()


@pytest.mark.parametrize("option", ["init_image", "image_prompts"])
def test_a_missing_picture_is_an_input_error_before_a_model_loads(tmp_path, networks, option):
    path = tmp_path / "missing.png"
    with pytest.raises(InputError):
        draw(**{option: path if option == "init_image" else (path,)})
    assert networks.loaded == []


@pytest.mark.parametrize("make", [lambda path: None, os.mkfifo, os.mkdir])
def test_a_mask_that_is_none_is_an_input_error_before_a_model_loads(tmp_path, networks, red, make):
    make(tmp_path / "mask.png")
    with pytest.raises(InputError, match="mask"):
        draw(init_image=red, mask=tmp_path / "mask.png")
    assert networks.loaded == []


@pytest.mark.skipif(sys.platform != "linux", reason="only there are names any bytes")
@pytest.mark.parametrize("option", ["init_image", "image_prompts"])
def test_a_picture_whose_name_is_not_utf_8_is_used_or_refused(tmp_path, option):
    path = tmp_path / os.fsdecode(b"\xff.png")
    flat("red").save(path)
    with contextlib.suppress(VqclipError):
        draw(runs=tmp_path / "runs", **{option: path if option == "init_image" else (path,)})


# models and devices


def test_every_clip_is_given_its_own_targets(networks):
    session = ready(clips=("tiny", "tiny"))
    assert len(session.clips) == len(session.targets) == 2


@pytest.mark.parametrize("values", [{"vqgan": "nonsense"}, {"clips": ("tiny", "nonsense")}, {"preset": "nonsense"}])
def test_an_unknown_model_is_a_model_error_before_any_loads(networks, values):
    with pytest.raises(ModelError, match="nonsense"):
        draw(**values)
    assert networks.loaded == []


def test_a_device_that_is_not_there_is_a_usage_error_before_a_model_loads(networks):
    with pytest.raises(UsageError, match="nonsense"):
        draw(device="nonsense")
    assert networks.loaded == []


@pytest.mark.parametrize(
    "name", ["", "nonsense", "cpu:", "cpu:x", "meta", "xla", "vulkan", "hpu", "privateuseone", "cuda:99", "-1"]
)
def test_a_device_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError):
        choose_device(name)


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")


def test_the_automatic_device_is_one_that_is_there():
    assert torch.ones(2, device=choose_device("auto")).sum() == 2


# the steps, without a run


def test_prepared_steps_are_an_iterator():
    steps = ready().steps()
    assert iter(steps) is steps
    assert isinstance(next(steps), Step)


def test_prepared_steps_are_numbered_from_1_to_the_last():
    assert [step.step for step in ready().steps()] == [1, 2, 3, 4, 5]


def test_prepared_steps_can_be_left_early():
    session = ready()
    for step in session.steps():
        if step.step == 2:
            break
    assert session.picture(step.latent).size == (32, 32)


def test_prepared_steps_begin_anew_each_time():
    session = ready()
    one, two = ([step.latent for step in session.steps()][-1] for _ in range(2))
    assert torch.equal(one, two)


def test_prepared_steps_end_in_the_picture_that_generate_makes():
    session = ready(upscale=2)
    *_, last = session.steps()
    assert session.finished(session.picture(last.latent)).tobytes() == draw(upscale=2).picture.tobytes()
    complete = resolve("a red heart", seed=7, **QUICK, upscale=2)
    assert prepare(complete).settings == session.settings
    with pytest.raises(UsageError):
        prepare(complete, seed=8)


def test_a_prepared_session_knows_the_size_it_will_make():
    assert ready(size=(33, 46)).settings.size == (32, 48)


def test_preparing_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(ready().steps())
    assert files(tmp_path) == []


# the bundled models, once


SCRIPT = """
import sys, vqclip
small = dict(steps=3, size=(64, 64), tries=1, cutouts=4, device="cpu", init="grey", upscale=0)
vqclip.generate("a red heart", seed=7, runs=sys.argv[1], **small)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return a run directory made with the bundled models, in a process of its own."""
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, "-c", SCRIPT, folder], check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.mark.full
def test_the_bundled_models_make_a_picture_of_the_size_asked_for(real):
    assert pixels(real / "final.png")[0] == (64, 64)


@pytest.mark.full
def test_the_bundled_models_are_recorded_with_the_hashes_of_their_files(real):
    hashes = {}
    for kind in ("vqgan", "clip"):
        hashes[kind] = hashlib.sha256(find(kind, "tiny").weights.read_bytes()).hexdigest()
    models = note(real)["models"]
    assert {"vqgan": models["vqgan"]["sha256"], "clip": models["clips"][0]["sha256"]} == hashes


def test_the_bundled_models_paint_more_than_one_colour(real):
    assert len(Image.open(io.BytesIO((real / "final.png").read_bytes())).getcolors(64 * 64)) > 100


# one path, and nothing twice


@pytest.fixture
def stacks(networks, monkeypatch):
    """Return the stacks, innermost last, at which images are decoded with a gradient: one a step."""
    seen, decode = [], networks.vqgan.decode

    def watched(z):
        if torch.is_grad_enabled():
            seen.append([Path(frame.filename) for frame in traceback.extract_stack()])
        return decode(z)

    monkeypatch.setattr(networks.vqgan, "decode", watched)
    return seen


@pytest.mark.parametrize("again", [False, True], ids=["generate", "resume"])
def test_few_frames_lie_between_the_command_and_the_loop(vq, stacks, monkeypatch, again):
    monkeypatch.setattr("vqclip.runs.memory.estimate", lambda session: None)  # which takes a step of its own
    args = ("generate", "c", *conftest.QUICK)
    if again:
        vq(*args)
        stacks.clear()
        args = ("resume", "runs/c-7", "--steps", 4)
    assert vq(*args).code == 0
    package = Path(vqclip.__file__).parent
    ours = [path.relative_to(package).as_posix() for path in stacks[0] if path.is_relative_to(package)]
    first, last = ours.index("cli/__init__.py"), ours.index("core/loop.py")
    assert len(ours[first + 1 : last]) <= 6, ours


@pytest.mark.parametrize("steps", [4, 5])
def test_no_image_is_decoded_twice(tmp_path, networks, monkeypatch, steps):
    decoded, picture = [], Session.picture
    monkeypatch.setattr(
        Session, "picture", lambda self, latent, *more: (decoded.append(latent), picture(self, latent, *more))[1]
    )
    result = draw(runs=tmp_path, out=tmp_path / "out.png", steps=steps, frames_every=2)
    assert len(decoded) == len(frames(result.run))


def test_what_is_written_is_checked_once(vq, monkeypatch):
    checked, check = [], Output.check
    monkeypatch.setattr(Output, "check", lambda self: (checked.append(self), check(self)))
    assert vq("generate", "c", *conftest.QUICK).code == 0
    assert len(checked) == 1


def test_complete_settings_are_not_made_again(monkeypatch):
    settings = resolve("a red heart", seed=7, **QUICK)
    made, init = [], vqclip.Settings.__init__

    def watched(self, **values):
        made.append(values)
        init(self, **values)

    monkeypatch.setattr(vqclip.Settings, "__init__", watched)
    assert generate(settings).steps == 5
    assert made == []


def test_a_run_takes_the_networks_that_it_is_given():
    from tests.support.fakes import FakeClip, FakeVqgan

    loaded = []

    def loader(kind, network):
        return lambda name, device: (loaded.append(kind), network)[1]

    networks = Networks({"vqgan": loader("vqgan", FakeVqgan()), "clip": loader("clip", FakeClip())})
    one, two = (draw(networks=networks) for _ in range(2))
    assert loaded == ["vqgan", "clip"]
    assert one.picture.tobytes() == two.picture.tobytes() == draw().picture.tobytes()
