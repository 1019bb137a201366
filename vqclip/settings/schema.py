"""Settings: every value that changes the image. Validated, frozen, saved resolved.

A setting's default, range and facts stand on its field and nowhere else: options, help, tables and checks are made
from it. Importing this loads no torch.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ..errors import UsageError
from ..text import brief, fault_of, nearest, split_list
from .augmentations import AUGMENTS, parse_augment
from .colours import MOST, OF_IMAGE, as_colour, as_palette_colour
from .curves import Curve
from .cutout_methods import CUTOUT_METHODS
from .facts import CONTROLS, CUTOUTS, IMAGE, LOOP, MODELS, START, Facts
from .number_or_curve import NumberOrCurve
from .prompts import WEIGHTS, Prompt, parse_noise, parse_prompts
from .ranges import describe_range
from .regions import SIGN, Region, parse_region
from .sizes import MAX_PIXELS, MAX_SIDE, NAMES, as_size, named_size
from .synonyms import synonym

MAX_STEPS = 100_000
MOST_VALUES = 2_000_000  # of all curves at all steps: they are checked in some seconds
WEIGHT, SIGNED_WEIGHT = NumberOrCurve(ge=0, le=1000), NumberOrCurve(ge=-1000, le=1000)
AXES = {"none": "", "x": "x", "y": "y", "both": "xy"}  # along which a tile repeats, or an image is symmetric
UPSCALING = functools.partial(Facts, per_image=True, sample=True, upscaling=True, finishing=True)
REGIONS = Facts(
    CONTROLS, flag="--region", metavar="TEXT@PLACE", names="file", behind=SIGN, separator=";", per_image=True
)
# Of what draws the start.
DALLE = functools.partial(Facts, START, fixed=True, per_image=True, dalle=True, needs="--init sample")


class Refused(ValueError):
    """What is wrong with a value, and what to do: a UsageError for within pydantic, which passes ValueErrors on."""

    def __init__(self, what: str, hint: str, field: str = "") -> None:
        super().__init__(what)
        self.hint, self.field = hint, field


def _check(check: Callable[[Any], Any]) -> BeforeValidator:
    """Return a validator that reads a value by `check`."""

    def run(value: Any) -> Any:
        try:
            return check(value)
        except UsageError as error:
            raise Refused(error.what, error.hint) from None

    return BeforeValidator(run)


def _reads(parse: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that leaves a text as it is, if `parse` reads it; what is none is left to its type."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            parse(value)
        return value

    return _check(check)


def _check_augment(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        parse_augment(text)
    except UsageError as error:
        raise UsageError(f"augments: {error.what}", error.hint) from None
    return text.strip()


def _check_noise(value: Any) -> Any:
    if isinstance(value, str | int) and not isinstance(value, bool):
        parse_noise(str(value))
        return str(value)
    return value


def _check_upscale(factor: Any) -> Any:
    if factor in (1, "1"):
        raise UsageError("upscale: 1 enlarges nothing", "give 2 to 8, or 0 for none")
    return factor


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise ValueError("true and false are no values here")
    return value


def as_list(value: Any) -> Any:
    """Return what a setting names as a list: of one name that name, of none nothing; anything else as it is."""
    return ([value] if value else []) if isinstance(value, str | Path | None) else value


PathText = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
PathTexts = Annotated[tuple[PathText, ...], BeforeValidator(as_list)]


class Settings(BaseModel):
    """What makes an image. Values that a preset decides are listed in models/catalogue.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Annotated[
        str, _reads(lambda text: text.strip() and parse_prompts(text)), Facts(per_image=True, sample=True)
    ] = Field("", description='what to draw: "text[:weight] | text[:weight]"')
    seed: Annotated[int, Facts(IMAGE, "-S", fixed=True, per_image=True, sample=True, at_random=True)] = Field(
        0,
        ge=0,
        lt=2**63,
        description="decides everything random; chosen at random, and reported, if none or -1 is given",
    )
    size: Annotated[tuple[int, int], _check(as_size), Facts(IMAGE, "-s", metavar="WxH", fixed=True)] = Field(
        (128, 128),
        description=f"width and height, 1 to {MAX_SIDE} px; one number is both; or {NAMES} (the init image's shape)",
    )
    upscale: Annotated[int, _check(_check_upscale), UPSCALING(IMAGE, metavar="FACTOR")] = Field(
        0, ge=0, le=8, description="how many times as large the finished image is made, 2 or more; 0: as it is drawn"
    )
    steps: Annotated[int, Facts(IMAGE)] = Field(
        100, ge=0, le=MAX_STEPS, description="updates of the latent; 0 only with init sample"
    )
    image_prompts: Annotated[PathTexts, Facts(IMAGE, "-i", "--image-prompt", "FILE", names="file", per_image=True)] = (
        Field((), max_length=64, description="images that CLIP is to see in the result")
    )
    image_prompt_weight: Annotated[float, Facts(IMAGE, per_image=True, needs="--image-prompt"), SIGNED_WEIGHT] = Field(
        1.0, description="weight of each image prompt"
    )
    vqgan: Annotated[PathText, Facts(MODELS, metavar="NAME", names="vqgan", fixed=True, sample=True)] = Field(
        "tiny", description="a VQGAN's name, folder or checkpoint"
    )
    clips: Annotated[PathTexts, Facts(MODELS, flag="--clip", metavar="NAME", names="clip", sample=True)] = Field(
        ("tiny",), min_length=1, max_length=64,
        description="CLIPs, each a name, NAME:TAG of open_clip, a folder or FILE@ARCHITECTURE",
    )  # fmt: skip
    clip_weights: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1000)], ...], Facts(MODELS, metavar="N,N", sample=True)
    ] = Field((), description="weight of each CLIP, in their order; all alike if none are given")
    clip_mix: Annotated[Literal["sum", "turns"], Facts(MODELS, needs="a second --clip")] = Field(
        "sum", description="several CLIPs: all in every step, or one a step in turns, as often as its weight says"
    )
    upscaler: Annotated[PathText, UPSCALING(MODELS, metavar="NAME", names="upscaler", needs="--upscale")] = Field(
        "realesr-animevideov3", description="the network that enlarges it: a name or a file"
    )
    long_prompts: Annotated[Literal["split", "cut"], Facts(MODELS, sample=True)] = Field(
        "split", description="a prompt longer than a CLIP reads: in parts, which are averaged, or only its beginning"
    )
    init: Annotated[
        Literal["smooth", "codes", "grey", "sample"], Facts(START, fixed=True, per_image=True, sample=True)
    ] = Field("grey", description="the start without an init image; sample: the best image that a Mini DALL-E draws")
    dalle: Annotated[PathText, DALLE(metavar="NAME", names="dalle", sample=True)] = Field(
        "", description="a Mini DALL-E's name or folder; if none is given, the one that goes with the VQGAN"
    )
    candidates: Annotated[int, DALLE(sample=True)] = Field(
        16, ge=1, le=4096, description="images to draw, of which the best is chosen"
    )
    guidance: Annotated[float, DALLE(sample=True)] = Field(
        0.0, ge=0, le=100, description="how strictly the text is followed; 1: not beyond it; 0: as suits the model"
    )
    temperature: Annotated[float, DALLE(sample=True)] = Field(
        1.0, ge=0.01, le=10, description="below 1 safer codes, above 1 wilder"
    )
    top_k: Annotated[int, DALLE(sample=True)] = Field(
        256, ge=1, le=65536, description="codes that each position is drawn from"
    )
    candidate_weight: Annotated[float, DALLE(), WEIGHT] = Field(
        0.0, description="weight of the best candidate as an image prompt"
    )
    init_image: Annotated[PathText | None, Facts(START, metavar="FILE", names="file", fixed=True, per_image=True)] = (
        Field(None, description="an image to start from; aspect kept, edges cropped")
    )
    init_weight: Annotated[float, Facts(START, loss="init"), WEIGHT] = Field(
        0.0, description="weight of the pull towards the start; fades over the run"
    )
    tries: Annotated[int, Facts(START, fixed=True, per_image=True, needs="--init smooth")] = Field(
        64, ge=1, le=10_000, description="with init smooth, random starts of which the best is chosen"
    )
    step_size: Annotated[float, Facts(LOOP), NumberOrCurve(gt=0, le=10)] = Field(
        1.0, description="learning rate, in units of the codebook's standard deviation"
    )
    learning_rate: Annotated[float, Facts(LOOP, later=True), NumberOrCurve(ge=0, le=10)] = Field(
        0.0,
        description="learning rate as other tools give it: no schedule, and Adam's second beta is 0.999; "
        "0: --step-size decides",
    )
    optimizer: Annotated[
        Literal["adam", "adamw", "adamax", "radam", "adamp", "diffgrad", "adagrad", "rmsprop"], Facts(LOOP, later=True)
    ] = Field("adam", description="what moves the latent")
    momentum: Annotated[float, Facts(LOOP)] = Field(0.9, ge=0, lt=1, description="Adam's first beta")
    damping: Annotated[float, Facts(LOOP), NumberOrCurve(ge=0, le=100)] = Field(
        1.0, description="slows the latent where gradients are small: Adam's epsilon over their root mean square"
    )
    coarse: Annotated[float, Facts(LOOP)] = Field(
        0.7, ge=0, le=1, description="fraction of the steps that run at half the size, first; 0 with an init image"
    )
    ema: Annotated[float, Facts(LOOP), NumberOrCurve(ge=0, lt=1)] = Field(
        0.9, description="decay of the latent's moving average, which is shown; 0 shows the last latent"
    )
    tv: Annotated[float, Facts(LOOP, loss="tv"), WEIGHT] = Field(3.0, description="weight of total variation: smooths")
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Facts(LOOP)] = Field(
        "auto", description="numbers that the networks compute with; auto: bfloat16 where it is fast"
    )
    cutouts: Annotated[int, Facts(CUTOUTS, "-c"), NumberOrCurve(ge=1, le=4096)] = Field(
        8, description="cutouts a step: parts of the image, distorted at random, that CLIP sees"
    )
    overview: Annotated[float, Facts(CUTOUTS), NumberOrCurve(ge=0, le=1)] = Field(
        0.7, description="fraction of the cutouts that show the whole image (at least one does)"
    )
    smallest_cutout: Annotated[float, Facts(CUTOUTS), NumberOrCurve(gt=0, le=1)] = Field(
        0.6, description="side of the smallest cutout, relative to the image's short side"
    )
    margin: Annotated[float, Facts(CUTOUTS), NumberOrCurve(ge=0, le=1)] = Field(
        0.5, description="widest frame around the whole image, in random colours"
    )
    augments: Annotated[tuple[Annotated[str, _check(_check_augment)], ...], Facts(CUTOUTS, metavar="NAME,NAME")] = (
        Field(
            ("flip", "affine", "perspective", "colour"),
            description=f"on each cutout, of: {', '.join(AUGMENTS)}; each may have a strength and a probability, "
            "affine:30 or affine:30:0.8",
        )
    )
    cutout_method: Annotated[
        Literal[
            "own", "original", "sg3", "kornia", "updated", "nrupdated", "updatedpooling", "latest", "pixray", "inner"
        ],
        Facts(CUTOUTS, later=True),
    ] = Field(
        "own",
        description="how cutouts are taken: in vqclip's own way, or as another tool does, with its augments and noise",
    )
    cut_power: Annotated[float, Facts(CUTOUTS, later=True, needs="a --cutout-method of squares")] = Field(
        1.0, gt=0, le=10, description="exponent of the cutouts' sides: more makes small ones likelier"
    )
    noise: Annotated[float, Facts(CUTOUTS), NumberOrCurve(ge=0, le=1)] = Field(
        0.08, description="largest standard deviation of the noise on a cutout"
    )
    chunk: Annotated[int, Facts(CUTOUTS)] = Field(
        0, ge=0, le=1_000_000,
        description="cutouts that CLIP sees at once: fewer take less memory; 0: 8 on the CPU, elsewhere all",
    )  # fmt: skip

    mask: Annotated[PathText | None, Facts(CONTROLS, metavar="FILE", names="file", fixed=True)] = Field(
        None, description="an image: where it is white the init image may change, elsewhere it stays"
    )
    mask_feather: Annotated[int, Facts(CONTROLS, fixed=True, needs="--mask")] = Field(
        8, ge=0, le=64, description="pixels over which a change fades in"
    )
    regions: Annotated[tuple[Annotated[str, _reads(parse_region)], ...], BeforeValidator(as_list), REGIONS] = Field(
        (), max_length=64,
        description="a prompt for a part of the image: left, right, top, bottom, centre, its x,y,width,height in "
        "shares, or an image that is white there",
    )  # fmt: skip
    image_prompt_weights: Annotated[
        tuple[Annotated[float, SIGNED_WEIGHT], ...],
        Facts(CONTROLS, metavar="N,N", per_image=True, needs="--image-prompt"),
    ] = Field((), description="weight of each image prompt, in their order, as --image-prompt FILE:WEIGHT gives them")
    noise_prompts: Annotated[
        tuple[Annotated[str, _check(_check_noise)], ...],
        BeforeValidator(as_list),
        Facts(CONTROLS, flag="--noise-prompt", metavar="SEED[:WEIGHT]", per_image=True),
    ] = Field((), max_length=64, description="a direction of CLIP's space that a seed gives, as one more prompt")
    target_image: Annotated[PathText | None, Facts(CONTROLS, metavar="FILE", names="file")] = Field(
        None, description="an image whose latent the image is drawn towards"
    )
    target_weight: Annotated[float, Facts(CONTROLS, loss="target", needs="--target-image"), WEIGHT] = Field(
        1.0, description="weight of that pull"
    )
    saturation: Annotated[float, Facts(CONTROLS, loss="saturation"), SIGNED_WEIGHT] = Field(
        0.0, description="weight of strong colours; negative: of pale ones"
    )
    smoothness: Annotated[float, Facts(CONTROLS, loss="smoothness"), SIGNED_WEIGHT] = Field(
        0.0, description="weight of soft transitions; negative: of hard ones"
    )
    symmetry: Annotated[Literal["none", "x", "y", "both"], Facts(CONTROLS)] = Field(
        "none", description="which mirror image the image is to be like: left and right (x), top and bottom (y)"
    )
    symmetry_weight: Annotated[float, Facts(CONTROLS, loss="symmetry", needs="--symmetry"), WEIGHT] = Field(
        10.0, description="weight of that likeness"
    )
    symmetry_until: Annotated[float, Facts(CONTROLS, needs="--symmetry")] = Field(
        0.0, ge=0, le=1, description="fraction of the steps, the first, in which one half is copied onto the other"
    )
    palette: Annotated[
        tuple[Annotated[str, _check(as_palette_colour)], ...], Facts(CONTROLS, metavar="COLOUR,COLOUR")
    ] = Field(
        (), max_length=MOST, description="colours that the image is to have: names, #rrggbb, or @FILE for an image's"
    )
    palette_weight: Annotated[float, Facts(CONTROLS, loss="palette", needs="--palette"), WEIGHT] = Field(
        10.0, description="weight of their distance"
    )
    palette_snap: Annotated[
        Literal["none", "nearest", "dither"], Facts(CONTROLS, finishing=True, needs="--palette")
    ] = Field(
        "none", description="give the finished image no other colours: the nearest, or a mixture that looks alike"
    )
    style_image: Annotated[PathText | None, Facts(CONTROLS, metavar="FILE", names="file")] = Field(
        None, description="an image whose style the image is to have, by CLIP's middle layers"
    )
    style_weight: Annotated[float, Facts(CONTROLS, loss="style", needs="--style-image"), WEIGHT] = Field(
        1.0, description="weight of that style"
    )
    aesthetic_weight: Annotated[float, Facts(CONTROLS, loss="aesthetic"), SIGNED_WEIGHT] = Field(
        0.0, description="weight of the mark that people would give the image, by a head for ViT-L-14's embeddings"
    )
    head: Annotated[PathText, Facts(CONTROLS, metavar="NAME", names="head", needs="--aesthetic-weight")] = Field(
        "sac-logos-ava1-l14", description="the head that gives this mark: a name or a file"
    )
    frame: Annotated[str, _check(as_colour), Facts(CONTROLS, metavar="COLOUR")] = Field(
        "", description="colour that the image is to have along its edges"
    )
    frame_width: Annotated[float, Facts(CONTROLS, needs="--frame")] = Field(
        0.1, gt=0, le=0.5, description="how wide, relative to the image's short side"
    )
    frame_weight: Annotated[float, Facts(CONTROLS, loss="frame", needs="--frame"), WEIGHT] = Field(
        10.0, description="weight of that colour's distance"
    )
    tile: Annotated[Literal["none", "x", "y", "both"], Facts(CONTROLS)] = Field(
        "none", description="let the image join itself without a seam, beside (x), above (y), or both"
    )
    tile_preview: Annotated[int, Facts(CONTROLS, finishing=True, needs="--tile")] = Field(
        0, ge=0, le=8, description="write tiled.png to the run too: the tile so many times in a row; 0: do not"
    )
    latent: Annotated[Literal["vectors", "logits"], Facts(LOOP, later=True, fixed=True)] = Field(
        "vectors", description="what the steps move: the latent's vectors, or logits over the codebook's codes"
    )
    latent_noise: Annotated[float, Facts(CONTROLS), NumberOrCurve(ge=0, le=10)] = Field(
        0.0, description="noise on the latent, in units of the codebook's standard deviation; fades over the run"
    )
    schedule: Annotated[Literal["cosine", "flat"], Facts(CONTROLS)] = Field(
        "cosine",
        description="cosine: the step size warms up and falls, init weight and latent noise fade; flat: all as given",
    )
    stop_after: Annotated[int, Facts(CONTROLS)] = Field(
        0, ge=0, le=MAX_STEPS, description="end the run when so many steps bring it no nearer to the prompts; 0: never"
    )
    min_gain: Annotated[float, Facts(CONTROLS, needs="--stop-after")] = Field(
        0.002, ge=0, le=10, description="smallest fall of the distance that counts as nearer"
    )
    final: Annotated[Literal["last", "best"], Facts(CONTROLS)] = Field(
        "last", description="which image is the finished one: the last, or that which is nearest to the prompts"
    )

    _no_bool = field_validator("*", mode="before")(_refuse_bool)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not (self.prompt.strip() or self.regions or any(prompt.weight for prompt in self.image_weights())):
            raise Refused("there is no prompt", 'say what to draw, e.g. vqclip generate "a red heart"')
        if not self.steps and not self.starts_from_candidates():
            why = "would leave the init image as it is" if self.init_image else "is for --init sample only"
            raise Refused(f"steps: 0 {why}", "give 1 or more", "steps")
        for field, (clash, what, hint) in CLASHES.items():
            if clash(self):
                raise Refused(f"{flag(field)[2:]}: {what}", hint, field)
        weighed = {"image_prompt_weights": (self.image_prompts, "image prompts"), "clip_weights": (self.clips, "CLIPs")}
        for field, (things, noun) in weighed.items():
            if (weights := getattr(self, field)) and len(weights) != len(things):
                what = f"{flag(field)[2:]}: {len(weights)} for {len(things)} {noun}"
                raise Refused(what, "give one for each, or none", field)
        width, height = self.size
        if width * height * self.upscale**2 > MAX_PIXELS:
            what = f"upscale: {width}x{height} pixels, {self.upscale} times as large, are over 64 million"
            raise Refused(what, "use a smaller size or factor", "upscale")
        columns, rows = self.tiles()
        if self.tile_preview and width * height * max(1, self.upscale) ** 2 * columns * rows > MAX_PIXELS:
            raise Refused("tile-preview: it has over 64 million pixels", "show fewer tiles", "tile_preview")
        try:
            self.largest()
        except UsageError as error:
            raise Refused(error.what, error.hint, error.field) from None
        return self

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, dump: Callable[[Any], Any]) -> dict[str, Any]:
        """Leave out how a Mini DALL-E draws where none does, what enlarges where nothing is, and idle controls."""
        unused: tuple[str, ...] = () if self.init == "sample" else fields_with("dalle")
        unused += () if self.upscale else fields_with("upscaling")
        unused += tuple(name for name in CONTROL if getattr(self, name) == Settings.model_fields[name].default)
        return {name: value for name, value in dump(self).items() if name not in unused}

    def at(self, t: float) -> Self:
        """Return the settings of the step before which a share `t` of the run is done: numbers in place of curves."""
        return self.model_copy(update={name: _number(name, curve.at(t)) for name, curve in self.curves().items()})

    @property
    def end(self) -> float:
        """The share of the run that is done before its last step: with what curves are then, they end."""
        return max(0, self.steps - 1) / max(1, self.steps)

    def largest(self) -> Self:
        """Return the settings with the largest value of each curve, which memory must suffice for.

        Raises UsageError for a curve that is out of range, or no number, at one of the steps.
        """
        regional = [prompt for region in self.parsed_regions() for prompt in region.prompts]
        noises = [parse_noise(noise)[1] for noise in self.noise_prompts]
        weighed = dict.fromkeys(p.weight for p in (*self.prompts(), *regional, *self.image_weights(), *noises))
        weights, curves = [weight for weight in weighed if isinstance(weight, Curve)], self.curves().items()
        if (len(weights) + len(curves)) * self.steps > MOST_VALUES:
            what = f"{len(weights) + len(curves)} curves at {self.steps:,} steps are over {MOST_VALUES:,} values"
            raise UsageError(what, "use fewer curves or steps")
        for weight in weights:
            weight.values(_times(self.steps), *WEIGHTS)
        return self.model_copy(update={name: _largest(name, curve.text, self.steps) for name, curve in curves})

    def curves(self) -> dict[str, Curve]:
        """Return the settings that are curves of the run's progress."""
        return {name: value for name in WITH_CURVES if isinstance(value := getattr(self, name), Curve)}

    def starts_from_candidates(self) -> bool:
        """Say whether the start is what a Mini DALL-E draws."""
        return self.init == "sample" and not self.init_image

    def models(self) -> list[tuple[str, str]]:
        """Return the (kind, name) of the models that are used: the VQGAN, the CLIPs, and others where they count."""
        dalle = [("dalle", self.dalle)] if self.starts_from_candidates() else []
        upscaler = [("upscaler", self.upscaler)] if self.upscale else []
        head = [("head", self.head)] if self.counts("head") else []
        return [("vqgan", self.vqgan), *(("clip", name) for name in self.clips), *dalle, *upscaler, *head]

    def tiles(self) -> tuple[int, int]:
        """Return how many tiles tiled.png shows, (side by side, one above the other)."""
        count = max(1, self.tile_preview)
        return count if "x" in AXES[self.tile] else 1, count if "y" in AXES[self.tile] else 1

    def held_out(self) -> bool:
        """Say whether cutouts that no step sees are looked at."""
        return bool(self.stop_after) or self.final == "best"

    def prompts(self) -> list[Prompt]:
        """Return the parsed text prompts; none when only image prompts are given."""
        return parse_prompts(self.prompt) if self.prompt.strip() else []

    def image_weights(self) -> list[Prompt]:
        """Return the weights of the image prompts, as prompts without a text."""
        weights = self.image_prompt_weights or (self.image_prompt_weight,) * len(self.image_prompts)
        named = [replace(w, name="image-prompt-weights") if isinstance(w, Curve) else w for w in weights]
        return [Prompt("", weight, None) for weight in named]

    def parsed_regions(self) -> list[Region]:
        """Return the parsed regions."""
        return [parse_region(region) for region in self.regions]

    def title(self) -> str:
        """Return what the image is called after: the prompt, a region's, or the first image prompt's file name."""
        regions = [prompt.text for region in self.parsed_regions() for prompt in region.prompts]
        return self.prompt.strip() or " ".join(regions) or Path(self.image_prompts[0]).stem

    def pictures(self) -> tuple[str, ...]:
        """Return the paths of all images that are read."""
        fields = [name for name in fields_with("names") if facts(name).names == "file"]
        return tuple(path for name in fields for path in files_of(name, getattr(self, name)))

    def slower(self, factor: float) -> dict[str, Any]:
        """Return what makes steps so many times as long: the learning rate, where one is given, or the step size."""
        name = "learning_rate" if self.learning_rate != 0 else "step_size"
        return {name: getattr(self, name) * factor}

    def loss_weights(self) -> dict[str, float]:
        """Return the losses that count, name -> weight; a curve counts, whatever its values."""
        weights = {facts(name).loss: getattr(self, name) for name in fields_with("loss") if self.counts(name)}
        return {"prompt": 1.0} | {loss: weight for loss, weight in weights.items() if weight}

    def counts(self, name: str) -> bool:
        """Say whether a setting has an effect: not the weight of symmetry, where there is to be none."""
        return not (needed := facts(name).needs) or NEEDS[needed](self)


