"""Turn an SRVGGNetCompact in ncnn's format (.param and .bin) into safetensors with the names that spandrel knows.

    python convert.py realesr-animevideov3-x4.param realesr-animevideov3-x4.bin -o realesr-animevideov3-x4.safetensors

README.md beside this tells where the files come from, what is in them, and how the result was checked.
"""

import argparse
import hashlib
import struct
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

MAGIC = "7767517"  # first line of a .param
FLOAT16, FLOAT32 = 0x01306B47, 0  # the tag before a convolution's weights
SIDE = 3  # of every kernel
# The rest of the network, which has no weights: the input enlarged by nearest neighbour is added to what the
# convolutions say, their channels dealt out to pixels.
TAIL = ("PixelShuffle", "Interp", "BinaryOp")


def layers(text: str) -> list[tuple[str, dict[int, str]]]:
    """Return each layer of a .param as (type, its options by number), in the order in which the .bin has them."""
    lines = text.splitlines()
    if lines[0].strip() != MAGIC:
        raise SystemExit("that is no .param of ncnn")
    found = []
    for line in lines[2:]:
        kind, _name, inputs, outputs, *rest = line.split()
        options = rest[int(inputs) + int(outputs) :]
        found.append((kind, {int(key): value for key, _, value in (option.partition("=") for option in options)}))
    return found


class Reader:
    """Takes numbers off a .bin, one block after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int, kind: str) -> numpy.ndarray:
        """Return so many numbers of a little-endian type; blocks begin at multiples of four bytes."""
        try:
            found = numpy.frombuffer(self.data, kind, count, self.at)
        except ValueError:
            raise SystemExit(f"the file ends at byte {len(self.data):,}, before all numbers are there") from None
        self.at += -(-found.nbytes // 4) * 4
        return found

    def weights(self, count: int) -> numpy.ndarray:
        """Return a convolution's weights: a tag says of what type they are."""
        (tag,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        if tag not in (FLOAT16, FLOAT32):
            raise SystemExit(f"the weights at byte {self.at - 4} are packed in a way that is not read here: {tag:#x}")
        return self.take(count, "<f2" if tag == FLOAT16 else "<f4")


def convert(param: str, data: bytes) -> dict[str, torch.Tensor]:
    """Return an SRVGGNetCompact's tensors by spandrel's names, each in the type that the file has it in.

    Checked on the way: the layers are those of that network and no others, every number is finite, and the last
    layer's last number is the file's last.
    """
    reader, tensors, channels, tail = Reader(data), {}, 3, []
    body = 0
    for kind, options in layers(param):
        if kind == "Convolution":
            out = int(options[0])
            if (options[1], options.get(4), options.get(5)) != (str(SIDE), "1", "1"):
                raise SystemExit(f"a convolution with other options: {options}")
            weight = reader.weights(int(options[6])).reshape(out, channels, SIDE, SIDE)
            named = {"weight": weight, "bias": reader.take(out, "<f4")}
            channels = out
        elif kind == "PReLU":
            named = {"weight": reader.take(int(options[0]), "<f4")}
        else:
            tail += [kind] if kind not in ("Input", "Split") else []
            continue
        for name, value in named.items():
            tensors[f"body.{body}.{name}"] = torch.from_numpy(value.copy())
        body += 1
    if tuple(tail) != TAIL:
        raise SystemExit(f"that is no SRVGGNetCompact: it ends with {', '.join(tail)}")
    if reader.at != len(data):
        raise SystemExit(f"the last number ends at byte {reader.at:,} of {len(data):,}: read wrongly")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise SystemExit("some weights are not finite: read wrongly")
    return tensors


def main() -> None:
    """Convert the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("param", type=Path)
    parser.add_argument("bin", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    chosen = parser.parse_args()
    tensors = convert(chosen.param.read_text(), chosen.bin.read_bytes())
    origin = hashlib.sha256(chosen.bin.read_bytes()).hexdigest()
    save_file(tensors, chosen.out, {"source": f"{chosen.bin.name}, sha256 {origin}"})  # one: several are in any order
    count = sum(tensor.numel() for tensor in tensors.values())
    print(f"{chosen.out}: {len(tensors)} tensors, {count:,} numbers, {chosen.out.stat().st_size:,} bytes")
    print(f"sha256 {hashlib.sha256(chosen.out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
