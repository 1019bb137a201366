"""Quality against time: the held-out judge's R@1 of what a configuration draws, and of real drawings.

    python -m tests.benchmarks.quality --config ours nerdyrodent rkhamilton --jobs 2

Every configuration draws every prompt of dev64.txt with every seed, on the same models, and is judged when each
time mark has passed and at its end. Time is the processor's (all threads together), so that other work on the
machine changes nothing; loading counts, judging does not. `ours` is the default settings, and the same with changes
can stand beside it (`ours:steps=60,coarse=0.5`); the peers' loops are in peers.py, and go to their own end (500 and 100
steps) unless `--stop` ends them before. Intervals are a bootstrap over prompts.
"""

import argparse
import json
import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from tests.benchmarks.judging import REALS, Retrieval, load_judge, read_prompts, read_reals
from tests.benchmarks.peers import kornia, latest, peer_steps
from vqclip.config.resolve import resolve
from vqclip.files.images import to_tensor
from vqclip.runs.api import prepare

PEERS = {"nerdyrodent": latest, "rkhamilton": kornia}
CONFIGS: dict[str, dict[str, Any]] = {"ours": {}, "nerdyrodent": {"steps": 500}, "rkhamilton": {"steps": 100}}
MARKS = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 240.0)

judge: Retrieval


def set_up(prompts: list[str], threads: int) -> None:
    """Load the judge, once a process."""
    global judge
    torch.set_num_threads(threads)
    judge = Retrieval(load_judge(), prompts)


