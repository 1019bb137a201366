"""Quality against time: the held-out judge's R@1 of what a configuration draws.

    python -m tests.benchmarks.quality --config ours nerdyrodent rkhamilton --seeds 3 --seconds 30

Every configuration draws every prompt of dev64.txt with every seed, on the same models and threads, and
is judged whenever one of the time marks passes. `ours` is the default settings, and a name with changed settings can stand beside it
(`ours:steps=60,coarse=0.5`); the peers' loops are in peers.py. The interval is a bootstrap over prompts.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.judging import Retrieval, load_judge, read_prompts
from tests.benchmarks.peers import kornia, latest, peer_steps
from vqclip.images import to_tensor
from vqclip.session import prepare
from vqclip.settings import resolve

PEERS = {"nerdyrodent": latest, "rkhamilton": kornia}
CONFIGS: dict[str, dict[str, Any]] = {
    "ours": {},
    "nerdyrodent": {"steps": 500, "tries": 1},
    "rkhamilton": {"steps": 100, "tries": 1},
}


def draw(
    config: str,
    prompt: str,
    seed: int,
    changes: dict[str, Any],
    judge: Retrieval,
    marks: list[float],
    keep: Path | None,
) -> list[dict[str, Any]]:
    """Run one prompt; return a row at each time mark (seconds of the whole, loading apart) and at the end."""
    settings = resolve(prompt, seed=seed, **changes)
    began = time.monotonic()
    session = prepare(settings)
    loaded = time.monotonic() - began
    rows, left = [], list(marks)
    step = None
    for step in peer_steps(session, PEERS[config]) if config in PEERS else session.steps():
        spent = time.monotonic() - began
        if left and spent >= left[0]:
            rank = judge.rank(to_tensor(session.picture(step.latent)), prompt)
            rows.append({"at": left.pop(0), "step": step.step, "rank": rank})
    picture = session.picture(step.latent)
    if keep:
        picture.save(keep / f"{prompt.replace(' ', '-')}-{seed}.png")
    spent = time.monotonic() - began
    rank = judge.rank(to_tensor(picture), prompt)
    rows.append({"at": "end", "step": step.step, "rank": rank, "seconds": round(spent, 1), "loading": round(loaded, 1)})
    return [{"prompt": prompt, "seed": seed, **row} for row in rows]


def interval(rows: list[dict[str, Any]], draws: int = 2000) -> tuple[float, float, float]:
    """Return R@1 and its 95% interval, by bootstrap over prompts."""
    by: dict[str, list[int]] = {}
    for row in rows:
        by.setdefault(row["prompt"], []).append(int(row["rank"] == 0))
    means = [sum(hits) / len(hits) for hits in by.values()]
    rng = random.Random(0)
    samples = sorted(sum(rng.choices(means, k=len(means))) / len(means) for _ in range(draws))
    return sum(means) / len(means), samples[int(0.025 * draws)], samples[int(0.975 * draws)]


def main() -> None:
    """Run the benchmark and print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", nargs="+", default=["ours"], help=f"{', '.join(CONFIGS)}, or name:key=value,key=value"
    )
    parser.add_argument("--prompts", default="dev64.txt")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--marks", type=float, nargs="*", default=[5, 10, 20, 30])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--keep", type=Path, help="keep the final pictures here")
    parser.add_argument("--out", type=Path, help="write every row here, as JSON lines")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    prompts = read_prompts(args.prompts)
    judge = Retrieval(load_judge(), prompts)
    chosen = prompts[:: args.every][: args.limit]
    for spec in args.config:
        name, _, more = spec.partition(":")
        changes = dict(CONFIGS.get(name, {}))
        for pair in filter(None, more.split(",")):
            key, _, value = pair.partition("=")
            changes[key] = (
                tuple(v for v in value.split("+") if v)
                if key in ("augments", "clips")
                else json.loads(value)
                if value[:1] in "0123456789[-"
                else value
            )
        keep = args.keep / name if args.keep else None
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        rows = [
            row
            for seed in range(args.seeds)
            for prompt in chosen
            for row in draw(name, prompt, seed, changes, judge, args.marks, keep)
        ]
        for mark in [*args.marks, "end"]:
            some = [row for row in rows if row["at"] == mark]
            if some:
                mean, low, high = interval(some)
                steps = sum(row["step"] for row in some) / len(some)
                print(
                    f"{spec:<50} {mark!s:>5}  step {steps:6.1f}  R@1 {mean:.3f} [{low:.3f}, {high:.3f}]  n={len(some)}",
                    flush=True,
                )
        ends = [row["seconds"] for row in rows if row["at"] == "end"]
        print(f"{spec:<50} seconds a picture: {sum(ends) / len(ends):.1f}", flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.writelines(json.dumps({"config": spec, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