def facts(name: str) -> Facts:
    """Return the facts that stand on a setting's field."""
    return _all_facts(Settings)[name]


def fields_with(fact: str) -> tuple[str, ...]:
    """Return the names of the settings of which a fact is true: `fields_with("fixed")`."""
    return tuple(name for name, known in _all_facts(Settings).items() if getattr(known, fact))


@functools.cache
def _all_facts(model: type[Settings]) -> dict[str, Facts]:
    """Return the facts of every setting, name -> facts."""
    fields = model.model_fields.items()
    return {name: next(item for item in field.metadata if isinstance(item, Facts)) for name, field in fields}


def _number(name: str, value: float) -> float:
    """Return a curve's value as the setting takes it: a number of cutouts is whole."""
    return round(value) if Settings.model_fields[name].annotation is int else value


def _times(steps: int) -> Iterable[float]:
    """Return the share of the run that is done before each of its steps."""
    return (step / steps for step in range(steps)) if steps else (0.0,)


@functools.lru_cache(maxsize=200)
def _largest(name: str, text: str, steps: int) -> float:
    """Return the largest value of a setting's curve. Raises UsageError for one that the setting can't have."""
    values = Curve(text, name.replace("_", "-")).values(_times(steps))
    for value in (min(values), max(values)):
        try:
            check_value(name, _number(name, value))
        except UsageError as error:
            t = values.index(value) / max(1, steps)
            raise UsageError(f"{error.what} at t = {t:g}", error.hint, name) from None
    return _number(name, max(values))


