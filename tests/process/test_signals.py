"""Signals in bursts, at any moment: the exit code is ours, never the signal's own, and a run keeps its picture."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.runs import contents, differing, record_of
from vqclip.runs.api import resume

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {128 + number for number in SIGNALS}
DEFAULTS = "import signal\nfor n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(n, signal.SIG_DFL)\n"
PYTHONS = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whatever started the tests
FAKED = f"""{DEFAULTS}{PYTHONS}
import os, pytest, tests.conftest as c, vqclip.__main__
c.stand_in(pytest.MonkeyPatch())
os.fsync = lambda handle: None  # the disk outlives the process
vqclip.__main__.main()
"""
ARGS = ("generate", "a red heart", "--seed", "7", "--size", "32", "--tries", "1", "--cutouts", "2", "--device", "cpu",
        "--frames-every", "5", "--checkpoint-every", "3", "--init", "grey", "--upscale", "0")  # fmt: skip
SLUG = "a-red-heart-7"


def begin(code, *args, folder):
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def burst(process, chance, count):
    """Send so many signals, a millisecond or so apart."""
    for _ in range(count):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(chance.choice(SIGNALS))
        time.sleep(chance.choice([0, 0.001, 0.005, 0.06]))


def survive(folder, chance, steps):
    """Send bursts to a run somewhere on its way; return its exit code, its folder and what it printed."""
    folder.mkdir()
    process, run = begin(FAKED, *ARGS, "--steps", str(steps), folder=folder), folder / "runs" / SLUG
    limit = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    time.sleep(chance.random() * 0.3)
    burst(process, chance, chance.randint(2, 8))
    _, err = process.communicate(timeout=60)
    return process.returncode, run, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = begin(FAKED, *ARGS, "--steps", "150", folder=folder)
    process.communicate(timeout=200)
    assert process.returncode == 0
    return contents(folder / "runs" / SLUG)


def check(folder, chance, whole):
    code, run, err = survive(folder, chance, 150)
    assert code in CODES | {0}, err
    record = record_of(run)
    assert record["status"] in ("stopped", "done"), err
    if record["steps_done"]:
        assert (run / "final.png").exists()
        assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == record["steps_done"]
    resume(run, device="cpu")
    assert differing(contents(run), whole) == []
    return code


@pytest.mark.usefixtures("networks")
def test_a_burst_of_signals_stops_a_run_in_good_order(tmp_path, whole):
    chance = random.Random(3)
    codes = [check(tmp_path / str(number), chance, whole) for number in range(1)]
    assert any(codes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("networks")
def test_bursts_of_signals_stop_runs_in_good_order(tmp_path, whole):
    chance = random.Random(4)
    codes = [check(tmp_path / str(number), chance, whole) for number in range(12)]
    assert sum(code > 0 for code in codes) > 8


BEGINNING = f"""{DEFAULTS}{PYTHONS}
import importlib, os, sys
name, numbers = sys.argv[1], [int(number) for number in sys.argv[2].split(",")]
class Finder:
    def find_spec(found, path=None, target=None):
        if found == name:
            for number in numbers:
                os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder)
sys.argv = ["vqclip", "generate", "x", "--steps", "1", "--size", "32", "--quiet"]
importlib.import_module("vqclip.__main__").main()
"""


@pytest.mark.parametrize("module", ["vqclip.cli", "typer", "vqclip.settings.schema", "torch"])
@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
def test_signals_while_the_command_begins_end_it(tmp_path, module, numbers):
    process = begin(BEGINNING, module, ",".join(str(int(number)) for number in numbers), folder=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + numbers[0], err
    assert not list(tmp_path.rglob("run.json"))


ENDING = f"""{DEFAULTS}{PYTHONS}
import atexit, os, sys, vqclip.__main__
for number in {[int(number) for number in SIGNALS]}:
    atexit.register(os.kill, os.getpid(), number)
sys.argv = ["vqclip", "--version"]
vqclip.__main__.main()
"""


def test_signals_at_the_very_end_change_nothing(tmp_path):
    process = begin(ENDING, folder=tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("vqclip")
