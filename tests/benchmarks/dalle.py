"""Mini DALL-E's speed: codes a second and pictures a minute of our sampler, and of two others at the same shape.

    python -m tests.benchmarks.dalle --shape tiny mini --batch 1 2 4 8 16 --json dalle.json

Random weights; one thread; processor time, the sampler's turns taken one after the other in one process, and for the
peak of the memory a process each. "uncached" runs the whole decoder over all codes so far for each code. "published" is
what min-dalle does at commit 00d9363, re-expressed: text always of 64 tokens, whose keys and values are made anew for
each code; a cache of full length that is looked at whole, under a mask; scores by einsum; all logits sorted; no lanes,
so that a picture depends on how many are drawn. `--codes` draws so many of each picture's; an uncached code costs more
the later it comes, so pictures a minute are given for whole pictures alone.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from vqclip.core.matmul import replace_linear
from vqclip.models.dalle.bart import PAD, Attention, DalleBart, DecoderLayer, Shape, mask
from vqclip.models.dalle.sampling import BATCH_SIZE, sample, super_condition

SHAPES = {
    "tiny": Shape(256, 4, 640, 2, 4, 6000, 1025, 1024, text_length=32),
    "mini": Shape(1024, 16, 2730, 12, 12, 50264, 16385, 16384),
}
WORDS = 10  # of the text, begin and end among them
TOP_K, TEMPERATURE, SCALE = 256, 1.0, 4.0


def ours(model: DalleBart, tokens: Tensor, batch: int, codes: int) -> None:
    """Draw as vqclip does: BATCH_SIZE at a time."""
    for first in range(0, batch, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, batch))
        drawing = sample(model, tokens, numbers, seed=0, top_k=TOP_K, temperature=TEMPERATURE, scale=SCALE)
        for _ in zip(range(codes), drawing, strict=False):
            pass


def drawn(logits: Tensor) -> Tensor:
    """Draw a code for each row, as min-dalle does: those below the k-th likeliest left out, by a full sort."""
    ordered = logits.sort(descending=True).values
    chances = ((logits - ordered[:, :1]) / TEMPERATURE).exp() * (logits >= ordered[:, TOP_K - 1 : TOP_K])
    return torch.multinomial(chances, 1)


def uncached(model: DalleBart, tokens: Tensor, batch: int, codes: int) -> None:
    """Draw with nothing kept of the codes before."""
    both = tokens.repeat_interleave(batch, 0)
    before = torch.full((2 * batch, 1), model.shape.codes)
    text, seen = model.keys_values(model.encode(both)), mask(both)
    for _ in range(codes):
        logits = model.decode(before, text, seen)[:, -1, : model.shape.codes]
        before = torch.cat([before, drawn(super_condition(logits, SCALE)).repeat(2, 1)], 1)


def attend(part: Attention, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Attend with scores written out; keys and values `[B, T, width]`, seen `[B, T]`."""
    q, k, v = (x.unflatten(2, (part.heads, -1)) for x in (queries, keys, values))
    scores = torch.einsum("bqhc,bkhc->bhqk", q / q.shape[-1] ** 0.5, k) + ((1 - seen.float()) * -1e12)[:, None, None]
    return part.out_proj(torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v).flatten(2))


def layer_published(layer: DecoderLayer, x: Tensor, text: Tensor, told: Tensor, cache: Tensor, at: int) -> Tensor:
    """One layer for one place; cache `[2, B, places, width]`."""
    here, own, other = layer.pre_self_attn_layer_norm(x), layer.self_attn, layer.encoder_attn
    cache[:, :, at] = torch.stack([own.k_proj(here), own.v_proj(here)])[:, :, 0]
    seen = (torch.arange(cache.shape[2]) <= at).expand(len(x), -1)
    x = x + layer.self_attn_layer_norm(attend(own, own.q_proj(here), *cache, seen))
    here = layer.pre_encoder_attn_layer_norm(x)
    found = attend(other, other.q_proj(here), other.k_proj(text), other.v_proj(text), told)
    x = x + layer.encoder_attn_layer_norm(found)
    return x + layer.glu(x)


