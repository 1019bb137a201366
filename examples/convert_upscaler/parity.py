"""Measure how far the converted network is from the original one, run by ncnn (pip install ncnn) on this machine's CPU.

    python parity.py realesr-animevideov3-x4.param realesr-animevideov3-x4.bin CONVERTED.safetensors PICTURE...

With --save FOLDER the pictures as ncnn enlarges them are written there, as PNG.
"""

import argparse
from pathlib import Path

import ncnn
import numpy
import torch
from PIL import Image
from safetensors.torch import load_file
from spandrel import ModelLoader


def ncnn_run(param: Path, binary: Path, image: numpy.ndarray) -> numpy.ndarray:
    """Enlarge `[3, H, W]` in 0..1 with ncnn, in float32."""
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    net.load_param(str(param))
    net.load_model(str(binary))
    with net.create_extractor() as run:
        run.input("data", ncnn.Mat(image).clone())
        _, found = run.extract("output")
        return numpy.array(found)


def to_bytes(image: numpy.ndarray) -> numpy.ndarray:
    """Round to 8 bits, as a picture is written."""
    return (image.clip(0, 1) * 255).round().astype(numpy.uint8)


def main() -> None:
    """Print a line a picture: the largest and the mean difference of the numbers, and of the 8-bit pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("param", "bin", "weights"):
        parser.add_argument(name, type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--save", type=Path)
    chosen = parser.parse_args()
    network = ModelLoader().load_from_state_dict(load_file(chosen.weights)).model.eval()
    print("picture, size, largest, mean, largest in 255ths, differing bytes")
    for path in chosen.pictures:
        image = numpy.asarray(Image.open(path).convert("RGB"), numpy.float32).transpose(2, 0, 1) / 255
        image = numpy.ascontiguousarray(image)
        theirs = ncnn_run(chosen.param, chosen.bin, image)
        with torch.no_grad():
            ours = network(torch.from_numpy(image)[None])[0].numpy()
        apart, steps = abs(ours - theirs), abs(to_bytes(ours).astype(int) - to_bytes(theirs))
        print(f"{path.name}, {image.shape[2]}x{image.shape[1]}, {apart.max():.2e}, {apart.mean():.2e}, "
              f"{steps.max()}, {(steps > 0).mean():.4%}")  # fmt: skip
        if chosen.save:
            Image.fromarray(to_bytes(theirs).transpose(1, 2, 0)).save(chosen.save / f"{path.stem}.png")


if __name__ == "__main__":
    main()
