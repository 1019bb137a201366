"""Stand-ins for the networks: tiny, deterministic, differentiable, shaped as core/interfaces.py asks."""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqclip.core.interfaces import Clip, Target, Vqgan
from vqclip.core.torch_private import count_memory
from vqclip.settings.prompts import parse_prompts


def draw(*shape: int, seed: int) -> Tensor:
    """Return fixed normal numbers, without touching torch's global generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int) -> Tensor:
    """Return fixed vectors of unit length over the last axis."""
    return F.normalize(draw(*shape, seed=seed), dim=-1)


class FakeVqgan:
    """A VQGAN whose decoder is linear: each place of the latent paints one flat f x f block.

    Guarantees: equal arguments build equal models; a picture's row depends on its own latent alone; decoding is
    differentiable and reaches values outside 0..1; a flat colour survives encode and decode; the codebook's
    channels differ in spread and are not centred on zero.
    """

    def __init__(self, *, f: int = 4, dim: int = 8, n_embed: int = 64, seed: int = 0) -> None:
        """Draw the codebook `[n_embed, dim]` and the colours `[3, dim]` of the latent's channels."""
        self.name, self.f, self.notes = "fake-vqgan", f, ()
        scale, offset = torch.linspace(0.5, 1.5, dim), torch.linspace(-0.5, 0.5, dim)
        self.codebook = draw(n_embed, dim, seed=seed) * scale + offset
        self.colours = draw(3, dim, seed=seed + 1) * 0.15

    def encode(self, image: Tensor) -> Tensor:
        """Map `[N, 3, H, W]` to `[N, dim, H/f, W/f]`: the shortest latent that paints each block's mean colour."""
        blocks = F.avg_pool2d(image, self.f) - 0.5
        return torch.einsum("dc,nchw->ndhw", torch.linalg.pinv(self.colours), blocks)

    def lower(self, dtype: torch.dtype) -> None:
        """Stay as it is."""

    def decode(self, z_q: Tensor) -> Tensor:
        """Map `[N, dim, h, w]` to `[N, 3, h*f, w*f]`, mid-grey where the latent is zero."""
        blocks = torch.einsum("cd,ndhw->nchw", self.colours, z_q) + 0.5
        return blocks.repeat_interleave(self.f, 2).repeat_interleave(self.f, 3)


class FakeClip:
    """A CLIP that sees a 4 x 4 thumbnail through a fixed random projection; a text's embedding comes from its hash.

    Guarantees: equal arguments build equal models; embeddings are finite and of unit length, flat pictures
    included; a row depends on its own picture or text alone; every pixel of a view counts; equal texts are
    embedded alike and different ones about at right angles.
    """

    def __init__(self, *, size: int = 16, dim: int = 32, seed: int = 0) -> None:
        """Draw the projection `[48, dim]` and a bias, so that no picture is embedded as zero."""
        self.name, self.size, self.dim = "fake-clip", size, dim
        self.projection = draw(48, dim, seed=seed + 100)
        self.bias = draw(dim, seed=seed + 101)

    def fits(self, text: str) -> bool:
        """Read up to 20 words."""
        return len(text.split()) <= 20

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, dim]`, from the SHA-256 of each."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts]
        return torch.cat([unit(1, self.dim, seed=seed) for seed in seeds])

    def lower(self, dtype: torch.dtype) -> None:
        """Stay as it is."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed `[M, 3, size, size]` as `[M, dim]`; other sizes are refused, as a real tower would."""
        assert image.shape[1:] == (3, self.size, self.size), (
            f"a CLIP of size {self.size} was shown {tuple(image.shape)}"
        )
        thumbnail = F.adaptive_avg_pool2d(image - 0.5, 4).flatten(1)
        return F.normalize(thumbnail @ self.projection + self.bias, dim=-1)

    def encode_layers(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed as `encode_image` does; the middle layers are the thumbnail's blocks, and their differences."""
        blocks = F.adaptive_avg_pool2d(image, 8)
        return self.encode_image(image), [blocks.flatten(2), (blocks[..., 1:] - blocks[..., :-1]).flatten(2)]


COUNTED: dict[tuple[object, ...], tuple[int, int] | None] = {}


def count_memory_once(network: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device):
    """Count the memory of equal fakes once: it takes longer than the steps of most tests."""
    fake = getattr(network, "__self__", None)
    if type(fake) not in (FakeVqgan, FakeClip):
        return count_memory(network, shape, device)
    key = type(fake), getattr(fake, "f", 0), shape, device
    if key not in COUNTED:
        COUNTED[key] = count_memory(network, shape, device)
    return COUNTED[key]


def aim(clips: list[Clip], source: str) -> list[Target]:
    """Return one Target a clip for prompt text."""
    prompts = parse_prompts(source)
    weights, stops = torch.tensor([p.weight for p in prompts]), torch.tensor([p.stop for p in prompts])
    return [Target(clip.encode_text([p.text for p in prompts]), weights, stops) for clip in clips]


def _fits_the_protocols() -> tuple[Vqgan, Clip]:
    """Let the type checker compare the fakes with the protocols."""
    return FakeVqgan(), FakeClip()
