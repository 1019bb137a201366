"""Report what the trained models can do on held-out pictures.

    python evaluate.py DATA --vqgan FOLDER --clip FOLDER --judge FOLDER

VQGAN: PSNR (dB), SSIM and the share of codes used, on held-out pictures over white. CLIPs: caption retrieval.
Each held-out Fluent picture (flat and shaded) looks for its name among the held-out names and as many more
names as make 316 in all; R@1 and R@5.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from compose import article, still
from kornia.metrics import ssim
from names import canonical

from vqclip.core.interfaces import Vqgan
from vqclip.core.quantize import lookup, nearest
from vqclip.models import load_vqgan
from vqclip.models.clip import OpenClip, load_clip

CAPTIONS = 316
CPU = torch.device("cpu")


@torch.no_grad()
def reconstruction(model: Vqgan, pictures: np.ndarray) -> dict[str, float]:
    """Reconstruct `[n, 128, 128, 4]` pictures."""
    psnr, similar, used = [], [], set()
    for start in range(0, len(pictures), 16):
        image = still(pictures[start : start + 16], 128)
        codes = nearest(model.encode(image), model.codebook)
        used.update(codes.flatten().tolist())
        back = model.decode(lookup(codes, model.codebook)).clamp(0, 1).contiguous()
        psnr += (-10 * (back - image).square().mean((1, 2, 3)).log10()).tolist()
        similar += ssim(back, image, 11).mean((1, 2, 3)).tolist()
    return {
        "pictures": len(pictures),
        "psnr": float(np.mean(psnr)),
        "ssim": float(np.mean(similar)),
        "codes_used": len(used) / len(model.codebook),
    }


@torch.no_grad()
def retrieval(model: OpenClip, pictures: np.ndarray, names: list[str], others: list[str]) -> dict[str, float]:
    """Let each picture find its name among all names and `others`."""
    captions = sorted(set(names))
    captions += others[: CAPTIONS - len(captions)]
    text = model.encode_text([article(c) for c in captions])
    image = torch.cat(
        [model.encode_image(still(pictures[i : i + 32], model.size)) for i in range(0, len(pictures), 32)]
    )
    right = torch.tensor([captions.index(name) for name in names])
    order = (image @ text.T).argsort(1, descending=True)
    rank = (order == right[:, None]).float().argmax(1)
    return {
        "pictures": len(names),
        "captions": len(captions),
        "r1": float((rank < 1).float().mean()),
        "r5": float((rank < 5).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--vqgan", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--judge", type=Path)
    args = parser.parse_args()
    pictures = np.load(args.data / "pictures128.npy", mmap_mode="r")
    records = json.loads((args.data / "captions.json").read_text())
    held = [i for i, r in enumerate(records) if r["held_out"] and r["kind"] == "emoji"]
    names = [canonical(records[i]["name"]) for i in held]
    emoji = sorted({canonical(r["name"]) for r in records if r["kind"] == "emoji"} - set(names))
    others = [emoji[i] for i in np.random.default_rng(0).permutation(len(emoji))]
    if args.vqgan:
        drawings = [i for i, r in enumerate(records) if r["held_out"]]
        model = load_vqgan(str(args.vqgan.absolute()), CPU)
        print("vqgan, emoji      ", {k: round(v, 4) for k, v in reconstruction(model, pictures[held]).items()})
        print("vqgan, all        ", {k: round(v, 4) for k, v in reconstruction(model, pictures[drawings]).items()})
    for name, folder in (("clip", args.clip), ("judge", args.judge)):
        if folder:
            found = retrieval(load_clip(folder, name=name, device=CPU), pictures[held], names, others)
            print(f"{name:<18}", {k: round(v, 4) for k, v in found.items()})


if __name__ == "__main__":
    main()
