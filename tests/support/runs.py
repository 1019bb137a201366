"""What a run leaves in its folder, for comparisons byte by byte."""

import json
import shutil
from concurrent.futures import Future
from unittest.mock import patch

from vqclip.batch.manifest import Entry
from vqclip.batch.progress import BatchProgress
from vqclip.runs.checkpoint import PREVIOUS
from vqclip.runs.progress import Progress
from vqclip.runs.project_files import to_absolute


def record_of(run):
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def metrics_of(run):
    """Return the lines of metrics, but for the seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def contents(run):
    """Return all that a run leaves, byte by byte, but for what tells of the sitting and not of the run.

    That is: the seconds in run.json and metrics.jsonl, the lock, and the state before the last one, which is of
    another step where the run was stopped between two checkpoints.
    """
    odd = (".lock", PREVIOUS, "run.json", "metrics.jsonl")
    found = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in odd}
    record = {key: value for key, value in to_absolute(record_of(run), run).items() if key != "seconds"}
    return found | {"run.json": record, "metrics.jsonl": metrics_of(run)}


def differing(one, two):
    """Name what is not the same in two contents."""
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def touched(run):
    """Return bytes and times of all files, but for the lock: what a command that does nothing leaves alone."""
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


class AtOnce:
    """Stands in for the thread that writes frames, where a test copies the folder between two steps."""

    def __init__(self, *_):
        pass

    def submit(self, function, *args):
        done = Future()
        try:
            done.set_result(function(*args))
        except BaseException as error:
            done.set_exception(error)
        return done

    def shutdown(self):
        pass


def frames_at_once():
    """Return a context in which a frame is on the disk when its step is heard of."""
    return patch("vqclip.runs.recorder.ThreadPoolExecutor", AtOnce)


def kill_after_every_step(folder, make):
    """Make a run; return its contents, and a copy of its folder as it was before the first and after every step.

    Such a copy is what SIGKILL leaves.
    """
    copies = {}

    def keep(run, step):
        copies[step] = folder / f"killed-{step}"
        shutil.copytree(run.path, copies[step])

    held = []
    with frames_at_once():
        result = make(on_start=lambda session, run: (held.append(run), keep(run, "start")),
                      on_step=lambda step: keep(held[0], step.step))  # fmt: skip
    return contents(result.run), copies


def row(name, settings):
    """Return a row of a batch, to be run."""
    return Entry(name=name, index=1, source=0, location="p:1", key=name, settings=settings)


class AskAfterSteps(BatchProgress):
    """Asks a function after every step of a batch whether to stop."""

    def __init__(self, ask=lambda rows, step, steps: False):
        self._ask, self._stopped = ask, False

    @property
    def stopped(self):
        return self._stopped

    def step(self, rows, step, steps):
        self._stopped = bool(self._ask(rows, step, steps)) or self._stopped


class Stopped(Progress):
    """A progress that a signal stopped while models were loaded."""

    stopped = True
