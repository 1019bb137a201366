"""Memory: what vqclip expects a step to take, against what the process then takes, with and without chunks.

    python -m tests.benchmarks.memory

Each line is a process of its own: the estimate, the growth of its peak resident size over two steps (models
loaded before), their ratio, and the peak as a share of the same shape's without chunks.
"""

import argparse
import json
import subprocess
import sys

from tests.benchmarks.step import grown

# side, cutouts, chunk: all of them, before fewer of the same
SHAPES = ((128, 8, 8), (128, 128, 128), (128, 128, 8), (256, 32, 32), (512, 8, 8), (512, 64, 64), (512, 64, 8))


def measure(side: int, cutouts: int, chunk: int) -> None:
    """Print the estimate and the growth, in MB."""
    from vqclip.config.resolve import resolve
    from vqclip.runs.api import prepare
    from vqclip.runs.memory import estimate

    settings = resolve(
        "a red heart",
        seed=0,
        size=(side, side),
        cutouts=cutouts,
        chunk=chunk,
        coarse=0.0,
        steps=2,
        init="grey",
        upscale=0,
    )
    session = prepare(settings, "cpu")
    need = estimate(session)
    steps = session.steps()
    print(json.dumps({"expected": need.total / 2**20, "grown": grown(lambda: next(steps)) / 2**20}))


def main() -> None:
    """Run every shape and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(*args.one)
        return
    whole = {}
    print(
        f"{'size':>9} {'cutouts':>8} {'chunk':>6} {'expected MB':>12} {'grown MB':>9} {'ratio':>6} {'of unchunked':>13}"
    )
    for side, cutouts, chunk in SHAPES:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--one", str(side), str(cutouts), str(chunk)]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        whole.setdefault((side, cutouts), told["grown"])
        ratio, share = told["expected"] / told["grown"], told["grown"] / whole[side, cutouts]
        print(
            f"{side:>5}x{side:<3} {cutouts:>8} {chunk:>6} {told['expected']:>12.0f} {told['grown']:>9.0f} {ratio:>6.2f} {share:>13.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