WITH_CURVES = tuple(name for name, field in Settings.model_fields.items() if NumberOrCurve in map(type, field.metadata))
CONTROL = tuple(name for name in Settings.model_fields if facts(name).panel == CONTROLS or facts(name).later)
NEEDS: dict[str, Callable[[Settings], bool]] = {  # what settings need to have an effect -> whether it is given
    "--init sample": Settings.starts_from_candidates,
    "--init smooth": lambda settings: settings.init == "smooth" and not settings.init_image,
    "--aesthetic-weight": lambda settings: bool(settings.aesthetic_weight),
    "a --cutout-method of squares": lambda settings: (
        CUTOUT_METHODS[settings.cutout_method].boxes in ("squares", "inner")
    ),
    "--frame": lambda settings: bool(settings.frame),
    "--image-prompt": lambda settings: bool(settings.image_prompts),
    "--mask": lambda settings: bool(settings.mask),
    "--palette": lambda settings: bool(settings.palette),
    "--style-image": lambda settings: bool(settings.style_image),
    "--target-image": lambda settings: bool(settings.target_image),
    "--symmetry": lambda settings: settings.symmetry != "none",
    "--tile": lambda settings: settings.tile != "none",
    "--upscale": lambda settings: bool(settings.upscale),
    "--stop-after": lambda settings: bool(settings.stop_after),
    "a second --clip": lambda settings: len(settings.clips) > 1,
}


