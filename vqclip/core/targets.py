"""From prompts to targets: texts and images embedded by a CLIP, with their weights and stops."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..files.images import fit, load_image, to_tensor
from ..settings.curves import Curve
from ..settings.prompts import Prompt, parse_noise
from ..settings.schema import Settings
from .cutouts import HELD_OUT_STEP, CutoutConfig, make_cutouts
from .interfaces import Clip, Target, WeightCurve
from .losses import statistics
from .regions import make_mask, masks_of
from .seeding import generator

CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))
CORNER_SIDE = 0.8  # of the short side
STYLE_CUTOUTS = 32  # of the image whose style is wanted


def make_target(
    clip: Clip, settings: Settings, images: Mapping[str, Image.Image], device: torch.device, weight: float = 1.0
) -> Target:
    """Return what a CLIP should see: the settings' text prompts, those of regions, and image prompts.

    images: by their paths, as `load_prompt_images` returns them. weight: what this CLIP counts.
    """
    prompts, regions = settings.prompts(), settings.parsed_regions()
    everywhere = len(prompts)
    prompts += [prompt for region in regions for prompt in region.prompts]
    embeds = [embed_texts(clip, [prompt.text for prompt in prompts], settings.long_prompts)] if prompts else []
    embeds += [embed_image_prompt(clip, images[path], device) for path in settings.image_prompts]
    prompts += settings.image_weights()
    for seed, prompt in map(parse_noise, settings.noise_prompts):
        embeds.append(noise_direction(seed, embeds[0].shape[1]).to(device))
        prompts.append(prompt)
    target = target_of(torch.cat(embeds), prompts, device, weight)
    if not regions:
        return target
    masks = masks_of(target)
    inside = [make_mask(region, images, settings.size) for region in regions for _ in region.prompts]
    masks[everywhere : everywhere + len(inside)] = torch.stack(inside).to(device)
    return replace(target, region_masks=masks)


def noise_direction(seed: int, width: int) -> Tensor:
    """Return a random direction `[1, width]` of unit length: the same seed gives each CLIP its own."""
    return F.normalize(torch.randn(1, width, generator=generator(seed, "noise prompt")), dim=1)


def load_prompt_images(settings: Settings) -> dict[str, Image.Image]:
    """Read image prompts and masks of regions; return them by their paths. Raises InputError."""
    files = [region.file for region in settings.parsed_regions() if region.file]
    return {path: load_image(path) for path in (*settings.image_prompts, *files)}


def target_of(embeds: Tensor, prompts: Sequence[Prompt], device: torch.device, weight: float = 1.0) -> Target:
    """Return the target of prompts embedded as `[P, D]`; what is a curve has the weight of the run's beginning."""
    curves = tuple(WeightCurve((k,), prompt) for k, prompt in enumerate(prompts) if isinstance(prompt.weight, Curve))
    weights, stops = (torch.tensor(values, device=device) for values in zip(*(p.at(0.0) for p in prompts), strict=True))
    return Target(embeds, weights, stops, weight, curves)


def join(targets: Sequence[Target], factors: Sequence[float]) -> Target:
    """Return one CLIP's target of all prompts of several, whose weights are scaled by factors."""
    curves: list[WeightCurve] = []
    before, everywhere = 0, all(target.region_masks is None for target in targets)
    for target, factor in zip(targets, factors, strict=True):
        shifted = [replace(curve, index=(curve.index[0] + before,)) for curve in target.curves]
        curves += [replace(curve, factor=curve.factor * factor) for curve in shifted]
        before += len(target.weights)
    return replace(
        targets[0],
        embeds=torch.cat([target.embeds for target in targets]),
        weights=torch.cat([target.weights * factor for target, factor in zip(targets, factors, strict=True)]),
        stops=torch.cat([target.stops for target in targets]),
        curves=tuple(curves),
        region_masks=None if everywhere else torch.cat([masks_of(target) for target in targets]),
    )