def published(model: DalleBart, tokens: Tensor, batch: int, codes: int) -> None:
    """Draw as min-dalle does."""
    shape = model.shape
    padded = torch.full((2, shape.text_length), PAD)
    padded[:, : tokens.shape[1]] = tokens
    text, told = (x.repeat_interleave(batch, 0) for x in (model.encode(padded), padded != PAD))
    cache = torch.zeros(shape.decoder_layers, 2, 2 * batch, shape.image_length, shape.width)
    code = torch.full((batch, 1), shape.codes)
    for at in range(codes):
        x = model.decoder.embed(code.repeat(2, 1), at)
        for k, layer in enumerate(model.decoder.layers):
            x = layer_published(layer, x, text, told, cache[k], at)
        logits = model.decoder.lm_head(model.decoder.final_ln(x))[:, -1, : shape.codes]
        code = drawn(super_condition(logits, SCALE))


SAMPLERS = {"vqclip": ours, "published": published, "uncached": uncached}


def prepared(shape: str, name: str) -> tuple[DalleBart, Tensor]:
    """Return a model of random weights, as the sampler has it, and a text."""
    torch.manual_seed(0)
    model = DalleBart(SHAPES[shape]).eval().requires_grad_(False)
    tokens = torch.full((2, WORDS), PAD)
    tokens[0, :2], tokens[1] = torch.tensor([0, 2]), torch.tensor([0, *range(5, 3 + WORDS), 2])
    if name == "vqclip":
        replace_linear(model)
    return model, tokens


def peak(shape: str, name: str, batch: int, codes: int) -> None:
    """Print by how many MB drawing raises the peak of this process, once the model is there."""
    model, tokens = prepared(shape, name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now; Linux only
    before = high_water()
    SAMPLERS[name](model, tokens, batch, codes)
    print((high_water() - before) / 1024)


def high_water() -> int:
    """Return this process's peak of resident memory, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["tiny"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if args.peak:
        peak(args.peak[0], args.peak[1], int(args.peak[2]), int(args.peak[3]))
        return
    rows = []
    print(
        f"{'shape':6} {'batch':>5} {'sampler':10} {'codes/s':>9} {'pictures/min':>13} {'times slower':>13} {'peak MB':>8}"
    )
    for shape in args.shape:
        models = {name: prepared(shape, name) for name in args.samplers}
        for batch in args.batch:
            times = {name: [] for name in args.samplers}
            for _ in range(args.rounds):
                for name in args.samplers:
                    began = time.process_time()
                    SAMPLERS[name](*models[name], batch, args.codes)
                    times[name].append(time.process_time() - began)
            best = {name: min(found) for name, found in times.items()}
            for name, took in best.items():
                row = {"shape": shape, "batch": batch, "sampler": name, "codes": args.codes, "seconds": times[name],
                       "codes_per_second": batch * args.codes / took, "slower": took / best[args.samplers[0]]}  # fmt: skip
                if args.codes == SHAPES[shape].image_length:
                    row["pictures_per_minute"] = 60 * batch / took
                if not args.no_memory:
                    command = [sys.executable, "-m", "tests.benchmarks.dalle", "--peak", shape, name, str(batch)]
                    told = subprocess.run([*command, str(args.codes)], capture_output=True, text=True, check=True)
                    row["peak_mb"] = float(told.stdout)
                rows.append(row)
                print(f"{shape:6} {batch:>5} {name:10} {row['codes_per_second']:>9.1f} "
                      f"{row.get('pictures_per_minute', float('nan')):>13.2f} {row['slower']:>13.2f} "
                      f"{row.get('peak_mb', float('nan')):>8.0f}", flush=True)  # fmt: skip
    if args.json:
        with open(args.json, "w") as file:  # noqa: PTH123
            json.dump({"torch": torch.__version__, "threads": 1, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
