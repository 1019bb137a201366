"""A batch on several devices and in several parts: each row once, a lost process's row goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqclip.batch.shard import Shard
from vqclip.errors import UsageError

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
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "6")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    assert vq(*words, "--shard", "slurm").code == 0
    assert set(rows(Path("out")).values()) == {"done"}
    assert len(list(Path("out").glob("0*.png"))) == 6
    assert "6 of them done already" in vq(*words).err


def test_two_parts_at_a_time_lose_nothing_of_each_other(vq, tmp_path):
    from vqclip.batch.rows import Row
    from vqclip.batch.shard import SharedManifest
    from vqclip.config.resolve import resolve

    batch = [Row(f"p:{k}", k, resolve(f"prompt {k}", "tiny", 1)) for k in range(5)]
    first, second = (SharedManifest(tmp_path / "out", Shard(k, 2)) for k in (1, 2))
    mine, others = first.add(batch, "{slug}"), second.add(batch, "{slug}")
    assert {entry.name for entry in mine} | {entry.name for entry in others} == {f"prompt-{k}" for k in range(5)}
    first.update(mine[0].name, status="done")
    second.update(others[0].name, status="failed")
    first.save()
    second.save()
    first.save()
    states = rows(tmp_path / "out")
    assert (states[mine[0].name], states[others[0].name]) == ("done", "failed")
    assert list(states.values()).count("pending") == 3
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("1/4", {}, (1, 4)),
        (" 4 / 4 ", {}, (4, 4)),
        ("slurm", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3"}, (1, 3)),
        ("slurm", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "7"}, (3, 3)),
        (
            "slurm",
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (3, 3),
        ),
    ],
)
def test_a_part_is_read(text, environ, shard):
    found = Shard.parse(text, environ)
    assert (found.number, found.count) == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "slurm", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError):
        Shard.parse(text, {})


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
