"""How long one waits: for the help, for the libraries, for the first step on the bundled models, for large models.

    python -m tests.benchmarks.startup --out startup.json --plot startup.png

Each is a process of its own, taken in turn with the others; the quickest of the rounds counts. `python` alone and `import
torch` stand beside them, as what nobody can be faster than. `--large` also loads a full-shape f16-16384 (random weights)
from safetensors, and from a Lightning .ckpt.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.models import LOAD, WRITE

FIRST = """
import vqclip
session = vqclip.prepare(vqclip.Settings(prompt="a red heart"))
next(session.steps())
"""
WAYS = {
    "python alone": ["-c", "pass"],
    "vqclip --help": ["-m", "vqclip", "--help"],
    "vqclip generate --help": ["-m", "vqclip", "generate", "--help"],
    "import torch": ["-c", "import torch"],
    "all libraries": ["-c", "import vqclip.runs.session, vqclip.models.vqgan.taming, vqclip.models.clip"],
    "first step, bundled models": ["-c", FIRST],
}


def took(command: list[str]) -> dict[str, float]:
    """Run Python with these arguments; return its wall time and processor time."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return {"wall": time.monotonic() - began, "busy": usage.ru_utime + usage.ru_stime}


def measure(ways: dict[str, list[str]], rounds: int) -> list[dict[str, Any]]:
    """Take the ways in turn, after a round that fills the disk's cache; return the quickest of each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for k in range(rounds + 1):
        for name, command in ways.items():
            one = took(command)
            if k:
                found[name].append(one)
    return [
        {"what": name, **{key: min(one[key] for one in some) for key in ("wall", "busy")}}
        for name, some in found.items()
    ]


def main() -> None:
    """Measure, print the table, write the JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--plot", type=Path, help="draw them here: .png or .svg")
    args = parser.parse_args()
    ways = dict(WAYS)
    with tempfile.TemporaryDirectory() as name:
        whole = ["-m", "vqclip", "generate", "a red heart", "--steps", "1", "--runs", name]
        ways["vqclip generate --steps 1"] = whole  # to the end of the process, the picture written
        if args.large:
            subprocess.run([sys.executable, "-c", WRITE, name], check=True)
            convert = [sys.executable, "-m", "vqclip", "models", "convert", f"{name}/last.ckpt"]
            subprocess.run(convert, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ways["f16-16384 from safetensors"] = ["-c", LOAD, f"{name}/last-vqgan"]
            ways["f16-16384 from a .ckpt"] = ["-c", LOAD, f"{name}/last.ckpt"]
        rows = measure(ways, args.rounds)
    for row in rows:
        print(f"{row['what']:<28} {row['wall']:6.2f} s  {row['busy']:6.2f} s busy")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))
    if args.plot:
        from tests.benchmarks.plot import figure

        bars = [(row["what"], row["busy"]) for row in rows]
        figure(args.plot, [{"bars": bars, "x": "seconds of processor time"}], "from the command to the first step")


if __name__ == "__main__":
    main()
