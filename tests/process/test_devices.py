"""A batch on several devices and in several parts: each row once, a lost process's row goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("--steps", "40", "--size", "32", "--cutouts", "2", "--init", "grey", "--upscale", "0", "--seed", "3",
         "--checkpoint-every", "2", "--frames-every", "0")  # fmt: skip


def begin(folder, *words, **more):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.Popen([sys.executable, "-m", "vqclip", *words], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def rows(folder):
    return {row["name"]: row["status"] for row in json.loads((folder / "batch.json").read_text())["rows"]}


def test_two_devices_share_a_batch_and_a_killed_ones_row_is_resumed(tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\na tree\n")
    process = begin(tmp_path, "batch", "p.txt", "-o", "both", *QUICK, "--devices", "cpu,cpu")
    killed = kill_a_child_in_the_midst(process, tmp_path / "both")
    out, err = process.communicate(timeout=280)
    assert (process.returncode, out.strip()) == (0, "both"), err
    assert killed
    assert set(rows(tmp_path / "both").values()) == {"done"}
    for run in (tmp_path / "both" / "runs").iterdir():
        if run.is_dir():
            steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert steps == list(range(1, 41))
    assert len(list((tmp_path / "both").glob("0*.png"))) == 2


def kill_a_child_in_the_midst(process, folder):
    """Kill the process of the first run that has a checkpoint; return whether that came in time."""
    import psutil

    until = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        for child in psutil.Process(process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()) and list(folder.glob("runs/*/state.safetensors")):
                os.kill(child.pid, signal.SIGKILL)
                return True
        time.sleep(0.02)
    return False


def test_parts_share_a_folder(vq, monkeypatch):
    Path("p.txt").write_text("a red heart\na tree\nan owl\n")
    words = (
        "batch",
        "p.txt",
        "-o",
        "out",
        "--steps",
        "2",
        "--size",
        "32",
        "--cutouts",
        "2",
        "--seed",
        "3",
        "--count",
        "2",
    )
    assert vq(*words, "--shard", "1/2").code == 0
    states = rows(Path("out"))
    assert len(states) == 6  # all have their names, and those of one prompt are in one part
    assert [list(states.values()).count(state) for state in ("done", "pending")] == [4, 2]
    for name, value in {"ID": 6, "COUNT": 2, "MIN": 5, "MAX": 6, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert vq(*words, "--shard", "slurm").code == 0
    assert set(rows(Path("out")).values()) == {"done"}
    assert len(list(Path("out").glob("0*.png"))) == 6
    assert "6 of them done already" in vq(*words).err


@pytest.mark.parametrize(
    "words",
    [["--shard", "3/2"], ["--devices", "cpu,cuda:99"], ["--devices", "0", "--device", "cpu"],
     ["--shard", "1/2", "--seed=-1"], ["--devices", "cpu", "--engine", "ray"]],
)  # fmt: skip
def test_what_makes_no_sense_is_said_before_anything_is_made(vq, words):
    Path("p.txt").write_text("a\n")
    done = vq("batch", "p.txt", "-o", "out", "--steps", "2", "--size", "32", *words)
    assert (done.code, len(done.lines)) == (2, 2)
    assert not Path("out").exists()
