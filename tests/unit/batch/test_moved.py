"""A batch whose project was moved, or whose pictures changed: rows are known by what is in their files."""

import hashlib
import json

import pytest
from PIL import Image

from tests.support.runs import touched
from vqclip.batch.manifest import FIRST_SETTINGS
from vqclip.runs.project_files import to_absolute

SET = ("--steps", "3", "--size", "32x32", "--set", "cutouts=2", "--preset", "tiny")


@pytest.fixture
def project(vq, tmp_path):
    """Return a project with a batch that is done, and the command that makes it."""
    folder = tmp_path / "before"
    folder.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save(folder / f"{colour}.png")
    (folder / "rows.csv").write_text("prompt,init_image\na,red.png\nb,blue.png\nc,\n")

    def run(where, monkeypatch):
        monkeypatch.chdir(where)
        ended = vq("batch", "rows.csv", "-o", "out", *SET)
        assert ended.code == 0, ended.err
        return sorted(path.name for path in (where / "out" / "runs").iterdir())

    return folder, run


def test_a_batch_that_was_moved_draws_nothing_again(project, tmp_path, monkeypatch):
    folder, run = project
    names = run(folder, monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder = folder.rename(tmp_path / "after")
    before = touched(folder / "out" / "runs")
    assert run(folder, monkeypatch) == names
    assert touched(folder / "out" / "runs") == before


def test_a_picture_that_changed_under_its_name_is_drawn_from_again(project, monkeypatch):
    folder, run = project
    names = run(folder, monkeypatch)
    Image.new("RGB", (32, 32), "green").save(folder / "red.png")
    added = set(run(folder, monkeypatch)) - set(names)
    assert [name.split("-")[1] for name in added] == ["a"]


def old_key(settings, drawn):
    """Return the key that release 0.1.0 gave a row: a hash of its settings, paths as they are."""
    values = settings | ({"seed": None} if drawn else {})
    return hashlib.sha256(json.dumps([values, 0], sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("begun", [True, False])
def test_a_moved_batch_of_release_0_1_is_known_by_its_own_keys(project, tmp_path, monkeypatch, begun):
    folder, run = project
    names = run(folder, monkeypatch)
    manifest = folder / "out" / "batch.json"
    record = to_absolute(json.loads(manifest.read_text()), manifest.parent)
    for row in record["rows"]:
        row["settings"] = {name: value for name, value in row["settings"].items() if name in FIRST_SETTINGS}
        row["key"] = old_key(row["settings"], drawn=True)
        if not begun:
            row["status"] = "pending"
            (folder / "out" / "runs" / row["name"] / "run.json").unlink()
            (folder / "out" / f"{row['name']}.png").unlink()
            for file in (folder / "out" / "runs" / row["name"]).rglob("*.*"):
                file.unlink()
    manifest.write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    assert run(folder.rename(tmp_path / "after"), monkeypatch) == names
