"""Train a small VQGAN in the layout of taming-transformers, on scenes from build_data.py.

    python train_vqgan.py DATA RUN --pictures 48000
    python train_vqgan.py DATA RUN --pictures 48000 --from-weights vqclip/models/tiny/vqgan/model.safetensors --codes 4096

Three things happen in turn, as shares of the pictures that are seen. A plain autoencoder (a random codebook would
collapse; weights to go on from spare it). Then k-means of its latents as the codebook, and quantised training with an
EMA codebook (van den Oord et al. 2017), dead codes restarted. At last encoder and codebook stay as they are, so that a
prior can be trained on the codes already, and the decoder alone learns on, against a projected discriminator (Sauer et
al. 2021) on frozen ImageNet features. The loss is L1 and L2, a perceptual distance on the same features, commitment,
and adversarial, balanced as in Esser et al. 2021 but on the picture's gradient, which costs one decoder backward
instead of three.

Pictures are drawn at 256 px and halved: whole ones, and at first also parts of larger ones. The schedule counts the
pictures seen, so stopping costs nothing: the same command continues from RUN/state.pt. RUN/log.jsonl has the figures,
RUN/sheets held-out pictures over what becomes of them; RUN/vqgan.safetensors is the averaged model so far.
"""

import argparse
import contextlib
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import Scenes, still
from features import Features, distance
from kornia.metrics import ssim
from PIL import Image
from safetensors.torch import load_file
from taming.modules.diffusionmodules import model as taming
from tools import Limit, Log, Muon, add_arguments, begin, cosine, follow, lower, read_state, write_state, write_weights
from torch import Tensor, nn

CONFIG = {
    "embed_dim": 64,
    "n_embed": 1024,
    "ddconfig": {
        "double_z": False, "z_channels": 64, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": 64,
        "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0,
    },
}  # fmt: skip
SIZE = 128
# Shares of the pictures at which each thing starts.
QUANTISE_AT, WHOLE_AT, FREEZE_AT, RAMP = 0.08, 0.3, 0.45, 0.04
PART_SIZE, PARTS = 96, 0.4  # side of a part of a larger picture, and how many batches are of those
ADVERSARY = 0.35  # the gradient's length, as a share of the other losses'


class Norm(nn.GroupNorm):
    """A group norm that is quick backwards on a CPU too, where torch's takes longer than a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[N, C, H, W]`."""
        if x.device.type == "cpu":
            return _Norm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


class _Norm(torch.autograd.Function):
    """With xhat = (x - mean) rstd and g = w dy: dx = rstd (g - mean(g) - xhat mean(g xhat)), the means over a group."""

    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight.float(), bias.float(), n, c, h * w, groups, eps)
        ctx.save_for_backward(x, weight, mean.float(), rstd.float())
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        groups = mean.shape[1]
        per = c // groups
        dy = dy.contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        of_channel = [m.repeat_interleave(per, 1) for m in (mean, rstd)]  # [n, c]
        mean, rstd = of_channel
        total = _over_places(dy)
        moment = (_over_places(dy * x) - mean * total) * rstd  # of dy xhat, [n, c]
        share = 1 / (per * h * w)

        def group_mean(of_channel: Tensor) -> Tensor:
            return (of_channel.view(n, groups, per).sum(2) * share).repeat_interleave(per, 1)

        g_mean, g_moment = group_mean(total * weight), group_mean(moment * weight)
        a, b = rstd * weight, -rstd.square() * g_moment
        shift = -rstd * g_mean - b * mean
        a, b, shift = (part[:, :, None, None].to(x.dtype) for part in (a, b, shift))
        return torch.addcmul(torch.addcmul(shift, x, b), dy, a), moment.sum(0), total.sum(0), None, None


def _over_places(x: Tensor) -> Tensor:
    """Sum `[N, C, H, W]` over its places, in float32, by products with ones: many times quicker than `sum`."""
    n, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h, w, c)
    return torch.bmm(rows.new_ones(n * h, 1, w), rows).view(n, h, c).float().sum(1)


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
        found = self.quantize.embedding.weight[codes].view(n, h, w, c).movedim(-1, 1)
        return found.contiguous(memory_format=torch.channels_last)


