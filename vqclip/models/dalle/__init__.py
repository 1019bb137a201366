"""Mini DALL-E: a text becomes the codes of an image, which its VQGAN decodes."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.interfaces import Vqgan
from ...core.matmul import replace_linear
from ...core.quantize import lookup
from ...errors import ModelError
from ..formats.read import read_plain
from .bart import PAD, DalleBart
from .checkpoints import PARTNER, WEIGHTS, build, find_one, partner_of, read_config, read_published
from .sampling import BATCH_SIZE, sample
from .tokenizer import Tokenizer, commas, plain, read_tokenizer

PIXELS = ("vqgan", "unit")


class Dalle:
    """A DalleBart with its tokenizer, and what must be known of the VQGAN whose codes it writes."""

    def __init__(self, name: str, model: DalleBart, tokenizer: Tokenizer, *, vqgan: str, pixels: str) -> None:
        """Take a model.

        vqgan: the only one that its codes mean something to. pixels: "unit" if its codes are of images in 0..1 that
        were encoded as if they were in -1..1, as all of dalle-mini's are.
        """
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.vqgan = vqgan
        self.pixels = pixels

    @property
    def side(self) -> int:
        """Codes of an image, per side."""
        return math.isqrt(self.model.shape.image_length)

    def fits(self, text: str) -> bool:
        """Return whether all of a text is read."""
        return self.tokenizer.fits(text, self.model.shape.text_length)

    def tokens(self, text: str) -> Tensor:
        """Return the tokens `[2, S]` of the empty text and of `text`, on the model's device."""
        rows = [self.tokenizer.encode(each, self.model.shape.text_length) for each in ("", text)]
        longest = max(map(len, rows))
        padded = [row + [PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, device=self.model.decoder.embed_tokens.weight.device)

    def sample(
        self, text: str, candidates: Sequence[int], *, seed: int, top_k: int, temperature: float, scale: float
    ) -> Iterator[Tensor]:
        """Sample codes for numbered candidates, at most BATCH_SIZE; yield those so far `[n, k]` after each position."""
        tokens = self.tokens(text)
        return sample(self.model, tokens, candidates, seed=seed, top_k=top_k, temperature=temperature, scale=scale)

    def decode(self, codes: Tensor, vqgan: Vqgan) -> Tensor:
        """Return the images `[n, 3, H, W]` in 0..1 of codes `[n, k]`; positions that have none yet show code 0.

        Raises ModelError for a VQGAN of fewer codes.
        """
        shape = self.model.shape
        if shape.codes > len(vqgan.codebook):
            what = f"the Mini DALL-E {self.name!r} writes {shape.codes} codes, the VQGAN has {len(vqgan.codebook)}"
            raise ModelError(what, "its config.json names another VQGAN than its own")
        padded = codes.new_zeros(len(codes), shape.image_length)
        padded[:, : codes.shape[1]] = codes
        with torch.no_grad():
            z = lookup(padded.unflatten(1, (self.side, self.side)), vqgan.codebook)
            images = torch.cat([vqgan.decode(each) for each in z.split(1)])  # all at once takes memory, saves no time
        return (images * 2 - 1 if self.pixels == "unit" else images).clamp(0, 1)


def load_dalle(
    folder: Path, *, name: str, device: torch.device, normalize: Callable[[str], str] | None = None
) -> Dalle:
    """Load a Mini DALL-E from a folder, frozen: as vqclip keeps one, or as its makers publish it (checkpoints.py).

    normalize: turns a text into what the model was trained on, if that is not known by its kind. Raises ModelError,
    IntegrityError.
    """
    weights = folder / WEIGHTS
    config = read_config(folder / "config.json")
    try:
        model = build(read_plain(weights) if weights.is_file() else read_published(folder), config)
    except ModelError as error:
        raise ModelError(f"{folder} does not load as a Mini DALL-E: {error.what}", error.hint) from None
    pixels = str(config.get("pixels", "unit"))
    if pixels not in PIXELS:
        raise ModelError(f"{folder}/config.json: pixels is {pixels!r}", f"use {' or '.join(PIXELS)}")
    normalize = normalize or (commas if pixels == "unit" else plain)  # dalle-mini's have both in common
    tokenizer = read_tokenizer(find_one(folder, "vocab*.json"), find_one(folder, "merges*.txt"), normalize)
    if max(tokenizer.ids.values(), default=0) >= model.shape.vocabulary:
        what = f"the tokenizer in {folder} is another model's: it has too many tokens"
        raise ModelError(what, "take all files from the same source")
    if (length := model.shape.image_length) != math.isqrt(length) ** 2:
        raise ModelError(f"the Mini DALL-E in {folder} writes {length} codes, which are no square", "get it again")
    replace_linear(model)
    model.requires_grad_(False).eval().to(device)
    return Dalle(name, model, tokenizer, vqgan=str(config.get("vqgan", PARTNER)), pixels=pixels)


__all__ = ["BATCH_SIZE", "PARTNER", "Dalle", "DalleBart", "Tokenizer", "load_dalle", "partner_of"]
