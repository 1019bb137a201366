"""What never losing a run costs: the time that checkpoints take, as a share of the same run's time.

    python -m tests.benchmarks.checkpoint

One run with the bundled models for each interval; the share is of the time spent in saving states (the last one at
the end among them), of the whole loop's time. Then the time to save a state of the public VQGANs' shape.
"""

import tempfile
import time
from pathlib import Path

import torch

import vqclip
from vqclip.core.loop import State
from vqclip.runs import checkpoint
from vqclip.runs import recorder as recording

INTERVALS = ("30s", "5s", "10", "1")


def main() -> None:
    """Run and print the table."""
    spent = [0.0, 0]
    save = checkpoint.save_state

    def timed(folder: Path, state: State) -> None:
        began = time.perf_counter()
        save(folder, state)
        spent[0] += time.perf_counter() - began
        spent[1] += 1

    recording.save_state = timed
    with tempfile.TemporaryDirectory() as folder:
        for interval in INTERVALS:
            spent[:] = [0.0, 0]
            result = vqclip.generate(
                "a red heart", seed=7, runs=folder, checkpoint_every=interval, init="grey", upscale=0
            )
            size = (result.run / checkpoint.NAME).stat().st_size
            print(
                f"every {interval:>4}: {spent[1]:>4} states of {size / 1e3:.0f} kB, {1e3 * spent[0] / spent[1]:.1f} ms each, "
                f"{spent[0] / result.seconds:.2%} of {result.seconds:.0f} s",
                flush=True,
            )
        large = State.begin(torch.randn(1, 256, 32, 32))
        began = time.perf_counter()
        for _ in range(20):
            save(Path(folder), large)
        each = (time.perf_counter() - began) / 20
        print(f"a latent of [1, 256, 32, 32] (f=16, 512x512 pixels): {1e3 * each:.1f} ms, {each / 30:.2%} of 30 s")


if __name__ == "__main__":
    main()
