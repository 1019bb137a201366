"""Losses of the presets that name other tools, beside a re-expression of those tools' loops on the same models.

    python -m tests.benchmarks.published --steps 20 --seeds 1,2

Cutouts are compared in tests/unit/core/test_cutout_methods.py. Starts differ: those tools draw from all codes, whatever the seed.
"""

import argparse

from tests.benchmarks.peers import kornia, latest, peer_steps
from vqclip.config.resolve import resolve
from vqclip.runs.networks import Networks
from vqclip.runs.session import Session

PRESETS = {"nerdyrodent": latest, "rkhamilton": kornia}


def main() -> None:
    """Print the distance to the prompt at every fourth of each run, ours and theirs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--prompt", default="a red heart")
    args = parser.parse_args()
    networks, models = Networks(), {"vqgan": "tiny", "clips": ["tiny"]}
    for preset, views in PRESETS.items():
        for seed in map(int, args.seeds.split(",")):
            settings = resolve(args.prompt, preset, seed, size=args.size, steps=args.steps, **models)
            session = Session.load(settings, networks=networks)
            for name, steps in (("ours", session.steps()), ("theirs", peer_steps(session, views))):
                losses = [float(step.losses["prompt"].mean()) for step in steps]
                shown = [*losses[:: max(1, args.steps // 4)], losses[-1]]
                print(f"{preset:<12} seed {seed}  {name:<7}", " ".join(f"{loss:.3f}" for loss in shown), flush=True)


if __name__ == "__main__":
    main()