def make_targets(
    clips: Sequence[Clip], settings: Settings, images: Mapping[str, Image.Image], device: torch.device
) -> list[Target]:
    """Return a target for each CLIP, weighted as the settings say."""
    weights = settings.clip_weights or (1.0,) * len(clips)
    return [make_target(clip, settings, images, device, weight) for clip, weight in zip(clips, weights, strict=True)]


def add_image_prompt(clip: Clip, target: Target, image: Image.Image, weight: float, device: torch.device) -> Target:
    """Return a target with one more image prompt."""
    more = target_of(embed_image_prompt(clip, image, device), [Prompt("", weight, None)], device)
    return join([target, more], [1.0, 1.0])


def embed_image_prompt(clip: Clip, image: Image.Image, device: torch.device) -> Tensor:
    """Embed an image prompt as `[1, D]`: the mean over the image and its four corners, unaltered.

    nerdyrodent and others embed it once through random noisy cutouts, before they set the seed.
    """
    side = max(1, round(min(image.size) * CORNER_SIDE))
    crops = [fit(image, (clip.size, clip.size))]
    for right, bottom in CORNERS:
        left, top = (image.width - side) * right, (image.height - side) * bottom
        crop = image.crop((left, top, left + side, top + side))
        crops.append(crop.resize((clip.size, clip.size), Image.Resampling.LANCZOS))
    with torch.no_grad():
        embeds = clip.encode_image(torch.cat([to_tensor(crop) for crop in crops]).to(device))
    return F.normalize(embeds.mean(0, keepdim=True), dim=1)


def style_of(clip: Clip, settings: Settings, image: Image.Image, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return the means and the standard deviations of a CLIP's middle layers, over cutouts of an image.

    The cutouts are made as those of a step are, so that margins and noise count in both alike; they are the same for
    every seed, so that the images of a batch may share them.
    """
    picture = to_tensor(fit(image, settings.size)).to(device)
    config = replace(CutoutConfig.of(settings.at(0.0)), count=STYLE_CUTOUTS)
    cutouts = make_cutouts(picture, clip.size, config, seeds=[0], step=HELD_OUT_STEP)
    with torch.no_grad():
        _, layers = clip.encode_layers(cutouts)
    return [tuple(part.mean(0) for part in statistics(layer)) for layer in layers]  # type: ignore[misc]


def embed_texts(clip: Clip, texts: list[str], long_prompts: str = "split") -> Tensor:
    """Embed texts as `[P, D]` of unit length.

    long_prompts: what is done with a text that is longer than the CLIP's context. "split": the mean of the embeddings
    of its parts, weighted by their number of characters; "cut": its beginning alone.
    """
    return torch.cat([_embed(clip, parts(clip, text) if long_prompts == "split" else [text]) for text in texts])


def _embed(clip: Clip, pieces: list[str]) -> Tensor:
    embeds = clip.encode_text(pieces)
    if len(pieces) == 1:
        return embeds
    lengths = torch.tensor([float(len(piece)) for piece in pieces]).to(embeds)
    return F.normalize((embeds * lengths[:, None]).sum(0, keepdim=True), dim=1)


def parts(clip: Clip, text: str) -> list[str]:
    """Split a text between words into the fewest parts, about equally long, that fit the CLIP's context."""
    pieces, count, longest = [text], 1, max(map(len, text.split()), default=0)
    while count < len(text) and not all(map(clip.fits, pieces)):
        count += 1
        length = -(-len(text) // count)
        pieces = textwrap.wrap(text, length + min(length, longest), break_on_hyphens=False)  # a word may overhang
    return pieces


def long_prompt_notes(clip: Clip, texts: list[str], long_prompts: str = "split") -> list[str]:
    """Return a line for each text that is longer than the CLIP's context: what is done with it."""
    notes = []
    for text in texts:
        if not clip.fits(text):
            split = long_prompts == "split"
            how = f"in {len(parts(clip, text))} parts, averaged" if split else "no further than its context"
            notes.append(f"CLIP {clip.name} reads a long prompt {how} (--long-prompts): {text[:60]}...")
    return notes
