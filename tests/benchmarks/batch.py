"""Rows an hour: a plain loop over generate, a batch here, and a batch on one and two workers of a local Ray.

python -m tests.benchmarks.batch --rows 8 --steps 30 --rounds 2

Each way in a process of its own, one after the other, round by round, so that what else the machine does falls on all.
"whole" counts loading torch and the networks and starting Ray; "drawing" is from the first row's first frame to the
last row's picture. The loop loads its networks for every row, as `generate` does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS = (Path(__file__).parent / "dev64.txt").read_text().splitlines()
LOOP = """
import json, sys, vqclip
prompts, settings, runs = json.loads(sys.argv[1])
for seed, prompt in enumerate(prompts):
    vqclip.generate(prompt, preset="tiny", seed=seed, runs=runs, **settings)
"""


def command(way: str, prompts: list[str], steps: int, size: int, folder: Path) -> list[str]:
    """Return the command that draws the prompts in one of the ways."""
    if way == "loop":
        settings = {"steps": steps, "size": [size, size]}
        return [sys.executable, "-c", LOOP, json.dumps([prompts, settings, str(folder / "out/runs")])]
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "seed": k}) + "\n" for k, p in enumerate(prompts)))
    words = [sys.executable, "-m", "vqclip", "batch", str(file), "-o", str(folder / "out"), "--preset", "tiny",
             "--steps", str(steps), "--size", str(size), "-q"]  # fmt: skip
    if way == "together":
        return [*words, "--batch-size", "4"]
    return [*words, "--engine", "ray", "--workers", way.split()[1]] if way.startswith("ray") else words


def measured(way: str, prompts: list[str], steps: int, size: int) -> dict[str, float]:
    """Draw the prompts in one way; return rows an hour, with and without what comes before the first frame."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.time()
        subprocess.run(command(way, prompts, steps, size, folder), check=True, stdout=subprocess.DEVNULL)
        ended = time.time()
        first = min(path.stat().st_mtime for path in folder.glob("out/runs/*/frames/000000.png"))
        pictures = [path.stat().st_mtime for path in folder.glob("out/runs/*/final.png")]
    if len(pictures) != len(prompts):
        raise SystemExit(f"{way} drew {len(pictures)} of {len(prompts)} rows")
    hour = 3600 * len(prompts)
    return {
        "whole": hour / (ended - began),
        "drawing": hour / (max(pictures) - first),
        "seconds": ended - began,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Time each way and print a table of it, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=["loop", "batch", "together", "ray 1", "ray 2"])
    parser.add_argument("--json", action="store_true", help="print one object a measurement")
    args = parser.parse_args()
    prompts = [line for line in PROMPTS if line and not line.startswith("#")][: args.rows]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in args.ways}
    for number in range(args.rounds):
        for way in args.ways:
            found[way].append(measured(way, prompts, args.steps, args.size))
            told = {"way": way, "round": number, "rows": len(prompts), "steps": args.steps, "size": args.size}
            print(json.dumps(told | found[way][-1]) if args.json else f"{way}: {found[way][-1]}", flush=True)
    if args.json:
        return
    against = {key: statistics.mean(one[key] for one in found[args.ways[0]]) for key in ("whole", "drawing")}
    print(f"rows an hour, means of {args.rounds}, and as a multiple of {args.ways[0]!r}")
    for way, measures in found.items():
        means = {key: statistics.mean(one[key] for one in measures) for key in ("whole", "drawing", "load")}
        ratio = {key: means[key] / against[key] for key in against}
        print(
            f"{way:<10} whole {means['whole']:7.0f} ({ratio['whole']:.2f})  "
            f"drawing {means['drawing']:7.0f} ({ratio['drawing']:.2f})  load {means['load']:.1f}"
        )


if __name__ == "__main__":
    main()
