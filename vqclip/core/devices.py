"""Which device, and which numbers on it.

Half as many bits cost half of the time and less, where a device has units for them. In bfloat16 the gradient of a step
differs from float32's by one or two parts in a hundred, far less than between two draws of cutouts. Codes are looked
up, cutouts are made and the latent is stepped in float32 always.
"""

import torch

from ..errors import UsageError
from .torch_private import cpu_has_bfloat16_units

LOWER_PRECISION = torch.bfloat16  # float16 would need its gradients scaled


def choose_device(name: str = "auto") -> torch.device:
    """Return the device: `auto` takes CUDA, then MPS, then the CPU. Raises UsageError for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        kinds = ["cpu", *(kind for kind, is_available in available.items() if is_available)]
        hint = f"there is {' and '.join(kinds)}; --device auto picks the best"
        raise UsageError(f"the device {name!r} is not there", hint) from None
    return device


def exact_float(device: torch.device) -> torch.dtype:
    """Return float64 where a device has it; Apple's MPS has float32 at most."""
    return torch.float32 if device.type == "mps" else torch.float64


def choose_precision(precision: str, device: torch.device) -> str:
    """Return `float32` or `bfloat16`; for `auto` the latter where the device has units for it.

    On a CPU those are AMX (a step takes 0.3 of the time) or AVX512-BF16 (0.6); without them bfloat16 is slower.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and cpu_has_bfloat16_units()
    return "bfloat16" if fast else "float32"
