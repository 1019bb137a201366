"""What people type, as the bundled models were taught it: so that one thing said in several ways is one image.

Emoji become their names; capitals, accents, hyphens, punctuation, articles, British spelling and plurals that no
caption has make no difference; a thing is called by the name that it has in captions. words.json is written by
examples/train_tiny/write_words.py. Public models keep their own tokenizers' rules.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..files.reading import read_record
from ..text import brief, nearest

FILE = Path(__file__).parent / "tiny" / "words.json"
MAX_FILE = 2_000_000  # bytes
LONGEST = 2000  # letters of a text that are looked at
ARTICLES = {"a", "an", "the"}
COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray"}
AMERICAN = {
    "aeroplane": "airplane",
    "colour": "color",
    "colourful": "colorful",
    "grey": "gray",
    "jewellery": "jewelry",
    "moustache": "mustache",
    "plough": "plow",
    "pyjamas": "pajamas",
    "tyre": "tire",
}
JOINING = {"and", "or", "on", "in", "at", "of", "with", "next", "to", "beside", "over", "under", "behind", "background"}
ELSEWHERE = "vqclip models words lists what they know, vqclip models pull standard gets public ones"
BEYOND = re.compile(  # what a text says of how, by whom or where
    r"\b(in the style of|style of|painted by|art by|drawn by|directed by|(?:oil |acrylic )?painting of|watercolou?rs?\b"
    r"|photo(?:graph)? of|photorealistic|hyperrealistic|portrait of|landscape|seascape|street scene"
    r"|trending on \w+|unreal engine|octane render|concept art|cinematic|surrealis[tm]|impressionis[tm]|cubis[tm]"
    r"|art nouveau|baroque|van gogh|picasso|monet|dal[ií]|rembrandt|rutkowski)\b",
    re.IGNORECASE,
)
JOINTS = re.compile(r" (?:and|or|on|in|next to|beside|over|under|behind) ")
LEFT_OUT = dict.fromkeys([0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)])  # how an emoji is shown, and its skin tone


class WordsFile(BaseModel):
    """A words.json. emoji: sequence -> name; concepts: what people say -> the name that captions have."""

    model_config = ConfigDict(strict=True)

    words: list[str]
    emoji: dict[str, str]
    concepts: dict[str, str]


@dataclass(frozen=True)
class Wording:
    """The words of the captions, and what is said instead of them."""

    words: frozenset[str]
    emoji: dict[str, str]
    concepts: dict[str, str]

    def normalize(self, text: str) -> str:
        """Return a text in the words of the captions: lower-case ASCII, one article, in front; "" for none."""
        words = [self._known(word) for word in self._plain(text).split() if word not in ARTICLES]
        plain = " ".join(words)
        if not plain:
            return ""
        phrases, joints = JOINTS.split(plain), JOINTS.findall(plain)
        named = [self._name(phrase) for phrase in phrases]
        return "a " + "".join(a + b for a, b in zip(named, [*joints, ""], strict=True))

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that no caption has."""
        return [word for word in self.normalize(text).split()[1:] if word not in self.words and not word.isdigit()]

    def names(self, prefix: str = "") -> list[str]:
        """Return the words that texts are known by and begin so, and the names of several words with such a word."""
        prefix = self._plain(prefix).strip()
        names = {*self.words, *self.emoji.values(), *self.concepts}
        return sorted(name for name in names if any(word.startswith(prefix) for word in (name, *name.split())))

    def remarks(self, text: str) -> list[str]:
        """Return a line for what the models can not know of a text: no word of it, or a style, an artist, a scene.

        With the known names that are most like it.
        """
        words = [word for word in self.normalize(text).split()[1:] if word not in COLOURS and word not in JOINING]
        unknown = [word for word in words if word not in self.words and not word.isdigit()]
        if words and unknown == words:
            like = [name for word in unknown[:3] for name in nearest(word, self.words, 2)]
            named = f"; names like it: {', '.join(dict.fromkeys(like))}" if like else ""
            return [f"the bundled models know no word of {brief(text)}{named}; {ELSEWHERE}"]
        if not words and self._plain(text).strip() == "" and text.strip():
            return [f"the bundled models read Latin letters and emoji, of which {brief(text)} has none; {ELSEWHERE}"]
        if found := BEYOND.search(text):
            return [f"the bundled models draw single things, no styles, artists or scenes ({found[0]}); {ELSEWHERE}"]
        return []

    def _plain(self, text: str) -> str:
        """Return a text in lower-case ASCII letters and digits, its emoji spelt out."""
        text = text[:LONGEST]
        if not text.isascii():
            text = self._spelt_out(text)
        letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z0-9]+", " ", re.sub(r"'s\b", "s", letters))

    def _spelt_out(self, text: str) -> str:
        """Return a text with its emoji's names in their places, and typographic signs as they are typed."""
        text = self._sequence.sub(lambda found: f" {self.emoji[found[0]]} ", text.translate(LEFT_OUT))
        text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        return "".join(" " if not c.isascii() and unicodedata.category(c)[0] in "PSZ" else c for c in text)

    @functools.cached_property
    def _sequence(self) -> re.Pattern[str]:
        """Return what finds an emoji, the longest of those that begin alike."""
        return re.compile("|".join(re.escape(each) for each in sorted(self.emoji, key=len, reverse=True)))

    def _known(self, word: str) -> str:
        """Return the form of a word that captions have: American, and the singular if only that is known."""
        word = AMERICAN.get(word, word)
        return word if word in self.words else next(singulars(word, self.words), self._apart.get(word, word))

    @functools.cached_property
    def _apart(self) -> dict[str, str]:
        """Return names of several words by how they are written as one: "thumbsup"."""
        names = {*self.emoji.values(), *self.concepts}
        return {name.replace(" ", ""): name for name in sorted(names) if " " in name}

    def _name(self, phrase: str) -> str:
        """Return what captions call a thing, after its colour."""
        words = phrase.split(" ")
        colours = [*itertools.takewhile(COLOURS.__contains__, words[:-1])]
        thing = " ".join(words[len(colours) :])
        found = self.concepts.get(thing) or next((self.concepts[each] for each in singulars(thing, self.concepts)), "")
        name = found or self.concepts.get(phrase) or thing
        if colours:  # what was typed wins over the colour that the drawings have
            name = " ".join([colours[0], *itertools.dropwhile(COLOURS.__contains__, name.split())])
        return name


def singulars(word: str, known: Container[str]) -> Iterator[str]:
    """Yield what a word may be the plural of, of what is known."""
    for ending, instead in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        singular = word.removesuffix(ending) + instead
        if word.endswith(ending) and singular in known:
            yield singular


@functools.cache
def bundled() -> Wording:
    """Return the wording of the bundled models."""
    file = read_record(FILE, WordsFile, MAX_FILE)
    return Wording(frozenset(file.words), file.emoji, file.concepts)


def normalize(text: str) -> str:
    """Return a text in the words of the bundled models' captions."""
    return bundled().normalize(text)
