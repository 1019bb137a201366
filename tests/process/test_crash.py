"""Real processes, killed or told to stop at any moment: what is on the disk is whole, and goes on to the same bytes."""

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.support.runs import contents, differing, metrics_of, record_of, touched
from vqclip.errors import RunLocked
from vqclip.runs.api import generate, resume
from vqclip.runs.checkpoint import NAME

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

RUN = {"prompt": "a red heart", "seed": 7, "steps": 8, "coarse": 0.5, "size": (32, 32), "tries": 1, "cutouts": 2,
       "device": "cpu", "frames_every": 2, "checkpoint_every": "1", "init": "grey", "upscale": 0}  # fmt: skip
SLUG = "a-red-heart-7"
ROOT = Path(__file__).parents[2]
THREADS = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # of equal number: pixels may depend on it


class Mortals:
    """A process that forks others to be killed (mortal.py)."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.mortal"], cwd=ROOT, text=True, bufsize=1, env=os.environ | THREADS,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert json.loads(self.process.stdout.readline()) == "ready"

    def ask(self, **request):
        print(json.dumps(request, default=str), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def start(self, call, args, **more):
        """Begin a run in a process of its own; return its id."""
        return self.ask(start={"call": call, "args": args, **more})

    def wait(self, pid):
        """Return the exit status, -9 where it was killed."""
        return self.ask(wait=pid)

    def kill(self, call, args, *, line=0, after=0.0):
        """Begin a run and kill it, at a line of the code that writes or after some seconds; say whether it died."""
        pid = self.start(call, args, die_at=line)
        if not line:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)  # a zombie's at worst: it has not been waited for
        status = self.wait(pid)
        assert status in (0, -9)
        return status == -9


@pytest.fixture(scope="module")
def mortals():
    found = Mortals()
    with found.process:
        yield found
        found.process.stdin.close()


@pytest.fixture(scope="module")
def whole(mortals, tmp_path_factory):
    """Make the run that is never killed: (contents, lines of the code that writes, seconds)."""
    folder = tmp_path_factory.mktemp("whole")
    count = folder / "count"
    assert mortals.wait(mortals.start("generate", RUN | {"runs": folder / "runs"}, count_in=str(count))) == 0
    began = time.monotonic()
    assert mortals.wait(mortals.start("generate", RUN | {"runs": folder / "again"})) == 0
    took = time.monotonic() - began
    found = contents(folder / "runs" / SLUG)
    assert differing(found, contents(folder / "again" / SLUG)) == []
    lines = int(count.read_text())
    assert lines > 100  # else no process would be killed at a line
    return found, lines, took


def check_pictures(run, size):
    for path in run.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.size == size, path


def check_whole_files(run):
    """Read every file that has its final name."""
    check_pictures(run, (32, 32))
    for path in run.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in run.glob(f"{NAME}*"):
        with safe_open(path, framework="pt") as file:
            assert len(list(file.keys())) == 4
    if (run / "metrics.jsonl").exists():
        steps = [line["step"] for line in metrics_of(run)]
        assert steps == list(range(1, len(steps) + 1))


def survive(mortals, whole, folder, moments):
    """Kill a run, and its resumed self again, at these moments; resume it here and compare: (kills, comparisons).

    A moment is ("line", part) or ("time", part), a part of all lines or of all the time of the whole run.
    """
    expected, lines, seconds = whole
    run, kills = folder / SLUG, 0
    for kind, part in moments:
        call, args = ("resume", {"folder": run}) if run.exists() else ("generate", RUN | {"runs": folder})
        moment = {"line": 1 + int(part * lines)} if kind == "line" else {"after": part * seconds}
        kills += mortals.kill(call, args, **moment)
        check_whole_files(run)
        if not (run / "run.json").exists():  # killed before there was anything to lose
            assert not list(folder.rglob("*.png"))
            return kills, 0
    resume(run, device="cpu")
    assert differing(contents(run), expected) == [], f"after {moments}"
    return kills, 1


@pytest.mark.usefixtures("networks")
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(mortals, whole, tmp_path):
    chance = random.Random(5)
    kills = 0
    for number, kinds in enumerate([["line"], ["time"], ["line", "line"], ["time", "line"]]):
        moments = [(kind, chance.random()) for kind in kinds]
        kills += survive(mortals, whole, tmp_path / str(number), moments)[0]
    assert kills >= 2  # the first of each "line"; the others may come too late


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("networks")
def test_a_run_that_is_killed_at_any_line_that_writes_ends_as_if_it_had_not_been(mortals, whole, tmp_path):
    lines = whole[1]
    for line in range(lines):
        kills, compared = survive(mortals, whole, tmp_path / str(line), [("line", (line + 0.5) / lines)])
        assert kills == 1
        assert compared or line < lines / 10
    print(f"{lines} kills, one at each line")  # noqa: T201


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("networks")
def test_a_run_that_is_killed_at_any_time_and_again_ends_as_if_it_had_not_been(mortals, whole, tmp_path):
    chance = random.Random(7)
    kills = runs = compared = 0
    while kills < 300:
        moments = [(chance.choice(["line", "time"]), chance.random()) for _ in range(chance.randint(1, 4))]
        died, same = survive(mortals, whole, tmp_path / str(runs), moments)
        kills, compared, runs = kills + died, compared + same, runs + 1
    print(f"{kills} kills of {runs} runs, {compared} of them resumed to the same bytes")  # noqa: T201
    assert compared > runs / 2


# one process a run


def wait_for(condition, seconds=120):
    """Wait until a condition holds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.fixture
