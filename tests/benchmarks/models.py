"""What full-shape public models take: seconds of one core, and the process's peak memory; random weights.

    python -m tests.benchmarks.models

Each line is a process of its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOAD = "import sys, torch; from vqclip.models import load_vqgan; load_vqgan(sys.argv[1], torch.device('cpu'))"
WRITE = (
    "import sys, pathlib; from tests.support.fullshape import write_standard; write_standard(pathlib.Path(sys.argv[1]))"
)
NOTHING = "import torch, vqclip.models.vqgan.taming, vqclip.models.vqgan.checkpoints"


def measured(what: str, *command: str, **environ: str) -> None:
    """Run a Python process; print its processor time, wall time and peak resident size."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"} | environ, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, what
    busy, unit = usage.ru_utime + usage.ru_stime, 1 if sys.platform == "darwin" else 1024
    print(
        f"{what:<44} {busy:6.1f} s busy {time.monotonic() - began:6.1f} s in all {usage.ru_maxrss * unit / 1e9:5.2f} GB",
        flush=True,
    )


def main() -> None:
    """Write the files, and measure what is done with them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here = {"VQCLIP_CATALOGUE": str(folder / "models.toml"), "VQCLIP_MODELS": str(folder / "store")}
        subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True)  # a large parent would count as theirs
        measured("libraries alone", "-c", NOTHING)
        measured("Lightning .ckpt, as it is", "-c", LOAD, str(folder / "last.ckpt"))
        measured("its conversion", "-m", "vqclip", "models", "convert", str(folder / "last.ckpt"))
        measured("the safetensors it is converted to", "-c", LOAD, str(folder / "last-vqgan"))
        for steps in (2, 6):
            measured(f"standard, 256x256, {steps} steps", "-m", "vqclip", "generate", "a lighthouse", "--steps", str(steps),
                     "--preset", "standard", "--runs", str(folder / "runs"), "-q", **here)  # fmt: skip


if __name__ == "__main__":
    main()
