"""Stories and restyled clips, on the fakes: what is there at the end, by another decoder, and after any kill."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.process.test_power import cut_while
from tests.support.clips import apart, facts, make_clip
from tests.support.runs import contents, differing, record_of
from vqclip.animate.camera import move_camera
from vqclip.animate.clip import probe_clip
from vqclip.animate.progress import AnimationProgress
from vqclip.animate.restyle import Restyle
from vqclip.animate.run import animate, check_output, resume
from vqclip.animate.story import Story, mix_targets
from vqclip.config.resolve import resolve
from vqclip.core.interfaces import Target
from vqclip.core.quantize import quantize
from vqclip.errors import InputError, OutputError, OutputExists, RunLocked, UsageError
from vqclip.files.images import load_image, to_picture, to_tensor
from vqclip.runs.api import generate, prepare
from vqclip.runs.api import resume as go_on_with_a_still
from vqclip.runs.run_dir import RunDir
from vqclip.video.ffmpeg import find_ffmpeg
from vqclip.video.make import VideoOptions

ROOT = Path(__file__).parents[3]
LOOK = {"seed": 7, "size": (32, 32), "steps": 3, "init": "codes", "coarse": 0.0, "cutouts": 2}
STORY = Story(prompts=("a red heart", "an owl"), frames=6, fade=2, zoom="1.1", turn="t", frame_steps=2, fps=12)


@pytest.fixture
def here(tmp_path, monkeypatch, networks):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Steps(AnimationProgress):
    """Calls a function at each step."""

    def __init__(self, call):
        self.step = call


def tell(animation=STORY, runs="runs", *, out=None, on_step=None, upscale=0, **options):
    progress = Steps(on_step) if on_step else None
    settings = resolve("a red heart", "tiny", **LOOK, upscale=upscale)
    options = VideoOptions(**options)
    return animate(animation, settings, runs=runs, out=out, options=options, device="cpu", progress=progress)


def drawn(clip="clip.mp4", **more):
    """Return a restyling of a clip, which is made where there is none."""
    if not Path(clip).exists():
        make_clip(clip, 6)
    values = {"frame_steps": 2, "blend": 0.5, "smooth": 0.3} | more
    return Restyle(footage=probe_clip(find_ffmpeg(), Path(clip).absolute()), **values)


def frames(run):
    return [load_image(path) for path in sorted((Path(run) / "frames").iterdir())]


# -- what is there at the end ----------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("animation", [STORY, drawn], ids=["story", "restyle"])
def test_the_video_is_enlarged_and_what_it_goes_on_from_is_not(here, animation):
    small, large = (tell(animation() if animation is drawn else animation, f"runs-{k}", upscale=k) for k in (0, 2))
    assert large.video.size == tuple(2 * side for side in small.video.size)
    assert [frame.tobytes() for frame in frames(large.run)] == [frame.tobytes() for frame in frames(small.run)]
    assert load_image(large.run / "final.png").size == large.video.size


def test_a_scene_is_arrived_at_evenly():
    story, there = Story(prompts=("a", "b"), frames=12, fade=3, arrive=True), 0.0
    for t in range(6, 10):
        scene, way = story.arrival(t)
        there += (1 - there) * way
        assert (scene, there) == (1, pytest.approx((t - 5) / 4))
    assert [story.arrival(t)[1] for t in (0, 5, 10, 11)] == [0.0] * 4
    assert STORY.arrival(3)[1] == 0
    assert "arrive" not in STORY.model_dump()  # as in records of 0.1.0


def test_a_scene_that_has_arrived_is_what_its_prompt_begins_with(here):
    look = LOOK | {"step_size": 1e-6, "steps": 1}
    story = Story(prompts=("a red heart", "an owl"), frames=4, fade=0, arrive=True, frame_steps=1)
    run = animate(story, resolve("a red heart", "tiny", **look), runs="runs", device="cpu").run
    owl = generate("an owl", preset="tiny", device="cpu", **look).picture
    assert np.abs(np.asarray(frames(run)[2], int) - np.asarray(owl, int)).max() <= 2


def test_a_story_leaves_frames_a_video_and_what_made_them(here):
    moved = tell()
    assert sorted(p.name for p in moved.run.iterdir() if p.name != ".lock") == [
        "final.png", "frames", "metrics.jsonl", "run.json", "video.mp4",
    ]  # fmt: skip
    assert [p.name for p in sorted((moved.run / "frames").iterdir())] == [f"{k:06d}.png" for k in range(1, 7)]
    assert facts(moved.video.path) == (6, (32, 32), pytest.approx(0.5), 12, None)
    record = record_of(moved.run)
    assert (record["schema"], record["status"], record["frames_done"]) == ("vqclip-motion/1", "done", 6)
    assert record["motion"] == STORY.model_dump(mode="json")
    lines = [json.loads(line) for line in (moved.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert frames(moved.run)[-1].tobytes() == load_image(moved.run / "final.png").tobytes()


def test_the_first_frame_is_the_picture_of_the_same_settings(here):
    picture = generate("a red heart", preset="tiny", device="cpu", **LOOK).picture
    assert frames(tell().run)[0].tobytes() == picture.tobytes()


def test_equal_stories_are_equal_bytes_and_seeds_differ(here):
    one, two = tell(runs="a"), tell(runs="b")
    assert differing(contents(one.run), contents(two.run)) == []
    other = animate(STORY, resolve("a red heart", "tiny", **LOOK | {"seed": 8}), runs="c", device="cpu")
    assert frames(one.run)[-1].tobytes() != frames(other.run)[-1].tobytes()


def test_a_frame_begins_from_the_one_before_as_the_camera_moves(here, networks):
    """With steps that change next to nothing, a frame is the one before, moved and through the VQGAN."""
    score = Story(
        prompts=("a red heart",), frames=3, fade=0, pan_x="0: 0, 1: 0.25, 2: -0.2", turn="9", zoom="1", frame_steps=1
    )
    settings = resolve("a red heart", "tiny", **LOOK, step_size=1e-6)
    first, second, third = frames(animate(score, settings, runs="runs", device="cpu").run)
    for before, after, pan in ((first, second, 0.25), (second, third, -0.2)):
        z = networks.vqgan.encode(move_camera(to_tensor(before), zoom=1, turn=9, pan_x=pan, pan_y=0))
        assert to_picture(networks.vqgan.decode(quantize(z, networks.vqgan.codebook))).tobytes() == after.tobytes()
        assert apart(before, after) > 0.02


def test_a_restyled_clip_keeps_its_pace_its_length_and_its_sound(here):
    score = drawn()
    before = Path("clip.mp4").read_bytes()
    moved = tell(score, out=Path("out.mp4"))
    count, size, seconds, rate, sound = facts("out.mp4")
    assert (count, size, seconds, rate) == (6, (32, 32), pytest.approx(0.5), 12)
    assert sound == ("aac", pytest.approx(0.5, abs=0.07))  # aac comes in blocks of 1024
    assert Path("clip.mp4").read_bytes() == before
    assert not (moved.run / "video.mp4").exists()
    [(path, digest)] = record_of(moved.run)["pictures"].items()
    assert path == "../../clip.mp4"
    assert len(digest) == 64


@pytest.mark.full
@pytest.mark.parametrize(
    ("clip", "out", "codec"), [("a.mp4", "o.webm", "opus"), ("a.webm", "o.mp4", "opus"), ("a.mkv", "o.mp4", "aac")]
)
def test_sound_goes_over_into_other_formats(here, clip, out, codec):
    tell(drawn(clip), out=Path(out))
    found = facts(out)[4]
    assert found[0] in (codec, f"lib{codec}")
    assert found[1] == pytest.approx(0.5, abs=0.07)


@pytest.mark.full
@pytest.mark.parametrize("out", ["o.gif", "o.webp", "o.apng"])
def test_formats_without_sound_are_silent(here, out):
    assert tell(drawn(), out=Path(out)).video.frames == 6


def test_a_frame_of_a_clip_begins_from_its_picture(here):
    """With steps that change next to nothing and no blend, the clip comes out as the VQGAN has it."""
    settings = resolve("a red heart", "tiny", **LOOK | {"size": (64, 48)}, step_size=1e-6)
    run = animate(drawn(blend=0.0, smooth=0.0), settings, runs="runs", device="cpu").run
    seen = [picture.crop((0, 0, 8, 48)).resize((1, 2), Image.Resampling.BOX) for picture in frames(run)]
    for picture in seen:  # blue above green
        (r, _, b), (_, g, b2) = picture.getpixel((0, 0)), picture.getpixel((0, 1))
        assert b > r
        assert g > b2


@pytest.mark.full
def test_smoothing_holds_on_to_the_frame_before(here):
    make_clip("still.mp4", 6, draw=lambda k, size: Image.linear_gradient("L").resize(size).convert("RGB"))

    def change(smooth):
        pictures = frames(tell(drawn("still.mp4", frame_steps=4, blend=0.0, smooth=smooth)).run)
        return sum(apart(a, b) for a, b in itertools.pairwise(pictures))

    assert change(0.8) < 0.8 * change(0.0)


def test_a_frame_begins_from_a_blend_of_its_picture_and_the_drawing_carried_along(here):
    """The disk moves by 2 pixels a frame; where it is now, the drawing is what it was there before."""
    score, size = drawn(blend=0.5), (64, 48)
    session = prepare(resolve("a red heart", "tiny", **LOOK | {"size": size}), "cpu")
    clip = list(pictures_of("clip.mp4"))
    with score.planner(session, 3, find_ffmpeg()) as play_on:  # as a run that goes on with its fourth frame
        drawing = clip[2].convert("L").point(lambda level: 255 - level).convert("RGB")
        shot = play_on(3, drawing)
    now = to_tensor(clip[3])
    carried = 2 * shot.start - now
    spot = carried[0, :, 24, 16 + 6 + 9 - 2]  # inside of the disk, near its rim: dark as the drawing has it
    assert float(spot.mean()) < 0.35
    assert (shot.steps, shot.smooth) == (2, 0.3)
    torch.testing.assert_close(shot.past, carried, atol=0.02, rtol=0)


def test_the_first_frame_of_a_clip_begins_from_its_picture_and_has_the_steps_of_a_settled_one(here):
    score = drawn(blend=0.75, frame_steps=4)
    session = prepare(resolve("a red heart", "tiny", **LOOK | {"size": (64, 48)}), "cpu")
    with score.planner(session, 0, find_ffmpeg()) as play_on:
        shot = play_on(0, None)
    assert shot.steps == 16  # 4 of its own, and 3/4 of those before: 4 / (1 - 3/4)
    torch.testing.assert_close(shot.start, to_tensor(next(pictures_of("clip.mp4"))), atol=0.05, rtol=0)


def test_a_picture_says_what_it_is_a_frame_of_and_not_where_the_clip_lies(here):
    run = tell(drawn()).run
    with Image.open(run / "frames" / "000002.png") as picture:
        told, packet = json.loads(picture.info["vqclip"]), picture.info["XML:com.adobe.xmp"]
    assert told["frame"] == 2
    assert told["motion"]["footage"]["path"] == "clip.mp4"
    assert str(here) not in json.dumps(told)
    assert "compositeWithTrainedAlgorithmicMedia" in packet
    bare = tell(runs="bare", metadata=False).run
    with Image.open(bare / "frames" / "000002.png") as picture:
        assert "vqclip" not in picture.info


@pytest.mark.parametrize(
    ("clip", "out", "lacks", "others"),
    [("a.mp4", "o.webm", "libopus", ["o.mp4", "o.gif"]), ("a.mkv", "o.mp4", "aac", ["o.webm", "o.webp"])],
)
def test_a_missing_encoder_for_the_sound_is_found_before_any_work(
    here, networks, monkeypatch, clip, out, lacks, others
):
    """It is not missed where the sound is copied, or where a format has none."""
    score, program = drawn(clip), find_ffmpeg()
    lean = replace(program, encoders=program.encoders - {"aac", "libopus"})
    monkeypatch.setattr("vqclip.animate.run.find_ffmpeg", lambda named: lean)
    with pytest.raises(InputError, match=lacks):
        tell(score, out=Path(out))
    assert networks.loaded == []
    for other in others:
        check_output(score, Path(other), VideoOptions())


# -- a story's parts -------------------------------------------------------------------------------------------------


def test_scenes_fade():
    story = Story(prompts=("a", "b", "c"), frames=12, at=(0, 4, 8), fade=3)
    shares = [story.scene_weights(t) for t in range(12)]
    assert shares[3] == {0: 1.0}
    assert shares[4] == {0: 0.75, 1: 0.25}
    assert shares[6] == {0: 0.25, 1: 0.75}
    assert shares[7] == {1: 1.0}
    assert shares[8] == {1: 0.75, 2: 0.25}
    assert shares[11] == {2: 1.0}


def test_scenes_without_a_fade_are_cut():
    story = Story(prompts=("a", "b"), frames=4, fade=0)
    assert [story.scene_weights(t) for t in range(4)] == [{0: 1.0}, {0: 1.0}, {1: 1.0}, {1: 1.0}]


def test_a_fade_that_nobody_asked_for_fits_into_short_scenes():
    story = Story(prompts=("a", "b", "c"), frames=7, at=(0, 2, 5))  # of 2, 3 and 2 frames
    assert [story.scene_weights(t) for t in (2, 3, 4)] == [
        {0: pytest.approx(2 / 3), 1: pytest.approx(1 / 3)}, {0: pytest.approx(1 / 3), 1: pytest.approx(2 / 3)}, {1: 1.0}
    ]  # fmt: skip
    long = Story(prompts=("a", "b"), frames=60)
    assert [t for t in range(60) if len(long.scene_weights(t)) == 2] == list(range(30, 42))


def test_mixed_targets_have_every_prompt_at_its_share():
    one = Target(torch.eye(2, 4), torch.tensor([1.0, -0.5]), torch.tensor([-1.0, -0.95]))
    two = Target(torch.ones(1, 4), torch.tensor([2.0]), torch.tensor([-3.0]))
    [found] = mix_targets([([one], 0.25), ([two], 0.75)])
    assert found.weights.tolist() == [0.25, -0.125, 1.5]
    assert found.stops.tolist() == pytest.approx([-1, -0.95, -3])
    assert torch.equal(found.embeds, torch.cat([one.embeds, two.embeds]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 1}, {"frame_steps": 0}, {"fade": -1}, {"border": "wrap"}, {"zoom": "0"}, {"zoom": "t"},
        {"zoom": "3"}, {"turn": "1 / t"}, {"pan_x": "2"}, {"at": (0,)}, {"at": (1, 3)}, {"at": (0, 0)}, {"at": (0, 6)},
        {"fade": 4}, {"fps": 0.0}, {"fps": float("nan")}, {"prompts": ("a", "")}, {"prompts": ("b:0", "a")},
    ],
    ids=str,
)  # fmt: skip
def test_a_story_that_can_not_be_told_is_refused(wrong):
    with pytest.raises(UsageError):
        Story(**{"prompts": ("a", "b"), "frames": 6, "fade": 1} | wrong)


@pytest.mark.parametrize("fps", ["1e99999999", "1e-99999999", "1/0", "9" * 5000, 1e400, "0x10", "", None])
def test_a_pace_beyond_reason_is_refused_at_once(fps):
    began = time.monotonic()
    with pytest.raises(UsageError):
        Restyle(footage={"path": "/x.mp4", "frames": 5, "size": [32, 32], "fps": fps})
    with pytest.raises(UsageError):
        Story(prompts=("a",), frames=1_000_000)
    assert time.monotonic() - began < 2


def test_a_story_is_read_as_it_was_told():
    assert Story.model_validate(STORY.model_dump(mode="json")) == STORY


# -- stopped, killed, resumed ----------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("kind", ["story", "restyle"])
def test_a_copy_from_any_frame_goes_on_to_the_same_bytes(here, kind):
    """Such a copy is what SIGKILL leaves; it is made in the middle of each frame's steps."""
    score, copies = STORY if kind == "story" else drawn(), []

    def keep(done, total):
        copies.append(Path(f"killed/{done}"))
        shutil.copytree(next(Path("runs").iterdir()), copies[-1])

    whole = contents(tell(score, on_step=keep).run)
    assert len(copies) == (3 if kind == "story" else 4) + 5 * 2
    for copy in copies[1::2]:
        assert differing(contents(resume(copy, device="cpu").run), whole) == []


