"""Which numbers the networks compute in: half as many bits, where a device has units for them, cost half and less.

In bfloat16 the gradient of a step differs from float32's by one or two parts in a hundred, far less than between two
draws of cutouts. Codes are looked up, views are made and the latent is stepped in float32 always.
"""

import torch

LOWER = torch.bfloat16  # float16 would need its gradients scaled
UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # of a CPU, as torch asks for them


def choose(wanted: str, device: torch.device) -> str:
    """Return `float32` or `bfloat16`; for `auto` the latter where the device has units for it.

    On a CPU those are AMX (a step takes 0.3 of the time) or AVX512-BF16 (0.6); without them bfloat16 is slower.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and any(getattr(torch.cpu, has, bool)() for has in UNITS)
    return "bfloat16" if fast else "float32"
