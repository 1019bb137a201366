"""A project that was moved or copied goes on: files are recognised by their hash, wherever they lie now."""

import io
import json
import shutil

import pytest
from PIL import Image

from tests.support.runs import record_of
from vqclip.errors import InputError, UsageError
from vqclip.runs.api import generate, resume
from vqclip.runs.project_files import to_absolute, to_relative

pytestmark = pytest.mark.usefixtures("networks")
RUN = {"seed": 7, "steps": 4, "size": (32, 32), "tries": 1, "cutouts": 2, "device": "cpu", "frames_every": 2}
SLUG = "a-red-heart-7"


def pixels(file):
    with Image.open(file) as image:
        return image.tobytes()


def pictures(folder):
    (folder / "photos").mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(folder / "start.png")
    Image.new("RGB", (32, 32), "blue").save(folder / "photos" / "blue.png")
    return {"init_image": str(folder / "start.png"), "image_prompts": [str(folder / "photos" / "blue.png")]}


@pytest.fixture
def project(tmp_path):
    """Return a project with a run that was stopped after two steps, and what it would have ended as."""
    folder = tmp_path / "before" / "project"
    values = RUN | pictures(folder)
    generate("a red heart", **values, runs=folder / "runs", on_step=lambda step: step.step == 2)
    whole = generate("a red heart", **values, runs=tmp_path / "whole").run
    return folder, (whole / "final.png").read_bytes()


def move(project, where):
    where.parent.mkdir()
    project.rename(where)


def copy_and_lose(project, where):
    shutil.copytree(project, where)
    shutil.rmtree(project)


def copy_and_change(project, where):
    shutil.copytree(project, where)
    Image.new("RGB", (32, 32), "green").save(project / "start.png")


def move_run_alone(project, where):
    """The run goes, the pictures stay."""
    where.mkdir(parents=True)
    (project / "runs").rename(where / "runs")


def move_beside(project, where):
    """All files into one folder."""
    move_run_alone(project, where)
    for picture in (project / "start.png", project / "photos" / "blue.png"):
        picture.rename(where / "runs" / SLUG / picture.name)


@pytest.mark.parametrize("moved", [move, copy_and_lose, copy_and_change, move_run_alone, move_beside])
def test_a_run_goes_on_where_its_project_is_now(project, tmp_path, moved):
    folder, whole = project
    moved(folder, tmp_path / "after" / "renamed")
    run = tmp_path / "after" / "renamed" / "runs" / SLUG
    resume(run, device="cpu")
    assert (run / "final.png").read_bytes() == whole
    resume(run, device="cpu", steps=5)  # and again: what it says of its files is true


def test_paths_inside_a_project_are_kept_relative_to_it(project, tmp_path):
    folder, _ = project
    text = (folder / "runs" / SLUG / "run.json").read_text()
    record = json.loads(text)
    assert record["settings"]["init_image"] == "../../start.png"
    assert record["settings"]["image_prompts"] == ["../../photos/blue.png"]
    assert set(record["pictures"]) == {"../../start.png", "../../photos/blue.png"}
    assert text.count(str(tmp_path)) == 1  # where the run was
    Image.new("RGB", (32, 32), "green").save(tmp_path / "far.png")
    run = generate("a", **RUN | {"steps": 1}, init_image=tmp_path / "far.png", runs=tmp_path / "a/b/c/d/e").run
    assert record_of(run)["settings"]["init_image"] == str(tmp_path / "far.png")


def test_a_file_on_another_drive_keeps_its_path(tmp_path, monkeypatch):
    def on_another(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", on_another)
    record = {"settings": {"init_image": str(tmp_path / "a.png")}}
    assert to_relative(record, tmp_path) == record


@pytest.mark.parametrize(
    "record",
    [{"settings": {"init_image": "./a\0b"}, "folder": "\0"},
     {"settings": {"image_prompts": [["./x"], 5, {}]}, "folder": 5},
     {"settings": [], "pictures": [], "rows": 5, "motion": {"footage": []}}, {"rows": [5, {"settings": {"vqgan": {}}}]},
     {"motion": {"footage": {"path": 5}}, "changes": {}}],
)  # fmt: skip
def test_a_record_of_anybody_is_taken_as_it_is(tmp_path, record):
    assert to_absolute(to_relative(record, tmp_path), tmp_path).keys() == record.keys() - {"folder"}


def test_a_file_that_is_elsewhere_can_be_pointed_at(project, tmp_path):
    folder, whole = project
    run = folder / "runs" / SLUG
    (folder / "start.png").rename(tmp_path / "another.png")
    with pytest.raises(InputError) as caught:
        resume(run, device="cpu")
    assert "start.png" in caught.value.what
    assert "init_image" in caught.value.hint
    (tmp_path / "green.png").write_bytes((folder / "photos" / "blue.png").read_bytes())
    with pytest.raises(UsageError):
        resume(run, device="cpu", init_image=tmp_path / "green.png")  # another picture
    resume(run, device="cpu", init_image=tmp_path / "another.png")
    assert pixels(run / "final.png") == pixels(io.BytesIO(whole))
    assert "changes" not in record_of(run)
    assert record_of(run)["settings"]["init_image"] == str(tmp_path / "another.png")


def test_a_picture_that_changed_under_its_name_is_not_gone_on_with(project):
    folder, _ = project
    Image.new("RGB", (32, 32), "green").save(folder / "start.png")
    with pytest.raises(InputError):
        resume(folder / "runs" / SLUG, device="cpu")
