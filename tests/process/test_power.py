"""A cut of power: what was not flushed to the disk may be gone, and the run still goes on to the same bytes.

The disk is a model, since no test can pull the plug: of a file there is what was flushed and some of what was written
after; of a folder's names those that were flushed and the first few changes after; each file and folder for itself.
(Pillai et al. 2014, "All File Systems Are Not Created Equal": with less than that no journalling file system is known.)
"""

import os
import random
import stat

import pytest

from tests.support.runs import contents, differing
from vqclip.runs.api import generate, resume
from vqclip.runs.checkpoint import NAME
from vqclip.runs.run_dir import RunDir

pytestmark = [
    pytest.mark.usefixtures("networks"),
    pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders can't be flushed there"),
]
RUN = {"prompt": "a red heart", "seed": 7, "steps": 8, "coarse": 0.5, "size": (32, 32), "tries": 1, "cutouts": 2,
       "device": "cpu", "frames_every": 2, "checkpoint_every": "3"}  # fmt: skip
SLUG = "a-red-heart-7"


class Disk:
    """What is surely on the disk below a folder, and what may be; calls `watch` after all that could change it."""

    def __init__(self, root, held, patch, watch=lambda: None):
        self.root, self.held, self.watch, self.busy = root, held, watch, False
        self.flushed = {}  # inode -> bytes
        self.names = {root: [{}]}  # folder -> its listings (name -> inode), from the one that was flushed
        for name in ("replace", "unlink", "link", "mkdir"):
            patch.setattr(os, name, self.noted(getattr(os, name)))
        patch.setattr(os, "fsync", self.fsync)

    def noted(self, call):
        def wrapped(*args, **more):
            call(*args, **more)
            if not self.busy:  # with a copy of its own
                self.note()

        return wrapped

    def note(self):
        self.busy = True
        for folder in [self.root, *(path for path in self.root.rglob("*") if path.is_dir())]:
            found = {entry.name: entry.inode() for entry in os.scandir(folder)}
            seen = self.names.setdefault(folder, [{}])
            if found != seen[-1]:
                seen.append(found)
            for name, inode in found.items():
                if (folder / name).is_file() and not (self.held / str(inode)).exists():
                    (self.held / str(inode)).hardlink_to(folder / name)  # or its number would be given to another
        self.watch()
        self.busy = False

    def fsync(self, handle):
        found = os.fstat(handle)
        self.note()
        if stat.S_ISDIR(found.st_mode):
            (folder,) = (path for path in self.names if path.exists() and path.stat().st_ino == found.st_ino)
            self.names[folder] = self.names[folder][-1:]
        else:
            self.flushed[found.st_ino] = (self.held / str(found.st_ino)).read_bytes()

    def cut(self, chance, folder, copy):
        """Write to `copy` what a cut of power leaves of a folder."""
        copy.mkdir()
        for name, inode in chance.choice(self.names.get(folder, [{}])).items():
            written = self.held / str(inode)
            if written.exists():
                data, sure = written.read_bytes(), len(self.flushed.get(inode, b""))
                (copy / name).write_bytes(data[: chance.choice([sure, chance.randint(sure, len(data)), len(data)])])
            else:
                self.cut(chance, folder / name, copy / name)


def cut_while(make, tmp_path, monkeypatch, *, share, draws, seed):
    """Let `make(folder)` write, and at a part of its writes copy what cuts of power would leave; return the copies."""
    for name in ("runs", "held"):
        (tmp_path / name).mkdir()
    chance, copies = random.Random(seed), []

    def watch():
        for _ in range(draws if chance.random() < share else 0):
            copies.append(tmp_path / f"cut-{len(copies)}")
            disk.cut(chance, disk.root, copies[-1])

    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "runs", tmp_path / "held", patch, watch)
        make(disk.root)
    return copies


@pytest.fixture
def power(tmp_path, monkeypatch):
    """Return a function that makes a run and, at a part of its writes, copies what cuts of power would leave."""
    for name in ("runs", "held", "whole"):
        (tmp_path / name).mkdir()
    copies = []

    def make(share, draws, seed):
        chance = random.Random(seed)
        reached = [0]

        def watch():
            for _ in range(draws if chance.random() < share else 0):
                copies.append((tmp_path / f"cut-{len(copies)}", reached[0]))
                disk.cut(chance, disk.root, copies[-1][0])

        with monkeypatch.context() as patch:
            disk = Disk(tmp_path / "runs", tmp_path / "held", patch, watch)
            generate(**RUN, runs=disk.root, on_step=lambda step: reached.__setitem__(0, step.step))
        return copies, contents(tmp_path / "runs" / SLUG)

    return make


def check(copies, whole):
    """Resume what the cuts left; return how many could be."""
    resumed = 0
    for copy, step in copies:
        if (copy / SLUG / "run.json").exists():
            resume(copy / SLUG, device="cpu")
            assert differing(contents(copy / SLUG), whole) == [], copy
            resumed += 1
        else:
            assert step == 0, f"{copy}: a run of {step} steps is gone"
    return resumed


def test_a_cut_of_power_costs_no_run(power):
    copies, whole = power(share=0.2, draws=1, seed=3)
    assert check(copies, whole) > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cut_of_power_at_any_write_costs_no_run(power):
    copies, whole = power(share=1, draws=10, seed=4)
    print(f"{len(copies)} cuts, {check(copies, whole)} of them resumed to the same bytes")  # noqa: T201


def test_a_state_is_flushed_with_its_name_before_the_run_goes_on(tmp_path, monkeypatch):
    """Or a cut of power long after a checkpoint could cost more than one interval."""
    for name in ("runs", "held"):
        (tmp_path / name).mkdir()
    disk = Disk(tmp_path / "runs", tmp_path / "held", monkeypatch)
    saved = []

    def look(step):
        listing = disk.names[tmp_path / "runs" / SLUG][0]
        if step.step in (3, 6):
            saved.append(disk.flushed[listing[NAME]])

    generate(**RUN, runs=tmp_path / "runs", on_step=look)
    assert len(set(saved)) == 2
    assert RunDir.open(tmp_path / "runs" / SLUG)
