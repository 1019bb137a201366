"""Turn captioned scenes into a VQGAN's codes, for train_dalle.py.

    python encode_scenes.py DATA RUN --vqgan runs/vqgan --scenes 163840

writes RUN/codes/00000.npz ...: `codes` uint16 `[256, 256]` and `captions`, 256 JSON lists of what each scene may be
called. A part that is there is left as it is, so the same command goes on where it was stopped. Every scene is drawn
anew, in another size, place, colour and background: with ten scenes of a picture a prior can't learn it by heart.

The scenes are calmer than those that CLIP learns from: a ground that the caption doesn't name is mostly white. What a
caption doesn't tell, a prior can only guess.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import Scene, Scenes, article
from safetensors.torch import load_file
from taming.modules.diffusionmodules import model as taming
from tools import Limit, add_arguments, begin, lower, write
from tqdm import tqdm
from train_vqgan import CONFIG, Vqgan

PART = 256
SIZE, LOOSE, ZOOM = 128, 0.3, (0.75, 1.05)
SHARES = {"emoji": 0.74, "flag": 0.08, "icon": 0.06, "clipart": 0.12}


def scenes_for(data: Path, seed: int, device: torch.device) -> Scenes:
    """Return where the prior's scenes come from."""
    return Scenes(data, seed=seed, shares=SHARES, plain_share=0.01, pair_share=0.08, device=device)


def calm(scene: Scene, rng: np.random.Generator) -> Scene:
    """Put a scene before white where its caption names no ground."""
    return scene if scene.told or rng.random() < 0.08 else replace(scene, background="white")


def captions(scene: Scene, records: list[dict]) -> list[str]:
    """Return what a scene may be called; of a picture as it is, its names most often, and its tags."""
    if len(scene.pictures) != 1 or scene.colour or scene.told:
        return [scene.caption]
    record = records[scene.pictures[0]]
    if record["kind"] == "icon":
        return [scene.caption]
    names = [record["name"]] * max(2, len(record["names"])) + record["names"]
    told = names if record["kind"] == "flag" else [*map(article, names), *names[:: max(1, len(names) // 2)]]
    tags = [] if record["names"] else record["tags"][:2]
    return told + tags + [scene.caption] * max(1, len(told) // 2)


def load(run: Path, device: torch.device) -> Vqgan:
    """Load what train_vqgan.py wrote, or a folder with config.json and model.safetensors, frozen."""
    taming.nonlinearity = F.silu
    named = run / "vqgan.safetensors"
    weights = load_file(named if named.exists() else run / "model.safetensors")
    CONFIG["n_embed"] = len(weights["quantize.embedding.weight"])
    model = Vqgan()
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)


@torch.no_grad()
def encode(vqgan: Vqgan, image: torch.Tensor) -> torch.Tensor:
    """Return the codes `[n, places]` of `[n, 3, H, W]` in 0..1, row by row."""
    with lower(image.device, True):  # twice as fast; 99 of 100 codes are the same
        z = vqgan.encode(image.contiguous(memory_format=torch.channels_last))
    return vqgan.codes(z.float()).view(len(image), -1)


def draw(scenes: Scenes, vqgan: Vqgan, count: int) -> tuple[torch.Tensor, list[list[str]]]:
    """Return the codes `[count, places]` of fresh scenes and what each may be called."""
    plan = [calm(scene, scenes.rng) for scene in scenes.plan(count)]
    codes = [
        encode(vqgan, scenes.draw(plan[i : i + 32], SIZE, LOOSE, light=0.0, zoom=ZOOM)) for i in range(0, count, 32)
    ]
    return torch.cat(codes), [captions(scene, scenes.records) for scene in plan]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vqgan", type=Path, required=True, help="what train_vqgan.py wrote, or a model's folder")
    parser.add_argument("--scenes", type=int, default=163_840)
    add_arguments(parser, seed=51)
    args = parser.parse_args()
    device = begin(args)
    limit = Limit(args.stop_after)
    folder = args.run / "codes"
    folder.mkdir(parents=True, exist_ok=True)
    vqgan, scenes = load(args.vqgan, device), scenes_for(args.data, args.seed, device)
    for k in tqdm(range(args.scenes // PART), desc="encoding", unit="part", mininterval=30):
        part = folder / f"{k:05d}.npz"
        if part.exists():
            continue
        if limit.reached:
            return
        scenes.rng = np.random.default_rng([args.seed, k])
        scenes.torch_rng.manual_seed(args.seed * 100_000 + k)
        codes, names = draw(scenes, vqgan, PART)
        write_part(part, codes.cpu().numpy().astype(np.uint16), [json.dumps(name) for name in names])
    (folder / "done").touch()


def write_part(path: Path, codes: np.ndarray, names: list[str]) -> None:
    """Write one part, whole or not at all."""

    def save(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, codes=codes, captions=np.array(names))

    write(path, save)


if __name__ == "__main__":
    main()
