"""What only a GPU can say, in one command of under eight minutes.

    python -m tests.benchmarks.gpu --wheels DIR --out gpu.json    # on a bare machine that has torch
    python -m tests.benchmarks.gpu --device cpu --quick           # the same code, small: a test runs it

DIR holds what vqclip depends on: `pip download --dest DIR . torch==VERSION` where there is a network, VERSION being that
of the machine; torch itself and nvidia's packages may be deleted from it. Networks of full shape have random weights.

- agreement: the bundled models with the same settings on the CPU and here: distances step by step, candidates' codes;
- repetition: a whole run twice, and one resumed half way: the same bytes, or not;
- speed: seconds a step against the loops of nerdyrodent and rkhamilton (peers.py), and the share of the card's measured
  matrix rate; ours in float32, TF32, bfloat16, float16, without channels_last, compiled, as a CUDA graph;
- batch: seconds an image of 1 to 64 in one tensor: whether stacking pays;
- memory: what is estimated against the allocator's peak; that a run which does not fit is refused, and the next goes on;
- training: steps a second of the bundled VQGAN's, CLIP's and Mini DALL-E's networks on random data.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[2]
BATCHES = (1, 2, 4, 8, 16, 32, 64)
AGREED = 0.02  # of a prompt's distance, over the first steps; later ones drift apart by chance


@dataclass
class Bench:
    """Where is measured, how much, and until when."""

    device: torch.device
    quick: bool
    deadline: float

    @property
    def sides(self) -> tuple[int, ...]:
        """The sizes of images of the full-shape networks."""
        return (64,) if self.quick else (256, 384, 512)

    def settings(self, **changes: Any) -> Any:
        """Return settings of the bundled models."""
        from vqclip.config.resolve import resolve

        small = {"size": (32, 32), "steps": 4, "cutouts": 2} if self.quick else {"size": (128, 128), "steps": 30}
        return resolve("a red heart", "tiny", 1, **{"precision": "float32", "init": "smooth", **small, **changes})

    def seconds(self, step: Callable[[], object], rounds: int = 0) -> float:
        """Return the least seconds of a few steps, the first two left out."""
        rounds, times = rounds or (1 if self.quick else 8), []
        for number in range(rounds + (1 if self.quick else 2)):
            self.synchronize()
            began = time.perf_counter()
            step()
            self.synchronize()
            times.append(time.perf_counter() - began)
        return min(times[-rounds:])

    def synchronize(self) -> None:
        """Wait for what was begun."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def agreement(bench: Bench) -> dict[str, Any]:
    """Compare the same settings on the CPU and on the device."""
    from vqclip.models import load_dalle
    from vqclip.runs.session import Session

    curves, codes = {}, {}
    for name, device in (("cpu", torch.device("cpu")), ("here", bench.device)):
        session = Session.load(bench.settings(), str(device))
        curves[name] = [float(step.losses["prompt"]) for step in session.steps()]
        dalle, places = load_dalle("tiny", device), 8 if bench.quick else 256
        drawing = dalle.sample("a red heart", range(2), seed=0, top_k=64, temperature=1.0, scale=4.0)
        codes[name] = [drawn for _, drawn in zip(range(places), drawing, strict=False)][-1].cpu()
    first = [abs(a - b) for a, b in zip(curves["cpu"][:5], curves["here"][:5], strict=True)]
    last = abs(curves["cpu"][-1] - curves["here"][-1])
    same = float((codes["cpu"] == codes["here"]).float().mean())
    return {"first_steps": max(first), "last_step": last, "equal_codes": same, "agrees": max(first) < AGREED}


