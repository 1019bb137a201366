"""Train a small DalleBart, the network of Mini DALL-E, on the codes of encode_scenes.py.

    python train_dalle.py DATA RUN --vqgan runs/vqgan --scenes 163840

Cross entropy on the codes, each from those before it and the text; one text in seven is left empty, so that guidance
(super-conditioning) has something to push away from. What makes an hour of one core count:

- codes start from the VQGAN's own codebook, so that codes that look alike are alike from the first step; places start
  from their row and column;
- the encoder first learns to say what CLIP's text tower says of some 30,000 texts, and keeps to it at a small weight:
  words that no caption has stay near those that they mean;
- matrices are stepped by Muon (Jordan et al. 2024), the rest by AdamW; bfloat16; an average of the weights is what is
  saved; dropout against learning scenes by heart.

The codes are read from RUN/codes, or with --live, the default on a GPU, drawn and encoded as they are needed. The
schedule counts scenes, so stopping costs nothing: the same command continues from RUN/state.pt. RUN/log.jsonl has the
figures, RUN/sheets what is drawn for some prompts; RUN/model is what vqclip loads.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from colours import COLOURS
from compose import TEMPLATES, Scenes, article, still
from encode_scenes import Vqgan, draw, encode, load, scenes_for
from PIL import Image
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from tools import Limit, Log, Muon, add_arguments, begin, cosine, follow, lower, read_state, write_state, write_weights
from torch import Tensor, nn

from vqclip.models import load_clip
from vqclip.models.dalle.bart import EPSILON, PAD, DalleBart, Norm, Shape, mask
from vqclip.models.dalle.checkpoints import shape_of
from vqclip.models.dalle.sampling import BATCH_SIZE, sample
from vqclip.models.dalle.tokenizer import WORD, Tokenizer, plain, read_tokenizer
from vqclip.models.wording import normalize

CPU = torch.device("cpu")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # BART's first numbers
SIZES = {"width": 320, "heads": 5, "hidden": 800, "encoder_layers": 2, "decoder_layers": 5, "text_length": 32}
VOCABULARY = 6000
EMPTY = 0.15  # share of texts left out
MEANING = 0.3  # weight of agreeing with CLIP's text tower
SHOWN = ("a red heart", "a cat", "flag of france", "a pencil", "a thumbs up", "a steam train", "a strawberry",
         "a blue balloon", "an owl", "a book", "a banana on a blue background", "a red apple and a yellow banana")  # fmt: skip


def norm(self: Norm, x: Tensor) -> Tensor:
    """Normalise the last axis, the bias added apart: torch's own can't go back through bfloat16 and a float32 bias."""
    return F.layer_norm(x, self.bias.shape, None, None, EPSILON) + self.bias


Norm.forward = norm


def worded(text: str) -> str:
    """Return a text as the bundled model reads it."""
    return plain(normalize(text))


class Stored:
    """The codes of scenes that were encoded before, and what they may be called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.order, self.parts = folder, [], {}
        self.read()

    def read(self) -> None:
        """Read the parts that are there by now: encoding may go on beside the training."""
        for path in sorted(self.folder.glob("*.npz")):
            if path.name not in self.parts:
                with np.load(path) as part:
                    self.parts[path.name] = (part["codes"], part["captions"])
        if not self.parts:
            raise SystemExit(f"{self.folder} has no codes: encode_scenes.py writes them")
        self.codes = np.concatenate([codes for codes, _ in self.parts.values()])
        self.captions = np.concatenate([captions for _, captions in self.parts.values()])

    def batch(self, rng: np.random.Generator, count: int) -> tuple[list[str], Tensor]:
        """Draw scenes, all before any comes again, each under one of its captions."""
        if len(self.order) < count:
            self.read()
            self.order = rng.permutation(len(self.captions)).tolist()
        rows, self.order = self.order[:count], self.order[count:]
        texts = [str(rng.choice(json.loads(self.captions[row]))) for row in rows]
        return texts, torch.from_numpy(self.codes[rows].astype(np.int64))


class Live:
    """Scenes drawn and encoded when they are needed: none comes twice."""

    def __init__(self, scenes: Scenes, vqgan: Vqgan) -> None:
        self.scenes, self.vqgan = scenes, vqgan

    def batch(self, rng: np.random.Generator, count: int) -> tuple[list[str], Tensor]:
        """Draw scenes, each under one of its captions."""
        codes, names = draw(self.scenes, self.vqgan, count)
        return [str(rng.choice(each)) for each in names], codes


def write_words(folder: Path, texts: list[str]) -> Tokenizer:
    """Learn a byte-pair vocabulary of the texts and write it in BART's layout."""
    if not (folder / "vocab.json").exists():
        tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
        words = [word for text in texts for word in WORD.findall(worded(text))]
        tokenizer.train_from_iterator(words, VOCABULARY, min_frequency=3, special_tokens=SPECIAL, show_progress=False)
        tokenizer.save_model(str(folder))
    return read_tokenizer(folder / "vocab.json", folder / "merges.txt", worded)