def files_of(name: str, value: Any) -> list[str]:
    """Return the files or models that the value of a setting names."""
    if not facts(name).behind:
        return list(as_list(value))
    return [region.file for region in map(parse_region, as_list(value)) if region.file]


def with_files(name: str, value: Any, files: Iterable[str]) -> Any:
    """Return the value of a setting with other files in place of those that `files_of` returns."""
    sign, others = facts(name).behind, iter(files)
    if not sign:
        return tuple(others) if isinstance(value, tuple | list) else next(others)
    return tuple(
        f"{text.rpartition(sign)[0]}{sign}{next(others)}" if files_of(name, [text]) else text for text in as_list(value)
    )


CLASHES: dict[str, tuple[Callable[[Settings], Any], str, str]] = {  # controls that make no sense with others
    "mask": (lambda own: own.mask and not own.init_image, "there is no image to keep", "give --init-image too"),
    "tile": (lambda own: own.mask and own.tile != "none", "a masked image stays as it is at its edges",
             "leave --mask or --tile out"),
    "symmetry": (lambda own: set(AXES[own.tile]) & set(AXES[own.symmetry]), "a tile has no middle",
                 "leave one of both out, or give each its own axis: --tile x --symmetry y"),
    "symmetry_until": (lambda own: own.mask and own.symmetry_until and own.symmetry != "none",
                       "what a mask keeps is no mirror image", "leave one of both out"),
    "palette": (lambda own: any(colour.startswith(OF_IMAGE) for colour in own.palette),  # as no record has it
                "an image's colours were not read", "give the colours themselves"),
    "palette_snap": (lambda own: own.mask and own.palette_snap != "none", "what a mask keeps has its own colours",
                     "leave one of both out"),
    "frame": (lambda own: own.frame and own.tile != "none", "a tile has no edges", "leave --frame or --tile out"),
    "regions": (lambda own: own.regions and own.tile != "none", "a tile is turned in itself",
                "leave --region or --tile out"),
}  # fmt: skip