def repetition(bench: Bench) -> dict[str, Any]:
    """Run twice, and once from the middle on."""
    from vqclip.runs.session import Session

    session = Session.load(bench.settings(), str(bench.device))
    start = session.start()
    whole, again = ([*session.steps(start)] for _ in range(2))
    resumed = [*session.steps(start, whole[len(whole) // 2 - 1].state)]
    return {
        "same_bytes_again": torch.equal(whole[-1].latent, again[-1].latent),
        "same_bytes_resumed": torch.equal(whole[-1].latent, resumed[-1].latent),
        "difference": float((whole[-1].latent - again[-1].latent).abs().max()),
    }


def networks(bench: Bench) -> tuple[Any, Any]:
    """Return a VQGAN and a CLIP as their packages make them, f16-16384 and ViT-B-32 or smaller ones, on the device."""
    import open_clip

    from tests.support.fullshape import F16
    from vqclip.models.vqgan.taming import TamingVqgan

    torch.manual_seed(0)
    dd, codes = (F16 | {"ch": 32}, 512) if bench.quick else (F16, 16384)
    vqgan = TamingVqgan("f16", {"embed_dim": 256, "n_embed": codes, "ddconfig": dd})
    torch.nn.init.normal_(vqgan.codebook)
    if bench.quick:
        vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
        clip = open_clip.CLIP(64, vision, {"width": 64, "heads": 2, "layers": 1}, quick_gelu=True)
        preprocess = {"size": 32, "mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        open_clip.model.set_model_preprocess_cfg(clip, preprocess)
    else:
        clip = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False)
    return tuple(net.requires_grad_(False).eval().to(bench.device) for net in (vqgan, clip))


def step_of(bench: Bench, way: str, nets: tuple[Any, Any], side: int, images: int = 1) -> Callable[[], object]:
    """Return a function that makes the next step of a peer's loop, or of ours in a precision."""
    import copy

    from tests.benchmarks.peers import kornia, latest
    from tests.benchmarks.step import CUTOUTS, PEERS, canonical
    from vqclip.core.interfaces import LoopInputs, Target
    from vqclip.core.loop import optimize
    from vqclip.models import clip as openclip
    from vqclip.models.vqgan import taming
    from vqclip.settings.schema import Settings

    vqgan, clip = nets
    z = vqgan.codebook[torch.randint(len(vqgan.codebook), (images, side // 16, side // 16), device=bench.device)]
    z, aim = z.movedim(-1, 1).contiguous(), F.normalize(torch.randn(1, clip.visual.output_dim, device=bench.device))
    if way in PEERS:
        return canonical(vqgan, clip, z, latest if way == "nerdyrodent" else kornia, aim)
    vqgan = taming.freeze(copy.deepcopy(vqgan), bench.device)
    seer = openclip.freeze("x", copy.deepcopy(clip), None, bench.device)
    if (low := {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(way)) is not None:
        vqgan.lower(low)
        seer.lower(low)
    if way == "plain layout":
        vqgan.to(memory_format=torch.contiguous_format)
        seer.to(memory_format=torch.contiguous_format)
    if way == "compiled":
        seer.model.visual = torch.compile(seer.model.visual)
    if way == "graph":
        sample = torch.rand(CUTOUTS, 3, seer.size, seer.size, device=bench.device, requires_grad=True)
        seer.encode_image = torch.cuda.make_graphed_callables(seer.encode_image, (sample,))
    target = Target(aim, torch.ones(1, device=bench.device), torch.full((1,), -torch.inf, device=bench.device))
    settings = Settings(prompt="x", cutouts=CUTOUTS, coarse=0, steps=1000, size=(side, side))
    loop = optimize(LoopInputs(vqgan, [seer], [target], settings), z)
    return lambda: next(loop)


def speed(bench: Bench) -> dict[str, Any]:
    """Time a step in every way, and compare it with the rate of a matrix product."""
    from tests.benchmarks.step import operations

    nets, cuda = networks(bench), bench.device.type == "cuda"
    ways = ["nerdyrodent", "rkhamilton", "float32", "bfloat16", "plain layout"]
    ways += ["tf32", "float16"] if cuda else []
    runs = [(way, side) for side in bench.sides for way in ways]
    runs += [(way, bench.sides[0]) for way in ("compiled", "graph") if cuda]  # whose failure could spoil what follows
    rates = {dtype: matrix_rate(bench, dtype) for dtype in (torch.float32, torch.bfloat16)}
    rows = {}
    counted = {s: sum(operations(*nets, torch.empty(1, 256, s // 16, s // 16)).values()) for s in bench.sides}
    for way, side in runs:
        if time.monotonic() > bench.deadline:
            break
        rows[f"{way} {side}"] = row = attempt(lambda way=way, side=side: timed(bench, way, nets, side))
        if "seconds" in row:
            rate = rates[torch.bfloat16 if way in ("bfloat16", "float16") else torch.float32]
            row |= {"steps_a_second": 1 / row["seconds"], "share_of_rate": counted[side] / row["seconds"] / rate}
    return {"matrix_tflops": {str(dtype): rate / 1e12 for dtype, rate in rates.items()}, "ways": rows}


def timed(bench: Bench, way: str, nets: tuple[Any, Any], side: int, images: int = 1) -> dict[str, Any]:
    """Return the seconds of a way's step, and the bytes of its peak over what was there before."""
    with tf32(way == "tf32"):
        step = step_of(bench, way, nets, side, images)
        before = _allocated(bench, reset=True)
        took = bench.seconds(step)
        return {"seconds": took, "peak_bytes": _allocated(bench) - before}


def matrix_rate(bench: Bench, dtype: torch.dtype) -> float:
    """Return the operations a second of a square matrix product."""
    side = 256 if bench.quick else 8192
    a = torch.randn(side, side, device=bench.device, dtype=dtype)
    return 2 * side**3 / bench.seconds(lambda: a @ a)


def batch(bench: Bench) -> dict[str, Any]:
    """Time steps of several images in one tensor: seconds an image, until memory or time are short."""
    nets, rows = networks(bench), {}
    for images in BATCHES[:2] if bench.quick else BATCHES:
        if time.monotonic() > bench.deadline:
            break
        way = "bfloat16" if bench.device.type == "cuda" else "float32"
        rows[images] = row = attempt(lambda images=images, way=way: timed(bench, way, nets, bench.sides[0], images))
        if "seconds" not in row:
            break
        row["seconds_an_image"] = row["seconds"] / images
    known = {images: row["seconds_an_image"] for images, row in rows.items() if "seconds_an_image" in row}
    return {"rows": rows, "best": min(known, key=known.__getitem__, default=0)}


def memory(bench: Bench) -> dict[str, Any]:
    """Compare the estimate with the peak; fill the device, be refused, and go on."""
    from vqclip.errors import OutOfMemory
    from vqclip.runs import memory as memories
    from vqclip.runs.session import Session

    session = Session.load(bench.settings(size=(64, 64) if bench.quick else (512, 512), steps=1000), str(bench.device))
    need, steps = memories.estimate(session), session.steps(session.start())
    before = _allocated(bench, reset=True)
    next(steps)
    next(steps)
    peak = _allocated(bench) - before
    refused = False
    with full(bench, need.total), contextlib.suppress(RuntimeError):
        try:
            memories.fit_memory(session, fit=False)
        except OutOfMemory:
            refused = True
    memories.fit_memory(session, fit=False)
    next(steps)
    return {"estimated": need.total, "peak": peak, "ratio": need.total / peak if peak else None, "refused": refused}


@contextlib.contextmanager
def full(bench: Bench, needed: int) -> Iterator[None]:
    """Leave less memory than is needed."""
    if bench.device.type != "cuda":
        with mock.patch("vqclip.runs.memory.available", return_value=needed // 2):
            yield
        return
    torch.cuda.empty_cache()
    filler = torch.empty(max(0, torch.cuda.mem_get_info()[0] - needed // 2), dtype=torch.uint8, device=bench.device)
    try:
        yield
    finally:
        del filler
        torch.cuda.empty_cache()


def training(bench: Bench) -> dict[str, Any]:
    """Time training steps of the bundled networks' shapes, with AdamW, on random data."""
    from vqclip.core.quantize import quantize
    from vqclip.models import load_clip, load_dalle, load_vqgan

    vqgan, clip, dalle = (
        load("tiny", bench.device).requires_grad_(True)
        for load in (load_vqgan, load_clip, lambda name, device: load_dalle(name, device).model)
    )
    count, side = (2, 32) if bench.quick else (32, 128)
    image = torch.rand(count, 3, side, side, device=bench.device)
    views = torch.rand(count, 3, clip.size, clip.size, device=bench.device)
    tokens = torch.randint(5, 100, (count, dalle.shape.text_length), device=bench.device)
    codes = torch.randint(dalle.shape.codes, (count, dalle.shape.image_length), device=bench.device)
    losses: dict[str, tuple[Any, Callable[[], Tensor]]] = {
        "vqgan": (vqgan, lambda: (vqgan.decode(quantize(vqgan.encode(image), vqgan.codebook)) - image).abs().mean()),
        "clip": (clip, lambda: (clip.encode_image(views) @ clip.encode_image(views.flip(0)).T).square().mean()),
        "dalle": (dalle, lambda: F.cross_entropy(dalle(tokens, codes)[..., : dalle.shape.codes].flatten(0, 1), codes.flatten())),
    }  # fmt: skip
    rows = {}
    for name, (net, loss) in losses.items():
        optimizer = torch.optim.AdamW([p for p in net.parameters() if p.is_floating_point()], lr=1e-4)

        def step(loss: Callable[[], Tensor] = loss, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        rows[name] = attempt(lambda step=step: {"images_a_second": count / bench.seconds(step)})
    return rows


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let products of float32 be made in TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _allocated(bench: Bench, *, reset: bool = False) -> int:
    if bench.device.type != "cuda":
        return 0
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured, or the error that ended it."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


SECTIONS = {
    "agreement": agreement, "repetition": repetition, "memory": memory, "batch": batch, "training": training,
    "speed": speed,
}  # fmt: skip


def install(wheels: Path) -> None:
    """Install what vqclip depends on from a folder; what is there already stays."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(wheels), *needed]
    subprocess.run(command, check=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure all, print a line a section, and write and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small shapes and few rounds")
    parser.add_argument("--minutes", type=float, default=7.5, help="begin nothing after this")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--wheels", type=Path, help="install what is missing from this folder first")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    began = time.monotonic()
    if args.wheels:
        install(args.wheels)
    if args.quick:
        from tests.benchmarks import peers, step

        peers.CUTOUTS = step.CUTOUTS = 4
    bench = Bench(torch.device(args.device), args.quick, began + 60 * args.minutes)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "quick": args.quick}
    for section in args.only:
        if time.monotonic() > bench.deadline:
            found[section] = {"error": "no time was left"}
            continue
        found[section] = attempt(lambda section=section: SECTIONS[section](bench))
        print(json.dumps({section: found[section], "minutes": round((time.monotonic() - began) / 60, 2)}), flush=True)
        if args.out:  # what was measured stays, whatever ends the rest
            args.out.write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
