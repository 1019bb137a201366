"""Train a small CLIP (or the judge) on scenes from build_data.py, robust enough to be optimised.

    python train_clip.py DATA RUN --model clip --pictures 150000
    python train_clip.py DATA RUN --model judge --pictures 120000 --no-adversary --skip 0.3 --seed 9

Contrastive (Radford et al. 2021) with three additions. Captions with one attribute changed stand beside the true ones
as hard negatives. Things that the model takes for one another come into one batch: `near` asks it which. And after a
clean start every picture is attacked with one random-start FGSM step first (Wong et al. 2020): the gradients of a CLIP
trained so are shapes that people can read (CLIPAG, Ganz and Elad 2024), which is what the optimisation loop follows.

Needs RUN/text.pt of distil_text.py. The schedule counts pictures, so stopping costs nothing: the same command continues
from RUN/state.pt. RUN/log.jsonl has the figures; RUN/<model>.safetensors is the averaged model so far.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clip_model import CONFIGS, create, encode_text
from compose import Scene, Scenes, article, still
from features import MEAN, STD
from safetensors.torch import load_file
from tools import Limit, Log, add_arguments, begin, cosine, follow, lower, read_state, write_state, write_weights
from torch import Tensor, nn

CONFUSED = 0.3  # of scenes are followed by a thing that the model takes for theirs
NEAR = 10  # such things each
# (share of the pictures from which it holds, size as a share of the model's own, attacked or not)
STAGES = ((0.0, 0.67, False), (0.3, 0.84, True), (0.62, 1.0, True))
UNATTACKED = 0.5  # weight of the pass that finds the attack


def roughen(image: Tensor, gen: torch.Generator) -> Tensor:
    """Crop, jitter, blur and add noise, as strongly as the optimisation loop does."""
    n, _, size, _ = image.shape
    on = {"generator": gen, "device": image.device}

    def chance(p: float) -> Tensor:
        return (torch.rand(n, 1, 1, 1, **on) < p).float()

    zoom = torch.where(torch.rand(n, **on) < 0.35, torch.rand(n, **on) * 0.35 + 0.62, 1.0)
    tilt = torch.randn(n, 2, 2, **on) * 0.06
    theta = torch.zeros(n, 2, 3, device=image.device)
    theta[:, :, :2] = (torch.eye(2, device=image.device) + tilt) * zoom[:, None, None]
    theta[:, :, 2] = (torch.rand(n, 2, **on) - 0.5) * 2 * (1.05 - zoom)[:, None]
    image = F.grid_sample(
        image, F.affine_grid(theta, list(image.shape), align_corners=False), padding_mode="border", align_corners=False
    )
    soft = F.interpolate(F.avg_pool2d(image, 2), size=(size, size), mode="bilinear", align_corners=False)
    image = torch.lerp(image, soft, chance(0.25) * torch.rand(n, 1, 1, 1, **on))
    grey = image.mean(1, keepdim=True)
    image = torch.lerp(grey, image, 1 + (torch.rand(n, 1, 1, 1, **on) - 0.5) * 0.3)
    noise = torch.rand(n, 1, 1, 1, **on) * 0.12 * chance(0.7)
    return (image + noise * torch.randn(image.shape, **on)).clamp(0, 1)


class Confusions:
    """What the model takes for one another among the names of emoji and flags."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes, self.near, self.rows = scenes, {}, {}
        for kind in ("emoji", "flag"):
            for row in scenes.pools.get(kind, []):
                self.rows.setdefault(scenes.records[row]["name"], []).append(int(row))

    @torch.no_grad()
    def ask(self, model: nn.Module, tokenizer, size: int, device: torch.device) -> None:
        """Let one drawing of each name choose the names that fit it best; its own left out."""
        model.eval()
        names = list(self.rows)
        pictures = self.scenes.pictures[[rows[int(self.scenes.rng.integers(len(rows)))] for rows in self.rows.values()]]
        image = torch.cat([
            F.normalize(model.encode_image((still(pictures[i : i + 32], size).to(device) - MEAN) / STD), dim=1)
            for i in range(0, len(names), 32)
        ])  # fmt: skip
        texts = [tokenizer([article(name) for name in names[i : i + 256]]) for i in range(0, len(names), 256)]
        text = torch.cat([F.normalize(encode_text(model, part.to(device)), dim=1) for part in texts])
        best = (image @ text.T).topk(NEAR + 1, 1).indices.tolist()
        self.near = {name: [names[i] for i in row if names[i] != name] for name, row in zip(names, best, strict=True)}

    def plan(self, count: int) -> list[Scene]:
        """Plan scenes, some of them followed by one of a thing that could be taken for theirs."""
        scenes, plan = self.scenes, []
        while len(plan) < count:
            plan += scenes.plan(2)
            last = plan[-1].pictures
            near = self.near.get(scenes.records[last[0]]["name"]) if last else None
            if near and scenes.rng.random() < CONFUSED * 2:
                plan.append(scenes.scene(int(scenes.rng.choice(self.rows[str(scenes.rng.choice(near))]))))
        return plan[:count]


