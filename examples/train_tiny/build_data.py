"""Build the training set: 256x256 RGBA pictures and their names, from package registries.

    python build_data.py DATA --npm node_modules --clipart /usr/share/openclipart

writes `DATA/pictures.npy` (uint8 `[N, 256, 256, 4]`), `DATA/pictures128.npy` (the same at half the size, for what
doesn't need more), `DATA/captions.json`, a list of N records `{name, tags, colour, kind, source, from, licence,
held_out}`, and `DATA/sources.md`, a table of what came from where. `--folder DIR` adds pictures of your own: each
file's caption is the text file of the same name beside it, or its file name. `--captions` writes the records anew and
leaves the pictures.

kind: `emoji` (a thing, in colour), `icon` (of a user interface, drawn in few colours), `flag` (of a country) or
`clipart`. What each source is and may be used for is in its package; only permissive and attribution licences are taken.
"""

import argparse
import functools
import hashlib
import io
import json
import random
import re
import unicodedata
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import cairosvg
import numpy as np
from colours import main_colour
from PIL import Image, ImageDraw
from tqdm import tqdm

SIZE = 256
# Sets of @iconify-json by what they hold. The sets of one maker draw one thing alike: one of them is enough of each.
EMOJI = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-emoji", "twemoji", "emojione", "fxemoji", "streamline-emojis")
ICONS = ("flat-color-icons", "streamline-kameleon-color", "streamline-stickies-color", "streamline-ultimate-color",
         "streamline-color", "streamline-plump-color", "fluent-color", "meteocons")  # fmt: skip
FLAGS = ("circle-flags", "flag", "cif", "flagpack")
FREE = {"Apache-2.0", "MIT", "CC0-1.0", "CC-BY-4.0"}
SKIN = re.compile(r"skin-tone|-(light|medium-light|medium|medium-dark|dark)$")
PEOPLE = re.compile(r"couple-with|family-|kiss-|holding-hands-|-(white|red|curly)-hair|-bald|facing-right")
HELD_OUT_SETS = {"fluent-emoji-flat", "fluent-emoji"}
# Ends of an icon's name that tell how, not what, is drawn.
MANNER = re.compile(r"(-(flat|duo|fill|thin|alternate|1x1|\d+))+$")
COLLECTION = re.compile(
    r"^(aiga|nicubunu|architetto|gerald|etiquette)\b|\b(architetto \w+|gerald g|jean victor balin|francesco rollandin.*|nicu bucule.*)$"
)
# What no picture of an icon set shows well enough to be named by it, and other makers' signs.
NO_THING = re.compile(
    r"regional-indicator|keycap|^lang-|logo|uv-index|beaufort|pressure-|-code-|^code-|^(facebook|twitter|google|paypal|spotify|"
    r"android|apple-|microsoft|linkedin|youtube|instagram|whatsapp|skype|visa|mastercard|amazon|adobe|dropbox|slack|github|"
    r"tiktok|snapchat|pinterest|netflix|discord|telegram|wechat|line-|meta|web|layout|align|text-|arrow-|cursor|file-|interface)"
)


def words(name: str) -> str:
    """Turn a file or icon name into lower-case words."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("’", "'").replace("&", " and "))
    plain = plain.encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", re.sub(r"[^a-z' ]+", " ", plain)).strip()


def held_out(name: str) -> bool:
    """Hold out one concept name in ten, by hash, so that the split never moves."""
    return hashlib.sha256(name.encode()).digest()[0] < 26


def labels(npm: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Return emojibase's record for each emoji's name, and each country's name by its code."""
    known, countries = {}, {}
    for emoji in json.loads((npm / "emojibase-data/en/data.json").read_text()):
        label = emoji["label"]
        if label.startswith("flag: "):
            points = [int(point, 16) for point in emoji["hexcode"].split("-")]
            if points[0] == 0x1F3F4:  # a black flag and then the letters of a region as tags: England, Scotland, Wales
                code = "".join(chr(point - 0xE0000) for point in points[1:-1])
                code = f"{code[:2]}-{code[2:]}"
            else:
                code = "".join(chr(point - 0x1F1E6 + ord("a")) for point in points)
            countries[code] = words(re.sub(r"\(.*\)|SAR China", "", label[6:]).replace("St.", "Saint"))
        else:
            known[words(label)] = emoji
    return known, countries