def draw(job: tuple[str, str, int, Path | None, float]) -> list[dict[str, Any]]:
    """Run one prompt with one seed; return a row at each time mark and one at the end."""
    spec, prompt, seed, keep, stop = job
    name, changes = parse(spec)
    began, away = time.process_time(), 0.0
    session = prepare(resolve(prompt, seed=seed, **({"init": "grey"} | changes)))
    rows, left = [], list(MARKS)

    def look(at: float | str) -> None:
        rank, chance = judge.look(to_tensor(session.picture(step.latent)), prompt)
        rows.append({"at": at, "step": step.step, "rank": rank, "chance": round(chance, 4)})

    for step in peer_steps(session, PEERS[name]) if name in PEERS else session.steps():
        paused = time.process_time()
        if left and paused - began - away >= left[0]:
            look(left.pop(0))
            away += time.process_time() - paused
        if name in PEERS and paused - began - away >= stop:
            break
    spent = time.process_time() - began - away
    look("end")
    if keep:
        session.picture(step.latent).save(keep / f"{prompt.replace(' ', '-')}-{seed}.png")
    return [{"config": spec, "prompt": prompt, "seed": seed, **row, "seconds": round(spent, 1)} for row in rows]


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Read `name:key=value,key=value`; values are JSON where they look so, augments are joined by `+`."""
    name, _, more = spec.partition(":")
    changes = dict(CONFIGS[name])
    for pair in filter(None, more.split(",")):
        key, _, value = pair.partition("=")
        if key in ("augments", "clips"):
            changes[key] = tuple(part for part in value.split("+") if part)
        else:
            changes[key] = json.loads(value) if value[:1] in "0123456789[-" else value
    return name, changes


def judge_reals(prompts: list[str]) -> list[dict[str, Any]]:
    """Judge the real drawings of the same captions, which the judge never saw in training: the ceiling."""
    rows = []
    for name, prompt in read_reals().items():
        if prompt in prompts:
            picture = Image.open(REALS / name).convert("RGB")
            rank, chance = judge.look(to_tensor(picture), prompt)
            rows.append({"prompt": prompt, "rank": rank, "chance": chance})
    return rows


def bootstrap(rows: list[dict[str, Any]], draws: int = 2000) -> tuple[float, float, float]:
    """Return R@1 and its 95% interval, by bootstrap over prompts."""
    by: dict[str, list[int]] = {}
    for row in rows:
        by.setdefault(row["prompt"], []).append(int(row["rank"] == 0))
    means = [sum(hits) / len(hits) for hits in by.values()]
    rng = random.Random(0)
    samples = sorted(sum(rng.choices(means, k=len(means))) / len(means) for _ in range(draws))
    return sum(means) / len(means), samples[int(0.025 * draws)], samples[int(0.975 * draws)]


def interval(rows: list[dict[str, Any]]) -> str:
    """Return R@1 and its interval, R@5, and the right caption's mean log-probability."""
    r1, low, high = bootstrap(rows)
    top5 = sum(row["rank"] < 5 for row in rows) / len(rows)
    chance = sum(row["chance"] for row in rows) / len(rows)
    return f"R@1 {r1:.3f} [{low:.3f}, {high:.3f}]  R@5 {top5:.3f}  log p {chance:.3f}  n={len(rows)}"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a line for each configuration and time mark that all of its pictures reached."""
    for spec in dict.fromkeys(row["config"] for row in rows):
        own = [row for row in rows if row["config"] == spec]
        ends = [row["seconds"] for row in own if row["at"] == "end"]
        for mark in (*MARKS, "end"):
            some = [row for row in own if row["at"] == mark]
            if len(some) == len(ends):
                steps = sum(row["step"] for row in some) / len(some)
                print(f"{spec:<44} {mark!s:>5}  step {steps:6.1f}  {interval(some)}", flush=True)
        print(f"{spec:<44} {sum(ends) / len(ends):.1f} s of processor time a picture", flush=True)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot each configuration's R@1 over seconds of processor time, with its interval, to its own mean end."""
    from tests.benchmarks.plot import figure

    lines = {}
    for spec in dict.fromkeys(row["config"] for row in rows):
        own = [row for row in rows if row["config"] == spec]
        ends = [row["seconds"] for row in own if row["at"] == "end"]
        whole = [mark for mark in MARKS if sum(row["at"] == mark for row in own) == len(ends)]
        points = [(mark, *bootstrap([row for row in own if row["at"] == mark])) for mark in whole]
        lines[spec] = [*points, (sum(ends) / len(ends), *bootstrap([row for row in own if row["at"] == "end"]))]
    figure(
        path, [{"lines": lines, "x": "seconds of processor time", "y": "held-out judge's R@1"}], "quality against time"
    )


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", nargs="+", default=["ours"], help=f"{', '.join(CONFIGS)}, or ours:key=value,...")
    parser.add_argument("--prompts", default="dev64.txt")
    parser.add_argument("--every", type=int, default=1, help="only every n-th prompt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stop", type=float, default=float("inf"), help="end a peer's run after so many seconds")
    parser.add_argument("--jobs", type=int, default=1, help="processes, which share the cores evenly")
    parser.add_argument("--keep", type=Path, help="keep the final pictures here")
    parser.add_argument("--out", type=Path, help="add every row to this file, as JSON lines")
    parser.add_argument("--table", type=Path, nargs="+", help="draw no pictures: print the table of such files")
    parser.add_argument("--plot", type=Path, help="with --table, draw R@1 over seconds here: .png or .svg")
    args = parser.parse_args()
    if args.table:
        rows = [json.loads(line) for file in args.table for line in file.read_text().splitlines()]
        print_table(rows)
        if args.plot:
            plot(rows, args.plot)
        return
    prompts = read_prompts(args.prompts)
    chosen = prompts[:: args.every]
    set_up(prompts, torch.get_num_threads())
    print(f"{'real drawings':<44}                    {interval(judge_reals(chosen))}", flush=True)
    threads = max(1, torch.get_num_threads() // args.jobs)
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.jobs, set_up, (prompts, threads)) as pool:
        for spec in args.config:
            keep = args.keep / spec.replace(":", "-") if args.keep else None
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
            jobs = [(spec, prompt, seed, keep, args.stop) for seed in args.seeds for prompt in chosen]
            done = tqdm(pool.imap_unordered(draw, jobs), spec, total=len(jobs), disable=None)
            rows = []
            for some in done:
                rows += some
                if args.out:
                    with args.out.open("a") as file:
                        file.writelines(json.dumps(row) + "\n" for row in some)
            print_table(rows)


if __name__ == "__main__":
    main()
