"""How far images are from real drawings: KID in a pretrained network's features, and the strength of edges.

    python -m tests.benchmarks.quality --config ours:init=sample --keep pictures/refined ...
    python -m tests.benchmarks.looks --reals DATA pictures/candidates pictures/refined

DATA: as examples/train_tiny/build_data.py writes it; its held-out drawings of emoji, over white, are the real ones.

KID (Binkowski et al. 2018, https://arxiv.org/abs/1801.01401): the squared maximum mean discrepancy between the features
of images and of drawings, by a cubic kernel, unbiased; features are EfficientNet-Lite1's, on which nothing of vqclip was
trained. All is looked at in 256x256. The interval is a bootstrap over the images. As a floor, half of the drawings is
compared with the other half. Edges: the 98th percentile of Sobel's gradient of brightness, as a share of the drawings'.
"""

import argparse
import json
import sys
from pathlib import Path

import kornia.filters as KF
import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "train_tiny"))
from features import MEAN, STD, weights

SIDE = 256
SHARPEST = 0.98


class Features:
    """EfficientNet-Lite1 up to its last pooling."""

    def __init__(self) -> None:
        self.net = timm.create_model("tf_efficientnet_lite1", num_classes=0)
        self.net.load_state_dict(weights("lite1"))
        self.net.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` in 0..1 to `[N, 1280]`."""
        return torch.cat([self.net((part - MEAN) / STD) for part in images.split(16)])


def read_drawings(data: Path, count: int) -> Tensor:
    """Return held-out drawings `[N, 3, SIDE, SIDE]` in 0..1 over white: of each name one, of all sets in turn."""
    records = json.loads((data / "captions.json").read_text())
    rows = [k for k, record in enumerate(records) if record["kind"] == "emoji" and record["held_out"]]
    rows = np.random.default_rng(0).permutation(rows)
    first = {records[row]["name"]: row for row in rows}
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    rgba = (
        torch.from_numpy(np.stack([pictures[row] for row in sorted(first.values())[:count]]).astype(np.float32)) / 255
    )
    rgba = rgba.permute(0, 3, 1, 2)
    return fit(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])


def read_folder(folder: Path) -> Tensor:
    """Return the images of a folder, `[N, 3, SIDE, SIDE]` in 0..1."""
    images = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            images.append(fit(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255))
    return torch.cat(images)


def fit(images: Tensor) -> Tensor:
    """Resize images to SIDE."""
    return F.interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)


def kid(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared discrepancy of two sets of features `[N, D]` and `[M, D]`."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def apart(x: Tensor) -> Tensor:
        k, n = kernel(x, x), len(x)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return float(apart(a) + apart(b) - 2 * kernel(a, b).mean())


def interval(a: Tensor, b: Tensor, draws: int = 500) -> tuple[float, float]:
    """Return the 95% interval of their KID, by drawing a half of `a` again and again."""
    rng = torch.Generator().manual_seed(0)
    halves = (torch.randperm(len(a), generator=rng)[: max(2, len(a) // 2)] for _ in range(draws))
    values = torch.tensor([kid(a[half], b) for half in halves])
    spread = 1.96 * values.std() / 2**0.5  # of a half; of the whole it is that by the root of 2
    return float(values.mean() - spread), float(values.mean() + spread)


def edges(images: Tensor) -> float:
    """Return the mean over images of the SHARPEST share of their brightness's gradient."""
    gray = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return float(KF.sobel(gray).flatten(1).quantile(SHARPEST, 1).mean())


def main() -> None:
    """Print a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of PNGs")
    parser.add_argument("--reals", type=Path, required=True, metavar="DATA")
    parser.add_argument("--drawings", type=int, default=400, help="at most so many real drawings")
    args = parser.parse_args()
    features, drawings = Features(), read_drawings(args.reals, args.drawings)
    real, sharp = features(drawings), edges(drawings)
    low, high = interval(real[::2], real[1::2])
    print(
        f"{'drawings, half against half':<40} KID {kid(real[::2], real[1::2]) * 1000:7.1f} [{low * 1000:.1f}, {high * 1000:.1f}]  edges 1.00  n={len(real)}"
    )
    for folder in args.folders:
        images = read_folder(folder)
        seen = features(images)
        low, high = interval(seen, real)
        print(
            f"{folder.name:<40} KID {kid(seen, real) * 1000:7.1f} [{low * 1000:.1f}, {high * 1000:.1f}]  edges {edges(images) / sharp:.2f}  n={len(images)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
