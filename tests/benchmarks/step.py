"""One step at full shape: ours, the canonical formulation, and what the machine could do.

    python -m tests.benchmarks.step --sizes 256 384 512 --out step.json

VQGAN f16-16384 and ViT-B-32 (QuickGELU) with random weights, 32 cutouts. Compared in one process, one step of each in
turn, so that other work on the machine meets all alike; time is the processor's, all threads together.

- canonical: what VQGAN+CLIP programs run (nerdyrodent's cutouts `latest`, or rkhamilton's kornia ones: peers.py), with
  one-hot quantising, taming's and open_clip's modules as they are, torch's default memory format, float32;
- ours: vqclip's loop with its usual settings, in float32 and in bfloat16;
- limit: the operations of decoder and CLIP as they are written, forward and backward to their inputs, at the highest rate that
  a matrix product or a convolution of these shapes reached in the same run, by whichever of torch's libraries. Nothing else
  (norms, cutouts, the step) is counted in it; of the enlarging layers' operations, a fifth of the decoder's, ours make under
  half, of the last layer of CLIP a sixth. "limit, F.linear" takes matrix products at the rate that torch itself makes them.

`--memory` measures instead, each in a process of its own, how much the peak resident size grows over the loaded models;
what loading them left free on the heap is given back first, as before a run.
`--cutouts-alone` times making the cutouts, forward and backward.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.peers import CUTOUTS, kornia, latest
from tests.support.fullshape import F16
from vqclip.core.cutouts import CutoutConfig, make_cutouts
from vqclip.core.devices import LOWER_PRECISION
from vqclip.core.interfaces import LoopInputs, Target
from vqclip.core.loop import optimize
from vqclip.core.losses import spherical_distance
from vqclip.core.matmul import product
from vqclip.models.clip import OpenClip, freeze
from vqclip.models.vqgan import taming
from vqclip.runs.memory import keep_freed
from vqclip.settings.augmentations import AUGMENTS
from vqclip.settings.schema import Settings

CPU = torch.device("cpu")
PEERS = ("nerdyrodent", "rkhamilton")
WAYS = (*PEERS, "float32", "bfloat16")
SHARED = {"prompt": "x", "cutouts": CUTOUTS, "coarse": 0, "steps": 1000}


def models() -> tuple[Any, Any]:
    """Return a full-shape VQGAN and CLIP as their packages make them, with random weights that keep values moderate."""
    torch.manual_seed(0)
    vqgan = taming.TamingVqgan("f16", {"embed_dim": 256, "n_embed": 16384, "ddconfig": F16})
    nn.init.normal_(vqgan.get_parameter("quantize.embedding.weight"))
    clip = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False)
    return vqgan.requires_grad_(False).eval(), clip.requires_grad_(False).eval()


def canonical(
    vqgan: Any, clip: Any, z: Tensor, views: Callable[[Tensor, int], Tensor], aim: Tensor
) -> Callable[[], None]:
    """Return the step of the peers' programs."""
    book, head = vqgan.codebook, OpenClip("x", clip, None).to(z.device)
    z = z.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)

    def step() -> None:
        flat = z.movedim(1, 3)
        distance = flat.square().sum(-1, keepdim=True) + book.square().sum(1) - 2 * flat @ book.T
        codes = F.one_hot(distance.argmin(-1), len(book)).to(book.dtype) @ book
        z_q = flat + (codes - flat).detach()
        image = (vqgan.decoder(vqgan.post_quant_conv(z_q.movedim(3, 1))) + 1) / 2
        seen = (views(image, head.size) - head.mean) / head.std
        embeds = F.normalize(clip.encode_image(seen), dim=-1)
        optimizer.zero_grad()
        spherical_distance(embeds, aim).mean().backward()
        optimizer.step()

    return step


def ours(vqgan: Any, clip: Any, z: Tensor, precision: str, aim: Tensor, **changes: Any) -> Callable[[], None]:
    """Return the step of vqclip's loop."""
    net, seer = taming.freeze(copy.deepcopy(vqgan), CPU), freeze("x", copy.deepcopy(clip), None, CPU)
    if precision == "bfloat16":
        net.lower(LOWER_PRECISION)
        seer.lower(LOWER_PRECISION)
    target = Target(aim, torch.ones(1), torch.full((1,), -torch.inf))
    size = (z.shape[3] * 16, z.shape[2] * 16)
    loop = optimize(LoopInputs(net, [seer], [target], Settings(**SHARED | {"size": size} | changes)), z)
    return lambda: next(loop) and None


