"""What steers an image, by the whole way: typed, drawn, recorded, made again, resumed, in batches and stories."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUICK
from vqclip.runs.records import read


@pytest.fixture(autouse=True)
def _pictures(vq):
    """Put pictures into the folder that commands run in."""
    for name, colour in (("mask.png", "white"), ("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (40, 40), colour).save(name)


def drawn(vq, *args):
    """Return the path of the image that a command drew."""
    done = vq(*args)
    assert done.code == 0, done.err
    return Path(done.out.splitlines()[-1])


# The words that ask for it -> the words that must be given again to an image, which says no paths.
STEERED = {
    "curves": (["a:{0: 1, 1: 0} | b:{t}", "--tv", "0: 3, 0.5: 0", "--cutouts", "0: 2, 1: 4", "--schedule", "flat"], []),
    "noise": (["a", "--noise-prompt", "14:0.5", "--noise-prompt", "3:{t}"], []),
    "image prompts": (
        ["a", "-i", "red.png:0.5", "-i", "blue.png:{1 - t}", "-i", "red.png"],
        ["-i", "red.png:0.5", "-i", "blue.png:{1 - t}", "-i", "red.png"],
    ),
    "a target": (["a", "--target-image", "red.png", "--target-weight", "0.3"], ["--target-image", "red.png"]),
    "regions": (["a", "--region", "b:2@left", "--region", "c@0,0.5,1,0.5"], []),
    "a region's mask": (["a", "--region", "b@mask.png"], ["--region", "b@mask.png"]),
}


@pytest.fixture(params=STEERED)
def steered(request):
    return STEERED[request.param]


def test_an_image_that_is_steered_is_made_again_from_its_metadata(vq, steered):
    words, again = steered
    first = drawn(vq, "generate", *words, *QUICK)
    assert str(Path.cwd()) not in json.dumps(read(first))
    assert ("pictures" in read(first) and bool(read(first)["pictures"])) == bool(again)
    if again:
        assert vq("rerun", first).code == 4
    assert drawn(vq, "rerun", first, *again).read_bytes() == first.read_bytes()
    assert drawn(vq, "rerun", first.parent).read_bytes() == first.read_bytes()


def test_a_batch_draws_what_a_command_draws(vq, steered):
    """One row alone, and two of one tensor."""
    prompt, *options = steered[0]
    alone = drawn(vq, "generate", prompt, *options, *QUICK)
    Path("rows.jsonl").write_text(f"{json.dumps({'prompt': prompt})}\n{json.dumps({'prompt': 'another'})}\n")
    options = [*options, *QUICK, "-o", "out", "--batch-size", "2"]
    assert vq("batch", "rows.jsonl", *options).code == 0
    with Image.open(alone) as ours, Image.open(sorted(Path("out").glob("*.png"))[0]) as row:
        assert ours.tobytes() == row.tobytes()


@pytest.mark.full
def test_a_story_and_its_frames_are_steered(vq, steered):
    prompt, *options = steered[0]
    story = ("story", prompt, "--frames", "2", "--frame-steps", "2", *options, *QUICK)
    assert vq(*story, "--runs", "steered").code == 0
    assert vq("story", "a", "--frames", "2", "--frame-steps", "2", *QUICK, "--runs", "plain").code == 0
    ours, plain = (next(Path(runs).glob("*/frames/000002.png")).read_bytes() for runs in ("steered", "plain"))
    assert ours != plain


def test_a_story_refuses_a_curve_that_leaves_its_range_in_a_later_frame(vq, networks):
    done = vq("story", "a", "b:{1 / (t - 0.5)}", "--frames", "4", "--frame-steps", "2", *QUICK)
    assert done.code == 2
    assert "t = 0.5" in done.err
    assert not networks.loaded


def test_a_project_with_a_mask_may_be_moved(vq):
    """And the mask be another where the project was."""
    Path("project").mkdir()
    Path("mask.png").rename("project/mask.png")
    run = drawn(vq, "generate", "a", "--region", "b@project/mask.png", "--runs", "project/runs", *QUICK).parent
    Path("project").rename("moved")
    Path("project").mkdir()
    Image.new("RGB", (40, 40), "grey").save("project/mask.png")
    moved = (
        Path("moved", *run.relative_to(Path.cwd()).parts[1:]) if run.is_absolute() else Path("moved", *run.parts[1:])
    )
    done = vq("resume", moved, "--steps", "5")
    assert done.code == 0, done.err
    assert read(moved)["settings"]["regions"] == [f"b@{Path('moved/mask.png').resolve()}"]


def test_a_run_goes_on_only_with_the_mask_that_it_was_begun_with(vq):
    run = drawn(vq, "generate", "a", "--region", "b@mask.png", *QUICK).parent
    Image.new("RGB", (40, 40), "grey").save("mask.png")
    done = vq("resume", run, "--steps", "5")
    assert done.code == 4
    assert "mask.png" in done.err


def test_the_weight_of_an_image_prompt_stands_behind_the_last_colon_of_what_is_no_file(vq):
    Image.new("RGB", (40, 40), "green").save("green.png:0.5", "PNG")
    run = drawn(vq, "generate", "a", "-i", "green.png:0.5", "-i", "red.png:-2", "--image-prompt-weight", "0.25", *QUICK)
    settings = read(run.parent)["settings"]
    assert [Path(path).name for path in settings["image_prompts"]] == ["green.png:0.5", "red.png"]
    assert settings["image_prompt_weights"] == [0.25, -2.0]


def test_equal_weights_give_the_bytes_of_a_common_one(vq):
    one = drawn(vq, "generate", "a", "-i", "red.png:0.5", "-i", "blue.png:0.5", *QUICK)
    other = drawn(vq, "generate", "a", "-i", "red.png", "-i", "blue.png", "--image-prompt-weight", "0.5", *QUICK)
    with Image.open(one) as ours, Image.open(other) as theirs:
        assert ours.tobytes() == theirs.tobytes()


def test_a_weight_may_change_in_a_run_that_goes_on(vq):
    run = drawn(vq, "generate", "a", "-i", "red.png:0.5", *QUICK).parent
    assert vq("resume", run, "--steps", "5", "-i", "red.png:2").code == 0
    assert read(run)["settings"]["image_prompt_weights"] == [2.0]
    assert vq("resume", run, "--steps", "6", "-i", "red.png").code == 0
    assert "image_prompt_weights" not in read(run)["settings"]


@pytest.mark.parametrize("words", [["--noise-prompt", "x"], ["--noise-prompt", "3:2000"], ["-i", "red.png:2000"]])
def test_what_is_no_weight_is_refused_before_models_load(vq, networks, words):
    done = vq("generate", "a", *words, *QUICK)
    assert done.code == 2
    assert not networks.loaded
