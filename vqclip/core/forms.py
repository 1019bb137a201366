"""What the optimiser moves: the latent itself, or logits over the codebook's codes, of which the latent is the mean.

With logits, as in EleutherAI's notebooks of 2021 and in token-opt, the image shows the likeliest code of each position,
and the gradient goes to the probabilities of all codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .matmul import linear
from .quantize import distances, live_codes, lookup, nearest, spread

# Of the first logits: what a code loses whose squared distance is the codes' variance. Of 0.3, 1, 4 and 16 the one that
# comes nearest to two prompts in 60 steps, as near as the vectors do.
SHARPNESS = 0.3


@dataclass(frozen=True)
class Form:
    """How a latent `[N, C, h, w]` is written as the tensor that is moved; the codebook is `[K, C]`."""

    begin: Callable[[Tensor, Tensor], Tensor]  # (latent, codebook) -> the tensor, of the latent's codes
    latent: Callable[[Tensor, Tensor], Tensor]  # (tensor, codebook) -> the latent, differentiable
    codes: Callable[[Tensor, Tensor], Tensor]  # (tensor, codebook) -> `[N, h, w]`, those of the image
    settled: Callable[[Tensor, Tensor], Tensor]  # (tensor, codebook) -> the latent of the image, for the average
    unit: Callable[[Tensor], Tensor]  # codebook -> what the step size counts in
    bounds: Callable[[Tensor], tuple[Tensor, Tensor]]  # codebook -> where the tensor stays
    axis: int  # of the codebook: the channels of the tensor


def _box(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest vector of the live codes' range, `[C, 1, 1]` each."""
    low, high = live_codes(codebook).aminmax(dim=0)
    return low[:, None, None], high[:, None, None]


def _anywhere(codebook: Tensor) -> tuple[Tensor, Tensor]:
    infinite = codebook.new_tensor(float("inf"))
    return -infinite, infinite


def _logits(z: Tensor, codebook: Tensor) -> Tensor:
    """Return logits `[N, K, h, w]`: the farther a code is, the lower."""
    scale = SHARPNESS / live_codes(codebook).var(0).sum()
    rows = torch.cat([-scale * distances(image, codebook) for image in z.split(1)])  # none depends on its neighbours
    return rows.view(len(z), *z.shape[2:], -1).movedim(-1, 1).contiguous()


def _mean_code(logits: Tensor, codebook: Tensor) -> Tensor:
    """Return the mean of the codes by their probabilities, `[N, C, h, w]`."""
    rows = [linear(image.movedim(1, -1).softmax(-1), codebook.mT) for image in logits.split(1)]
    return torch.cat(rows).movedim(-1, 1)


FORMS = {
    "vectors": Form(
        begin=lambda z, codebook: z,
        latent=lambda z, codebook: z,
        codes=nearest,
        settled=lambda z, codebook: z,
        unit=spread,
        bounds=_box,
        axis=1,
    ),
    "logits": Form(
        begin=_logits,
        latent=_mean_code,
        codes=lambda logits, codebook: logits.argmax(1),
        settled=lambda logits, codebook: lookup(logits.argmax(1), codebook),
        unit=lambda codebook: codebook.new_tensor(1.0),
        bounds=_anywhere,
        axis=0,
    ),
}
