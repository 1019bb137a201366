"""Let somebody who has seen no prompt name images, and count how often they are right.

python examples/blind.py sheets SHEETS IMAGES...     numbered sheets in random order, a form, and the key
python examples/blind.py table SHEETS                how many were named; see guides/blind-naming.md
"""

import argparse
import csv
import random
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vqclip.files.images import tile
from vqclip.runs.records import read

COLUMNS, ROWS, SIDE = 4, 3, 384
FORM, KEY, MARKS = "form.csv", "key.csv", "marks.csv"
SMALL = {"a", "an", "the", "of", "with", "and", "on"}


def make_sheets(folder: Path, images: list[Path], seed: int) -> None:
    """Write sheets without prompts, the form to fill in, and the key, which whoever names must not see."""
    folder.mkdir(parents=True)
    random.Random(seed).shuffle(images)
    cells = [numbered(path, number) for number, path in enumerate(images, 1)]
    for k in range(0, len(cells), COLUMNS * ROWS):
        sheet = tile(cells[k : k + COLUMNS * ROWS], columns=COLUMNS, gap=16, margin=16)
        sheet.save(folder / f"sheet-{k // (COLUMNS * ROWS) + 1:02d}.png")
    write(folder / FORM, [{"number": number, "name": "", "confident": ""} for number in range(1, len(images) + 1)])
    prompts = [read(path)["settings"]["prompt"] for path in images]
    write(
        folder / KEY, [{"number": k, "prompt": prompt, "image": images[k - 1]} for k, prompt in enumerate(prompts, 1)]
    )
    print(f"{folder}: have the sheets named in {FORM} by eyes that have seen neither {KEY} nor the images' names")


def numbered(path: Path, number: int) -> Image.Image:
    """Return an image with its number below."""
    cell = Image.new("RGB", (SIDE, SIDE + 36), "white")
    with Image.open(path) as image:
        cell.paste(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    ImageDraw.Draw(cell).text((SIDE // 2, SIDE + 4), str(number), "black", ImageFont.load_default(26), anchor="ma")
    return cell


def print_table(folder: Path) -> None:
    """Count what is marked as right; write what is to be marked first, where it is not."""
    key = {row["number"]: row for row in rows(folder / KEY)}
    marks = folder / MARKS
    if not marks.exists():
        write(
            marks,
            [{"prompt": key[row["number"]]["prompt"], **row, "right": guess(row, key)} for row in rows(folder / FORM)],
        )
        print(
            f"{marks}: mark each name as right, yes or no; only equal words are marked yes already. Then run this again"
        )
        return
    marked = rows(marks)
    if missing := [row["number"] for row in marked if row["right"] not in ("yes", "no")]:
        raise SystemExit(f"{marks}: numbers {', '.join(missing)} are not marked yes or no")
    right = [row for row in marked if row["right"] == "yes"]
    sure = [row for row in right if row["confident"].lower().startswith("y")]
    print(f"named {len(right)} of {len(marked)}, with confidence {len(sure)}")
    for row in marked:
        if row["right"] == "no":
            print(f"  {row['prompt']}: {row['name'] or 'no name'}")


def guess(row: dict[str, str], key: dict[str, dict[str, str]]) -> str:
    """Return "yes" where a name has the prompt's words, "no" where there is none, else "" for eyes to decide."""
    if not row["name"].strip():
        return "no"
    return "yes" if words(row["name"]) == words(key[row["number"]]["prompt"]) else ""


def words(text: str) -> set[str]:
    """Return the words of a text that say what it shows."""
    return set(re.findall(r"[a-z0-9]+", text.lower())) - SMALL


def rows(path: Path) -> list[dict[str, str]]:
    """Read a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, table: list[dict]) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def main() -> None:
    """Make sheets, or count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets", help="make sheets, a form and a key in a new folder")
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("images", type=Path, nargs="+", help="images that carry their prompts, as vqclip writes them")
    sheets.add_argument("--seed", type=int, default=0, help="of the order")
    commands.add_parser("table", help="count what was named").add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "sheets":
        make_sheets(args.folder, args.images, args.seed)
    else:
        print_table(args.folder)


if __name__ == "__main__":
    main()
