"""How the cost of a step grows with size, cutouts, batch and steps, against the operations that are counted.

    python -m tests.benchmarks.scale --shape full --out scale.json --plot scale.png

`full` is VQGAN f16-16384 and ViT-B-32 with random weights (at 256x256 where the size is not varied), `tiny` the bundled
models. float32, default settings but for what is varied; processor time, the quickest of some steps after one
that warms up. `growth` is how much more time than the first row's a row takes, over how much more operations (those of
convolutions and matrix products, forward and backward, that one step made): 1 is in proportion, below is better. The rows are
taken in turn, so that other work on the machine meets all alike. `--memory` measures by how much the peak of a process
grows over its loaded models, of cutouts in chunks of 8.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from tests.benchmarks.step import CPU, grown, models
from vqclip.batch.stacked import optimize_stack
from vqclip.config.resolve import resolve
from vqclip.core.interfaces import Target
from vqclip.core.quantize import lookup
from vqclip.models.clip import freeze
from vqclip.models.vqgan import taming
from vqclip.runs.memory import keep_freed
from vqclip.runs.networks import Networks
from vqclip.runs.session import Session, Start
from vqclip.settings.schema import Settings

AXES: dict[str, tuple[int, ...]] = {
    "size": (128, 256, 512, 1024),
    "cutouts": (8, 16, 32, 64, 128),
    "batch": (1, 2, 4, 8, 16),
    "steps": (10, 20, 40, 80),
}
TAKEN = {"size": 2, "cutouts": 4, "batch": 3}  # steps of a row in a round


def _product(x: torch.Size, weight: torch.Size, *_rest: Any, **_named: Any) -> int:
    return 2 * math.prod(x) * weight[0]


def _attention(queries: torch.Size, keys: torch.Size, values: torch.Size, *_rest: Any, **_named: Any) -> int:
    return sdpa_flop_count(queries, keys, values)


def _attention_back(*shapes: Any, **_named: Any) -> int:
    return sdpa_backward_flop_count(*shapes[:4])


for _operator, _formula in (
    (torch.ops.mkldnn._linear_pointwise, _product),
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, _attention),
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, _attention_back),
):
    if _operator not in flop_registry:  # torch 2.14 counts none of them
        register_flop_formula(_operator)(_formula)


def settings(axis: str, value: int, side: int = 128, **more: Any) -> Settings:
    """Return the settings of a row: one thing varied, all steps at full size."""
    varied: dict[str, Any] = {"size": {"size": (value, value)}, "cutouts": {"cutouts": value}}.get(axis, {})
    usual = {"size": (side, side), "precision": "float32", "coarse": 0.0, "steps": 1000}
    return resolve("a red heart", "tiny", 0, **usual | varied | more)


def open_sessions(shape: str) -> Callable[[Settings], Session]:
    """Return what makes a session of settings, with the networks of a shape."""
    if shape == "tiny":
        networks = Networks()
        return lambda wanted: Session.load(wanted, "cpu", networks)
    vqgan, clip = models()
    net, seer = taming.freeze(vqgan, CPU), freeze("x", clip, None, CPU)
    target = Target(F.normalize(torch.randn(1, 512), dim=1), torch.ones(1), torch.full((1,), -torch.inf))

    def session(wanted: Settings) -> Session:
        width, height = (side // net.f for side in wanted.size)
        made = Session(wanted, CPU, net, [seer], [target], {}, Networks())
        z = lookup(torch.randint(len(net.codebook), (1, height, width)), net.codebook)
        made.start = lambda *_: Start(z, made.targets)
        return made

    return session


def begin(sessions: list[Session]) -> Callable[[], object]:
    """Return what makes a step of runs that are one tensor."""
    runs = [SimpleNamespace(session=session, start=session.start(), state=None) for session in sessions]
    loop = optimize_stack(runs)
    return lambda: next(loop) and None


def spent(step: Callable[[], object]) -> float:
    """Return the seconds of processor time that something takes."""
    began = time.process_time()
    step()
    return time.process_time() - began


def operations(step: Callable[[], object]) -> float:
    """Count the operations of convolutions and matrix products that a step makes."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def rows_of(axis: str, make: Callable[[Settings], Session], side: int, rounds: int) -> list[dict[str, Any]]:
    """Measure a step at each value of an axis."""
    loops = {}
    for value in AXES[axis]:
        many = value if axis == "batch" else 1
        loops[value] = begin([make(settings(axis, value, side)) for _ in range(many)])
    counted = {value: operations(step) for value, step in loops.items()}  # and warms up
    times: dict[int, list[float]] = {value: [] for value in loops}
    for _ in range(rounds):
        for value, step in loops.items():
            times[value] += [spent(step) for _ in range(TAKEN[axis])]
    return [
        {"axis": axis, "value": value, "seconds": min(times[value]), "operations": counted[value]} for value in loops
    ]


