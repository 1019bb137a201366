"""Losses: each maps what a step has made to one number per image.

Those that need CLIP are rows of CLIP_LOSSES, and computed chunk by chunk (loop.clip_guidance); the others, which
regularise, are rows of LOSSES. Only tensor methods are used here, so that the names can be listed without importing
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings.colours import rgb
from .fades import fade
from .straight_through import replace_grad

if TYPE_CHECKING:
    from torch import Tensor

    from ..settings.schema import Settings
    from .interfaces import Reference, Target


@dataclass(frozen=True)
class LossContext:
    """The tensors of one step, for losses to look at."""

    z: Tensor  # [N, C, h, w], the latent that is optimised
    z_init: Tensor  # the latent that it started from
    image: Tensor  # [N, 3, H, W], 0..1
    codebook_std: Tensor  # standard deviation of the live codes, a scalar
    progress: float  # 0 at the first step, towards 1 at the last
    settings: Settings
    z_target: Tensor | None = None  # [1, C, h, w], a target image's


@dataclass(frozen=True)
class Seen:
    """What a CLIP makes of cutouts, M of each image, and what that is compared with."""

    target: Target
    reference: Reference
    embeds: Tensor  # [N, M, D], of unit length
    layers: Sequence[Tensor] = ()  # [N, M, C, positions], of the middle layers, where they are looked at
    shares: Tensor | None = None  # of the cutouts, that regions' prompts count for


HIGHEST = 10  # mark of a head
DIMS = {"x": (3,), "y": (2,), "both": (2, 3)}  # of an image [N, 3, H, W] or a latent, by the names of axes
Loss = Callable[[LossContext], "Tensor"]  # -> [N]
ClipLoss = Callable[[Seen], "Tensor"]  # -> [N, M]


def spherical_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return half the squared angle between unit vectors over the last axis.

    Crowson's `2 * asin(|a - b| / 2) ** 2`: by the chord it is accurate at 0, and its gradient finite.
    """
    chord = ((a - b).square().sum(-1) + 1e-12).sqrt()
    return ((chord / 2).clamp(max=1 - 1e-6).asin() * 2).square() / 2


def prompt_distance(embeds: Tensor, target: Target, shares: Tensor | None = None) -> Tensor:
    """Return the distance of cutouts, embedded as `[N, M, D]`, to the prompts of a target: `[N, M]`.

    Crowson's Prompt module: the distance carries the weight's sign, and a cutout whose signed distance is below the
    prompt's stop gives no gradient. Summed over the prompts. shares `[N, M, P]`: how much of what each cutout sees of
    the image belongs to each prompt; squared, it scales the weights.
    """
    signed = spherical_distance(embeds[:, :, None], target.embeds) * target.weights.sign()  # [N, M, P]
    held = replace_grad(signed, signed.maximum(target.stops))
    weighted = held * target.weights.abs()
    return (weighted if shares is None else weighted * shares.square()).sum(-1)


def style_distance(seen: Seen) -> Tensor:
    """Return how far the statistics of the middle layers are from those of a style, in units of its spread: `[N, M]`.

    Means and standard deviations instead of Gatys et al.'s Gram matrices (Li et al. 2017, Demystifying Neural Style
    Transfer), and CLIP's layers instead of VGG's.
    """
    parts = []
    for layer, style in zip(seen.layers, seen.reference.style, strict=True):
        apart = [of_image - of_style for of_image, of_style in zip(statistics(layer), style, strict=True)]
        parts.append(sum(part.square().mean(-1) for part in apart) / style[1].square().mean())
    return sum(parts) / len(parts)  # type: ignore[return-value]