def tokenize(words: Tokenizer, texts: list[str], length: int) -> Tensor:
    """Return tokens `[n, S]`, S that of the longest, padded."""
    rows = [words.encode(text, length) for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def corpus(scenes: Scenes) -> list[str]:
    """Return all texts whose meaning is learnt: names, tags, colours, and the longer words of CLIP's vocabulary."""
    texts, rng = set(), np.random.default_rng(0)
    for record in scenes.records:
        told = [record["name"], *record["names"], *record["tags"]]
        hue, ground = rng.choice(list(COLOURS), 2)
        texts |= {*told, *map(article, told), f"a {hue} {rng.choice(told)}"}
        texts |= {f"{article(str(rng.choice(told)))} on a {ground} background"}
    texts |= {str(rng.choice(TEMPLATES)).format(text, a=article(text)) for text in sorted(texts)[::4] if text}
    vocabulary = load_clip("tiny", CPU).tokenizer.ids
    found = [token[:-4] for token in vocabulary if token.endswith("</w>") and token[:-4].isalpha() and len(token) > 7]
    return sorted((texts | set(found) | {article(word) for word in found[::2]}) - {""})


@torch.no_grad()
def meanings(texts: list[str], file: Path) -> Tensor:
    """Return CLIP's unit embeddings `[n, D]` of the texts, computed once and kept in `file`."""
    if not file.exists() or len(np.load(file, mmap_mode="r")) != len(texts):
        clip = load_clip("tiny", CPU)
        np.save(file, torch.cat([clip.encode_text(texts[i : i + 256]) for i in range(0, len(texts), 256)]).numpy())
    return torch.from_numpy(np.load(file))


def start(model: DalleBart, codebook: Tensor) -> None:
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


def drop(model: DalleBart, share: float) -> None:
    """Leave out a share of what each layer adds, and of the embeddings, while the model trains."""

    def hook(module: nn.Module, _: object, out: Tensor) -> Tensor:
        return F.dropout(out, share, module.training)

    for stack in (model.encoder, model.decoder):
        stack.layernorm_embedding.register_forward_hook(hook)
        for layer in stack.layers:
            for name in ("self_attn_layer_norm", "encoder_attn_layer_norm", "glu"):
                if hasattr(layer, name):
                    getattr(layer, name).register_forward_hook(hook)


class Held:
    """Held-out drawings' codes and names, and prompts to draw."""

    def __init__(self, scenes: Scenes, vqgan: Vqgan, words: Tokenizer, device: torch.device) -> None:
        rows = [i for i, r in enumerate(scenes.records) if r["held_out"] and r["source"] == "fluent-emoji-flat"]
        rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))[:96]]
        self.codes = encode(vqgan, still(scenes.pictures[rows], 128).to(device))
        self.texts = [article(scenes.records[i]["name"]) for i in rows]
        self.vqgan, self.words, self.device = vqgan, words, device

    @torch.no_grad()
    def measure(self, model: DalleBart) -> dict[str, float]:
        """Return the nats that a held-out code costs, told what it is and not."""
        model.eval()
        result = {}
        for name, texts in (("told", self.texts), ("untold", [""] * len(self.texts))):
            losses = []
            for i in range(0, len(texts), 32):
                tokens = tokenize(self.words, texts[i : i + 32], model.shape.text_length).to(self.device)
                logits, codes = model(tokens, self.codes[i : i + 32]), self.codes[i : i + 32]
                losses.append(float(F.cross_entropy(logits.flatten(0, 1), codes.flatten())) * len(codes))
            result[name] = round(sum(losses) / len(texts), 4)
        return result

    @torch.no_grad()
    def draw(self, model: DalleBart, path: Path, scale: float = 4.0) -> None:
        """Draw the prompts, a row of BATCH_SIZE candidates each, two rows side by side."""
        model.eval()
        rows = []
        for text in SHOWN:
            tokens = tokenize(self.words, ["", text], model.shape.text_length).to(self.device)
            *_, codes = sample(model, tokens, range(BATCH_SIZE), seed=0, scale=scale)
            like = torch.empty(len(codes), self.vqgan.quantize.embedding.weight.shape[1], 16, 16)
            with lower(self.device, True):
                image = self.vqgan.decode(self.vqgan.lookup(codes.flatten(), like)).float().clamp(0, 1)
            rows.append(torch.cat(list(image), 2))
        pairs = [torch.cat(rows[k : k + 2], 2) for k in range(0, len(rows), 2)]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((torch.cat(pairs, 1).permute(1, 2, 0) * 255).round().byte().cpu().numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--vqgan", type=Path, required=True, help="what train_vqgan.py wrote, or a model's folder")
    parser.add_argument("--vqgan-name", default="tiny", help="what the model's config calls that VQGAN")
    parser.add_argument("--scenes", type=float, default=163_840, help="the length of the schedule")
    parser.add_argument("--live", action=argparse.BooleanOptionalAction, help="draw and encode scenes when needed")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3, help="of embeddings and norms; matrices use --muon")
    parser.add_argument("--muon", type=float, default=3e-3)
    parser.add_argument("--warm", type=int, default=250, help="first steps, of the encoder alone")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--from-weights", type=Path, help="a model's folder to go on from, in its shape and words")
    parser.add_argument("--measure", type=float, default=30, help="minutes between measurements")
    add_arguments(parser, seed=61)
    args = parser.parse_args()
    device = begin(args)
    limit = Limit(args.stop_after)
    out = args.run / "model"
    out.mkdir(parents=True, exist_ok=True)
    live = device.type == "cuda" if args.live is None else args.live
    state = read_state(args.run / "state.pt", device)
    step, seen = (state["step"], state["seen"]) if state else (0, 0)
    scenes = scenes_for(args.data, args.seed * 1_000_000 + step, device if live else CPU)
    vqgan = load(args.vqgan, device)
    data = Live(scenes, vqgan) if live else Stored(args.run / "codes")
    texts = corpus(scenes)
    given = load_file(args.from_weights / "model.safetensors") if args.from_weights else None
    if given and not state:
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(args.from_weights / name, out)
    words = write_words(out, texts)
    target = meanings(texts, args.run / "meanings.npy").to(device)
    codebook = vqgan.quantize.embedding.weight.data
    codes = len(codebook)
    if given:
        shape = shape_of(given, json.loads((args.from_weights / "config.json").read_text()))
        if (shape.codes, shape.image_length) != (codes, 256):
            raise SystemExit(
                f"{args.from_weights} writes {shape.image_length} of {shape.codes} codes, not 256 of {codes}"
            )
    else:
        shape = Shape(vocabulary=len(words.ids), rows=codes + 1, codes=codes, image_length=256, **SIZES)
    about = {"heads": shape.heads, "codes": codes, "vqgan": args.vqgan_name, "pixels": "vqgan"}
    (out / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    held = Held(scenes, vqgan, words, device)

    model, average = DalleBart(shape), DalleBart(shape)
    head = nn.Linear(shape.width, target.shape[1])
    start(model, codebook.cpu())
    if given:
        model.load_state_dict({k: v.float() for k, v in given.items()})
    average.load_state_dict(model.state_dict())
    drop(model, args.dropout)
    for part in (model, average, head):
        part.to(device)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    ids = {id(p) for p in matrices}
    rest = [p for p in (*model.parameters(), *head.parameters()) if id(p) not in ids]
    muon = Muon(matrices, lr=args.muon, weight_decay=0.05)
    adam = torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    parts = {"model": model, "average": average, "head": head, "muon": muon, "adam": adam}
    if state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    rng = np.random.default_rng([args.seed, step])
    log = Log(args.run / "log.jsonl")
    saved = measured = time.monotonic()

    def save() -> None:
        whole = {name: part.state_dict() for name, part in parts.items()}
        write_state(args.run / "state.pt", whole | {"seen": seen, "step": step})
        write_weights(out / "model.safetensors", average.state_dict())

    def measure() -> None:
        log.line(step=step, progress=round(seen / args.scenes, 4), held_out=held.measure(average))
        held.draw(average, args.run / "sheets" / f"{step:06d}.png")

    while seen < args.scenes and not limit.reached:
        step += 1
        warming = step <= args.warm and not args.from_weights
        rate = min(1, step / 40, max(step - args.warm, 1) / 40 if not warming else 1)
        for optimizer, lr in ((muon, args.muon), (adam, args.lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * rate * cosine(seen / args.scenes, 0.02)
        model.train()
        rows = torch.from_numpy(rng.integers(0, len(texts), 256 if warming else 64))
        with lower(device, args.bf16):
            tokens = tokenize(words, [texts[row] for row in rows], shape.text_length).to(device)
            meaning = meaning_loss(model, head, tokens, target[rows.to(device)])
            figures, loss = {"meaning": meaning}, meaning if warming else MEANING * meaning
            if not warming:
                told, wanted = data.batch(rng, args.batch)
                wanted = wanted.to(device)
                seen += args.batch
                told = ["" if rng.random() < EMPTY else text for text in told]
                logits = model(tokenize(words, told, shape.text_length).to(device), wanted)
                figures["code"] = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
                loss = loss + figures["code"]
        muon.zero_grad()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        muon.step()
        adam.step()
        follow(average, model, min(0.995, step / (step + 10)))
        log.add(figures)
        now = time.monotonic()
        if now - saved > 300:
            saved = now
            save()
        if now - measured > args.measure * 60:
            measured = now
            measure()
        elif step % 50 == 0:
            spent = round(time.process_time() / 60, 1)
            log.line(step=step, progress=round(seen / args.scenes, 4), minutes=spent)
    save()
    if not limit.asked:
        measure()
    if seen >= args.scenes:
        (args.run / "done").touch()


if __name__ == "__main__":
    main()
