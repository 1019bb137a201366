"""The held-out judge's R@1 of what a Mini DALL-E draws: the best of 1, 4, 16 candidates by CLIP's rank.

    python -m tests.benchmarks.candidates --jobs 2

Printed twice: for all prompts, and for those of which there is a real drawing, beside what the judge says of these.

Each prompt of dev64.txt with each seed; the seconds are the processor's, of drawing and ranking 16. The loop from noise and
from the best candidate: `python -m tests.benchmarks.quality --config ours ours:init=sample`.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.benchmarks import quality
from tests.benchmarks.judging import Retrieval, load_judge, read_prompts
from tests.benchmarks.quality import interval, judge_reals
from vqclip.files.images import to_tensor
from vqclip.runs.api import sample

COUNTS = (1, 4, 16)

judge: Retrieval


def set_up(prompts: list[str], threads: int) -> None:
    """Load the judge, once a process."""
    global judge
    torch.set_num_threads(threads)
    judge = Retrieval(load_judge(), prompts)


def draw(job: tuple[str, int, dict[str, Any], Path | None]) -> list[dict[str, Any]]:
    """Draw candidates for a prompt; return a row for the best of each count."""
    prompt, seed, changes, keep = job
    began = time.process_time()
    found = sample(prompt, seed=seed, count=max(COUNTS), **changes).candidates
    seconds = time.process_time() - began
    rows = []
    for count in COUNTS:
        best = next(one for one in found if one.number < count)  # the nearest comes first
        rank, chance = judge.look(to_tensor(best.picture), prompt)
        rows.append(
            {"of": count, "prompt": prompt, "seed": seed, "rank": rank, "chance": chance, "seconds": round(seconds, 1)}
        )
    if keep:
        best.picture.save(keep / f"{prompt.replace(' ', '-')}-{seed}.png")
    return rows


def main() -> None:
    """Run the benchmark and print a line for each count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dalle", default="tiny")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--prompts", default="dev64.txt")
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes, which share the cores evenly")
    parser.add_argument("--keep", type=Path, help="keep the best pictures here")
    parser.add_argument("--out", type=Path, help="write every row to this file, as JSON lines")
    args = parser.parse_args()
    prompts = read_prompts(args.prompts)
    names = ("dalle", "guidance", "temperature", "top_k")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    changes["upscale"] = 0  # the judge looks at what is drawn
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    jobs = [(prompt, seed, changes, args.keep) for seed in args.seeds for prompt in prompts[:: args.every]]
    threads = max(1, torch.get_num_threads() // args.jobs)
    with multiprocessing.get_context("spawn").Pool(args.jobs, set_up, (prompts, threads)) as pool:
        rows = [row for some in tqdm(pool.imap_unordered(draw, jobs), total=len(jobs), disable=None) for row in some]
    if args.out:
        args.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quality.set_up(prompts, torch.get_num_threads())
    reals = judge_reals(prompts[:: args.every])
    real = {row["prompt"] for row in reals}
    for title, some in (("", rows), (", with a real drawing", [row for row in rows if row["prompt"] in real])):
        for count in COUNTS:
            print(f"best of {count:<3}{title} {interval([row for row in some if row['of'] == count])}")
    print(f"real drawings {interval(reals)}")
    print(
        f"{sum(row['seconds'] for row in rows) / len(rows):.1f} s of processor time a prompt, models' loading counted"
    )


if __name__ == "__main__":
    main()
