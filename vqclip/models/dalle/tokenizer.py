"""Mini DALL-E's tokenizer: byte-level byte-pair encoding in BART's layout, from its vocab.json and merges.txt."""

import contextlib
import functools
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import InputError, IntegrityError, ModelError
from ...files.reading import decode, read_bytes, read_json
from ..byte_pairs import join_pairs
from ..formats.read import rename

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "\u0120"  # stands for the space before a word
# What byte-level tokenizers call a word, of what plain() leaves: letters, digits or signs, and the space before them.
WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +(?! )")
LONGEST = 2000  # letters of a text that are looked at
LONGEST_VOCABULARY = 100_000_000  # bytes


def plain(text: str) -> str:
    """Return a text as vqclip's own models are trained on: lower case, ASCII, single spaces and one in front.

    Accents are removed from their letters; other alphabets and emoji are dropped.
    """
    letters = unicodedata.normalize("NFKD", html.unescape(text[:LONGEST])).lower()
    return "".join(f" {word}" for word in letters.encode("ascii", "ignore").decode().split())


def commas(text: str) -> str:
    """Return a text as dalle-mini's are trained on: `plain`, and all punctuation as commas.

    After its TextNormalizer (borisdayma/dalle-mini, src/dalle_mini/model/text.py), but for what takes a list of words
    or another package: hashtags are not split, other alphabets are dropped and not spelled in ASCII.
    """
    text = rename(plain(html.unescape(text[:LONGEST]).translate(TYPED)), PUNCTUATION)
    return f" {text.strip().removesuffix(',').removeprefix(',').strip()}"


TYPED = str.maketrans("\u2018\u2019\u201c\u201d\u201e\u2013\u2014", '\'\'"""--')  # as keyboards have them
DOT, QUOTE, SLASH = "\1", "\2", "\3"  # stand for those that stay what they are: in numbers, 's, dates
PUNCTUATION = (
    (r"^\s*\[\d+\]|\[\d+\]\s*$", ""),  # a reference of Wikipedia's
    (r"<[^<]+?>|http\S+", ""),  # marks of HTML; an address to its end
    (r"(?<=\d),(?=\d{3})", ""),
    (r"(\w)\.(\w)", rf"\1{DOT}\2"),
    (r"'(?=(?:[stdm]|ll|re|ve)\b)", QUOTE),
    (r"(\d)/(\d)", rf"\1{SLASH}\2"),
    (r"(\w)-(\w)", r"\1 \2"),
    (r"([%&/$*])", r" \1 "),
    (r"[_#\\]", " "),
    (r"['\"`]", ' " '),
    (r"[()[\].,|:;?!=+~\-/{}]", ","),
    (DOT, "."),
    (QUOTE, "'"),
    (SLASH, "/"),
    (r"(\D)\1{3,}", r"\1"),  # four of the same and more
    (r'(?:\s*"\s*)+', ' " '),
    (r"(?:\s*,\s*)+", ", "),
    (r"\s+", " "),
)


class Tokenizer:
    """Turns texts into tokens."""

    def __init__(
        self, ids: dict[str, int], merges: list[tuple[str, str]], normalize: Callable[[str], str] = plain
    ) -> None:
        """Take the ids of all pieces, BEGIN, END and UNKNOWN among them, and the merges, the first ones first.

        normalize: turns a text into what the model was trained on, `plain` or `commas`.
        """
        self.ids = ids
        self.normalize = normalize
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.begin, self.end, self.unknown = (ids[name] for name in (BEGIN, END, UNKNOWN))
        self._of_word = functools.lru_cache(maxsize=10_000)(self._encode_word)

    def encode(self, text: str, length: int) -> list[int]:
        """Return at most `length` tokens: the begin, those of the text, the end. A longer text is cut."""
        tokens = [token for word in WORD.findall(self.normalize(text)) for token in self._of_word(word)]
        return [self.begin, *tokens[: length - 2], self.end]

    def fits(self, text: str, length: int) -> bool:
        """Return whether all of a text is read."""
        return len(self.encode(text, LONGEST)) <= length and len(text) <= LONGEST

    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Join a word's letters, always the pair that comes first in the merges, until none is left to join."""
        pieces = join_pairs(list(word.replace(" ", SPACE)), self.ranks)
        return tuple(self.ids.get(piece, self.unknown) for piece in pieces)


def read_tokenizer(vocabulary: Path, merges: Path, normalize: Callable[[str], str] = plain) -> Tokenizer:
    """Read vocab.json and merges.txt. Raises ModelError if one is missing, IntegrityError if one is damaged."""
    for path in (vocabulary, merges):
        if not path.is_file():
            hint = f"put {vocabulary.name} and {merges.name} there"
            raise ModelError(f"a Mini DALL-E needs its tokenizer: there is no {path}", hint)
    return Tokenizer(read_vocabulary(vocabulary), read_merges(merges), normalize)


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return the ids of all pieces. Raises IntegrityError for what is none of a Mini DALL-E."""
    with _reading(path):
        ids = read_json(path, LONGEST_VOCABULARY)
        if not all(isinstance(token, int) for token in ids.values()):
            raise ValueError("not all of its ids are whole numbers")
        for name in (BEGIN, END, UNKNOWN):
            if name not in ids:
                raise ValueError(f"it has no {name}")
        return dict(ids)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the pairs that are joined, the first ones first. Raises IntegrityError for what is no list of them."""
    with _reading(path):
        lines = decode(read_bytes(path, LONGEST_VOCABULARY), str(path)).split("\n")
        return [(left, right) for left, right in (line.split(" ") for line in lines if line and line[:8] != "#version")]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, ValueError, TypeError, AttributeError) as error:
        reason = error.what if isinstance(error, InputError) else str(error)
        raise IntegrityError(f"{path} is damaged: {reason}", "get it again") from None
