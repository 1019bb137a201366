"""What enlarging the finished image costs a run, and whether the judge names the enlarged picture as it names the drawn.

    python -m tests.benchmarks.upscaling --every 8 --seeds 0

The cost: processor time of a whole run, models loaded before, with `upscale` 4 against that of the same with 0. The names:
R@1 of what was drawn, and of the enlarged picture as the judge sees it, reduced.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks.judging import Retrieval, load_judge, read_prompts
from tests.benchmarks.quality import interval
from vqclip.files.images import to_tensor
from vqclip.runs.api import generate
from vqclip.runs.networks import Networks


def main() -> None:
    """Run the benchmark and print a line for the cost and one for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--upscale", type=int, default=4)
    parser.add_argument("--steps", type=int, help="fewer, to try (default: the preset's)")
    parser.add_argument("--out", type=Path, help="write every row to this file, as JSON lines")
    args = parser.parse_args()
    prompts, networks = read_prompts("dev64.txt"), Networks()
    retrieval = Retrieval(load_judge(), prompts)
    rows = []
    for prompt in prompts[:: args.every]:
        for seed in args.seeds:
            for factor in (0, args.upscale):
                with tempfile.TemporaryDirectory() as runs:
                    began = time.process_time()
                    made = generate(prompt, seed=seed, steps=args.steps, upscale=factor, runs=runs, networks=networks)
                    seconds = time.process_time() - began
                    rank, chance = retrieval.look(to_tensor(made.picture), prompt)
                rows.append({"upscale": factor, "prompt": prompt, "seed": seed, "rank": rank, "chance": chance,
                             "seconds": round(seconds, 2)})  # fmt: skip
    if args.out:
        args.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = list(zip(rows[2::2], rows[3::2], strict=True)) or [(rows[0], rows[1])]  # the first one loads the models
    print(f"a run takes {statistics.median(b['seconds'] / a['seconds'] for a, b in pairs):.3f} times as long")
    for factor in (0, args.upscale):
        print(f"upscale {factor}: {interval([row for row in rows if row['upscale'] == factor])}")
    same = sum(a["rank"] == b["rank"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    print(f"of {len(rows) // 2} pictures the judge ranks {same} alike")


if __name__ == "__main__":
    main()
