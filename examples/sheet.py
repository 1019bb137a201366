"""Draw every prompt of a file, seed 0 for the first, 1 for the second and so on, into one captioned sheet.

python examples/sheet.py examples/prompts.txt sheet.png --init sample
"""

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

import vqclip


def main() -> None:
    """Read the prompts, draw them, save the sheet; the pictures themselves go beside it if --keep is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    parser.add_argument("--steps", type=int, help="steps a picture (default: the preset's)")
    parser.add_argument("--init", help="where a picture starts, as of vqclip generate (default: the preset's)")
    parser.add_argument("--keep", type=Path, help="a folder for the single pictures")
    args = parser.parse_args()
    lines = args.prompts.read_text(encoding="utf-8").splitlines()
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")][: args.limit]
    rows = -(-len(prompts) // args.columns)
    cell, label = args.side + 8, 34
    sheet = Image.new("RGB", (args.columns * cell, rows * (cell + label)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    for index, prompt in enumerate(tqdm(prompts, unit="picture")):
        out = args.keep / f"{index:02d}.png" if args.keep else None
        given = {"steps": args.steps, "init": args.init, "out": out, "overwrite": True}
        picture = vqclip.generate(prompt, seed=index, **given).picture
        left, top = index % args.columns * cell + 4, index // args.columns * (cell + label) + 4
        sheet.paste(picture.resize((args.side, args.side), Image.Resampling.LANCZOS), (left, top))
        pen.multiline_text((left, top + args.side + 2), "\n".join(textwrap.wrap(prompt, 21)), "black", font)
        sheet.save(args.sheet)
    print(args.sheet)


if __name__ == "__main__":
    main()