KILLER = """
import os, signal, sys, pytest, torch
from tests.conftest import stand_in
from tests.unit.animate.test_animate import STORY, tell
stand_in(pytest.MonkeyPatch())
lines = 0
names = ("render.py", "atomic.py", "run_dir.py", "make.py", "writer.py")
def trace(frame, event, arg):
    return count if frame.f_code.co_filename.endswith(names) else None
def count(frame, event, arg):
    global lines
    lines += event == "line"
    if lines == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return count
os.fsync = lambda handle: None
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what each child would import again
for at in map(int, sys.argv[1:]):
    if not os.fork():
        sys.settrace(trace)
        tell(runs=str(at))
        os._exit(0)
    assert os.wait()[1] in (0, 9)
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(here):
    whole, points = contents(tell(runs="whole").run), (600, 1100)
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLER, *map(str, points)], check=True, env=os.environ | threads)
    unfinished = 0
    for folder in map(str, points):
        [run] = Path(folder).iterdir()
        if not (run / "run.json").exists():  # too early: nothing was begun
            continue
        unfinished += not (run / "video.mp4").exists()
        assert differing(contents(resume(run, device="cpu").run), whole) == []
    assert unfinished == 2


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders can't be flushed there")
@pytest.mark.parametrize("kind", ["story", "restyle"])
def test_a_cut_of_power_costs_no_frame_that_was_flushed(here, monkeypatch, kind):
    animation = STORY if kind == "story" else drawn()
    whole = contents(tell(animation, runs="whole").run)
    copies = cut_while(
        lambda folder: tell(animation, runs=folder), here, monkeypatch, share=0.1, draws=1, seed=3
    )  # fmt: skip
    resumed = [copy for copy in copies if list(copy.glob("*/run.json"))][:: max(1, len(copies) // 6)]
    for copy in resumed:
        assert differing(contents(resume(next(copy.iterdir()), device="cpu").run), whole) == [], copy
    assert len(resumed) > 3


def test_a_done_run_gives_its_video_again_and_elsewhere(here):
    moved = tell()
    whole = contents(moved.run)
    assert resume(moved.run, out=Path("again.mp4"), device="cpu").video.path == Path("again.mp4")
    assert differing(contents(moved.run), whole) == []
    assert Path("again.mp4").read_bytes() == whole["video.mp4"]


def test_a_frame_that_is_damaged_at_the_end_is_made_again(here):
    run = tell().run
    whole = contents(run)
    (run / "frames" / "000006.png").write_bytes(b"no picture")
    assert differing(contents(resume(run, device="cpu").run), whole) == []


@pytest.mark.full
def test_who_goes_on_with_another_version_is_told(vq):
    run = tell().run
    (run / "frames" / "000006.png").unlink()
    record = record_of(run)
    (run / "run.json").write_text(json.dumps(record | {"versions": record["versions"] | {"kornia": "0.1"}}))
    done = vq("resume", run, "--device", "cpu")
    assert done.code == 0
    [line] = [line for line in done.lines if "kornia" in line]
    assert all(version in line for version in ("0.1", record["versions"]["kornia"]))


def test_a_gap_is_told_and_later_frames_are_kept(here):
    run = tell().run
    (run / "frames" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"000003\.png is missing"):
        resume(run, device="cpu")
    assert len(frames(run)) == 5


def test_another_clip_or_model_is_refused(here, monkeypatch):
    run = tell(drawn()).run
    make_clip("clip.mp4", 7)
    for _ in range(2):
        with pytest.raises(InputError, match=r"clip\.mp4"):
            resume(run, device="cpu")
        Path("clip.mp4").unlink(missing_ok=True)
    import vqclip.models.catalogue

    told = tell(runs="story").run
    monkeypatch.setattr(vqclip.models.catalogue.ModelEntry, "sha256", lambda entry: "f" * 64)
    with pytest.raises(InputError, match="models"):
        resume(told, device="cpu")


def test_a_run_in_use_is_left_alone(here):
    run = tell().run
    held = RunDir.open(run)
    try:
        with pytest.raises(RunLocked):
            resume(run, device="cpu")
    finally:
        held.close()


MOTIONS = [None, 7, [], {}, {"kind": "film"}, {"kind": "story"}, {"kind": ["story"]}, {"kind": "story", "frames": "x"},
           {"kind": "restyle", "footage": {}}, {"kind": "restyle", "footage": 3}]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("motion", [*MOTIONS, *({key: value} for key, value in [
    ("prompts", 3), ("frames", 1e99), ("zoom", 1), ("zoom", "import os"), ("at", "x"), ("extra", 1),
    ("fps", None), ("frame_steps", {}), ("border", [])])], ids=str)  # fmt: skip
def test_a_forged_record_is_one_error(here, motion):
    run = tell().run
    record = record_of(run)
    whole = record["motion"]
    record["motion"] = whole | motion if isinstance(motion, dict) and "kind" not in motion and motion else motion
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json.*motion"):
        resume(run, device="cpu")


PLANS = [None, 3, {}, {"metadata": True}, {"metadata": 1, "quality": 80}, {"metadata": True, "quality": 101},
         {"metadata": True, "quality": "80"}]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_forged_plan_is_one_error(here, plan):
    run = tell().run
    (run / "run.json").write_text(json.dumps(record_of(run) | {"plan": plan}))
    with pytest.raises(InputError, match=r"run\.json.*plan"):
        resume(run, device="cpu")


@pytest.mark.full
def test_who_goes_on_keeps_quality_and_bareness(here):
    run = tell(quality=10, metadata=False).run
    whole = contents(run)
    assert len(whole["video.mp4"]) < len(contents(tell(runs="fine").run)["video.mp4"])
    (run / "video.mp4").unlink()
    (run / "frames" / "000006.png").unlink()
    assert differing(contents(resume(run, device="cpu").run), whole) == []


@pytest.mark.full
@pytest.mark.parametrize("footage", [{"path": "relative.mp4"}, {"fps": "1/0"}, {"fps": "-1"}, {"size": 7},
                                     {"frames": 1}, {"fps": "x"}, {"length": "x"}, {"path": 3}], ids=str)  # fmt: skip
def test_forged_footage_is_one_error(here, footage):
    run = tell(drawn()).run
    record = record_of(run)
    record["motion"]["footage"] |= footage
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json.*motion"):
        resume(run, device="cpu")


# -- the commands ----------------------------------------------------------------------------------------------------

TINY = (
    "--device",
    "cpu",
    "--preset",
    "tiny",
    "--size",
    "32x32",
    "--seed",
    "7",
    "--set",
    "cutouts=2",
)
TRIES = ("--set", "tries=1")  # of a start, which restyle has none of
SHORT = ("--steps", "3", "--frames", "4", "--frame-steps", "1", *TINY, *TRIES)


def test_the_story_command_prints_the_video(vq):
    done = vq("story", "a red heart", "an owl", "--fade", "1", *SHORT)
    assert done.code == 0
    assert done.out == f"{Path('runs/a-red-heart-7/video.mp4')}\n"
    assert facts(done.out.strip())[:2] == (4, (32, 32))
    assert all(fact in done.lines[-1] for fact in ("4 frames", "32x32", "0.27 s", "runs/a-red-heart-7"))


def test_the_restyle_command_prints_json_and_keeps_the_shape(vq):
    make_clip("clip.mp4", 5, size=(96, 48))
    done = vq("restyle", "clip.mp4", "an owl", "-o", "owl.mp4", "--frame-steps", "1", "--json",
              *(arg for arg in TINY if arg not in ("--size", "32x32")))  # fmt: skip
    told = json.loads(done.out)
    assert (done.code, told["path"], told["frames"], told["fps"]) == (0, "owl.mp4", 5, 12)
    assert told["size"] == [180, 92]  # 128 x 128 pixels as 2 to 1: 181 x 91, in the fake's blocks of 4
    assert all(fact in done.lines[0] for fact in ("5 frames", "96x48", "12 a second", "aac"))


def test_a_stopped_story_says_how_to_go_on_and_does(vq, monkeypatch):
    import vqclip.cli.animation

    whole = vq("story", "an owl", "--runs", "whole", *SHORT)
    real = vqclip.cli.animation.AnimationBar.step

    def stop(moving, done, total):
        real(moving, done, total)
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(vqclip.cli.animation.AnimationBar, "step", stop)
        done = vq("story", "an owl", *SHORT)
    assert (done.code, done.out) == (143, "")
    assert done.lines[-1].endswith("vqclip resume runs/an-owl-7")
    run = Path("runs/an-owl-7")
    assert record_of(run)["status"] == "stopped"
    done = vq("resume", run, "--ffmpeg", "./none")
    assert (done.code, "./none" in done.err) == (4, True)
    done = vq("resume", run, "--device", "cpu")
    assert (done.code, done.out) == (0, f"{run / 'video.mp4'}\n")
    assert differing(contents(run), contents(Path(whole.out.strip()).parent)) == []


def test_a_story_whose_folder_is_removed_does_not_say_that_its_frames_are_kept(vq, monkeypatch):
    import vqclip.cli.animation

    def remove(moving, done, total):
        if done == 4:
            shutil.rmtree("runs/an-owl-7")

    monkeypatch.setattr(vqclip.cli.animation.AnimationBar, "step", remove)
    done = vq("story", "an owl", *SHORT)
    assert (done.code, done.out) == (8, "")
    assert "vqclip resume" not in done.err


@pytest.mark.parametrize("ends", ["a signal", "a full disk"])
def test_what_is_said_of_going_on_works_as_it_is(vq, monkeypatch, ends):
    import vqclip.cli.animation

    def end(moving, done, total):
        if done == 5:
            raise OutputError("the disk is full", "free some space") if ends == "a full disk" else KeyboardInterrupt

    Path("old.mp4").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(vqclip.cli.animation.AnimationBar, "step", end)
        done = vq("story", "an owl", "-o", "old.mp4", "--overwrite", *SHORT)
    assert done.code == (8 if ends == "a full disk" else 130)
    [line] = [line for line in done.lines if "vqclip resume" in line]
    assert vq(*line.split("vqclip ")[1].split(), "--device", "cpu").out == "old.mp4\n"
    assert facts("old.mp4")[0] == 4


def test_a_video_can_go_home(vq, monkeypatch):
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    Path("home").mkdir()
    assert vq("story", "an owl", "--out=~/a.mp4", *SHORT).code == 0
    assert facts("home/a.mp4")[0] == 4


BAD = {
    "no prompt": (2, "story"),
    "a prompt of nothing": (2, "story", ""),
    "a zoom of letters": (2, "story", "x", "--zoom", "fast"),
    "a zoom that grows without end": (2, "story", "x", "--zoom", "exp(t)"),
    "code for a zoom": (2, "story", "x", "--zoom", "__import__('os').system('touch pwned')"),
    "scenes out of order": (2, "story", "x", "y", "--at", "0,-3"),
    "letters for scenes": (2, "story", "x", "y", "--at", "0,b"),
    "fps 0 of a story": (2, "story", "x", "--fps", "0"),
    "one frame": (2, "story", "x", "--frames", "1"),
    "a fps that a gif can't play": (2, "story", "x", "--fps", "60", "-o", "a.gif"),
    "an unknown format": (2, "story", "x", "-o", "a.txt"),
    "an output that is there": (10, "story", "x", "-o", "there.mp4"),
    "an output below a file": (8, "story", "x", "-o", "there.mp4/a.mp4"),
    "a blend of 1": (2, "restyle", "clip.mp4", "x", "--blend", "1"),
    "no clip": (4, "restyle", "none.mp4", "x"),
    "a clip that is text": (4, "restyle", "text.mp4", "x"),
    "a clip that is a folder": (4, "restyle", "folder", "x"),
    "a picture for a clip": (4, "restyle", "still.png", "x"),
    "a damaged clip": (4, "restyle", "cut.mp4", "x"),
    "fps 0 of a clip": (2, "restyle", "clip.mp4", "x", "--fps", "0"),
    "a length of nothing": (2, "restyle", "clip.mp4", "x", "--length", "0"),
    "a length of one frame": (4, "restyle", "clip.mp4", "x", "--length", "0.01"),
    "the clip for an output": (2, "restyle", "clip.mp4", "x", "-o", "clip.mp4", "--overwrite"),
    "a quality of 101": (2, "story", "x", "--quality", "101"),
    "no ffmpeg": (4, "restyle", "clip.mp4", "x", "--ffmpeg", "none"),
    "a setting that is none": (2, "story", "x", "--set", "zoom=2"),
}


@pytest.mark.full
@pytest.mark.parametrize("args", BAD.values(), ids=BAD)
def test_bad_input_is_answered_in_one_line_and_a_hint_before_a_model_loads(vq, networks, args):
    make_clip("clip.mp4", 3), make_clip("cut.mp4", 30)
    Path("cut.mp4").write_bytes(Path("cut.mp4").read_bytes()[:3000])
    Path("text.mp4").write_text("no film"), Path("there.mp4").write_bytes(b"mine"), Path("folder").mkdir()
    Image.new("RGB", (9, 9)).save("still.png")
    before = {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}
    code, *command = args
    done = vq(*command)
    assert (done.code, done.out) == (code, "")
    assert [line for line in done.lines if line.startswith("error: ")] == done.lines[-2:-1]
    assert networks.loaded == []
    assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before
    assert not Path("runs").exists()


def test_what_is_a_still_s_is_refused_for_a_moving_picture_and_the_other_way(vq):
    vq("story", "an owl", *SHORT)
    run = Path("runs/an-owl-7")
    kept = contents(run)
    assert vq("rerun", run).code == 2
    assert vq("rerun", run / "frames" / "000002.png").code == 2
    assert vq("resume", run, "--steps", "9").code == 2
    with pytest.raises(InputError, match="schema"):
        go_on_with_a_still(run)
    assert differing(contents(run), kept) == []
    shown = [line.split()[0] for line in vq("show", run).out.splitlines()]
    assert "motion" in shown
    assert "steps" not in shown  # that its frames do not have
    vq("generate", "an owl", "--steps", "2", "--runs", "stills", *TINY[2:8])
    with pytest.raises(InputError, match="schema"):
        resume(Path("stills/an-owl-7"), device="cpu")


@pytest.mark.full
def test_a_disk_that_is_full_leaves_whole_frames(here, monkeypatch):
    import vqclip.animate.render

    def require(folder, count, purpose):
        if len(list(Path(folder, "frames").iterdir())) == 3:
            raise OutputError("the disk is full", "free some space")

    with monkeypatch.context() as patch:
        patch.setattr(vqclip.animate.render, "require_space", require)
        with pytest.raises(OutputError):
            tell()
    [run] = Path("runs").iterdir()
    assert (len(frames(run)), record_of(run)["status"]) == (3, "failed")
    assert differing(contents(resume(run, device="cpu").run), contents(tell(runs="whole").run)) == []


@pytest.mark.full
@pytest.mark.parametrize("kind", ["story", "restyle"])
def test_a_disk_without_room_is_said_before_the_first_frame_with_options_that_are_there(vq, monkeypatch, kind):
    make_clip("clip.mp4", 4)
    monkeypatch.setattr(
        "vqclip.files.atomic.shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9_000, 8_000, 1_000)
    )
    given = ["story", "an owl", "--steps", "3"] if kind == "story" else ["restyle", "clip.mp4", "an owl"]
    done = vq(*given, *TINY)
    assert (done.code, done.out) == (8, "")
    known = vq(kind, "--help").out
    assert all(word.strip("(),") in known for word in done.lines[-1].split() if word.lstrip("(").startswith("--"))
    assert not list(Path("runs").glob("*/frames/*"))


def test_an_output_that_appears_meanwhile_is_kept(here):
    def appear(done, total):
        Path("out.mp4").write_bytes(b"mine")

    with pytest.raises(OutputExists):
        tell(out=Path("out.mp4"), on_step=appear)
    assert Path("out.mp4").read_bytes() == b"mine"


def test_a_story_is_filmed_again_by_the_video_command(vq):
    vq("story", "an owl", *SHORT)
    done = vq("video", "runs/an-owl-7", "-o", "slow.mp4", "--fps", "5", "--hold-last", "0", "--show-prompt")
    assert (done.code, facts("slow.mp4")[0]) == (0, 4)


@pytest.mark.full
def test_who_films_it_again_keeps_its_pace(vq):
    make_clip("clip.mp4", 6, fps="24000/1001")
    run = tell(drawn()).run
    for options, fps in (((), 24000 / 1001), (("--fps", "6"), 6), (("--length", "2"), 10)):
        done = vq("video", run, "--hold-last", "0", "-o", "again.mp4", "--overwrite", "--json", *options)
        assert json.loads(done.out)["fps"] == pytest.approx(fps)
    for forged in (None, "24", float("nan"), 1e9, -1, [24]):
        (run / "run.json").write_text(json.dumps(record_of(run) | {"plan": {"fps": forged}}))
        assert json.loads(vq("video", run, "-o", "again.mp4", "--overwrite", "--json").out)["fps"] == 10


# -- long ones -------------------------------------------------------------------------------------------------------

HUNGRY = """
import resource, sys, pytest
from pathlib import Path
from tests.conftest import stand_in
from tests.unit.animate.test_animate import drawn, tell
stand_in(pytest.MonkeyPatch())
marks = []
def look(done, total):
    if done in (200, total):
        marks.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)
