"""What the loop needs of a VQGAN and of a CLIP. Shapes and ranges are part of the contract."""

from typing import Protocol

from torch import Tensor


class Vqgan(Protocol):
    """An autoencoder with a codebook. Quantising is not its business: see quantize.py."""

    name: str
    f: int  # pixels of the picture to one place of the latent, per side

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors `[n_embed, C]`, float32."""

    def encode(self, image: Tensor) -> Tensor:
        """Map a picture `[N, 3, H, W]` in 0..1 to a latent `[N, C, H/f, W/f]`."""

    def decode(self, z_q: Tensor) -> Tensor:
        """Map a quantised latent `[N, C, h, w]` to a picture `[N, 3, h*f, w*f]`, about 0..1, not clamped."""


class Clip(Protocol):
    """A perceptor: a text tower and an image tower with one embedding space."""

    name: str
    size: int  # the side of the square picture it sees, in pixels

    def fits(self, text: str) -> bool:
        """Say whether all of a text is read; `encode_text` cuts a longer one."""

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, D]` of unit length."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed pictures `[M, 3, size, size]` in 0..1 as `[M, D]` of unit length."""
