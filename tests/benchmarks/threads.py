"""How threads wait for each other, on an idle machine and on a busy one.

    python -m tests.benchmarks.threads --out threads.json

Two works: the README's first command with the bundled models, from its start to its end, and five steps of a full-shape
f16-16384 with ViT-B-32 (random weights, 32 cutouts at 256x256, after one that warms up). Each with OpenMP's threads as
they wait by default (they spin), at once asleep (OMP_WAIT_POLICY=PASSIVE), after a short spin (GOMP_SPINCOUNT), and with
one thread. Each is a process of its own, in turn with the others; the quickest of the rounds counts. Busy means so many
processes that only compute; their numbers are `--loads`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LARGE = """
import json, time
import torch
from tests.benchmarks.step import CPU, make, models
vqgan, clip = models()
step = make("float32", vqgan, clip, 256)
step()
wall, busy = time.monotonic(), time.process_time()
for _ in range(5):
    step()
print(json.dumps({"wall": time.monotonic() - wall, "busy": time.process_time() - busy}))
"""
SMALL = """
import json, os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen([sys.executable, "-m", "vqclip", "generate", "a red heart", "--seed", "0", "--runs", sys.argv[1]],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0
print(json.dumps({"wall": time.monotonic() - began, "busy": usage.ru_utime + usage.ru_stime}))
"""
WORKS = {"first command, bundled models": SMALL, "five steps, full shape": LARGE}
WAITS: dict[str, dict[str, str]] = {
    "as it is": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes computing meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(work: str, waits: dict[str, str]) -> dict[str, float]:
    """Do this work in a process where threads wait so; return its wall and processor seconds."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "VQCLIP_THREADS"))
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", work, folder], env=own | waits, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--loads", type=int, nargs="+", default=[0, 8], help="processes that compute beside it")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for load in args.loads:
        for work, code in WORKS.items():
            with busy(load):
                rounds = [{name: measure(code, waits) for name, waits in WAITS.items()} for _ in range(args.rounds)]
            for name in WAITS:
                best = min((found[name] for found in rounds), key=lambda figures: figures["wall"])
                rows.append({"load": load, "work": work, "waits": name, **best})
                print(
                    f"load {load}: {work:<32} {name:<26} {best['wall']:6.1f} s {best['busy']:6.1f} s busy", flush=True
                )
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
