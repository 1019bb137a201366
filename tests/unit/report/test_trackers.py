"""--report: what other tools get of a run, and that none of them can end it."""

import sys
from pathlib import Path

import pytest

from tests.conftest import QUICK
from vqclip.report import trackers

RUN = ("generate", "an owl", *QUICK)


class Heard:
    """A tracker that keeps what it gets."""

    def __init__(self, where, run, settings, *, quiet):
        self.where, self.run, self.settings, self.got, self.closed = where, run, settings, [], False
        Heard.last = self

    def log(self, step, values, image):
        self.got.append((step, values, image))

    def close(self):
        self.closed = True


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "json", Heard)  # the name of a package that is there


def test_a_tracker_gets_every_step(vq, heard):
    done = vq(*RUN, "--report", "json:there")
    assert done.code == 0, done.err
    last = Heard.last
    assert (last.where, last.settings["prompt"], last.closed) == ("there", "an owl", True)
    assert [step for step, _, _ in last.got] == [1, 2, 3]
    assert {"prompt", "changed"} <= last.got[0][1].keys()
    assert last.got[-1][2].size == (32, 32)


@pytest.mark.parametrize("method", ["__init__", "log", "close"])
def test_one_that_fails_is_said_once_and_costs_the_run_nothing(vq, heard, monkeypatch, method):
    def fail(*args, **options):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Heard, method, fail)
    done = vq(*RUN, "--report", "json")
    assert (done.code, done.err.count("no such thing")) == (0, 1)


def test_a_folder_that_is_none_is_named_without_a_number(vq, heard, monkeypatch):
    monkeypatch.setattr(Heard, "__init__", lambda self, where, run, settings, quiet: Path("a.txt/b").mkdir())
    Path("a.txt").write_text("")
    done = vq(*RUN, "--report", "json")
    assert (done.code, "a.txt/b" in done.err, "[Errno" in done.err) == (0, True, False)


@pytest.mark.parametrize("name", ["nope", "wandb"])
def test_what_is_not_there_is_an_error_before_the_run(vq, name, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    refused = vq(*RUN, "--report", name)
    assert (refused.code, refused.out) == (2, "")


def test_wandb_keeps_a_run_and_nothing_of_the_machine(vq, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = vq(*RUN, "--report", "wandb:birds", "-q")
    assert (done.code, done.err) == (0, "")
    wandb.teardown()  # what writes the files is a process of its own
    (kept,) = Path("runs").glob("an-owl*/wandb/offline-run-*")
    (record,) = kept.glob("*.wandb")
    assert [word for word in (b"birds", b"an owl", b"prompt", b"changed") if word not in record.read_bytes()] == []
    assert sys.executable.encode() not in record.read_bytes()
    assert len(list(kept.glob("files/media/images/*.png"))) == 3
    assert not (kept / "files/output.log").exists()


def test_tensorboard_reads_what_is_written(vq, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = vq(*RUN, "--report", f"tensorboard:{tmp_path}")
    assert done.code == 0, done.err
    (folder,) = [path for path in tmp_path.iterdir() if path.name.startswith("an-owl")]
    read = events.EventAccumulator(str(folder))
    read.Reload()
    assert [event.step for event in read.Scalars("prompt")] == [1, 2, 3]
    assert read.Tags()["images"] == ["image"]
