"""Train a small DalleBart, the network of Mini DALL-E, on the codes of encode_scenes.py.

    python train_dalle.py DATA RUN --minutes 70    # of processor time

Cross entropy on the codes, each from those before it and the text; one text in seven is left empty, so that guidance
(super-conditioning) has something to push away from. What makes an hour of one core count:

- codes start from the VQGAN's own codebook, so that codes that look alike are alike from the first step; places start
  from their row and column;
- the encoder first learns to say what CLIP's text tower says of some 30,000 texts, and keeps to it at a small weight:
  words that no caption has stay near those that they mean;
- matrices are stepped by Muon (Jordan 2024), the rest by AdamW; bfloat16; an average of the weights is what is saved.

Stopped, the same command continues from RUN/state.pt. RUN/log.jsonl has the figures; RUN/model is what vqclip loads.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from colours import COLOURS
from compose import TEMPLATES, Scenes, article, still
from encode_scenes import encode
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn

from vqclip.models import load_clip, load_vqgan
from vqclip.models.catalogue import known_or_absolute
from vqclip.models.dalle.bart import PAD, DalleBart, Shape, mask
from vqclip.models.dalle.tokenizer import WORD, Tokenizer, plain, read_tokenizer

CPU = torch.device("cpu")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # BART's first numbers
SIZES = {"width": 256, "heads": 4, "hidden": 640, "encoder_layers": 2, "decoder_layers": 4, "text_length": 32}
VOCABULARY = 6000
EMPTY = 0.15  # share of texts left out
MEANING = 0.3  # weight of agreeing with CLIP's text tower


class Data:
    """The codes of all scenes and what they may be called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.order = folder, []
        self.read()

    def read(self) -> None:
        """Read the parts that are there by now: encoding may go on beside the training."""
        parts = [np.load(path) for path in sorted(self.folder.glob("*.npz"))]
        self.codes = torch.from_numpy(np.concatenate([part["codes"] for part in parts]).astype(np.int64))
        self.captions = [json.loads(text) for part in parts for text in part["captions"]]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[list[str], Tensor]:
        """Draw scenes, all before any comes again, each under one of its captions."""
        if len(self.order) < count:
            self.read()
            self.order = rng.permutation(len(self.captions)).tolist()
        rows, self.order = self.order[:count], self.order[count:]
        return [str(rng.choice(self.captions[row])) for row in rows], self.codes[rows]


def write_tokenizer(folder: Path, texts: list[str]) -> Tokenizer:
    """Learn a byte-pair vocabulary of the texts and write it in BART's layout."""
    if not (folder / "vocab.json").exists():
        tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
        words = [word for text in texts for word in WORD.findall(plain(text))]
        tokenizer.train_from_iterator(words, VOCABULARY, min_frequency=3, special_tokens=SPECIAL, show_progress=False)
        tokenizer.save_model(str(folder))
    return read_tokenizer(folder / "vocab.json", folder / "merges.txt")