def held(mortals, tmp_path):
    """Return a process that makes a run and waits after its second step, and the run."""
    pid = mortals.start("generate", RUN | {"runs": tmp_path}, hold_in=str(tmp_path))
    wait_for((tmp_path / "held").exists)
    return pid, tmp_path / SLUG


@pytest.mark.usefixtures("networks")
def test_a_run_that_another_process_makes_is_left_to_it(mortals, whole, held):
    pid, run = held
    before = touched(run)
    with pytest.raises(RunLocked) as caught:
        resume(run)
    assert caught.value.exit_code == 11
    assert touched(run) == before
    (run.parent / "go").touch()
    assert mortals.wait(pid) == 0
    assert differing(contents(run), whole[0]) == []


@pytest.mark.usefixtures("networks")
def test_the_lock_of_a_killed_process_is_no_hindrance(mortals, whole, held):
    pid, run = held
    os.kill(pid, signal.SIGKILL)
    assert mortals.wait(pid) == -9
    resume(run, device="cpu")
    assert differing(contents(run), whole[0]) == []


# the command, told to stop


COMMAND = (sys.executable, "-m", "vqclip")
FAKED = "import pytest, tests.conftest as c, vqclip.cli; c.stand_in(pytest.MonkeyPatch()); vqclip.cli.main()"
STEPS = 15
ARGS = ("--seed", "7", "--size", "64", "--tries", "1", "--cutouts", "4", "--device", "cpu", "--frames-every", "7",
        "--init", "grey", "--upscale", "0")  # fmt: skip


def begin(folder, *args, command=COMMAND, **more):
    """Start a process in a folder of its own, with this vqclip and not one that may be installed."""
    env = os.environ | THREADS | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, *args], cwd=folder, env=env, text=True, **more)


def finish(process, run, *, send=signal.SIGINT, steps=2):
    """Wait for some steps, send a signal, and return (exit code, stdout, stderr)."""
    metrics = run / "metrics.jsonl"
    try:
        wait_for(lambda: process.poll() is not None or (metrics.exists() and len(metrics_of(run)) >= steps))
        process.send_signal(send)
        out, err = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    return process.returncode, out, err


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return the contents of a run of the bundled models that was never stopped."""
    settings = {"seed": 7, "size": (64, 64), "tries": 1, "cutouts": 4, "steps": STEPS, "init": "grey", "upscale": 0}
    runs = tmp_path_factory.mktemp("real")
    return contents(generate("a red heart", **settings, device="cpu", frames_every=7, runs=runs).run)


def stop(folder, number):
    """Stop the real command by a signal: (exit code, stdout, stderr, run)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = begin(folder, "generate", "a red heart", *ARGS, "--steps", str(STEPS), **pipes)
    return *finish(process, folder / "runs" / SLUG, send=number), folder / "runs" / SLUG


def test_the_command_that_is_stopped_goes_on_to_the_same_bytes(tmp_path, real):
    code, out, err, run = stop(tmp_path, signal.SIGINT)
    assert (code, out) == (130, f"runs/{SLUG}/final.png\n")
    assert err.splitlines()[-1] == f"go on with: vqclip resume runs/{SLUG}"
    assert record_of(run)["status"] == "stopped"
    assert 2 <= record_of(run)["steps_done"] < STEPS
    check_pictures(run, (64, 64))
    resume(run, device="cpu")
    assert differing(contents(run), real) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_command_that_is_stopped_by_another_signal_goes_on_to_the_same_bytes(tmp_path, real, number):
    code, _, err, run = stop(tmp_path, number)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    line = err.splitlines()[-1].removeprefix("go on with: vqclip ") if code > 0 else f"resume runs/{SLUG}"
    assert begin(tmp_path, *shlex.split(line), "--device", "cpu").wait() == 0
    assert differing(contents(run), real) == []


@pytest.mark.skipif(sys.platform != "linux", reason="a terminal that hangs up is told apart by each system")
def test_a_terminal_that_closes_leaves_a_run_that_was_stopped_in_good_order(tmp_path):
    ours, theirs = os.openpty()

    def own_terminal():
        os.login_tty(theirs)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who started the tests may have had it ignored

    process = begin(
        tmp_path, "generate", "a red heart", *ARGS, "--steps", "100000", command=(sys.executable, "-c", FAKED),
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(theirs)
    run = tmp_path / "runs" / SLUG
    try:
        wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics_of(run)) >= 2)
        os.close(ours)
        process.wait(120)  # the exit code is heard by nobody
    finally:
        process.kill()
    record = record_of(run)
    assert record["status"] == "stopped"
    assert record["steps_done"] == len(metrics_of(run))
    assert (run / NAME).exists()