@functools.cache
def split(joined: str, vocabulary: frozenset[str]) -> tuple[str, ...] | None:
    """Take apart what was written without spaces, into as few known words as can be."""
    if not joined:
        return ()
    found = None
    for end in range(len(joined), 1, -1):
        if joined[:end] in vocabulary:
            rest = split(joined[end:], vocabulary)
            if rest is not None and (found is None or len(rest) + 1 < len(found)):
                found = (joined[:end], *rest)
    return found


def country_of(source: str, slug: str, countries: dict[str, str]) -> str | None:
    """Return the country whose flag an icon shows, or None."""
    names = set(countries.values())
    if source in FLAGS:
        slug = slug.removesuffix("-4x3").replace("gb-ukm", "gb")
        return countries.get(slug)
    name = words(slug.replace("-", " "))
    if name in names and source == "streamline-emojis":
        return name
    for start in ("flag for flag ", "flag for ", "flag "):
        if name.startswith(start):
            rest = name.removeprefix(start).replace("st ", "saint ")
            return rest if rest in names else None
    return None


def icons(npm: Path) -> list[tuple[dict, str]]:
    """Return (record, svg text) for every icon that is wanted; skin tones and most families are dropped."""
    known, countries = labels(npm)
    vocabulary = frozenset(w for name, e in known.items() for w in (*name.split(), *map(words, e.get("tags", []))))
    result = []
    for source in (*EMOJI, *ICONS, *FLAGS):
        folder = npm / "@iconify-json" / source
        data = json.loads((folder / "icons.json").read_text())
        licence = json.loads((folder / "info.json").read_text())["license"]["spdx"]
        if licence not in FREE:
            raise SystemExit(f"{source} is {licence}: leave it out of the sets")
        wide, high = data.get("width", 16), data.get("height", 16)
        seen = set()
        for slug, icon in data["icons"].items():
            if icon.get("hidden") or SKIN.search(slug) or PEOPLE.search(slug) or slug.startswith("keycap"):
                continue
            country = country_of(source, slug, countries)
            kind = "flag" if country else "icon" if source in ICONS else "emoji"
            if country:
                name, emoji = f"flag of {country}", {}
            elif source in FLAGS or slug.startswith("flag-for") or (slug.startswith("flag-") and source == "twemoji"):
                continue
            elif kind == "icon":
                name, emoji = words(MANNER.sub("", slug).replace("-", " ")), {}
                if NO_THING.search(slug) or not 3 <= len(name) <= 32 or len(name.split()) > 3:
                    continue
                same = (name, slug.endswith(("-flat", "-fill")))
                if same in seen:  # sizes and numbered variants of one thing
                    continue
                seen.add(same)
            else:
                name = words(slug.replace("-", " "))
                if source == "fxemoji":
                    name = " ".join(split(name.replace(" ", ""), vocabulary) or [name])
                if source == "streamline-emojis":
                    name = re.sub(r"( \d)+$", "", name)
            emoji = {} if country else known.get(name, {})
            if not name:
                continue
            left, top = icon.get("left", 0), icon.get("top", 0)
            svg = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{left} {top} {icon.get("width", wide)} {icon.get("height", high)}">{clipped(icon["body"])}</svg>'
            )
            tags = [t for t in map(words, emoji.get("tags", [])) if len(t) > 2]
            result.append(({
                "name": name, "tags": tags, "kind": kind, "source": source, "from": slug, "licence": licence,
                "held_out": source in HELD_OUT_SETS and held_out(name),
            }, svg))  # fmt: skip
    return result


