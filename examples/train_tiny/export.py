"""Put trained weights where vqclip loads them from: fp16 safetensors beside their configs.

python export.py --vqgan RUN --to vqclip/models/tiny/vqgan
python export.py --clip RUN --to vqclip/models/tiny/clip
python export.py --judge RUN --to tests/judge
python export.py --dalle RUN --to FOLDER
"""

import argparse
import json
import shutil
from pathlib import Path

from clip_model import model_config
from features import MEAN, STD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vqgan", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--dalle", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    if args.dalle:
        for file in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
            shutil.copyfile(args.dalle / "model" / file, args.to / file)
        return
    if args.vqgan:
        shutil.copyfile(args.vqgan / "vqgan.safetensors", args.to / "model.safetensors")
        shutil.copyfile(args.vqgan / "vqgan.json", args.to / "config.json")
        return
    name, run = ("clip", args.clip) if args.clip else ("judge", args.judge)
    shutil.copyfile(run / f"{name}.safetensors", args.to / "open_clip_model.safetensors")
    shutil.copyfile(run / f"{name}_merges.txt.gz", args.to / f"{name}_merges.txt.gz")
    preprocess = {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": model_config(name), "preprocess_cfg": preprocess}
    (args.to / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