def runs_of(make: Callable[[Settings], Session], side: int) -> list[dict[str, Any]]:
    """Measure whole runs of more and more steps, whose operations are in proportion to them."""
    rows = []
    for value in AXES["steps"]:
        session = make(settings("steps", value, side).model_copy(update={"steps": value}))
        start = session.start()
        rows.append({"axis": "steps", "value": value, "operations": float(value),
                     "seconds": spent(lambda session=session, start=start: list(session.steps(start)))})  # fmt: skip
    return rows


def growth(cutouts: int, chunk: int) -> None:
    """Print by how many bytes two steps raise the resident size."""
    print(grown(begin([Session.load(settings("cutouts", cutouts, chunk=chunk), "cpu")])))


def memory() -> list[dict[str, Any]]:
    """Measure that for each number of cutouts, whole and in chunks, in processes of their own."""
    rows = []
    for chunk in (max(AXES["cutouts"]), 8):  # 0 would be 8 on the CPU
        for cutouts in AXES["cutouts"]:
            command = [sys.executable, "-m", "tests.benchmarks.scale", "--grown", str(cutouts), str(chunk)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({"axis": "memory", "value": cutouts, "chunk": chunk, "bytes": int(told)})
            print(
                f"{cutouts:>4} cutouts, {'in chunks of 8' if chunk == 8 else 'together':<14} {int(told) / 1e6:8.0f} MB",
                flush=True,
            )
    return rows


def draw(rows: list[dict[str, Any]], path: Path, shape: str) -> None:
    """Plot seconds and operations, both over those of the first row, along each axis; and the memory."""
    from tests.benchmarks.plot import figure

    panels = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        own = [row for row in rows if row["axis"] == axis]
        if axis == "memory":
            lines = {f"chunks of {c}" if c == 8 else "together": [(row["value"], row["bytes"] / 1e6) for row in own if row["chunk"] == c]
                     for c in (max(AXES["cutouts"]), 8)}  # fmt: skip
            panels.append(
                {"title": "memory", "x": "cutouts", "y": "MB over the loaded models", "lines": lines, "log": True}
            )
            continue
        lines = {what: [(row["value"], row[what] / own[0][what]) for row in own] for what in ("operations", "seconds")}
        panels.append({"title": axis, "x": axis, "y": "times the first", "lines": lines, "log": True})
    figure(path, panels, f"what a step costs, {shape} models, float32")


def main() -> None:
    """Measure, print the table, write the JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--plot", type=Path, help="draw them here: .png or .svg")
    parser.add_argument("--grown", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.grown:
        growth(*args.grown)
        return
    keep_freed(True)
    rows, make, side = [], open_sessions(args.shape), 256 if args.shape == "full" else 128
    for axis in args.axes:
        found = runs_of(make, side) if axis == "steps" else rows_of(axis, make, side, args.rounds)
        for row in found:
            row["growth"] = row["seconds"] / found[0]["seconds"] / (row["operations"] / found[0]["operations"])
            print(f"{axis:<8} {row['value']:>5}  {row['seconds']:8.3f} s  {row['operations']:10.3g} operations  "
                  f"growth {row['growth']:.2f}", flush=True)  # fmt: skip
        rows += found
    rows += memory() if args.memory else []
    if args.out:
        args.out.write_text(
            json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}, indent=1)
        )
    if args.plot:
        draw(rows, args.plot, args.shape)


if __name__ == "__main__":
    main()
