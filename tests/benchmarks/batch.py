"""Rows an hour: a plain loop over generate, a batch here, and a batch on one and two workers of a local Ray.

python -m tests.benchmarks.batch --rows 8 --steps 30

Each in a process of its own; the time of loading torch and of starting Ray counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS = (Path(__file__).parent / "dev64.txt").read_text().splitlines()
LOOP = """
import json, sys, vqclip
prompts, steps, runs = json.loads(sys.argv[1])
for seed, prompt in enumerate(prompts):
    vqclip.generate(prompt, preset="tiny", seed=seed, steps=steps, runs=runs)
"""


def main() -> None:
    """Time each way and print a line of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--ways", nargs="+", default=["loop", "batch", "together", "ray 1", "ray 2"])
    args = parser.parse_args()
    prompts = [line for line in PROMPTS if line and not line.startswith("#")][: args.rows]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for way in args.ways:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prompts.jsonl"
            file.write_text("".join(json.dumps({"prompt": p, "seed": k}) + "\n" for k, p in enumerate(prompts)))
            command = [sys.executable, "-m", "vqclip", "batch", str(file), "-o", f"{folder}/out", "--preset", "tiny",
                       "--steps", str(args.steps), "-q"]  # fmt: skip
            if way == "loop":
                command = [sys.executable, "-c", LOOP, json.dumps([prompts, args.steps, f"{folder}/runs"])]
            elif way == "together":
                command += ["--batch-size", "4"]
            elif way.startswith("ray"):
                command += ["--engine", "ray", "--workers", way.split()[1]]
            began = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took = time.monotonic() - began
            load = os.getloadavg()[0]
            print(
                f"{way:<10} {took:7.1f} s  {args.rows / took * 3600:6.0f} rows an hour  (load {load:.1f})", flush=True
            )


if __name__ == "__main__":
    main()
