"""Train a small CLIP (or the judge) on scenes from build_data.py, robust enough to be optimised.

    python train_clip.py DATA RUN --model clip --minutes 80
    python train_clip.py DATA RUN --model judge --minutes 30 --no-adversary --skip 0.3 --seed 9

Contrastive (Radford et al. 2021) with two additions. Captions with one attribute changed stand beside
the true ones as hard negatives. And after a clean start every picture is attacked with one random-start
FGSM step first (Wong et al. 2020): the gradients of a CLIP trained so are shapes that people can read
(CLIPAG, Ganz and Elad 2024), which is what the optimisation loop follows.

Needs RUN/text.pt of distil_text.py. Stopped, the same command continues from RUN/state.pt.
RUN/log.jsonl has the figures; RUN/<model>.safetensors is the averaged model so far.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clip_model import CONFIGS, create, encode_text
from compose import Scene, Scenes, article, still
from features import MEAN, STD
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# (share of the time from which it holds, size as a share of the model's own, attacked or not)
STAGES = ((0.0, 0.67, False), (0.3, 0.84, True), (0.62, 1.0, True))
UNATTACKED = 0.5  # weight of the pass that finds the attack


def roughen(image: Tensor, gen: torch.Generator) -> Tensor:
    """Crop, jitter, blur and add noise, as strongly as the optimisation loop does."""
    n, _, size, _ = image.shape

    def chance(p: float) -> Tensor:
        return (torch.rand(n, 1, 1, 1, generator=gen) < p).float()

    zoom = torch.where(torch.rand(n, generator=gen) < 0.35, torch.rand(n, generator=gen) * 0.35 + 0.62, 1.0)
    tilt = torch.randn(n, 2, 2, generator=gen) * 0.06
    theta = torch.zeros(n, 2, 3)
    theta[:, :, :2] = (torch.eye(2) + tilt) * zoom[:, None, None]
    theta[:, :, 2] = (torch.rand(n, 2, generator=gen) - 0.5) * 2 * (1.05 - zoom)[:, None]
    image = F.grid_sample(
        image, F.affine_grid(theta, list(image.shape), align_corners=False), padding_mode="border", align_corners=False
    )
    soft = F.interpolate(F.avg_pool2d(image, 2), size=(size, size), mode="bilinear", align_corners=False)
    image = torch.lerp(image, soft, chance(0.25) * torch.rand(n, 1, 1, 1, generator=gen))
    grey = image.mean(1, keepdim=True)
    image = torch.lerp(grey, image, 1 + (torch.rand(n, 1, 1, 1, generator=gen) - 0.5) * 0.3)
    noise = torch.rand(n, 1, 1, 1, generator=gen) * 0.12 * chance(0.7)
    return (image + noise * torch.randn(image.shape, generator=gen)).clamp(0, 1)


def same(scenes: list[Scene], records: list[dict]) -> Tensor:
    """Say which pictures another's caption describes as well: bool `[n, n]`."""

    def alike(a: Scene, b: Scene) -> bool:
        if a.caption == b.caption:
            return True
        names = [tuple(records[i]["name"] for i in s.pictures) for s in (a, b)]
        if not any(names):
            return a.background == b.background
        told = "background" in a.caption or "background" in b.caption
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
def evaluate(model: nn.Module, tokenizer, scenes: Scenes, size: int) -> dict[str, float]:
    """Retrieve captions for held-out flat emoji (one per name, white ground): R@1, R@5, their number."""
    rows: dict[str, int] = {}
    for i, record in enumerate(scenes.records):
        if record["held_out"] and record["source"] in ("fluent-emoji-flat", "own"):
            rows.setdefault(record["name"], i)
    model.eval()
    pictures = scenes.pictures[sorted(rows.values())]
    names = [scenes.records[i]["name"] for i in sorted(rows.values())]
    image = torch.cat([model.encode_image((still(part, size) - MEAN) / STD) for part in np.array_split(pictures, 8)])
    text = encode_text(model, tokenizer([article(name) for name in names]))
    order = (F.normalize(image, dim=1) @ F.normalize(text, dim=1).T).argsort(1, descending=True)
    rank = (order == torch.arange(len(names))[:, None]).float().argmax(1)
    return {"r1": float((rank < 1).float().mean()), "r5": float((rank < 5).float().mean()), "among": len(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", choices=("clip", "judge"), default="clip")
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--batch", type=int, default=112)
    parser.add_argument("--lr", type=float, default=5e-4, help="of the image tower; heads and text use multiples")
    parser.add_argument("--epsilon", type=float, default=0.03, help="attack size, of the 0..1 range")
    parser.add_argument("--adversary", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--skip", type=float, default=0.0, help="leave out this share of the pictures")
    parser.add_argument("--plain", type=float, default=0.03, help="share of backgrounds with nothing on them")
    parser.add_argument("--split", type=int, default=9, help="decides which pictures --skip leaves out")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=float, default=0.0, help="skip this share of the schedule")
    parser.add_argument("--from-weights", type=Path, help="a safetensors file to go on from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model, tokenizer = create(args.model, args.run)
    average, _ = create(args.model, args.run)
    if args.from_weights:
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in load_file(args.from_weights).items()}
        )
    else:
        model.load_state_dict(torch.load(args.run / "text.pt", weights_only=True), strict=False)
    average.load_state_dict(model.state_dict())
    for net in (model, average):
        net.visual.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    trunk = list(model.visual.trunk.parameters())
    head = [*model.visual.head.parameters(), model.logit_scale]
    text = [p for n, p in model.named_parameters() if not n.startswith(("visual", "logit"))]
    groups = [{"params": p, "lr": args.lr * k, "times": k} for p, k in ((trunk, 1.0), (head, 4.0), (text, 0.6))]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02)
    progress, step = args.start, 0
    state_file = args.run / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for part, name in ((model, "model"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(state[name])
        progress, step = state["progress"], state["step"]
    scenes = Scenes(args.data, seed=args.seed * 1000 + step, skip=args.skip, split=args.split, plain_share=args.plain)
    gen = torch.Generator().manual_seed(args.seed * 1000 + step)
    log = (args.run / "log.jsonl").open("a")
    own_size = CONFIGS[args.model]["size"]
    sums: dict[str, float] = {}
    saved = last = time.monotonic()

    while progress < 1:
        now = time.monotonic()
        progress, last, step = progress + (now - last) / 60 / args.minutes, now, step + 1
        _, share, attacked = next(stage for stage in reversed(STAGES) if progress >= stage[0])
        size = round(own_size * share / 16) * 16
        for group in optimizer.param_groups:
            group["lr"] = (
                args.lr
                * group["times"]
                * min(1, step / 60)
                * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
            )
        plan = scenes.plan(args.batch)
        wrong = [s.wrong for s in plan if s.wrong]
        image = roughen(scenes.draw(plan, size), gen).contiguous(memory_format=torch.channels_last)
        alike = same(plan, scenes.records)
        model.train()
        words = F.normalize(encode_text(model, tokenizer([s.caption for s in plan] + wrong)), dim=1)
        fixed, scale = words.detach(), model.logit_scale.exp().clamp(max=60)
        figures = {}
        optimizer.zero_grad()
        if attacked and args.adversary:
            epsilon = args.epsilon * min(1, (progress - 0.3) / 0.08) if args.start == 0 else args.epsilon
            start = (image + (torch.rand(image.shape, generator=gen) * 2 - 1) * epsilon).clamp(0, 1)
            leaf = start.contiguous(memory_format=torch.channels_last).requires_grad_()
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
        with torch.no_grad():
            decay = min(0.99, step / (step + 10))
            for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                if old.is_floating_point():
                    old.lerp_(new, 1 - decay)
        for name, value in (figures | {"loss": loss, "right": right}).items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % 25 == 0:
            line = {
                "step": step,
                "progress": round(progress, 4),
                "size": size,
                **{k: round(v / 25, 4) for k, v in sums.items()},
            }
            sums = {}
            if now - saved > 240:
                saved = now
                line |= save(args, model, average, optimizer, progress, step, tokenizer, scenes, own_size)
            print(json.dumps(line), file=log, flush=True)
    line = save(args, model, average, optimizer, progress, step, tokenizer, scenes, own_size)
    print(json.dumps({"step": step, "done": True, **line}), file=log, flush=True)


def save(args, model, average, optimizer, progress, step, tokenizer, scenes, size) -> dict:
    """Write state.pt and the averaged weights; return the held-out figures."""
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "step": step,
    }
    torch.save(state, args.run / "state.pt.part")
    (args.run / "state.pt.part").replace(args.run / "state.pt")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in average.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, args.run / f"{args.model}.safetensors")
    return {k: round(v, 4) for k, v in evaluate(average, tokenizer, scenes, size).items()}


if __name__ == "__main__":
    main()