tell(drawn("clip.mp4", frame_steps=1, blend=0.0), on_step=look)
print(*marks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    make_clip(tmp_path / "clip.mp4", 1500, size=(320, 240))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    early, late = map(int, done.stdout.split())
    assert late - early < 20_000  # kB


@pytest.mark.slow
def test_the_bundled_models_zoom_and_follow(tmp_path, monkeypatch):
    """A zoom shows what was there, larger, and draws on; a restyled clip follows the clip and does not flicker."""
    monkeypatch.chdir(tmp_path)
    settings = resolve("a castle on a blue background", "tiny", seed=7, size=(64, 64), steps=40)
    pictures = frames(animate(Story(prompts=(settings.prompt,), frames=8, zoom="1.06"), settings, runs="runs").run)
    seen = [move_camera(to_tensor(p), zoom=1.06, turn=0, pan_x=0, pan_y=0) for p in pictures[:-1]]
    moved = [float((a - to_tensor(b)).abs().mean()) for a, b in zip(seen, pictures[1:], strict=True)]
    assert 0.002 < sum(moved) / len(moved) < 0.06
    make_clip("clip.mp4", 8, size=(64, 64))
    drawing = frames(animate(drawn(frame_steps=6), settings, runs="runs").run)
    footage = list(pictures_of("clip.mp4"))
    assert all(0.01 < apart(a, b) < 0.25 for a, b in zip(drawing, footage, strict=True))
    flicker = [apart(a, b) for a, b in itertools.pairwise(drawing)]
    assert max(flicker[1:]) < 0.1


def pictures_of(clip):
    import av

    with av.open(clip) as film:
        for frame in film.decode(video=0):
            yield frame.to_image()