def without_effect(names: Iterable[str], *several: Settings) -> list[str]:
    """Return a line for each of the named settings that has an effect in none of several settings."""
    needs = {name: facts(name).needs for name in names if name in Settings.model_fields}
    idle = [name for name, need in needs.items() if need and not any(NEEDS[need](settings) for settings in several)]
    return [f"{flag(name)} has no effect without {needs[name]}" for name in idle]


def flag(name: str) -> str:
    """Return a setting's long option."""
    return facts(name).flag or f"--{name.replace('_', '-')}"


def meant(name: str) -> str:
    """Return ": did you mean 'steps'?" for a setting that is misspelt or called as in another tool; else ""."""
    if name == "threads":  # of this process, not of an image
        return ": it is --threads or VQCLIP_THREADS"
    names = [synonym(name), *nearest(name, (*Settings.model_fields, "preset"), 1)]
    return next((f": did you mean {known!r}?" for known in names if known), "")


def make_settings(**values: Any) -> Settings:
    """Build Settings; raise UsageError with one line that names the field and what is wrong."""
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        unknown = first["type"] == "extra_forbidden"
        raise (_unknown(field) if unknown else _usage_error(field, error)) from None


def check_name(name: str) -> None:
    """Raise UsageError if there is no setting of this name."""
    if name not in Settings.model_fields:
        raise _unknown(name)