def clipped(body: str) -> str:
    """Turn masks that are plain white shapes into clipping paths: the renderer misplaces masks."""
    for name, mask in re.findall(r'<mask id="([^"]+)"[^>]*>(.*?)</mask>', body, re.DOTALL):
        if set(re.findall(r'fill="([^"]*)"', mask)) <= {"#fff", "white"} and "opacity" not in mask:
            body = re.sub(
                rf'<mask id="{name}"[^>]*>.*?</mask>', f'<clipPath id="{name}">{mask}</clipPath>', body, flags=re.DOTALL
            )
            body = body.replace(f'mask="url(#{name})"', f'clip-path="url(#{name})"')
    return body


def framed(picture: Image.Image) -> Image.Image:
    """Draw a thin grey frame around a flag, whose white parts would have no edge on white."""
    box = picture.getchannel("A").getbbox()
    if box and np.asarray(picture.getchannel("A").crop(box)).mean() > 245:  # a rectangle that is filled
        left, top, right, bottom = box
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=(200, 202, 205, 255), width=2)
    return picture


def clipart(root: Path) -> list[tuple[dict, str]]:
    """Return (record, png path) for the Open Clip Art drawings that say what they show."""
    result = []
    dc, rdf = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    for svg in sorted((root / "svg").rglob("*.svg")):
        relative = svg.relative_to(root / "svg")
        png = root / "png" / relative.with_suffix(".png")
        if not png.exists():
            continue
        folders = [words(part) for part in relative.parts[:-1]]
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
        result.append(({
            "name": name, "tags": tags[:8], "kind": "clipart", "source": "openclipart", "from": str(relative),
            "licence": "public domain", "held_out": held_out(name),
        }, str(png)))  # fmt: skip
    # A title that many drawings share is the name of a collection: the file's name says what is there.
    shared = Counter(record["name"] for record, _ in result)
    for record, _ in result:
        stem = " ".join(w for w in words(Path(record["from"]).stem.replace("_", " ")).split() if len(w) > 1)
        if shared[record["name"]] > 2 and len(stem) > 2:
            record["name"] = COLLECTION.sub("", stem).strip() or stem
    return result


def own(folder: Path) -> list[tuple[dict, str]]:
    """Return (record, path) for a user's folder of captioned pictures."""
    result = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"}):
        text = path.with_suffix(".txt")
        name = text.read_text().strip() if text.exists() else words(path.stem)
        result.append(({
            "name": name, "tags": [], "kind": "emoji", "source": "own", "from": str(path.relative_to(folder)),
            "licence": "own", "held_out": held_out(name),
        }, str(path)))  # fmt: skip
    return result


def half(rgba: np.ndarray) -> np.ndarray:
    """Halve `[H, W, 4]` uint8 with each pixel's colour weighed by how opaque it is."""
    parts = rgba.reshape(rgba.shape[0] // 2, 2, rgba.shape[1] // 2, 2, 4).astype(np.float32)
    alpha = parts[..., 3:]
    total = alpha.sum((1, 3))
    rgb = (parts[..., :3] * alpha).sum((1, 3)) / np.maximum(total, 1)
    return np.concatenate([rgb, total / 4], -1).round().astype(np.uint8)


def render(item: tuple[dict, str]) -> tuple[dict, np.ndarray] | None:
    """Draw one source as `[256, 256, 4]` uint8 with its aspect kept, or None where it can't be."""
    record, source = item
    try:
        if source.startswith("<svg"):
            source = io.BytesIO(cairosvg.svg2png(source.encode(), output_width=SIZE, output_height=SIZE))
        with Image.open(source) as file:
            if file.width * file.height > 20_000_000:  # a few posters: minutes each, nothing learnt
                return None
            picture = file.convert("RGBA")
            if record["kind"] in ("clipart", "icon") and picture.getchannel("A").getbbox():
                picture = picture.crop(picture.getchannel("A").getbbox())  # sheets with a drawing somewhere on them
            picture = (framed(picture) if record["kind"] == "flag" else picture).convert("RGBa")
    except Exception as error:  # a drawing that one of many libraries refuses is simply left out
        print(f"left out {record['source']}/{record['from']}: {error!r}"[:200])
        return None
    scale = SIZE / max(picture.size)
    if scale > 2.5:
        return None  # nothing but blur
    if scale > 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=3)
    canvas = Image.new("RGBa", (SIZE, SIZE))
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    rgba = np.asarray(canvas.convert("RGBA"))
    if (rgba[..., 3] > 128).mean() < 0.02:
        return None
    return record | {"colour": main_colour(half(rgba))}, rgba