def tokenize(tokenizer: Tokenizer, texts: list[str], length: int) -> Tensor:
    """Return tokens `[n, S]`, S that of the longest, padded."""
    rows = [tokenizer.encode(text, length) for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def corpus(scenes: Scenes) -> list[str]:
    """Return all texts whose meaning is learnt: names, tags, colours, and the longer words of CLIP's vocabulary."""
    texts, rng = set(), np.random.default_rng(0)
    for record in scenes.records:
        told = [record["name"], *record["tags"]]
        hue, ground = rng.choice(list(COLOURS), 2)
        texts |= {*told, *map(article, told), f"a {hue} {rng.choice(told)}"}
        texts |= {f"{article(str(rng.choice(told)))} on a {ground} background"}
    texts |= {str(rng.choice(TEMPLATES)).format(text, a=article(text)) for text in sorted(texts)[::4] if text}
    vocabulary = load_clip("tiny", CPU).tokenizer.encoder
    found = [token[:-4] for token in vocabulary if token.endswith("</w>") and token[:-4].isalpha() and len(token) > 7]
    return sorted((texts | set(found) | {article(word) for word in found[::2]}) - {""})


@torch.no_grad()
def meanings(texts: list[str], file: Path) -> Tensor:
    """Return CLIP's unit embeddings `[n, D]` of the texts, computed once and kept in `file`."""
    if not file.exists():
        clip = load_clip("tiny", CPU)
        np.save(file, torch.cat([clip.encode_text(texts[i : i + 256]) for i in range(0, len(texts), 256)]).numpy())
    return torch.from_numpy(np.load(file))


def begin(model: DalleBart, codebook: Tensor) -> None:
    """Start from small random weights, codes from the codebook, places from their row and column."""
    width = model.shape.width
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        for name, parameter in layer.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.7 * width**-0.5 if "fc2" not in name else 0.02)
    spread = (codebook - codebook.mean(0)) / codebook.std()
    turned = spread @ nn.init.orthogonal_(torch.empty(codebook.shape[1], width))
    model.decoder.embed_tokens.weight.data[: len(codebook)] = turned
    model.decoder.lm_head.weight.data[: len(codebook)] = turned * 0.02
    side = math.isqrt(model.shape.image_length)
    waves = torch.arange(side)[:, None] * torch.exp(-torch.arange(width // 4) * 4 / width * math.log(2.0 * side))
    axis = torch.cat([waves.sin(), waves.cos()], 1)  # [side, width / 2]
    places = torch.cat([axis[:, None].expand(-1, side, -1), axis.expand(side, -1, -1)], 2)
    model.decoder.embed_positions.weight.data.copy_(0.5 * places.flatten(0, 1))


def meaning_loss(model: DalleBart, head: nn.Linear, tokens: Tensor, target: Tensor) -> Tensor:
    """Return the cosine distance of the encoder's mean, through `head`, to CLIP's embedding."""
    there = mask(tokens)[:, 0, 0, :, None].float()
    mean = (model.encode(tokens) * there).sum(1) / there.sum(1)
    return 1 - F.cosine_similarity(head(mean), target).mean()


@torch.no_grad()
def evaluate(model: DalleBart, tokenizer: Tokenizer, texts: list[str], codes: Tensor) -> dict[str, float]:
    """Return the nats that a held-out code costs, told what it is and not."""
    model.eval()
    empty = [""] * len(texts)
    result = {}
    for name, told in (("held_out", texts), ("held_out_untold", empty)):
        logits = model(tokenize(tokenizer, told, model.shape.text_length), codes)
        result[name] = round(float(F.cross_entropy(logits.flatten(0, 1), codes.flatten())), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=70, help="of processor time: what else runs, costs no quality")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3, help="of embeddings and norms; matrices use --muon")
    parser.add_argument("--muon", type=float, default=3e-3)
    parser.add_argument("--warm", type=int, default=250, help="first steps, of the encoder alone")
    parser.add_argument("--vqgan", default="tiny")
    parser.add_argument("--seed", type=int, default=61)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=float, default=0.0, help="skip this share of the schedule")
    parser.add_argument("--from-weights", type=Path, help="a model.safetensors to go on from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out = args.run / "model"
    out.mkdir(parents=True, exist_ok=True)
    data, scenes = Data(args.run / "codes"), Scenes(args.data, seed=args.seed)
    vqgan = load_vqgan(args.vqgan, CPU)
    texts = corpus(scenes)
    tokenizer = write_tokenizer(out, texts)
    target = meanings(texts, args.run / "meanings.npy")
    codes = len(vqgan.codebook)
    shape = Shape(vocabulary=len(tokenizer.ids), rows=codes + 1, codes=codes, image_length=data.codes.shape[1], **SIZES)
    about = {"heads": shape.heads, "codes": codes, "vqgan": known_or_absolute("vqgan", args.vqgan), "pixels": "vqgan"}
    (out / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    held = [i for i, r in enumerate(scenes.records) if r["held_out"] and r["source"] == "fluent-emoji-flat"][:96]
    held_codes = torch.from_numpy(encode(vqgan, still(scenes.pictures[held], 128)).astype(np.int64))
    held_texts = [article(scenes.records[i]["name"]) for i in held]

    model, average = DalleBart(shape), DalleBart(shape)
    head = nn.Linear(shape.width, target.shape[1])
    begin(model, vqgan.codebook)
    if args.from_weights:
        from safetensors.torch import load_file

        model.load_state_dict({k: v.float() for k, v in load_file(args.from_weights).items()})
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    ids = {id(p) for p in matrices}
    rest = [p for p in (*model.parameters(), *head.parameters()) if id(p) not in ids]
    muon = torch.optim.Muon(matrices, lr=args.muon, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    average.load_state_dict(model.state_dict())
    progress, step = args.start, 0
    state_file = args.run / "state.pt"
    parts = {"model": model, "average": average, "head": head, "muon": muon, "adam": adam}
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        progress, step = state["progress"], state["step"]
    rng = np.random.default_rng([args.seed, step])
    log = (args.run / "log.jsonl").open("a")
    sums: dict[str, float] = {}
    saved, last = time.monotonic(), time.process_time()

    def save() -> dict[str, float]:
        state = {name: part.state_dict() for name, part in parts.items()} | {"progress": progress, "step": step}
        torch.save(state, args.run / "state.pt.part")
        (args.run / "state.pt.part").replace(state_file)
        save_file({k: v.half().contiguous() for k, v in average.state_dict().items()}, out / "model.safetensors.part")
        (out / "model.safetensors.part").replace(out / "model.safetensors")
        return evaluate(average, tokenizer, held_texts, held_codes)

    while progress < 1:
        spent = time.process_time()
        progress, last, step = progress + (spent - last) / 60 / args.minutes, spent, step + 1
        warming = step <= args.warm and not args.from_weights
        rate = min(1, step / 40, max(step - args.warm, 1) / 40 if not warming else 1)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, progress)))
        for optimizer, lr in ((muon, args.muon), (adam, args.lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * rate
        rows = torch.from_numpy(rng.integers(0, len(texts), 256 if warming else 64))
        with torch.autocast("cpu", torch.bfloat16):
            tokens = tokenize(tokenizer, [texts[row] for row in rows], shape.text_length)
            meaning = meaning_loss(model, head, tokens, target[rows])
            figures, loss = {"meaning": meaning}, meaning if warming else MEANING * meaning
            if not warming:
                told, wanted = data.batch(rng, args.batch)
                told = ["" if rng.random() < EMPTY else text for text in told]
                logits = model(tokenize(tokenizer, told, shape.text_length), wanted)
                figures["code"] = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
                loss = loss + figures["code"]
        muon.zero_grad()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        for parameter in matrices:  # Muon steps what has a gradient; those of the decoder have none while warming
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        muon.step()
        adam.step()
        with torch.no_grad():
            decay = min(0.995, step / (step + 10))
            for old, new in zip(average.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 1 - decay)
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % 50 == 0:
            line = {"step": step, "progress": round(progress, 4), **{k: round(v / 50, 4) for k, v in sums.items()}}
            sums = {}
            if time.monotonic() - saved > 240:
                saved = time.monotonic()
                line |= save()
            print(json.dumps(line), file=log, flush=True)
    print(json.dumps({"step": step, "done": True, **save()}), file=log, flush=True)


if __name__ == "__main__":
    main()
