"""Write the words that the bundled models know, for vqclip/models/wording.py: `words.json` beside the models.

    python write_words.py DATA --npm node_modules vqclip/models/tiny/words.json

words: those of names, synonyms and tags. emoji: each emoji (and flag) with the name that its drawings have. concepts:
what people say -> the name that drawings have, where only one thing is called so.
"""

import argparse
import json
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from build_data import labels
from colours import COLOURS, SHADES
from compose import TEMPLATES
from names import ALIASES, SYNONYMS, canonical, synonyms

SELDOM = 3  # times that a word must come among the captions of other sets than emoji


def plain(text: str) -> str:
    """Return a name as wording.py leaves it: ASCII letters and digits of single words, without articles."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower().replace("'", "")
    split = "".join(letter if letter.isalnum() else " " for letter in letters).split()
    return " ".join(word for word in split if word not in {"a", "an", "the"})


def known_words(records: list[dict]) -> list[str]:
    """Return the words that captions have, in order."""
    counts: Counter[str] = Counter()
    for record in records:
        for name in {record["name"], *synonyms(record["name"]), *record["tags"]}:
            counts.update({word: SELDOM if record["kind"] in ("emoji", "flag") else 1 for word in plain(name).split()})
    counts.update({word: SELDOM for text in (*COLOURS, *SHADES, *TEMPLATES) for word in plain(text).split()})
    counts.update({word: SELDOM for name in SYNONYMS for text in synonyms(name) for word in plain(text).split()})
    return sorted(word for word, count in counts.items() if count >= SELDOM and not word.isdigit())


def concepts(names: set[str]) -> dict[str, str]:
    """Return what people say -> the name that drawings have, where it is the name of nothing and said of one thing."""
    said = defaultdict(set)
    for name in names:
        for text in synonyms(name):
            said[plain(text)].add(plain(canonical(name)))
    for text, name in ALIASES.items():
        said[plain(text)].add(plain(name))
    taken = {plain(name) for name in names - set(ALIASES)} | set(COLOURS)
    return {text: next(iter(of)) for text, of in sorted(said.items()) if len(of) == 1 and text not in taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--npm", type=Path, required=True, help="node_modules with emojibase-data")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    records = json.loads((args.data / "captions.json").read_text())
    known, countries = labels(args.npm)
    names = {canonical(record["name"]) for record in records if record["kind"] in ("emoji", "flag")}
    emoji = {each["emoji"].replace("\N{VARIATION SELECTOR-16}", ""): plain(name) for name, each in known.items()}
    emoji |= {flag(code): f"flag of {plain(country)}" for code, country in countries.items()}
    content = {"words": known_words(records), "emoji": dict(sorted(emoji.items())), "concepts": concepts(names)}
    args.out.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print({key: len(part) for key, part in content.items()}, args.out.stat().st_size, "bytes")


def flag(code: str) -> str:
    """Return the emoji of a country's or a region's flag."""
    if "-" in code:
        tags = "".join(chr(0xE0000 + ord(letter)) for letter in code.replace("-", ""))
        return f"\N{WAVING BLACK FLAG}{tags}\N{CANCEL TAG}"
    return "".join(chr(0x1F1E6 + ord(letter) - ord("a")) for letter in code)


if __name__ == "__main__":
    main()