class Codebook:
    """EMA of each code's members; codes that nobody uses restart from a random latent."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.count, self.total = weight, torch.ones_like(weight[:, 0]), weight.clone()

    @torch.no_grad()
    def fit(self, flat: Tensor, rounds: int, fresh: bool) -> None:
        """Move the codes to the means of their members among `[M, dim]` latents; `fresh`: from random ones."""
        if fresh:
            self.weight.copy_(flat[torch.randperm(len(flat), device=flat.device)[: len(self.weight)]])
        for _ in range(rounds):
            codes = torch.cat([self._nearest(part) for part in flat.split(8192)])
            count = torch.bincount(codes, minlength=len(self.weight)).float()
            mean = torch.zeros_like(self.weight).index_add_(0, codes, flat) / count.clamp(1)[:, None]
            spare = flat[torch.randint(len(flat), (len(self.weight),), device=flat.device)]
            self.weight.copy_(torch.where(count[:, None] > 0, mean, spare if fresh else self.weight))
        self.count.fill_(1.0)
        self.total.copy_(self.weight)

    def _nearest(self, flat: Tensor) -> Tensor:
        return torch.addmm(self.weight.square().sum(1), flat, self.weight.T, alpha=-2).argmin(1)

    @torch.no_grad()
    def update(self, flat: Tensor, codes: Tensor, decay: float = 0.99) -> None:
        """Move the codes towards the `[M, dim]` latents that chose them."""
        count = torch.bincount(codes, minlength=len(self.weight)).float()
        self.count.lerp_(count, 1 - decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, codes, flat), 1 - decay)
        self.weight.copy_(self.total / self.count.clamp(1e-3)[:, None])
        dead = (self.count < 0.02 * len(flat) / len(self.weight)).nonzero().flatten()
        if len(dead):
            self.weight[dead] = flat[torch.randint(len(flat), (len(dead),), device=flat.device)]
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


def batch(scenes: Scenes, count: int, parts: bool) -> Tensor:
    """Draw whole pictures of 128 px, or as many pixels in parts of 96 px of larger ones."""
    if parts:
        count = round(count * (SIZE / PART_SIZE) ** 2)
    plan = [replace(s, background="white") if scenes.rng.random() < 0.3 else s for s in scenes.plan(count)]
    if not parts:
        return scenes.draw(plan, SIZE, light=0.3, zoom=(0.75, 1.1))
    return scenes.draw(plan, PART_SIZE, light=0.3, zoom=(1.1, 1.9))


class Held:
    """Held-out pictures and what is measured on them."""

    def __init__(self, scenes: Scenes, device: torch.device, count: int = 96) -> None:
        records = scenes.records

        def first(wanted: set[str]) -> Tensor:
            rows = [i for i, r in enumerate(records) if r["held_out"] and r["source"] in wanted]
            rows.sort(key=lambda i: records[i]["from"])
            rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))[:count]]
            return still(scenes.pictures[rows], SIZE).to(device) if rows else torch.zeros(0, 3, SIZE, SIZE)

        emoji = first({"fluent-emoji-flat", "own"})
        self.sets = {"": emoji, "_shaded": first({"fluent-emoji"}), "_clipart": first({"openclipart"})}
        self.sets = {name: pictures for name, pictures in self.sets.items() if len(pictures)}
        self.features = {
            name: Features(name).to(device, memory_format=torch.channels_last) for name in ("lite0", "lite1")
        }

    @torch.no_grad()
    def measure(self, model: Vqgan, sheet: Path | None = None) -> dict[str, float]:
        """Reconstruct: PSNR in dB, SSIM, distances of features (lite0's are trained for, lite1's are not)."""
        model.eval()
        result, shown = {}, []
        for name, pictures in self.sets.items():
            psnr, similar, near, used = [], [], {"lite0": [], "lite1": []}, set()
            for image in pictures.split(16):
                with lower(image.device, image.device.type == "cpu"):
                    z = model.encode(image.contiguous(memory_format=torch.channels_last))
                    codes = model.codes(z.float())
                    back = model.decode(model.lookup(codes, z)).float().clamp(0, 1).contiguous()
                used.update(codes.tolist())
                psnr += (-10 * (back - image).square().mean((1, 2, 3)).log10()).tolist()
                similar += ssim(back, image, 11).mean((1, 2, 3)).tolist()
                for which, features in self.features.items():
                    near[which].append(float(distance(features(back), features(image))))
                if len(psnr) <= (16 if name else 32):
                    pair = torch.cat([image, back], 2)
                    shown.append(torch.cat([*pair, *[torch.ones_like(pair[0])] * (16 - len(pair))], 2))
            result |= {f"psnr{name}": float(np.mean(psnr)), f"ssim{name}": float(np.mean(similar))}
            result |= {f"{which}{name}": float(np.mean(values)) for which, values in near.items()}
            result |= {f"codes{name}": len(used) / CONFIG["n_embed"]}
        model.train()
        if sheet:
            sheet.parent.mkdir(exist_ok=True)
            array = (torch.cat(shown, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            Image.fromarray(array).save(sheet)
        return {k: round(v, 4) for k, v in result.items()}


class Training:
    """The models, their optimisers and how far they are."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        layout = {"device": device, "memory_format": torch.channels_last}
        self.args, self.device = args, device
        self.model, self.average = Vqgan().to(**layout), Vqgan().to(**layout)
        self.features, self.judge = Features().to(**layout), Judge().to(**layout)
        self.seen, self.step, self.quantising, self.frozen = 0.0, 0, False, False
        if args.from_weights:
            weights = {k: v.float() for k, v in load_file(args.from_weights).items()}
            old = weights["quantize.embedding.weight"]
            self.quantising = len(old) == CONFIG["n_embed"]
            if not self.quantising:  # another size: k-means of what the encoder says, as from the start
                weights["quantize.embedding.weight"] = self.model.quantize.embedding.weight.data
            self.model.load_state_dict(weights)
            self.average.load_state_dict(weights)
            self.seen = QUANTISE_AT * args.pictures
        self.average.load_state_dict(self.model.state_dict())
        self.book = Codebook(self.model.quantize.embedding.weight.data)
        params = [p for p in self.model.parameters() if p.requires_grad]
        kernels = [p for p in params if p.ndim == 4 and p.shape[-1] == 3 and p.shape[1] > 3] if args.muon else []
        ids = {id(p) for p in kernels}
        rest = [p for p in params if id(p) not in ids]
        self.optimizers = {"adam": torch.optim.AdamW(rest, lr=args.lr, betas=(0.8, 0.99), weight_decay=1e-4)}
        if kernels:
            self.optimizers["muon"] = Muon(kernels, lr=args.lr)
        self.judge_optimizer = torch.optim.AdamW(self.judge.parameters(), lr=4e-4, betas=(0.5, 0.99))
        self.parts = {"model": self.model, "average": self.average, "judge": self.judge, **self.optimizers,
                      "judge_optimizer": self.judge_optimizer}  # fmt: skip
        state = read_state(args.run / "state.pt", device)
        if state:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.book.count.copy_(state["count"])
            self.book.total.copy_(state["total"])
            self.seen, self.step = state["seen"], state["step"]
            self.quantising, self.frozen = state["quantising"], state["frozen"]

    @property
    def progress(self) -> float:
        """Return the share of the schedule that is done."""
        return self.seen / self.args.pictures

    def save(self) -> None:
        """Write what the same command continues from, and the averaged model."""
        self.average.quantize.load_state_dict(self.model.quantize.state_dict())
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"count": self.book.count, "total": self.book.total, "seen": self.seen, "step": self.step}
        write_state(self.args.run / "state.pt", state | {"quantising": self.quantising, "frozen": self.frozen})
        write_weights(self.args.run / "vqgan.safetensors", self.average.state_dict())

    @torch.no_grad()
    def fit_book(self, scenes: Scenes, model: Vqgan, *, fresh: bool) -> None:
        """Fit the codes to what the encoder says now of many pictures, all but one in five of blank ground left out."""
        latents = []
        for _ in range(48):
            with lower(self.device, self.args.bf16):
                image = batch(scenes, 12, False).contiguous(memory_format=torch.channels_last)
                latents.append(model.encode(image).float().movedim(1, -1).flatten(0, -2))
        flat = torch.cat(latents)
        if fresh:  # a third of all places are white: without this, as many of the random codes
            rounded = (flat / flat.std() * 4).round()
            _, kind, count = rounded.unique(dim=0, return_inverse=True, return_counts=True)
            keep = torch.rand(len(flat), device=flat.device) < (20 / count[kind].float()).clamp(max=1)
            flat = flat[keep]
        self.book.fit(flat, 10 if fresh else 4, fresh)
        self.quantising = True

    def freeze(self, scenes: Scenes) -> None:
        """Keep the averaged encoder and a codebook that fits it, from now on."""
        for part in ("encoder", "quant_conv"):
            getattr(self.model, part).load_state_dict(getattr(self.average, part).state_dict())
        self.fit_book(scenes, self.model, fresh=False)
        self.frozen = True

    def learn(self, image: Tensor) -> dict[str, Tensor]:
        """Take one step on a batch; return its figures."""
        args, model = self.args, self.model
        with lower(self.device, args.bf16), torch.set_grad_enabled(not self.frozen):
            z = model.encode(image)
        z, commit = z.float(), torch.zeros((), device=self.device)
        z_in = z
        if self.quantising:
            codes = model.codes(z.detach())
            z_q = model.lookup(codes, z)
            z_in = z_q if self.frozen else z + (z_q - z).detach()
            if not self.frozen:
                commit = F.mse_loss(z, z_q) / z_q.var()  # in units of the codebook's own spread
                self.book.update(z.detach().movedim(1, -1).flatten(0, -2), codes)
        with lower(self.device, args.bf16):
            back = model.decode(z_in)
        leaf = back.detach().float().requires_grad_()
        with torch.no_grad():
            real = self.features(image)
        fake = self.features(leaf)
        pixel, percept = F.l1_loss(leaf, image), distance(fake, real)
        tint = F.l1_loss(F.avg_pool2d(leaf, 8), F.avg_pool2d(image, 8))  # the right colour counts before the right edge
        aim = pixel + args.square * F.mse_loss(leaf, image) + args.percept * percept + tint
        (gradient,) = torch.autograd.grad(aim, leaf, retain_graph=self.frozen)
        figures = {"l1": pixel, "tint": tint, "percept": percept, "commit": commit}
        if self.frozen:
            (g,) = torch.autograd.grad(-sum(m.mean() for m in self.judge(fake)), leaf)
            ramp = min(1.0, (self.progress - FREEZE_AT) / RAMP)
            gradient = gradient + args.adversary * ramp * g * gradient.norm() / (g.norm() + 1e-8)
            figures["hinge"] = self._teach_judge(real, [m.detach() for m in fake])
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        (args.commit * commit + (back * gradient).sum()).backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
        follow(self.average, model, min(0.997, self.step / (self.step + 10)))
        return figures

    def _teach_judge(self, real: list[Tensor], fake: list[Tensor]) -> Tensor:
        pairs = zip(self.judge(real), self.judge(fake), strict=True)
        hinge = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs)
        self.judge_optimizer.zero_grad()
        hinge.backward()
        self.judge_optimizer.step()
        return hinge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=float, default=48_000, help="of 128 px, the length of the schedule")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument(
        "--muon", action=argparse.BooleanOptionalAction, default=True, help="for the kernels, not AdamW"
    )
    parser.add_argument("--codes", type=int, default=CONFIG["n_embed"])
    parser.add_argument("--square", type=float, default=1.0, help="weight of the squared error")
    parser.add_argument("--percept", type=float, default=0.4, help="weight of the features' distance")
    parser.add_argument("--commit", type=float, default=0.1)
    parser.add_argument("--adversary", type=float, default=ADVERSARY)
    parser.add_argument("--from-weights", type=Path, help="a vqgan.safetensors to go on from")
    parser.add_argument("--measure", type=float, default=15, help="minutes between measurements")
    add_arguments(parser, seed=1)
    args = parser.parse_args()
    device = begin(args)
    taming.nonlinearity = F.silu  # the same function as taming's x * sigmoid(x), without the saved product
    taming.Normalize = lambda channels: Norm(32, channels, eps=1e-6, affine=True)
    CONFIG["n_embed"] = args.codes
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "vqgan.json").write_text(json.dumps(CONFIG, indent=2))
    training = Training(args, device)
    scenes = Scenes(args.data, seed=args.seed * 1_000_000 + training.step, device=device)
    held = Held(scenes, device)
    log = Log(args.run / "log.jsonl")
    limit = Limit(args.stop_after)
    saved = measured = time.monotonic()

    def measure() -> None:
        figures = held.measure(training.average, args.run / "sheets" / f"{training.step:06d}.png")
        log.line(step=training.step, progress=round(training.progress, 4), frozen=training.frozen, held_out=figures)

    while training.progress < 1 and not limit.reached:
        training.step += 1
        for optimizer in training.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1, training.step / 50) * cosine(training.progress, 0.05)
        if not training.quantising and training.progress >= QUANTISE_AT:
            training.fit_book(scenes, training.model, fresh=True)
            training.average.quantize.load_state_dict(training.model.quantize.state_dict())
            measure()
        if training.progress >= FREEZE_AT and not training.frozen:
            training.freeze(scenes)
        image = batch(scenes, args.batch, training.progress < WHOLE_AT and scenes.rng.random() < PARTS)
        log.add(training.learn(image.contiguous(memory_format=torch.channels_last)))
        training.seen += image.shape[0] * image.shape[2] * image.shape[3] / SIZE**2
        now = time.monotonic()
        if now - saved > 300:
            saved = now
            training.save()
        if now - measured > args.measure * 60:
            training.average.quantize.load_state_dict(training.model.quantize.state_dict())
            measured = now
            measure()
        elif training.step % 50 == 0:
            spent = round(time.process_time() / 60, 1)
            log.line(step=training.step, progress=round(training.progress, 4), minutes=spent)
    training.save()
    if not limit.asked:
        measure()
    if training.progress >= 1:
        (args.run / "done").touch()


if __name__ == "__main__":
    main()
