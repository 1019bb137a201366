"""CLIP's tokenizer: byte-level byte-pair encoding where a word's end is part of its last piece (Radford et al. 2021).

For plain text, as `normalize` of wording.py leaves it; open_clip's own, which public models have, also mends broken
encodings and knows other alphabets.
"""

import functools
import gzip
import io
import re
from pathlib import Path

import torch
from torch import Tensor

from ..errors import IntegrityError
from ..files.reading import read_bytes
from .byte_pairs import join_pairs

END_OF_WORD = "</w>"
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[a-z]+|[0-9]|[^\sa-z0-9]+")
MAX_FILE = 10_000_000  # bytes of merges, packed or not; the whole list of CLIP has 3 MB


class ClipTokenizer:
    """Turns plain lower-case ASCII texts into tokens."""

    def __init__(self, merges: list[tuple[str, str]], context_length: int) -> None:
        """Take the merges, the first ones first, and how many tokens the text encoder reads."""
        letters = byte_letters()
        pieces = [*letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges)]
        self.ids = {piece: number for number, piece in enumerate(pieces)}
        self.begin, self.end = len(pieces), len(pieces) + 1
        self.context_length = context_length
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._of_word = functools.lru_cache(maxsize=10_000)(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without begin and end."""
        return [token for word in WORD.findall(text) for token in self._of_word(word)]

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the tokens `[n, context_length]`, zeros after the end; a longer text is cut before its end."""
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            tokens = [self.begin, *self.encode(text)[: self.context_length - 2], self.end]
            row[: len(tokens)] = row.new_tensor(tokens)
        return rows

    def _encode_word(self, word: str) -> list[int]:
        pieces = [*word[:-1], word[-1] + END_OF_WORD]  # of ASCII, each letter stands for itself
        return [self.ids[piece] for piece in join_pairs(pieces, self._ranks)]


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte: printable ones for themselves first, then the others."""
    printable = [chr(code) for code in range(256) if chr(code).isprintable() and not chr(code).isspace()]
    return printable + [chr(256 + k) for k in range(256 - len(printable))]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read a list of merges packed by gzip, a heading and then a pair a line. Raises InputError, IntegrityError."""
    packed = read_bytes(path, MAX_FILE)
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            lines = file.read(MAX_FILE).decode().splitlines()[1:]
        return [(left, right) for left, right in (line.split() for line in lines if line)]
    except (OSError, EOFError, ValueError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "get the file again") from None