def table(records: list[dict]) -> str:
    """Return a Markdown table of the sources, their licences and how many pictures came from each."""
    rows = ["| source | licence | pictures |", "|---|---|---|"]
    for source, licence in sorted({(r["source"], r["licence"]) for r in records}):
        rows.append(f"| {source} | {licence} | {sum(r['source'] == source for r in records)} |")
    return "\n".join(rows) + "\n"


def redraw(data: Path, items: dict[tuple[str, str], tuple[dict, str]]) -> None:
    """Draw some pictures of a data set anew, each where it is."""
    large, small = (np.load(data / f"{name}.npy", mmap_mode="r+") for name in ("pictures", "pictures128"))
    records = json.loads((data / "captions.json").read_text())
    for k, record in enumerate(tqdm(records, mininterval=5)):
        if drawn := (item := items.get((record["source"], record["from"]))) and render(item):
            records[k], large[k], small[k] = drawn[0], drawn[1], half(drawn[1])
    (data / "captions.json").write_text(json.dumps(records, indent=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--npm", type=Path, help="node_modules with the icon sets and emojibase-data")
    parser.add_argument("--clipart", type=Path, help="the openclipart folder (Debian: /usr/share/openclipart)")
    parser.add_argument("--folder", type=Path, help="pictures of your own, captions in .txt files beside them")
    parser.add_argument("--captions", action="store_true", help="only name anew what is drawn")
    parser.add_argument("--again", nargs="+", metavar="SOURCE", default=[], help="only draw these anew, where they are")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    args = parser.parse_args()
    items = icons(args.npm) if args.npm else []
    items += clipart(args.clipart) if args.clipart else []
    items += own(args.folder) if args.folder else []
    if args.captions:
        old = json.loads((args.data / "captions.json").read_text())
        new = {(record["source"], record["from"]): record for record, _ in items}
        records = [{**record, **new[record["source"], record["from"]]} for record in old]
        (args.data / "captions.json").write_text(json.dumps(records, indent=0))
        return
    if args.again:
        redraw(args.data, {(record["source"], record["from"]): (record, svg) for record, svg in items
                           if record["source"] in args.again})  # fmt: skip
        return
    random.Random(0).shuffle(items)
    args.data.mkdir(parents=True, exist_ok=True)
    large = np.lib.format.open_memmap(args.data / "pictures.part", "w+", np.uint8, (len(items), SIZE, SIZE, 4))
    small, records = np.empty((len(items), SIZE // 2, SIZE // 2, 4), np.uint8), []
    with ProcessPoolExecutor(args.workers) as pool:
        for drawn in tqdm(pool.map(render, items, chunksize=16), total=len(items), desc="drawing", mininterval=5):
            if drawn:
                large[len(records)], small[len(records)] = drawn[1], half(drawn[1])
                records.append(drawn[0])
    del large
    (args.data / "pictures.part").replace(args.data / "pictures.npy")  # what was left out stays empty, at the end
    np.save(args.data / "pictures128.npy", small[: len(records)])
    (args.data / "captions.json").write_text(json.dumps(records, indent=0))
    (args.data / "sources.md").write_text(table(records))
    held = sum(record["held_out"] for record in records)
    print(f"{len(records)} pictures, {held} of them held out, in {args.data}")


if __name__ == "__main__":
    main()
