"""Draw real pictures for the judge's ceiling: for each benchmark prompt one drawing that the judge never saw.

    python draw_reals.py DATA tests/benchmarks/reals --skip 0.3 --split 9

`--skip` and `--split` as the judge was trained with. Drawings are put on the background that the prompt names, else
on white. A prompt whose drawings were all seen has no file.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from colours import COLOURS
from PIL import Image

# What the data set calls the thing of a prompt, and the ground it stands on.
NAMES = {
    "a red heart": "red heart", "a green heart": "green heart", "a red apple": "red apple", "a green apple": "green apple",
    "a yellow banana": "banana", "a slice of watermelon": "watermelon", "a bunch of grapes": "grapes",
    "a strawberry": "strawberry", "an orange on a blue background": "tangerine", "a carrot": "carrot", "a mushroom": "mushroom",
    "a hamburger": "hamburger", "an ice cream": "soft ice cream", "a birthday cake": "birthday cake",
    "a cup of coffee": "hot beverage", "a cat face": "cat face", "a dog face": "dog face", "a pig face": "pig face",
    "a panda face": "panda", "a monkey face": "monkey face", "a penguin": "penguin", "an owl": "owl", "a butterfly": "butterfly",
    "a ladybug": "lady beetle", "a goldfish": "tropical fish", "a blue whale": "spouting whale", "a snake": "snake",
    "an octopus": "octopus", "a snail": "snail", "a turtle": "turtle", "a rose": "rose", "a cactus": "cactus",
    "a palm tree on a beach": "beach with umbrella", "a christmas tree": "christmas tree", "a green leaf": "leaf fluttering in wind",
    "a house with a red roof": "house", "a castle": "castle", "a tent": "tent", "a red car": "automobile",
    "a yellow school bus": "bus", "a bicycle": "bicycle", "an airplane": "airplane", "a rocket": "rocket",
    "a steam train": "locomotive", "a crescent moon on a black background": "crescent moon", "a sun with rays": "sun",
    "a rainbow": "rainbow", "a cloud with rain": "cloud with rain", "a snowman": "snowman without snow",
    "a lightning bolt": "high voltage", "a volcano": "volcano", "a purple umbrella": "umbrella", "a blue balloon": "balloon",
    "a gold crown": "crown", "a pair of glasses": "glasses", "a key": "key", "a pencil": "pencil", "an open book": "open book",
    "a light bulb": "light bulb", "a guitar": "guitar", "a soccer ball": "soccer ball", "a skull": "skull", "a ghost": "ghost",
    "a robot face": "robot",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--skip", type=float, default=0.3)
    parser.add_argument("--split", type=int, default=9)
    args = parser.parse_args()
    records = json.loads((args.data / "captions.json").read_text())
    pictures = np.load(args.data / "pictures128.npy", mmap_mode="r")
    dice = np.random.default_rng(args.split).random(len(records))
    args.to.mkdir(parents=True, exist_ok=True)
    index = {}
    for prompt, name in NAMES.items():
        colour = next((word for word in prompt.split() if word in COLOURS), None)
        unseen = [i for i, r in enumerate(records) if r["name"] == name and (r["held_out"] or dice[i] < args.skip)]
        fitting = [
            i for i in unseen if colour is None or "background" in prompt or records[i]["colour"] in (colour, None)
        ]
        if not fitting:
            print(f"no unseen drawing: {prompt} ({name}; {sum(r['name'] == name for r in records)} seen)")
            continue
        ground = (
            tuple(round(255 * v) for v in COLOURS[prompt.split(" on a ")[1].split()[0]])
            if "background" in prompt
            else (255, 255, 255)
        )
        canvas = Image.new("RGBA", (128, 128), (*ground, 255))
        canvas.alpha_composite(Image.fromarray(np.asarray(pictures[fitting[0]])))
        file = f"{len(index):02d}.png"
        canvas.convert("RGB").save(args.to / file)
        index[file] = {"prompt": prompt, "source": records[fitting[0]]["source"], "name": name}
    (args.to / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    print(f"{len(index)} of {len(NAMES)} prompts in {args.to}")


if __name__ == "__main__":
    main()
