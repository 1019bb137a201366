"""Mini DALL-E's words: byte-level byte-pair encoding in BART's layout, from its vocab.json and merges.txt."""

import functools
import html
import itertools
import json
import re
import unicodedata
from pathlib import Path

from ...errors import IntegrityError, ModelError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "\u0120"  # stands for a space before a word
# What byte-level tokenizers call a word, of what plain() leaves: letters, digits or signs, and the space before them.
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +(?! )")
LONGEST = 2000  # letters of a text that are looked at


def plain(text: str) -> str:
    """Return a text as the model was shown texts: lower case, ASCII, single spaces and one in front.

    Accents fall off their letters, other alphabets and emoji fall out. dalle-mini's own preparation is longer
    (it spells out emoji, splits hashtags and makes commas of all punctuation); plain texts come out the same.
    """
    letters = unicodedata.normalize("NFKD", html.unescape(text[:LONGEST])).lower()
    return "".join(f" {word}" for word in letters.encode("ascii", "ignore").decode().split())


class Words:
    """Turns texts into tokens."""

    def __init__(self, numbers: dict[str, int], merges: list[tuple[str, str]]) -> None:
        """Take the numbers of all pieces, BEGIN, END and UNKNOWN among them, and the merges, the first ones first."""
        self.numbers = numbers
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.begin, self.end, self.unknown = (numbers[name] for name in (BEGIN, END, UNKNOWN))
        self._pieces = functools.lru_cache(maxsize=10_000)(self._split)

    def encode(self, text: str, length: int) -> list[int]:
        """Return at most `length` tokens: the begin, those of the text, the end. A longer text is cut."""
        found = [number for word in WORD.findall(plain(text)) for number in self._pieces(word)]
        return [self.begin, *found[: length - 2], self.end]

    def fits(self, text: str, length: int) -> bool:
        """Say whether all of a text is read."""
        return len(self.encode(text, LONGEST)) <= length and len(text) <= LONGEST

    def _split(self, word: str) -> tuple[int, ...]:
        """Join a word's letters, always the pair that comes first in the merges, until none is left to join."""
        pieces = list(word.replace(" ", SPACE))
        while len(pieces) > 1:
            rank, at = min(
                (self.ranks.get(pair, len(self.ranks)), k) for k, pair in enumerate(itertools.pairwise(pieces))
            )
            if rank == len(self.ranks):
                break
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return tuple(self.numbers.get(piece, self.unknown) for piece in pieces)


def read_words(vocab: Path, merges: Path) -> Words:
    """Read vocab.json and merges.txt. Raises ModelError where one is missing, IntegrityError where it is damaged."""
    try:
        numbers = json.loads(vocab.read_text(encoding="utf-8"))
        lines = [line for line in merges.read_text(encoding="utf-8").splitlines() if not line.startswith("#version")]
        pairs = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
        if not all(isinstance(number, int) for number in numbers.values()):
            raise ValueError("not all of its numbers are whole")
        return Words(numbers, pairs)
    except OSError as error:
        raise ModelError(
            f"a Mini DALL-E needs its words: {error}", f"put {vocab.name} and {merges.name} there"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{vocab} or {merges.name} is damaged: {error!r}", "get both again") from None
