"""Mini DALL-E: a text becomes the codes of a picture, which its VQGAN decodes."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.interfaces import Vqgan
from ...core.matmul import replace_linear
from ...core.quantize import lookup
from ...errors import ModelError
from ..formats.read import read_tensors
from .bart import PAD, DalleBart
from .checkpoints import build, read_config, read_published
from .sampling import LANES, sample
from .tokenizer import Words, read_words

PIXELS = ("vqgan", "unit")
PARTNER = "imagenet_f16_16384"  # of the published ones, which know no config of ours


class Dalle:
    """A DalleBart with its words, and what must be known of the VQGAN whose codes it writes."""

    def __init__(self, name: str, model: DalleBart, words: Words, *, vqgan: str, pixels: str) -> None:
        """Take a model.

        vqgan: the only one that its codes mean something to. pixels: "unit" where its codes are of pictures in 0..1
        that were encoded as if they were in -1..1, as all of dalle-mini's are.
        """
        self.name, self.model, self.words, self.vqgan, self.pixels = name, model, words, vqgan, pixels

    @property
    def side(self) -> int:
        """How many codes a picture has a side."""
        return math.isqrt(self.model.shape.image_length)

    def fits(self, text: str) -> bool:
        """Say whether all of a text is read."""
        return self.words.fits(text, self.model.shape.text_length)

    def tokens(self, text: str) -> Tensor:
        """Return the tokens `[2, S]` of the empty text and of `text`, on the model's device."""
        told = [self.words.encode(each, self.model.shape.text_length) for each in ("", text)]
        rows = [row + [PAD] * (max(map(len, told)) - len(row)) for row in told]
        return torch.tensor(rows, device=self.model.decoder.embed_tokens.weight.device)

    def sample(
        self, text: str, candidates: Sequence[int], *, seed: int, top_k: int, temperature: float, scale: float
    ) -> Iterator[Tensor]:
        """Draw codes for numbered candidates, LANES at most; yield those so far `[n, k]` after each place."""
        return sample(self.model, self.tokens(text), candidates,
                      seed=seed, top_k=top_k, temperature=temperature, scale=scale)  # fmt: skip

    def decode(self, codes: Tensor, vqgan: Vqgan) -> Tensor:
        """Return the pictures `[n, 3, H, W]` in 0..1 of codes `[n, k]`; places that have none yet show code 0.

        Raises ModelError for a VQGAN of fewer codes.
        """
        if (told := self.model.shape.codes) > len(vqgan.codebook):
            what = f"the Mini DALL-E {self.name!r} writes {told} codes, the VQGAN has {len(vqgan.codebook)}"
            raise ModelError(what, "its config.json names another VQGAN than its own")
        whole = codes.new_zeros(len(codes), self.model.shape.image_length)
        whole[:, : codes.shape[1]] = codes
        with torch.no_grad():
            z = lookup(whole.unflatten(1, (self.side, self.side)), vqgan.codebook)
            image = torch.cat([vqgan.decode(one) for one in z.split(1)])  # together they take memory and save no time
        return (image * 2 - 1 if self.pixels == "unit" else image).clamp(0, 1)


def load_dalle(folder: Path, *, name: str, device: torch.device) -> Dalle:
    """Load a Mini DALL-E from a folder, frozen: as vqclip keeps one, or as its makers publish it.

    vqclip's: config.json, model.safetensors, vocab.json, merges.txt. Theirs: encoder*.pt, decoder*.pt or
    flax_model.msgpack, with vocab*.json and merges*.txt. Raises ModelError, IntegrityError.
    """
    plain = folder / "model.safetensors"
    config = read_config(folder / "config.json")
    try:
        model = build(read_tensors(plain) if plain.is_file() else read_published(folder), config)
    except ModelError as error:
        raise ModelError(f"{folder} does not load as a Mini DALL-E: {error.what}", error.hint) from None
    words = read_words(*(find_one(folder, pattern) for pattern in ("vocab*.json", "merges*.txt")))
    if max(words.numbers.values(), default=0) >= model.shape.words:
        raise ModelError(f"the words in {folder} are another model's: they are too many", "take all from one place")
    if (length := model.shape.image_length) != math.isqrt(length) ** 2:
        raise ModelError(f"the Mini DALL-E in {folder} draws {length} codes, which make no square", "get it again")
    vqgan, pixels = partner_of(folder), str(config.get("pixels", "unit"))
    if pixels not in PIXELS:
        raise ModelError(f"{folder}/config.json: pixels is {pixels!r}", f"use {' or '.join(PIXELS)}")
    replace_linear(model)
    return Dalle(name, model.requires_grad_(False).eval().to(device), words, vqgan=vqgan, pixels=pixels)


def partner_of(folder: Path) -> str:
    """Return the VQGAN that the codes of the Mini DALL-E in a folder are of. Raises IntegrityError."""
    return str(read_config(folder / "config.json").get("vqgan", PARTNER))


def find_one(folder: Path, pattern: str) -> Path:
    """Return the one file of a pattern. Raises ModelError where there is none, or more."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ModelError(f"{folder} has {len(found)} files {pattern}, not one", "take all files from one place")
    return found[0]


__all__ = ["LANES", "Dalle", "DalleBart", "Words", "load_dalle"]