def statistics(layer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation over positions: `[..., C, positions]` -> twice `[..., C]`."""
    mean = layer.mean(-1)
    return mean, ((layer - mean[..., None]).square().mean(-1) + 1e-8).sqrt()


def aesthetic(seen: Seen) -> Tensor:
    """Return what is missing to the highest mark that people would give, in tenths: `[N, M]`; 0 without a head."""
    head = seen.reference.head
    if head is None:
        return seen.embeds.new_zeros(seen.embeds.shape[:2])
    return 1 - (seen.embeds @ head.weight + head.bias) / HIGHEST


def init(context: LossContext) -> Tensor:
    """Hold the latent near its start, in units of the codebook's std; the pull fades to nothing over the run.

    The `init_weight` of nerdyrodent and others pulls to zero, whatever the start; this one pulls to the start.
    """
    faded = fade("init_weight", context.progress, context.settings)
    return (context.z - context.z_init).square().mean((1, 2, 3)) / context.codebook_std**2 * faded


def target(context: LossContext) -> Tensor:
    """Return the latent's mean squared distance to that of the target image, in units of the codebook's std.

    pixray's `target_images` and rkhamilton's `alternate_img_target`.
    """
    assert context.z_target is not None  # the loss counts only where there is a target image
    return (context.z - context.z_target).square().mean((1, 2, 3)) / context.codebook_std**2


def tv(context: LossContext) -> Tensor:
    """Return the image's total variation: the mean absolute difference of neighbouring pixels; smooths."""
    x = context.image
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean((1, 2, 3)) + (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))


def saturation(context: LossContext) -> Tensor:
    """Return how pale the image is: less the mean standard deviation of a pixel's red, green and blue.

    pixray's `saturation`, which has the same measure of a colour's strength.
    """
    return -context.image.std(1).mean((1, 2))


def smoothness(context: LossContext) -> Tensor:
    """Return the mean squared difference of neighbouring pixels: unlike `tv` it spares small ones and softens edges."""
    x = context.image
    rows, columns = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return rows.square().mean((1, 2, 3)) + columns.square().mean((1, 2, 3))


def symmetry(context: LossContext) -> Tensor:
    """Return the mean squared difference of the image and its mirror images."""
    x = context.image
    differences = (x - x.flip(dim) for dim in DIMS[context.settings.symmetry])
    return sum(each.square().mean((1, 2, 3)) for each in differences)  # type: ignore[return-value]


def palette(context: LossContext) -> Tensor:
    """Return the mean squared distance in Oklab of each pixel to the nearest colour of the palette."""
    colours = context.image.new_tensor([rgb(colour) for colour in context.settings.palette])
    nearest = None
    x = oklab(context.image)
    for colour in oklab(colours[..., None, None]):
        distance = (x - colour).square().sum(1)
        nearest = distance if nearest is None else nearest.minimum(distance)
    assert nearest is not None  # the loss counts only where there is a palette
    return nearest.mean((1, 2))


def frame(context: LossContext) -> Tensor:
    """Return the mean squared difference of the image's edges to the frame's colour."""
    x, settings = context.image, context.settings
    width = frame_pixels(x, settings)
    apart = (x - x.new_tensor(rgb(settings.frame))[:, None, None]).square().mean(1)
    inside = apart[:, width:-width, width:-width].sum((1, 2))
    edge = apart[0].numel() - max(0, x.shape[2] - 2 * width) * max(0, x.shape[3] - 2 * width)
    return (apart.sum((1, 2)) - inside) / edge


def frame_pixels(image: Tensor, settings: Settings) -> int:
    """Return how many pixels wide the frame of an image `[N, 3, H, W]` is."""
    return max(1, round(min(image.shape[-2:]) * settings.frame_width))


def oklab(x: Tensor) -> Tensor:
    """Return colours `[N, 3, H, W]`, sRGB in 0..1, in Oklab, where distances are those that eyes see.

    Ottosson 2020, https://bottosson.github.io/posts/oklab/, whose matrices these are.
    """
    linear = ((x.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4).where(x > 0.04045, x / 12.92)
    cones = linear.new_tensor(TO_CONES) @ linear.flatten(2)
    lab = linear.new_tensor(TO_LAB) @ cones.clamp(min=1e-6).pow(1 / 3)
    return lab.unflatten(2, x.shape[2:])


TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
CLIP_LOSSES: dict[str, ClipLoss] = {
    "prompt": lambda seen: prompt_distance(seen.embeds, seen.target, seen.shares),
    "aesthetic": aesthetic,
    "style": style_distance,
}
LOSSES: dict[str, Loss] = {
    "frame": frame,
    "init": init,
    "palette": palette,
    "saturation": saturation,
    "smoothness": smoothness,
    "symmetry": symmetry,
    "target": target,
    "tv": tv,
}
