"""Checkpoints to test with: the packages' own key names and shapes, and weights that a formula gives.

data/layouts/*.json were written by running the original code (named in `source`) on these weights: the latent it
encodes a picture to, the codes it chooses, the picture it decodes.
"""

import json
import math
import zlib
from pathlib import Path

import numpy
import torch

DATA = Path(__file__).parents[1] / "data" / "layouts"
LAYOUTS = sorted(path.stem for path in DATA.glob("*.json"))


def reference(name):
    """Return a reference: tensors' shapes by the package's own names, and its outputs."""
    return json.loads((DATA / f"{name}.json").read_text())


def weight(key, shape):
    """Return a tensor's weights: a function of its name alone. RandomState's stream is frozen by NEP 19."""
    wave = numpy.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) == 1:
        wave = wave * 0.1 + (1.0 if key.endswith("weight") else 0.0)
    elif "embed" in key:
        wave = wave * 0.5
    else:
        wave = wave / math.sqrt(math.prod(shape[1:])) * 1.2
    return torch.from_numpy(wave).float()


def tensors(name="taming"):
    """Return a checkpoint's tensors in one of the layouts."""
    return {key: weight(key, shape) for key, shape in reference(name)["tensors"].items()}


def picture(side):
    """Return the picture `[1, 3, side, side]` in 0..1 that the references were made with."""
    return torch.from_numpy(numpy.random.RandomState(0).uniform(-1, 1, (1, 3, side, side))).float() / 2 + 0.5


def flax(tree):
    """Return tensors under torch's names as flax.serialization writes them (vqgan-jax's names)."""
    import re

    import msgpack

    root = {}
    for key, value in tree.items():
        *place, leaf = re.sub(r"\b(down|up|block|attn)\.(\d+)", r"\1_\2", key).split(".")
        kind = "scale" if "norm" in place[-1] else "embedding" if place[-1] == "embedding" else "kernel"
        array = value.permute(2, 3, 1, 0) if value.ndim == 4 else value
        packed = msgpack.packb((list(array.shape), "float32", array.contiguous().numpy().tobytes()), use_bin_type=True)
        node = root
        for part in place:
            node = node.setdefault(part, {})
        node[kind if leaf == "weight" else leaf] = msgpack.ExtType(1, packed)
    return msgpack.packb(root)


def lightning(state, **more):
    """Return what Lightning 1.0 wraps a state dict in; the callbacks' keys are classes."""
    return {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.0.8", "state_dict": state,
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], "lr_schedulers": [], **more}  # fmt: skip


def lightning_class(module, name, bases=(), **members):
    """Make a class that pickles under a name of a library, which need not be installed; put it where pickle looks."""
    import sys
    import types

    made = type(name, bases, {"__module__": module, "__qualname__": name, **members})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


def script(model, path):
    """Write a network as OpenAI published its CLIPs: a program in TorchScript, in half floats."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is deprecated: such files stay
        torch.jit.script(model.eval()).half().save(str(path))