def _unknown(name: str) -> UsageError:
    return UsageError(f"unknown setting {brief(name)}{meant(name)}", "see: vqclip settings")


def check_value(name: str, value: Any) -> None:
    """Raise UsageError if a setting can't have this value, whatever the others are."""
    if name == "size" and named_size(value):  # which depends on others
        return
    try:
        _adapter(Settings, name).validate_python(value)
    except ValidationError as error:
        raise _usage_error(name, error) from None


@functools.cache
def _adapter(model: type[BaseModel], name: str) -> TypeAdapter[Any]:
    field = model.model_fields[name]
    checks, config = (*field.metadata, BeforeValidator(_refuse_bool)), ConfigDict(allow_inf_nan=False)
    return TypeAdapter(Annotated[(field.annotation, *checks)], config=config)  # type: ignore[arg-type]


def _usage_error(name: str, error: ValidationError) -> UsageError:
    """Return one line that says what is wrong with a value (name: its setting), or with several together."""
    first = error.errors()[0]
    reason = first.get("ctx", {}).get("error")
    if isinstance(reason, Refused):
        return UsageError(str(reason), reason.hint, reason.field or name)
    use = describe_range(Settings.model_fields[name].metadata) if name in Settings.model_fields else ""
    use = first.get("ctx", {}).get("expected") or use
    hint = first.get("ctx", {}).get("hint") or (f"use {use}" if use else "see: vqclip settings")
    return UsageError(f"{name.replace('_', '-')}: {fault_of(first)}", hint, name)


def from_text(name: str, text: str) -> Any:
    """Read a setting's value as people write it: sizes as 192x128, lists joined by commas. Raises UsageError."""
    check_name(name)
    if name == "size":
        return named_size(text) or as_size(text)
    if isinstance(Settings.model_fields[name].default, tuple):
        return tuple(part.strip() for part in split_list(text, facts(name).separator) if part.strip())
    return text
