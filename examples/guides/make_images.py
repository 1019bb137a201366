"""Make the images of the guides anew: python examples/guides/make_images.py [GUIDE...]

An image in a guide, ![...](images/NAME.jpg), is made by the command before it; several in a row by as many commands. The whole
block is run; those that read pictures get the ones that `furnish` draws. Run it where models or their settings have changed, and look at each.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(
    r"```sh\n(?P<commands>(?:(?!```).)*)```\n\s*(?P<images>(?:!\[[^]]*\]\(images/[^)]+\)\s*)+)", re.DOTALL
)
BESIDE = {"--tile-preview": "runs/*/tiled.png", "--count": "*/grid.png"}  # word of a command -> its image to show
LINK = re.compile(r"\(images/([^)]+)\)")


def furnish(folder: Path) -> None:
    """Draw what the guides' commands read: an apple, a photo that is its mirror image, and a mask of its middle."""
    apple = Image.new("RGB", (512, 512), "white")
    draw = ImageDraw.Draw(apple)
    draw.ellipse((90, 130, 300, 450), "#d02020")
    draw.ellipse((210, 130, 420, 450), "#d02020")
    draw.line((256, 180, 280, 80), "#603010", 16)
    draw.ellipse((280, 70, 380, 120), "#30a030")
    apple.save(folder / "apple.png")
    apple.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "photo.jpg")
    mask = Image.new("L", (512, 512))
    ImageDraw.Draw(mask).rectangle((128, 128, 383, 383), 255)
    mask.save(folder / "mask.png")


def images_of(guide: Path) -> list[tuple[str, list[str]]]:
    """Return the words of a guide's commands, each with the image that it makes, or "": of the blocks that make some."""
    made = []
    for block in BLOCK.finditer(guide.read_text()):
        names, commands = LINK.findall(block["images"]), block["commands"].strip().splitlines()
        names = [""] * (len(commands) - len(names)) + names
        made += zip(names, [shlex.split(line, comments=True) for line in commands], strict=True)
    return made


def main(guides: list[Path]) -> None:
    """Run the command of each image of some guides."""
    (HERE / "images").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        for name, (_, *words) in (image for guide in guides for image in images_of(guide)):
            if not name:
                subprocess.run([sys.executable, "-m", "vqclip", *words, "--quiet"], cwd=folder, check=True)
                continue
            out = HERE / "images" / name
            words = words[: words.index("--video")] if "--video" in words else words
            where = ["--video" if out.suffix == ".webp" else "-o", str(out)] if words[0] != "sample" else []
            more = [*where, "--overwrite", "--quiet", "--no-metadata"]
            subprocess.run([sys.executable, "-m", "vqclip", *words, *more], cwd=folder, check=True)
            for word, beside in BESIDE.items():
                if word in words:
                    Image.open(max(Path(folder).glob(beside), key=os.path.getmtime)).convert("RGB").save(out)
            print(f"{out}: {out.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main([Path(guide) for guide in sys.argv[1:]] or sorted(HERE.glob("*.md")))
