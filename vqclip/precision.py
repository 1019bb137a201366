"""Which numbers the networks compute in: half as many bits, where a device has units for them, cost half and less.

In bfloat16 the gradient of a step differs from float32's by one or two parts in a hundred, far less than between two
draws of cutouts. Codes are looked up, views are made and the latent is stepped in float32 always.
"""

import torch

LOWER = torch.bfloat16  # float16 would need its gradients scaled


def choose(wanted: str, device: torch.device) -> str:
    """Return `float32` or `bfloat16`; for `auto` the latter where it is several times as fast.

    On a CPU that is with AMX. Without it bfloat16 is slower, or with AVX512-BF16 a little faster: `vqclip bench` tells.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return "bfloat16" if fast else "float32"
