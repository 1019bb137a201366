"""The nearest code for each position of the latent, with the straight-through gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .matmul import product
from .straight_through import replace_grad

CROWDED = 0.2  # of the codes' root mean square distance from their median: codes that are nearer form a cluster
MANY = 0.25  # fraction of all codes: a smaller cluster is no sign of dead codes


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest code: z `[N, C, h, w]`, codebook `[K, C]` -> `[N, h, w]`."""
    return distances(z, codebook).argmin(1).view(z.movedim(1, -1).shape[:-1])


def distances(z: Tensor, codebook: Tensor) -> Tensor:
    """Return the squared distance of each code, less the position's own square: `[N*h*w, K]`.

    Always float32: in bfloat16 close codes are mistaken for each other.
    """
    vectors, codebook = z.detach().float().movedim(1, -1).flatten(0, -2), codebook.float()
    with torch.autocast(z.device.type, enabled=False):
        return product(-2 * vectors, codebook, codebook.square().sum(1))


def live_codes(codebook: Tensor) -> Tensor:
    """Return those codes `[L, C]` of a codebook `[K, C]` that training used: all but a crowd at one point, if any.

    taming draws a new codebook from -1/K..1/K, and a code that no image is nearest to stays there. Of its ImageNet
    model's 16,384 codes 974 are live (the `quantize_number` of microsoft/VQ-Diffusion, taming_gumbel_vqvae.py): the
    standard deviation of all is then a quarter of the live ones'. Dead codes that are not crowded are not recognised.
    """
    some = codebook[:: max(1, len(codebook) // 1024)].sort(0).values  # torch.median is not deterministic on CUDA
    distance = (codebook - some[len(some) // 2]).norm(dim=1)
    crowded = distance < CROWDED * distance.square().mean().sqrt()
    return codebook[~crowded] if crowded.float().mean() > MANY else codebook


def spread(codebook: Tensor) -> Tensor:
    """Return the standard deviation of the live codes, the mean over their channels."""
    return live_codes(codebook).std(0).mean()


def lookup(codes: Tensor, codebook: Tensor) -> Tensor:
    """Return the codes' vectors: codes `[N, h, w]` -> `[N, C, h, w]`."""
    return F.embedding(codes, codebook).movedim(-1, 1)


def quantize(z: Tensor, codebook: Tensor, codes: Tensor | None = None) -> Tensor:
    """Replace each position of z `[N, C, h, w]` by its nearest code; the gradient passes straight through.

    By index, not as a one-hot matrix product (van den Oord et al. 2017, sec. 3.2). codes: the nearest, if known.
    """
    return replace_grad(lookup(nearest(z, codebook) if codes is None else codes, codebook), z)
