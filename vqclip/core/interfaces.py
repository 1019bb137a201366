"""Networks, and what the loop is given of them: VQGAN, CLIPs, what each CLIP should see. Shapes are part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from ..settings.prompts import Prompt
    from ..settings.schema import Settings


class Vqgan(Protocol):
    """An autoencoder with a codebook. Quantising is not its business: see quantize.py."""

    name: str
    f: int  # pixels of the image to one position of the latent, per side
    notes: tuple[str, ...]  # lines for the user, on what was left out of its file

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors `[n_embed, C]`, float32."""

    def encode(self, image: Tensor) -> Tensor:
        """Map an image `[N, 3, H, W]` in 0..1 to a latent `[N, C, H/f, W/f]`."""

    def decode(self, z_q: Tensor) -> Tensor:
        """Map a quantised latent `[N, C, h, w]` to an image `[N, 3, h*f, w*f]`, about 0..1, not clamped."""

    def lower(self, dtype: dtype) -> None:
        """Let `decode` compute in a lower precision; the codebook and `encode` stay in float32."""


class Clip(Protocol):
    """A text encoder and an image encoder with one embedding space."""

    name: str
    size: int  # the side of the square image that it takes, in pixels

    def fits(self, text: str) -> bool:
        """Say whether all of a text is read; `encode_text` cuts a longer one."""

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed texts as `[P, D]` of unit length."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed images `[M, 3, size, size]` in 0..1 as `[M, D]` of unit length."""

    def encode_layers(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed images as `encode_image` does; also return what middle layers make of them: `[M, C, positions]`."""

    def lower(self, dtype: dtype) -> None:
        """Let `encode_image` compute in a lower precision; what is returned stays float32."""


class Upscaler(Protocol):
    """A super-resolution network, frozen: the same image gives the same enlargement."""

    name: str
    scale: int  # how many times as large a side becomes
    radius: int  # pixels around one of the input that what it becomes may depend on
    step: int  # sides that are multiples of this need no padding, and windows of it stay where they are

    def __call__(self, image: Tensor) -> Tensor:
        """Map an image `[N, 3, H, W]` in 0..1 to `[N, 3, H*scale, W*scale]` in 0..1."""


@dataclass(frozen=True)
class Target:
    """What one CLIP should see in the image.

    embeds `[P, D]` of unit length, one a prompt; weights `[P]`, negative ones push away; stops `[P]`: a cutout whose
    signed distance is below the stop gives no gradient. weight: what this CLIP counts beside the others. curves: of
    weights that change over the run. region_masks `[P, s, s]`, or `[N, P, s, s]`: where each prompt counts,
    0..1; None if all count everywhere.
    """

    embeds: Tensor
    weights: Tensor
    stops: Tensor
    weight: float = 1.0
    curves: tuple[WeightCurve, ...] = ()
    region_masks: Tensor | None = None

    @property
    def overall(self) -> Tensor:
        """The weights for the whole image as one cutout."""
        return self.weights if self.region_masks is None else self.weights * self.region_masks.mean((-2, -1)).square()

    def at(self, t: float) -> Target:
        """Return the target when a share `t` of the run is done: numbers in place of curves."""
        if not self.curves:
            return self
        weights, stops = self.weights.clone(), self.stops.clone()
        for curve in self.curves:
            weight, stops[curve.index] = curve.prompt.at(t)
            weights[curve.index] = weight * curve.factor
        return replace(self, weights=weights, stops=stops)


@dataclass(frozen=True)
class WeightCurve:
    """That a target's weight, and its stop, are those of a prompt whose weight is a curve; index: which weight."""

    index: tuple[int, ...]
    prompt: Prompt
    factor: float = 1.0  # what the prompt's scene counts


@dataclass(frozen=True)
class Head:
    """A number that people would give an image, 1 to 10: `embed @ weight + bias`; weight `[D]`."""

    weight: Tensor
    bias: float


@dataclass(frozen=True)
class Reference:
    """What one CLIP compares the image with beside the prompts.

    style: of each middle layer the means and the standard deviations of its channels, `[C]` each. head: for the CLIP
    whose embeddings it is made for.
    """

    style: Sequence[tuple[Tensor, Tensor]] = ()
    head: Head | None = None


@dataclass(frozen=True)
class Kept:
    """What of an image stays: `original` `[N, 3, H, W]`, and `change` `[N, 1, H, W]`, 1 where it may change, else 0."""

    original: Tensor
    change: Tensor


@dataclass(frozen=True)
class LoopInputs:
    """All that the loop is given beside the latent.

    targets: one for each clip. kept: of an image with a mask. references: one for each clip, or none.
    z_target `[1, C, h, w]`: the latent of a target image.
    on_cutouts: hears what each CLIP is shown in a step, chunk by chunk: (step from 0, number of the CLIP, cutouts).
    losses: of one's own, added to those of the settings: name -> LossContext -> `[N]`.
    """

    vqgan: Vqgan
    clips: list[Clip]
    targets: list[Target]
    settings: Settings
    kept: Kept | None = None
    on_cutouts: Callable[[int, int, Tensor], None] | None = None
    references: Sequence[Reference] = ()
    z_target: Tensor | None = None
    losses: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)

    def at(self, t: float) -> LoopInputs:
        """Return the inputs of the step before which a share `t` of the run is done: numbers in place of curves."""
        return replace(self, settings=self.settings.at(t), targets=[target.at(t) for target in self.targets])

    def reference(self, k: int) -> Reference:
        """Return what the k-th CLIP compares the image with beside the prompts."""
        return self.references[k] if self.references else Reference()
