"""Build the training set: 128x128 RGBA pictures and their captions, from package registries.

    python build_data.py DATA --npm node_modules --clipart /usr/share/openclipart

writes `DATA/pictures.npy` (uint8 `[N, 128, 128, 4]`) and `DATA/captions.json`, a list of N records
`{name, tags, colour, source, held_out}`. `--folder DIR` adds pictures of your own: each file's
caption is the text file of the same name beside it, or its file name.

Sources: Noto emoji (Apache-2.0), Fluent emoji (MIT), Twemoji and EmojiOne (CC-BY-4.0), names from
emojibase (MIT), Open Clip Art (public domain).
"""

import argparse
import hashlib
import io
import json
import random
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import cairosvg
import numpy as np
from colours import main_colour
from PIL import Image
from tqdm import tqdm

SIZE = 128
SETS = ("noto", "fluent-emoji-flat", "fluent-emoji", "twemoji", "emojione")
SKIN = re.compile(r"skin-tone|-(light|medium-light|medium|medium-dark|dark)$")
PEOPLE = re.compile(r"couple-with|family-|kiss-|holding-hands-|-(white|red|curly)-hair|-bald|facing-right")
HELD_OUT_SETS = {"fluent-emoji-flat", "fluent-emoji"}


def words(name: str) -> str:
    """Turn a file or icon name into lower-case words."""
    return re.sub(r"\s+", " ", re.sub(r"[^a-z' ]+", " ", name.lower().replace("’", "'"))).strip()


def held_out(name: str) -> bool:
    """Hold out one concept name in ten, by hash, so that the split never moves."""
    return hashlib.sha256(name.encode()).digest()[0] < 26


def icons(npm: Path) -> list[tuple[dict, str]]:
    """Return (record, svg text) for every emoji, skin-tone variants and country flags dropped."""
    labels = {}
    for emoji in json.loads((npm / "emojibase-data/en/data.json").read_text()):
        labels[words(emoji["label"])] = emoji
    result = []
    for source in SETS:
        data = json.loads((npm / "@iconify-json" / source / "icons.json").read_text())
        side = data.get("width", data.get("height", 16))
        for slug, icon in data["icons"].items():
            name = words(slug.replace("-", " "))
            emoji = labels.get(name, {})
            if not name or SKIN.search(slug) or PEOPLE.search(slug) or slug.startswith("flag-"):
                continue
            if "subgroup" in emoji and emoji.get("group") == 9 and "flag" in name and " " in name:
                continue
            width, height = icon.get("width", side), icon.get("height", data.get("height", side))
            svg = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{icon["body"]}</svg>'
            )
            tags = [t for t in map(words, emoji.get("tags", [])) if len(t) > 2]
            out = source in HELD_OUT_SETS and held_out(name)
            result.append(({"name": name, "tags": tags, "source": source, "held_out": out}, svg))
    return result


def clipart(root: Path) -> list[tuple[dict, str]]:
    """Return (record, png path) for the Open Clip Art drawings that say what they show."""
    result = []
    dc, rdf = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    for svg in sorted((root / "svg").rglob("*.svg")):
        png = root / "png" / svg.relative_to(root / "svg").with_suffix(".png")
        if not png.exists():
            continue
        folders = [words(part) for part in svg.relative_to(root / "svg").parts[:-1]]
        title, subjects = "", []
        try:
            for _, node in ElementTree.iterparse(svg):
                if node.tag == f"{dc}title" and not title:
                    title = words(node.text or "")
                elif node.tag == f"{rdf}li":
                    subjects.append(words(node.text or ""))
                elif node.tag == f"{dc}date":
                    break
        except ElementTree.ParseError:
            pass
        name = title if 3 <= len(title) <= 40 else words(svg.stem.replace("_", " "))
        name = " ".join(w for w in name.split() if len(w) > 1)
        junk = {"unsorted", "special", "signs and symbols", "shapes", "clip art", "clipart", "externalsource", ""}
        tags = [t for t in dict.fromkeys(subjects + folders) if len(t) > 2 and t not in junk]
        if ("unsorted" in folders and not subjects) or len(name) < 3 or "flag" in tags or "logos" in folders:
            continue
        result.append(({"name": name, "tags": tags[:8], "source": "openclipart", "held_out": held_out(name)}, str(png)))
    return result


def own(folder: Path) -> list[tuple[dict, str]]:
    """Return (record, path) for a user's folder of captioned pictures."""
    result = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"}):
        text = path.with_suffix(".txt")
        name = text.read_text().strip() if text.exists() else words(path.stem)
        result.append(({"name": name, "tags": [], "source": "own", "held_out": held_out(name)}, str(path)))
    return result


def render(item: tuple[dict, str]) -> tuple[dict, np.ndarray] | None:
    """Draw one source as `[128, 128, 4]` uint8 with its aspect kept, or None where it can't be."""
    record, source = item
    try:
        if source.startswith("<svg"):
            source = io.BytesIO(cairosvg.svg2png(source.encode(), output_width=SIZE, output_height=SIZE))
        with Image.open(source) as file:
            if file.width * file.height > 20_000_000:  # a few posters: minutes each, nothing learnt
                return None
            picture = file.convert("RGBA").convert("RGBa")
    except Exception as error:  # a drawing that one of many libraries refuses is simply left out
        print(f"left out {record['source']}/{record['name']}: {error}")
        return None
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=3)
    canvas = Image.new("RGBa", (SIZE, SIZE))
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    rgba = np.asarray(canvas.convert("RGBA"))
    if (rgba[..., 3] > 128).mean() < 0.02:
        return None
    return record | {"colour": main_colour(rgba)}, rgba


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--npm", type=Path, help="node_modules with the icon sets and emojibase-data")
    parser.add_argument("--clipart", type=Path, help="the openclipart folder (Debian: /usr/share/openclipart)")
    parser.add_argument("--folder", type=Path, help="pictures of your own, captions in .txt files beside them")
    args = parser.parse_args()
    items = icons(args.npm) if args.npm else []
    items += clipart(args.clipart) if args.clipart else []
    items += own(args.folder) if args.folder else []
    random.Random(0).shuffle(items)
    with ProcessPoolExecutor() as pool:
        drawn = [d for d in tqdm(pool.map(render, items, chunksize=16), total=len(items), desc="drawing") if d]
    args.data.mkdir(parents=True, exist_ok=True)
    np.save(args.data / "pictures.npy", np.stack([rgba for _, rgba in drawn]))
    (args.data / "captions.json").write_text(json.dumps([record for record, _ in drawn], indent=0))
    held = sum(record["held_out"] for record, _ in drawn)
    print(f"{len(drawn)} pictures, {held} of them held out, in {args.data}")


if __name__ == "__main__":
    main()
