"""Train a small VQGAN in the layout of taming-transformers, on scenes from build_data.py.

    python train_vqgan.py DATA RUN --minutes 90

Four things happen in turn, as shares of the time: a plain autoencoder (a random codebook would
collapse); k-means of its latents as the codebook, then quantised training with an EMA codebook
(van den Oord et al. 2017) and dead codes restarted; a projected discriminator (Sauer et al. 2021) on
frozen ImageNet features joins; whole pictures instead of crops. The loss is L1 + a perceptual distance
on the same features + commitment + adversarial, balanced as in Esser et al. 2021 but on the picture's
gradient, which costs one decoder backward instead of three.

Stopped or finished, the same command continues from RUN/state.pt. RUN/log.jsonl has the figures;
RUN/vqgan.safetensors is the averaged model so far, evaluated on held-out pictures.
"""

import argparse
import contextlib
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import Scenes, still
from features import Features, distance
from kornia.metrics import ssim
from safetensors.torch import save_file
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

CONFIG = {
    "embed_dim": 64,
    "n_embed": 1024,
    "ddconfig": {
        "double_z": False, "z_channels": 64, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": 64,
        "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0,
    },
}  # fmt: skip
# Shares of the time at which each thing starts.
QUANTISE_AT, ADVERSARY_AT, WHOLE_AT = 0.12, 0.5, 0.6


