"""What each control costs, in percent of a step: python -m tests.benchmarks.controls [--size WxH] [--steps N]

Steps without and with a control take turns in one process, so that other work on the machine meets both alike; of each the
median of the quicker half counts. Time is the processor's.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from vqclip.config.resolve import resolve
from vqclip.runs.networks import Networks
from vqclip.runs.session import Session

PROMPT = "a red heart"
CONTROLS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "curves of nine settings": {
        "prompt": "a red heart:{1 - t / 2}",
        **dict.fromkeys(
            ("tv", "step_size", "cutouts", "overview", "smallest_cutout", "margin", "noise", "damping"), ""
        ),
    },
    "--region, one": {"regions": ("a blue fish@left",)},
    "--region, four": {"regions": ("a@left", "b@right", "c@top", "d@centre")},
    "--region of a file": {"regions": ("a blue fish@{picture}",)},
    "--image-prompt": {"image_prompts": ("{picture}:0.5",)},
    "--noise-prompt": {"noise_prompts": ("14:0.3",)},
    "--target-image": {"target_image": "{picture}", "target_weight": 0.3},
    "--init-weight": {"init_weight": 0.3},
    "--palette": {"palette": ("red", "white", "navy")},
    "--saturation": {"saturation": 0.3},
    "--smoothness": {"smoothness": 1.0},
    "--symmetry x": {"symmetry": "x"},
    "--frame": {"frame": "teal"},
    "--tile both": {"tile": "both"},
    "--latent-noise": {"latent_noise": 0.3},
    "--latent logits": {"latent": "logits"},
    "--style-image": {"style_image": "{picture}"},
    "--final best": {"final": "best"},
}


def values_of(control: dict[str, Any], picture: Path) -> dict[str, Any]:
    """Return the settings of a control: "" is a curve of the setting's own default, {picture} a file."""
    defaults = resolve(PROMPT, "tiny", 1)

    def each(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(each(name, item) for item in value)
        if value == "":
            number = getattr(defaults, name)
            return f"0: {number}, 0.5: {number}, 1: {number}"
        return value.replace("{picture}", str(picture)) if isinstance(value, str) else value

    return {name: each(name, value) for name, value in control.items()}


def steps_of(values: dict[str, Any], networks: Networks, steps: int, size: str) -> Iterator[Any]:
    """Return the steps of a run at full size."""
    plain = {"prompt": PROMPT, "init": "grey", "coarse": 0.0, "upscale": 0, "steps": steps + 1, "size": size}
    given = plain | values
    settings = resolve(given.pop("prompt"), "tiny", 1, **given)
    return Session.load(settings, "cpu", networks).steps()


def quick(seconds: list[float]) -> float:
    """Return the median of the quicker half."""
    return statistics.median(sorted(seconds)[: max(1, len(seconds) // 2)])


def main() -> None:
    """Print a table of milliseconds a step without and with each control."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="128")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", default="", help="controls whose name holds this")
    args = parser.parse_args()
    networks = Networks()
    print("| control | ms a step without | with | cost |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.radial_gradient("L").convert("RGB").save(picture)
        for name, control in CONTROLS.items():
            if args.only not in name:
                continue
            runs = [steps_of(v, networks, args.steps, args.size) for v in ({}, values_of(control, picture))]
            seconds: list[list[float]] = [[], []]
            for step in range(args.steps + 1):
                for run, took in zip(runs, seconds, strict=True):
                    began = time.process_time()
                    next(run)
                    took += [time.process_time() - began] if step else []  # the first warms up
            off, on = map(quick, seconds)
            print(f"| {name} | {off * 1e3:.0f} | {on * 1e3:.0f} | {on / off - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
