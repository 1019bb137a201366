"""The real command with the bundled models: stopped by a signal, and twice with the same seed."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

COMMAND = (
    *(sys.executable, "-m", "vqclip", "generate", "x", "--seed", "7", "--size", "64", "--cutouts", "4"),
    *("--device", "cpu", "--init", "grey", "--upscale", "0"),
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stopped_saves_and_records_its_image(tmp_path, number):
    run, limit = tmp_path / "runs" / "x-7", time.monotonic() + 120
    words = [*COMMAND, "--steps", "100000", "--tries", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, **pipes) as process:
        while process.poll() is None and time.monotonic() < limit:
            if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size:
                process.send_signal(number)
                break
            time.sleep(0.05)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, out) == (128 + number, "runs/x-7/final.png\n"), err
    assert "stopping after this step" in err
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    with Image.open(run / "final.png") as image:
        image.load()
        assert image.size == (64, 64)
    assert not [path for path in run.rglob("*") if path.name.endswith(".part") or path.name == "latest.png"]


def test_two_processes_with_the_same_seed_make_the_same_bytes(tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        words = [*COMMAND, "--steps", "3", "--tries", "2", "--frames-every", "1"]
        done = subprocess.run(words, cwd=tmp_path / name, capture_output=True, text=True, check=True)
        assert not re.search("warning|deprecat|error", done.stderr, re.IGNORECASE)  # no library talks
        final = tmp_path / name / done.stdout.strip()
        made.append({path.relative_to(tmp_path / name): path.read_bytes() for path in final.parent.rglob("*.png")})
    assert len(made[0]) > 3
    assert made[0] == made[1]
