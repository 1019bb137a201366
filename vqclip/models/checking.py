"""Check that a model does what its makers' code does: figures from one image, compared with recorded ones.

A wrong range of pixels, normalisation or activation gives no error, only worse images. Each figure is of an image that
is drawn here: what a VQGAN makes of it and of how many codes, how a CLIP ranks ten captions of it, and a Mini DALL-E by
how likely they make its codes, how well an upscaler restores it. What the catalogue records of a model (`check`) was
measured where its real file was.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.quantize import live_codes, lookup, nearest
from ..core.seeding import generator
from ..errors import ModelError
from . import load_clip, load_dalle, load_upscaler, load_vqgan
from .catalogue import ModelEntry
from .vqgan.taming import TamingVqgan

SIDE = 256  # pixels
CAPTIONS = (
    "a red heart", "a yellow star", "a green leaf", "a blue fish", "a black cat",
    "a white cup", "an orange car", "a purple flower", "a brown dog", "a grey elephant",
)  # fmt: skip
# Figure -> by how much another machine's may differ. A ranking's is in places, summed over all captions.
TOLERANCE = {"psnr": 0.3, "codes": 3, "similarity": 0.003, "ranking": 4, "likelihood": 0.05}
DARK = -0.2  # of the network's own values: few are below where black is 0, and where it is -1 the darkest are
CPU = torch.device("cpu")
Figures = dict[str, int | float | str]


@dataclass(frozen=True)
class Check:
    """What was measured of a model, and what is wrong with it: nothing, if `faults` is empty."""

    figures: Figures
    faults: tuple[str, ...]


def check(entry: ModelEntry) -> Check:
    """Measure an installed model and compare it with its figures in the catalogue.

    Raises ModelError, IntegrityError.
    """
    if entry.kind not in CHECKS:
        what = f"there is no check for a {entry.kind}"
        raise ModelError(what, f"compare its files: vqclip models verify {entry.name}")
    figures, faults = CHECKS[entry.kind](entry)
    different = [
        f"its {name} is {value}, and {entry.facts.check[name]} is recorded"
        for name, value in figures.items()
        if name in entry.facts.check and _difference(name, value, entry.facts.check[name]) > TOLERANCE[name]
    ]
    return Check(figures, (*faults, *different))


def as_toml(entry: ModelEntry, figures: Mapping[str, int | float | str]) -> str:
    """Return the line that records figures in the catalogue."""
    values = (f"{name} = {json.dumps(value)}" for name, value in figures.items())
    return f'{entry.kind}."{entry.name}".check = {{ {", ".join(values)} }}'


def heart(side: int = SIDE) -> Tensor:
    """Draw a red heart with a black rim on white, shaded: `[1, 3, side, side]` in 0..1."""
    fine = 4 * side
    y, x = torch.meshgrid(torch.linspace(1.4, -1.3, fine), torch.linspace(-1.35, 1.35, fine), indexing="ij")
    inner, outer = (((x / s) ** 2 + (y / s) ** 2 - 1) ** 3 - (x / s) ** 2 * (y / s) ** 3 for s in (1.0, 1.1))
    light = 1.1 - 0.2 * ((x + 0.4) ** 2 + (y - 0.5) ** 2).clamp(0.5, 3)
    red = torch.stack([light * 0.95, light * 0.1, light * 0.15])
    image = torch.where(inner < 0, red, torch.where(outer < 0, 0.0, 1.0))
    return F.avg_pool2d(image[None], 4)


@torch.no_grad()
def _check_vqgan(entry: ModelEntry) -> tuple[Figures, list[str]]:
    vqgan, image = load_vqgan(entry.name, CPU), heart()
    codes = nearest(vqgan.encode(image), vqgan.codebook)
    restored = vqgan.decode(lookup(codes, vqgan.codebook)).clamp(0, 1)
    faults = []
    if isinstance(vqgan, TamingVqgan) and vqgan.pixels != (pixels := _range_of(vqgan)):
        faults.append(f"its images are {vqgan.pixels} here, and what its codes paint is {pixels}")
    return {"psnr": _psnr(restored, image), "codes": len(codes.unique())}, faults


def _range_of(vqgan: TamingVqgan) -> str:
    """Return the range of PIXELS that a network's images have: those of -1..1 are below 0 where they are dark.

    Looked at are images of random codes: in the wrong range an autoencoder restores a given image no worse.
    """
    live = live_codes(vqgan.codebook)
    picks = torch.randint(len(live), (1, 16, 16), generator=generator(0, "check"))
    painted = vqgan.decode(lookup(picks, live)) * vqgan.span + vqgan.low
    return "signed" if float(painted.quantile(0.01)) < DARK else "unit"


@torch.no_grad()
def _check_clip(entry: ModelEntry) -> tuple[Figures, list[str]]:
    clip = load_clip(entry.name, CPU)
    image = F.interpolate(heart(), (clip.size, clip.size), mode="bicubic", antialias=True).clamp(0, 1)
    similarity = (clip.encode_image(image) @ clip.encode_text(list(CAPTIONS)).T)[0]
    order = similarity.argsort(descending=True).tolist()
    figures: Figures = {"similarity": round(float(similarity[0]), 4), "ranking": "".join(map(str, order))}
    first = CAPTIONS[order[0]]
    return figures, [] if order[0] == 0 else [f"of ten captions it takes {first!r} for an image of {CAPTIONS[0]!r}"]


@torch.no_grad()
def _check_dalle(entry: ModelEntry) -> tuple[Figures, list[str]]:
    """Compare captions by the mean logarithm of the probabilities that they give the codes of an image."""
    dalle = load_dalle(entry.name, CPU)
    vqgan = load_vqgan(dalle.vqgan, CPU)
    image = heart(dalle.side * vqgan.f)
    encoded = image if dalle.pixels == "vqgan" else image / 2 + 0.5  # what its `decode` undoes
    codes = nearest(vqgan.encode(encoded), vqgan.codebook).flatten(1)
    logits = [dalle.model(dalle.tokens(caption)[1:], codes)[0, :, : dalle.model.shape.codes] for caption in CAPTIONS]
    likelihood = -torch.stack([F.cross_entropy(each, codes[0]) for each in logits])
    order = likelihood.argsort(descending=True).tolist()
    figures: Figures = {"likelihood": round(float(likelihood[0]), 4), "ranking": "".join(map(str, order))}
    fault = f"with {CAPTIONS[order[0]]!r} it finds an image of {CAPTIONS[0]!r} likelier"
    return figures, [] if 0 in order[:3] else [fault]


def _check_upscaler(entry: ModelEntry) -> tuple[Figures, list[str]]:
    upscaler, image = load_upscaler(entry.name, CPU), heart(240)
    side = image.shape[-1] // upscaler.scale
    small = F.interpolate(image, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    large = side * upscaler.scale
    plain = _psnr(F.interpolate(small, (large, large), mode="bicubic").clamp(0, 1), image[..., :large, :large])
    psnr = _psnr(upscaler(small), image[..., :large, :large])
    faults = [] if psnr > plain - 3 else [f"it restores an image to {psnr} dB, bicubic interpolation to {plain}"]
    return {"psnr": psnr}, faults


def _psnr(image: Tensor, original: Tensor) -> float:
    return round(float(-10 * (image - original).square().mean().clamp(min=1e-10).log10()), 2)


def _difference(name: str, value: int | float | str, recorded: int | float | str) -> float:
    if name == "ranking":
        return sum(abs(place - str(recorded).index(caption)) for place, caption in enumerate(str(value)))
    return abs(float(value) - float(recorded))


CHECKS: dict[str, Callable[[ModelEntry], tuple[Figures, list[str]]]] = {
    "vqgan": _check_vqgan,
    "clip": _check_clip,
    "dalle": _check_dalle,
    "upscaler": _check_upscaler,
}