def spent(step: Callable[[], object]) -> float:
    """Return the seconds of processor time that a step takes."""
    began = time.process_time()
    step()
    return time.process_time() - began


def operations(vqgan: Any, clip: Any, z: Tensor) -> dict[str, float]:
    """Count the operations of a step, forward and backward to the inputs: {"conv": n, "matrix": n}."""
    counter = FlopCounterMode(display=False)
    shape = (CUTOUTS, 3, *clip.visual.image_size)
    with torch.device("meta"):
        vqgan, clip = (copy.deepcopy(net).to("meta") for net in (vqgan, clip))
        image, views = torch.empty(z.shape, requires_grad=True), torch.empty(shape, requires_grad=True)
        with counter:
            vqgan.decoder(vqgan.post_quant_conv(image)).sum().backward()
            clip.encode_image(views).sum().backward()
    counted = counter.get_flop_counts()["Global"]
    conv = sum(n for op, n in counted.items() if "conv" in str(op))
    return {"conv": conv, "matrix": sum(counted.values()) - conv}


def rates(dtype: torch.dtype) -> dict[str, float]:
    """Measure the highest rate of convolutions and matrix products of such shapes, in operations a second of a thread."""
    best = {"conv": 0.0, "matrix": 0.0, "F.linear": 0.0}
    for inward, outward, side in ((128, 128, 256), (256, 256, 128), (256, 256, 64), (512, 512, 32)):
        x = torch.randn(1, inward, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(outward, inward, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
        took = min(spent(lambda x=x, w=w: F.conv2d(x, w, padding=1)) for _ in range(4))
        best["conv"] = max(best["conv"], 2 * 9 * inward * outward * side**2 / took)
    for rows, inward, outward in ((1600, 768, 3072), (1600, 3072, 768), (1600, 768, 2304)):
        x, w = torch.randn(rows, inward, dtype=dtype), torch.randn(outward, inward, dtype=dtype)
        for name, way in (("F.linear", F.linear), ("matrix", product)):
            took = min(spent(lambda x=x, w=w, way=way: way(x, w)) for _ in range(4))
            best[name] = max(best[name], 2 * rows * inward * outward / took)
    return best | {"matrix": max(best["matrix"], best["F.linear"])}


def limit(counted: dict[str, float], rate: dict[str, float]) -> float:
    """Return the seconds that the operations take at these rates."""
    return sum(counted[kind] / rate[kind] for kind in counted)


def make(way: str, vqgan: Any, clip: Any, side: int, **changes: Any) -> Callable[[], None]:
    """Return a way's step for a square picture."""
    torch.manual_seed(1)
    z = vqgan.codebook[torch.randint(len(vqgan.codebook), (1, side // 16, side // 16))].movedim(-1, 1).contiguous()
    aim = F.normalize(torch.randn(1, 512), dim=-1)
    if way in PEERS:
        return canonical(vqgan, clip, z, latest if way == "nerdyrodent" else kornia, aim)
    return ours(vqgan, clip, z, way, aim, **changes)


def compare(side: int, rounds: int, ways: list[str]) -> dict[str, Any]:
    """Time the ways in turn; return each one's quickest step, in seconds, and what the limits are."""
    vqgan, clip = models()
    steps = {way: make(way, vqgan, clip, side) for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[dict[str, float]]] = {"float32": [], "bfloat16": []}
    for k in range(rounds + 1):
        for precision, dtype in (("float32", torch.float32), ("bfloat16", LOWER_PRECISION)):
            if precision in ways:
                found[precision].append(rates(dtype))
        for way, step in steps.items():
            own = way not in PEERS
            keep_freed(own)  # as vqclip does where there is plenty of memory; the others know nothing of it
            step()  # as in a run, where the step before has left its memory
            took = spent(step)
            if k:  # the first warms up
                times[way].append(took)
    counted = operations(vqgan, clip, torch.empty(1, 256, side // 16, side // 16))
    rate = {p: {k: max(one[k] for one in some) for k in some[0]} for p, some in found.items() if some}
    limits = {p: limit(counted, best) for p, best in rate.items()}
    if best := rate.get("float32"):
        limits["float32, F.linear"] = limit(counted, best | {"matrix": best["F.linear"]})
    least = {way: min(some) for way, some in times.items()}  # other work on the machine only adds, to rates as to steps
    return {"size": side, "seconds": least, "all": times, "limit": limits,
            "tflop": sum(counted.values()) / 1e12, "gflop_a_second": rate, "threads": torch.get_num_threads()}  # fmt: skip


def cutouts_alone(side: int, rounds: int) -> dict[str, float]:
    """Time making the cutouts of a picture, forward and backward: seconds a way."""
    settings = Settings(**SHARED)
    config = CutoutConfig.of(settings.model_copy(update={"cutouts": CUTOUTS}))
    assert set(config.augments) <= set(AUGMENTS)
    ways = {"nerdyrodent": lambda x: latest(x, 224), "rkhamilton": lambda x: kornia(x, 224),
            "vqclip": lambda x: make_cutouts(x, 224, config, seeds=[0], step=0)}  # fmt: skip
    times: dict[str, list[float]] = {way: [] for way in ways}
    grad = torch.randn(CUTOUTS, 3, 224, 224)
    for _ in range(rounds + 1):
        for way, views in ways.items():
            image = torch.rand(1, 3, side, side, requires_grad=True)
            times[way].append(spent(lambda views=views, image=image: views(image).backward(grad)))
    return {way: sorted(some[1:])[rounds // 2] for way, some in times.items()}


def growth(way: str, side: int, chunk: int) -> None:
    """Print by how many bytes two steps raise the resident size."""
    vqgan, clip = models()
    print(grown(make(way, vqgan, clip, side, chunk=chunk)))


def grown(step: Callable[[], object]) -> int:
    """Return by how many bytes the peak of two steps is over the resident size before them.

    What was freed by then is given back to the system: else steps would be made in it, and it would not count.
    """
    keep_freed(False)
    linux, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if linux.exists():
        linux.write_text(
            "5"
        )  # the peak is what there is now: not what loading took, nor the process that began this one
    before = psutil.Process().memory_info().rss
    step()
    step()
    if linux.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 - before
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) - before


def memory(side: int, ways: list[str], chunk: int) -> dict[str, float]:
    """Measure each way's growth, in a process of its own."""
    grown = {}
    for way in ways:
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.step",
            "--growth",
            way,
            "--sizes",
            str(side),
            "--chunk",
            str(chunk),
        ]
        grown[way] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e9
    return grown


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot what was measured over the size, and the limits beside the seconds of a step."""
    from tests.benchmarks.plot import figure

    key = next(key for key in ("seconds", "peak_gb", "cutouts_seconds") if key in rows[0])
    lines = {
        way if way in (*PEERS, "vqclip") else f"vqclip, {way}": [(row["size"], row[key][way]) for row in rows]
        for way in rows[0][key]
    }
    for precision in rows[0].get("limit", {}):
        lines[f"limit, {precision}"] = [(row["size"], row["limit"][precision]) for row in rows]
    what = {
        "seconds": "seconds of processor time a step",
        "peak_gb": "GB over the models",
        "cutouts_seconds": "seconds",
    }
    figure(path, [{"lines": lines, "x": "pixels a side", "y": what[key]}], "f16-16384 and ViT-B-32, 32 cutouts")


def main() -> None:
    """Run what is asked for and print it, or plot what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--cutouts-alone", action="store_true")
    parser.add_argument("--chunk", type=int, default=0, help="of ours, with --memory")
    parser.add_argument("--growth", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--plot", type=Path, help="draw them here: .png or .svg")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--table", type=Path, help="with --plot, measure nothing: plot what such a file has")
    args = parser.parse_args()
    if args.growth:
        growth(args.growth, args.sizes[0], args.chunk)
        return
    rows = json.loads(args.table.read_text())["rows"] if args.table else []
    for side in () if args.table else args.sizes:
        if args.memory:
            rows.append({"size": side, "peak_gb": memory(side, args.ways, args.chunk), "chunk": args.chunk})
            told = [f"{way} {gb:.2f} GB" for way, gb in rows[-1]["peak_gb"].items()]
        elif args.cutouts_alone:
            rows.append({"size": side, "cutouts_seconds": cutouts_alone(side, args.rounds)})
            told = [f"{way} {s:.3f} s" for way, s in rows[-1]["cutouts_seconds"].items()]
        else:
            row = compare(side, args.rounds, args.ways)
            rows.append(row)
            told = [f"{way} {s:.2f} s" + (f" ({row['limit'][way] / s:.0%} of the limit's rate)" if way in row["limit"] else "")
                    for way, s in row["seconds"].items()]  # fmt: skip
        print(f"{side}x{side}: {', '.join(told)}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