def same(scenes: list[Scene], records: list[dict]) -> Tensor:
    """Say which pictures another's caption describes as well: bool `[n, n]`."""

    def alike(a: Scene, b: Scene) -> bool:
        if a.caption == b.caption:
            return True
        names = [tuple(records[i]["name"] for i in s.pictures) for s in (a, b)]
        if not any(names):
            return a.background == b.background
        told = a.told or b.told
        return names[0] == names[1] and a.colour == b.colour and (not told or a.background == b.background)

    return torch.tensor([[alike(a, b) for b in scenes] for a in scenes])


def contrast(image: Tensor, text: Tensor, wrong: Tensor, alike: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the contrastive loss both ways and the share of pictures that find their caption.

    image, text `[n, D]` and wrong `[m, D]` are unit length; wrong captions only stand in the columns.
    """
    target = alike.float() / alike.sum(1, keepdim=True)
    logits = scale * image @ torch.cat([text, wrong]).T
    to_text = -(F.log_softmax(logits, 1)[:, : len(text)] * target).sum(1).mean()
    to_image = -(F.log_softmax(logits[:, : len(text)].T, 1) * target).sum(1).mean()
    right = alike.gather(1, logits[:, : len(text)].argmax(1, keepdim=True)).float().mean()
    return (to_text + to_image) / 2, right


@torch.no_grad()
def evaluate(model: nn.Module, tokenizer, scenes: Scenes, size: int, device: torch.device) -> dict[str, float]:
    """Retrieve captions for held-out emoji, flat and shaded, on white, among their names: R@1, R@5, how many names."""
    rows = [i for i, r in enumerate(scenes.records) if r["held_out"] and r["kind"] == "emoji"]
    names = sorted({scenes.records[i]["name"] for i in rows})
    model.eval()
    parts = np.array_split(np.array(rows), max(1, len(rows) // 32))
    image = torch.cat([model.encode_image((still(scenes.pictures[p], size).to(device) - MEAN) / STD) for p in parts])
    text = encode_text(model, tokenizer([article(name) for name in names]).to(device))
    order = (F.normalize(image, dim=1) @ F.normalize(text, dim=1).T).argsort(1, descending=True)
    right = torch.tensor([names.index(scenes.records[i]["name"]) for i in rows], device=device)
    rank = (order == right[:, None]).float().argmax(1)
    figures = {"r1": float((rank < 1).float().mean()), "r5": float((rank < 5).float().mean())}
    return {name: round(value, 4) for name, value in figures.items()} | {"among": len(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", choices=tuple(CONFIGS), default="clip")
    parser.add_argument("--pictures", type=float, default=150_000, help="the length of the schedule")
    parser.add_argument("--batch", type=int, default=112)
    parser.add_argument("--lr", type=float, default=5e-4, help="of the image tower; heads and text use multiples")
    parser.add_argument("--epsilon", type=float, default=0.03, help="attack size, of the 0..1 range")
    parser.add_argument("--adversary", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--skip", type=float, default=0.0, help="leave out this share of the pictures")
    parser.add_argument("--plain", type=float, default=0.03, help="share of backgrounds with nothing on them")
    parser.add_argument("--split", type=int, default=9, help="decides which pictures --skip leaves out")
    parser.add_argument("--start", type=float, default=0.0, help="skip this share of the schedule")
    parser.add_argument("--from-weights", type=Path, help="a safetensors file to go on from")
    parser.add_argument("--measure", type=float, default=20, help="minutes between measurements")
    add_arguments(parser, seed=3)
    args = parser.parse_args()
    device = begin(args)
    limit = Limit(args.stop_after)
    model, tokenizer = create(args.model, args.run)
    average, _ = create(args.model, args.run)
    if args.from_weights:
        weights = load_file(args.from_weights)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    else:
        model.load_state_dict(torch.load(args.run / "text.pt", weights_only=True), strict=False)
    average.load_state_dict(model.state_dict())
    for net in (model, average):
        net.to(device)
        net.visual.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    trunk = list(model.visual.trunk.parameters())
    head = [*model.visual.head.parameters(), model.logit_scale]
    text = [p for n, p in model.named_parameters() if not n.startswith(("visual", "logit"))]
    groups = [{"params": p, "lr": args.lr * k, "times": k} for p, k in ((trunk, 1.0), (head, 4.0), (text, 0.6))]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    seen, step = args.start * args.pictures, 0
    parts = {"model": model, "average": average, "optimizer": optimizer}
    state = read_state(args.run / "state.pt", device)
    if state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        seen, step = state["seen"], state["step"]
    scenes = Scenes(args.data, seed=args.seed * 1_000_000 + step, skip=args.skip, split=args.split,
                    plain_share=args.plain, device=device)  # fmt: skip
    confusions = Confusions(scenes)
    gen = torch.Generator(device).manual_seed(args.seed * 1_000_000 + step)
    own_size = CONFIGS[args.model]["size"]
    bf16 = args.bf16 and device.type == "cuda"  # the towers' depthwise convolutions gain nothing by it on a CPU
    if state or args.from_weights:
        confusions.ask(average, tokenizer, own_size, device)
    log = Log(args.run / "log.jsonl")
    saved = measured = time.monotonic()

    def save() -> None:
        write_state(args.run / "state.pt", {n: p.state_dict() for n, p in parts.items()} | {"seen": seen, "step": step})
        write_weights(args.run / f"{args.model}.safetensors", average.state_dict())

    def measure() -> None:
        figures = evaluate(average, tokenizer, scenes, own_size, device)
        log.line(step=step, progress=round(seen / args.pictures, 4), held_out=figures)

    while seen < args.pictures and not limit.reached:
        step += 1
        progress = seen / args.pictures
        _, share, attacked = next(stage for stage in reversed(STAGES) if progress >= stage[0])
        size = round(own_size * share / 16) * 16
        for group in optimizer.param_groups:
            group["lr"] = args.lr * group["times"] * min(1, step / 60) * cosine(progress)
        plan = confusions.plan(args.batch)
        wrong = [s.wrong for s in plan if s.wrong]
        drawn = scenes.draw(plan, size, fine=False)
        image = roughen(drawn, gen).contiguous(memory_format=torch.channels_last)
        alike = same(plan, scenes.records).to(device)
        model.train()
        optimizer.zero_grad()
        figures = {}
        with lower(device, bf16):
            words = F.normalize(encode_text(model, tokenizer([s.caption for s in plan] + wrong).to(device)), dim=1)
            fixed, scale = words.detach(), model.logit_scale.exp().clamp(max=60)
            if attacked and args.adversary:
                epsilon = args.epsilon * min(1, (progress - 0.3) / 0.08) if args.start == 0 else args.epsilon
                noise = torch.rand(image.shape, generator=gen, device=device) * 2 - 1
                leaf = (image + noise * epsilon).clamp(0, 1).contiguous(memory_format=torch.channels_last)
                leaf.requires_grad_()
                found = F.normalize(model.encode_image((leaf - MEAN) / STD), dim=1)
                loss, right = contrast(found, fixed[: len(plan)], fixed[len(plan) :], alike, scale.detach())
                # The pass that finds the attack teaches too, at the price of its weights' gradients.
                (UNATTACKED * loss).backward()
                moved = leaf.detach() + 1.25 * epsilon * leaf.grad.sign()
                image = torch.min(torch.max(moved, image - epsilon), image + epsilon).clamp(0, 1)
                figures["noisy_right"] = right
            found = F.normalize(model.encode_image((image - MEAN) / STD), dim=1)
            loss, right = contrast(found, words[: len(plan)], words[len(plan) :], alike, scale)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        follow(average, model, min(0.99, step / (step + 10)))
        log.add(figures | {"loss": loss, "right": right})
        seen += args.batch
        now = time.monotonic()
        if now - saved > 300:
            saved = now
            save()
        if now - measured > args.measure * 60:
            measured = now
            measure()
            confusions.ask(average, tokenizer, own_size, device)
        elif step % 25 == 0:
            spent = round(time.process_time() / 60, 1)
            log.line(step=step, progress=round(progress, 4), minutes=spent, size=size)
    save()
    if not limit.asked:
        measure()
    if seen >= args.pictures:
        (args.run / "done").touch()


if __name__ == "__main__":
    main()