class Vqgan(nn.Module):
    """Encoder, codebook and decoder with taming's state-dict names."""

    def __init__(self) -> None:
        super().__init__()
        dd, dim = CONFIG["ddconfig"], CONFIG["embed_dim"]
        with contextlib.redirect_stdout(io.StringIO()):  # taming's decoder prints its shape
            self.encoder, self.decoder = taming.Encoder(**dd), taming.Decoder(**dd)
        self.quant_conv = nn.Conv2d(dd["z_channels"], dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, dd["z_channels"], 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(CONFIG["n_embed"], dim)
        self.quantize.embedding.requires_grad_(False)  # moved by its EMA, not by the optimiser

    def encode(self, image: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` in 0..1 to the latent `[N, dim, H/8, W/8]`."""
        return self.quant_conv(self.encoder(image * 2 - 1))

    def decode(self, z: Tensor) -> Tensor:
        """Map a latent to `[N, 3, H, W]`, about 0..1, not clamped."""
        return self.decoder(self.post_quant_conv(z)) / 2 + 0.5

    def codes(self, z: Tensor) -> Tensor:
        """Return the index of the nearest code for each place: `[N*H*W]`."""
        book, flat = self.quantize.embedding.weight, z.movedim(1, -1).flatten(0, -2)
        return torch.addmm(book.square().sum(1), flat, book.T, alpha=-2).argmin(1)

    def lookup(self, codes: Tensor, like: Tensor) -> Tensor:
        """Return the codes' vectors in the shape of the latent `like`."""
        n, c, h, w = like.shape
        return (
            self.quantize.embedding.weight[codes]
            .view(n, h, w, c)
            .movedim(-1, 1)
            .contiguous(memory_format=torch.channels_last)
        )


class Codebook:
    """EMA of each code's members; codes that nobody uses restart from a random latent."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.count, self.total = weight, torch.ones(len(weight)), weight.clone()

    @torch.no_grad()
    def kmeans(self, flat: Tensor, rounds: int = 15) -> None:
        """Start from k-means of `[M, dim]` latents."""
        self.weight.copy_(flat[torch.randperm(len(flat))[: len(self.weight)]])
        for _ in range(rounds):
            codes = torch.cdist(flat, self.weight).argmin(1)
            count = torch.bincount(codes, minlength=len(self.weight)).float()
            mean = torch.zeros_like(self.weight).index_add_(0, codes, flat) / count.clamp(1)[:, None]
            spare = flat[torch.randint(len(flat), (len(self.weight),))]
            self.weight.copy_(torch.where(count[:, None] > 0, mean, spare))
        self.count.fill_(4.0)
        self.total.copy_(self.weight * 4)

    @torch.no_grad()
    def update(self, flat: Tensor, codes: Tensor, decay: float = 0.99) -> None:
        """Move the codes towards the `[M, dim]` latents that chose them."""
        count = torch.bincount(codes, minlength=len(self.weight)).float()
        self.count.lerp_(count, 1 - decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, codes, flat), 1 - decay)
        self.weight.copy_(self.total / self.count.clamp(1e-3)[:, None])
        dead = (self.count < 0.03).nonzero().flatten()
        if len(dead):
            self.weight[dead] = flat[torch.randint(len(flat), (len(dead),))]
            self.count[dead], self.total[dead] = 1.0, self.weight[dead]


class Judge(nn.Module):
    """The discriminator: a small head on each frozen feature map, each giving a map of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 3, padding=1)
            )
            for c in Features.channels[1:]
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [head(m.float()) for head, m in zip(self.heads, maps[1:], strict=True)]


def crops(scenes: Scenes, whole: bool) -> Tensor:
    """Draw a batch: 4 whole pictures of 128 px, or 16 random 64 px crops of 8."""
    if whole:
        return scenes.draw(scenes.plan(4), 128)
    image = scenes.draw(scenes.plan(8), 128)
    places = scenes.rng.integers(0, 65, (16, 2))
    return torch.stack([image[k // 2, :, y : y + 64, x : x + 64] for k, (y, x) in enumerate(places)])


@torch.no_grad()
def evaluate(model: Vqgan, pictures: np.ndarray) -> dict[str, float]:
    """Reconstruct `[n, 128, 128, 4]` held-out pictures: PSNR in dB, SSIM, share of codes used."""
    psnr, similar, used = [], [], set()
    for start in range(0, len(pictures), 16):
        image = still(pictures[start : start + 16], 128)
        z = model.encode(image.contiguous(memory_format=torch.channels_last))
        codes = model.codes(z)
        used.update(codes.tolist())
        back = model.decode(model.lookup(codes, z)).clamp(0, 1).contiguous()
        psnr += (-10 * (back - image).square().mean((1, 2, 3)).log10()).tolist()
        similar += ssim(back, image, 11).mean((1, 2, 3)).tolist()
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(similar)), "codes_used": len(used) / CONFIG["n_embed"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--start", type=float, default=0.0, help="skip this share of the schedule (to go on from weights)"
    )
    parser.add_argument("--from-weights", type=Path, help="a vqgan.safetensors to go on from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    taming.nonlinearity = F.silu  # the same function as taming's x * sigmoid(x), without the saved product
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "vqgan.json").write_text(json.dumps(CONFIG, indent=2))

    model = Vqgan().to(memory_format=torch.channels_last)
    average = Vqgan().to(memory_format=torch.channels_last)
    features = Features().to(memory_format=torch.channels_last)
    judge = Judge().to(memory_format=torch.channels_last)
    book = Codebook(model.quantize.embedding.weight.data)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=args.lr, betas=(0.8, 0.99), weight_decay=1e-4)
    judge_optimizer = torch.optim.AdamW(judge.parameters(), lr=4e-4, betas=(0.5, 0.99))
    progress, step, quantising = args.start, 0, False
    if args.from_weights:
        from safetensors.torch import load_file

        model.load_state_dict({k: v.float() for k, v in load_file(args.from_weights).items()})
        book.count.fill_(4.0)
        book.total.copy_(book.weight * 4)
        quantising = True
    average.load_state_dict(model.state_dict())
    state_file = args.run / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for part, name in (
            (model, "model"),
            (average, "average"),
            (judge, "judge"),
            (optimizer, "optimizer"),
            (judge_optimizer, "judge_optimizer"),
        ):
            part.load_state_dict(state[name])
        book.count.copy_(state["count"])
        book.total.copy_(state["total"])
        progress, step, quantising = state["progress"], state["step"], state["quantising"]
    scenes = Scenes(args.data, seed=args.seed + step, emoji_share=0.7)
    held = np.stack(
        [
            scenes.pictures[i]
            for i, r in enumerate(scenes.records)
            if r["held_out"] and r["source"] in ("fluent-emoji-flat", "own")
        ][:96]
    )
    log = (args.run / "log.jsonl").open("a")
    sums: dict[str, float] = {}
    saved, last = time.monotonic(), time.monotonic()

    while progress < 1:
        now = time.monotonic()
        progress, last, step = progress + (now - last) / 60 / args.minutes, now, step + 1
        warm = min(1, step / 50)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * warm * (0.06 + 0.94 * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
        adversarial = quantising and progress > ADVERSARY_AT
        image = crops(scenes, whole=progress > WHOLE_AT).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            z = model.encode(image)
        z = z.float()
        if not quantising and progress > QUANTISE_AT:
            with torch.no_grad():
                flat = torch.cat([model.encode(crops(scenes, False)).movedim(1, -1).flatten(0, -2) for _ in range(24)])
            book.kmeans(flat[torch.randperm(len(flat))[:16384]])
            quantising = True
        commit = torch.zeros(())
        z_in = z
        if quantising:
            codes = model.codes(z.detach())
            z_q = model.lookup(codes, z)
            commit = F.mse_loss(z, z_q) / z_q.var()  # in units of the codebook's own spread
            z_in = z + (z_q - z).detach()
            book.update(z.detach().movedim(1, -1).flatten(0, -2), codes)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            back = model.decode(z_in)
        leaf = back.detach().float().requires_grad_()
        with torch.no_grad():
            real = features(image)
        fake = features(leaf)
        pixel, percept = F.l1_loss(leaf, image), distance(fake, real)
        tint = F.l1_loss(F.avg_pool2d(leaf, 8), F.avg_pool2d(image, 8))  # the right colour counts before the right edge
        aim = pixel + 0.5 * F.mse_loss(leaf, image) + 0.5 * percept + 2 * tint
        (gradient,) = torch.autograd.grad(aim, leaf, retain_graph=adversarial)
        figures = {"l1": pixel, "tint": tint, "percept": percept, "commit": commit}
        if adversarial:
            push = -sum(m.mean() for m in judge(fake))
            (g,) = torch.autograd.grad(push, leaf)
            ramp = min(1, (progress - ADVERSARY_AT) / 0.05)
            gradient = gradient + 0.35 * ramp * g * gradient.norm() / (g.norm() + 1e-8)
            fake = [m.detach() for m in fake]
            hinge = sum(
                F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(judge(real), judge(fake), strict=True)
            )
            judge_optimizer.zero_grad()
            hinge.backward()
            judge_optimizer.step()
            figures["hinge"] = hinge
        optimizer.zero_grad()
        (0.1 * commit + (back * gradient).sum()).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(0.998, step / (step + 20))
            for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                old.lerp_(new, 1 - decay)
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        if step % 50 == 0:
            line = {"step": step, "progress": round(progress, 4), **{k: round(v / 50, 4) for k, v in sums.items()}}
            sums = {}
            if now - saved > 240:
                saved = now
                line |= save(
                    args.run, model, average, judge, optimizer, judge_optimizer, book, progress, step, quantising, held
                )
            print(json.dumps(line), file=log, flush=True)
    line = save(args.run, model, average, judge, optimizer, judge_optimizer, book, progress, step, quantising, held)
    print(json.dumps({"step": step, "done": True, **line}), file=log, flush=True)


def save(run, model, average, judge, optimizer, judge_optimizer, book, progress, step, quantising, held) -> dict:
    """Write state.pt and the averaged weights; return the held-out figures."""
    average.quantize.load_state_dict(model.quantize.state_dict())
    state = {
        "model": model,
        "average": average,
        "judge": judge,
        "optimizer": optimizer,
        "judge_optimizer": judge_optimizer,
    }
    state = {k: v.state_dict() for k, v in state.items()} | {
        "count": book.count, "total": book.total, "progress": progress, "step": step, "quantising": quantising}  # fmt: skip
    torch.save(state, run / "state.pt.part")
    (run / "state.pt.part").replace(run / "state.pt")
    save_file({k: v.half().contiguous() for k, v in average.state_dict().items()}, run / "vqgan.safetensors")
    return {k: round(v, 4) for k, v in evaluate(average.eval(), held).items()} if quantising else {}


if __name__ == "__main__":
    main()
