"""Watch the loop from Python: every step is yours to look at, and you decide when it is enough.

python examples/steps.py "a red heart" heart.png
"""

import argparse

import vqclip


def main() -> None:
    """Run until the prompt's loss has not improved for twenty steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("picture")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    session = vqclip.prepare(args.prompt, init="grey", steps=args.steps)
    best, since = float("inf"), 0
    for step in session.steps():
        loss = float(step.losses["prompt"])  # how far CLIP finds this step's cutouts from the prompt
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since == 20:
            break
    session.finished(session.picture(step.latent)).save(args.picture)
    print(f"{args.picture}: {step.step} steps, loss {best:.3f}")


if __name__ == "__main__":
    main()
