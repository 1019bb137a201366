"""Encode speed against the ffmpeg program alone on the same frames: python -m tests.benchmarks.video [frames] [side].

Both read PNGs of a slowly changing picture and write a video with the same options; ours also decodes and counts it.
Processor time of all processes, so that it can be measured on a machine that does other work.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from vqclip.video.ffmpeg import find_ffmpeg
from vqclip.video.make import VideoOptions, make_video
from vqclip.video.timing import Timing
from vqclip.video.writer import ENCODERS

QUALITY = 80


def paint(folder, count, side):
    """Write frames that go from one smooth picture to another, with a little noise, as a run's do."""
    ends = [Image.effect_noise((side // 16, side // 16), 120).convert("RGB").resize((side, side)) for _ in range(2)]
    noise = Image.effect_noise((side, side), 20).convert("RGB")
    for k in range(count):
        picture = Image.blend(Image.blend(*ends, k / count), noise.rotate(90 * k), 0.1)
        picture.save(folder / f"{k:06d}.png", compress_level=6)


def spent():
    """Return the seconds of processor time that this process and those it has started took so far."""
    return sum(os.times()[:4])


def alone(program, folder, out, row):
    """Return the seconds of processor time that ffmpeg takes by itself."""
    (codec, options), (_, container) = next(iter(row.options.items())), next(iter(row.containers.items()))
    low, high = row.crf
    crf = round(low + (high - low) * QUALITY / 100)
    began = spent()
    subprocess.run(
        [program.path, "-v", "error", "-y", "-r", "25", "-i", str(folder / "%06d.png"), "-vf", row.filters, "-c:v", codec,
         *options.format(crf=crf, quality=QUALITY, lossless=0).split(), *container.options.split(), str(out)],
        check=True, env=os.environ | {"SVT_LOG": "1"},  # errors alone, as ours has it
    )  # fmt: skip
    return spent() - began


def main(count=300, side=512):
    program = find_ffmpeg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "frames")
        folder.mkdir()
        paint(folder, count, side)
        print(f"{count} frames of {side}x{side}, seconds of processor time")
        print(f"{'codec':<6} {'ours':>7} {'ffmpeg':>7} {'ratio':>6}")
        for codec, row in ENCODERS.items():
            out = Path(name, "out").with_suffix(next(iter(row.containers)))
            began = spent()
            timing = Timing(fps=25, hold_last=0)
            options = VideoOptions(codec=codec, quality=QUALITY, timing=timing, overwrite=True, ffmpeg=program.path)
            make_video([str(folder)], out, options)
            ours, theirs = spent() - began, alone(program, folder, out, row)
            print(f"{codec:<6} {ours:7.2f} {theirs:7.2f} {ours / max(theirs, 0.01):6.2f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
