"""Settings: every value that changes the picture. Validated, frozen, saved resolved.

A default stands here and nowhere else; the command line reads its own from these fields.
Importing this loads no torch.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.functional_serializers import model_serializer

from ..errors import UsageError
from ..text import brief, nearest_of
from .augmentations import AUGMENTS
from .prompts import Prompt, parse_prompts
from .reasons import plain
from .sizes import MAX_SIDE, as_size

MAX_STEPS = 100_000
DRAWING = ("dalle", "candidates", "guidance", "temperature", "top_k", "candidate_weight")  # with init sample alone


class Settings(BaseModel):
    """What makes a picture. Values that a preset decides are listed in models/catalogue.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str = Field("", description='what to draw: "text[:weight] | text[:weight]"')
    image_prompts: tuple[str, ...] = Field((), max_length=64, description="pictures that CLIP is to see in the result")
    image_prompt_weight: float = Field(1.0, ge=-1000, le=1000, description="weight of each image prompt")
    seed: int = Field(0, ge=0, lt=2**63, description="decides everything random; drawn, and told, if none is given")
    size: tuple[int, int] = Field((128, 128), description=f"width and height, 1 to {MAX_SIDE} px; one number is both")
    steps: int = Field(100, ge=0, le=MAX_STEPS, description="updates of the latent; 0, with init sample: none")
    vqgan: str = Field("tiny", description="a VQGAN's name, folder or checkpoint")
    clips: tuple[str, ...] = Field(
        ("tiny",), min_length=1, max_length=64,
        description="CLIPs: a name, NAME:TAG of open_clip's, a folder or FILE@ARCHITECTURE",
    )  # fmt: skip
    clip_weights: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        (), description="what each CLIP counts, in their order; all alike if none are given"
    )
    clip_mix: Literal["sum", "turns"] = Field(
        "sum", description="several CLIPs: all in every step, or one a step in turns, as often as its weight says"
    )
    long_prompts: Literal["split", "cut"] = Field(
        "split", description="a prompt longer than a CLIP reads: in parts, which are averaged, or its beginning alone"
    )
    init: Literal["smooth", "codes", "grey", "sample"] = Field(
        "grey", description="the start, where no picture is given; sample: the best that a Mini DALL-E draws"
    )
    dalle: str = Field(
        "",
        description="with init sample, a Mini DALL-E's name or folder; none: the one that goes with the VQGAN",
    )  # fmt: skip
    candidates: int = Field(16, ge=1, le=4096, description="with init sample, pictures to choose the best of")
    guidance: float = Field(
        0.0, ge=0, le=100,
        description="with init sample, how strictly the text is followed; 1: not beyond it; 0: as suits the model",
    )  # fmt: skip
    temperature: float = Field(1.0, ge=0.01, le=10, description="with init sample, below 1 safer codes, above 1 wilder")
    top_k: int = Field(256, ge=1, le=65536, description="with init sample, codes that each place is drawn from")
    candidate_weight: float = Field(
        0.0, ge=0, le=1000, description="with init sample, weight of the best candidate as an image prompt"
    )
    init_image: str | None = Field(None, description="a picture to start from; aspect kept, edges cropped")
    init_weight: float = Field(0.0, ge=0, le=1000, description="pull to the start; fades over the run")
    tries: int = Field(64, ge=1, le=10_000, description="random starts to choose the best of, with init smooth")
    step_size: float = Field(1.0, gt=0, le=10, description="learning rate, in units of the codebook's spread")
    momentum: float = Field(0.9, ge=0, lt=1, description="Adam's first beta")
    damping: float = Field(
        1.0, ge=0, le=100, description="Adam's epsilon, of the gradient's root mean square; spares what counts little"
    )
    coarse: float = Field(
        0.7, ge=0, le=1, description="share of the steps that run at half the size, first; 0 with an init image"
    )
    ema: float = Field(0.9, ge=0, lt=1, description="decay of the latent's average that is shown; 0 shows the last")
    cutouts: int = Field(8, ge=1, le=4096, description="views of the picture a step")
    overview: float = Field(0.7, ge=0, le=1, description="share of views that show all of it (at least one does)")
    smallest_cutout: float = Field(0.6, gt=0, le=1, description="side of the smallest view, of the short side")
    margin: float = Field(0.5, ge=0, le=1, description="widest frame around the whole picture, in random colours")
    augments: tuple[str, ...] = Field(
        ("flip", "affine", "perspective", "colour"), description=f"of: {', '.join(AUGMENTS)}"
    )
    noise: float = Field(0.08, ge=0, le=1, description="largest standard deviation of the noise on a view")
    chunk: int = Field(
        0, ge=0, le=1_000_000,
        description="views that CLIP sees at once: fewer take less memory; 0: 8 on the CPU, elsewhere all",
    )  # fmt: skip
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast")
    tv: float = Field(3.0, ge=0, le=1000, description="weight of total variation: smooths")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):  # else true would be 1
            raise ValueError("input should not be true or false")
        return value

    @field_validator("prompt")
    @classmethod
    def _parses(cls, value: str) -> str:
        if value.strip():
            parse_prompts(value)
        return value

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> tuple[int, int]:
        return as_size(value)

    @field_validator("augments")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in AUGMENTS:
                raise ValueError(f"unknown augmentation {brief(name)}{nearest_of(name, AUGMENTS)}")
        return value

    @field_validator("clip_weights")
    @classmethod
    def _one_each(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        clips = info.data.get("clips", value)
        if value and len(value) != len(clips):
            raise ValueError(f"there are {len(value)} for {len(clips)} CLIPs")
        return value

    @model_validator(mode="after")
    def _aims(self) -> Self:
        if not self.prompt.strip() and not (self.image_prompts and self.image_prompt_weight):
            raise ValueError("there is no prompt")
        if not self.steps and not self.drawn():
            raise ValueError("steps: 0 is for --init sample only; give 1 or more")
        return self

    @model_serializer(mode="wrap")
    def _what_counts(self, dump: Callable[[Any], Any]) -> dict[str, Any]:
        """Leave out how a Mini DALL-E draws where none does."""
        return {name: value for name, value in dump(self).items() if self.init == "sample" or name not in DRAWING}

    def drawn(self) -> bool:
        """Say whether the start is what a Mini DALL-E draws."""
        return self.init == "sample" and not self.init_image

    def prompts(self) -> list[Prompt]:
        """Return the parsed text prompts; none when only image prompts are given."""
        return parse_prompts(self.prompt) if self.prompt.strip() else []

    def pictures(self) -> tuple[str, ...]:
        """Return the paths of all pictures that go in."""
        return (*((self.init_image,) if self.init_image else ()), *self.image_prompts)

    def loss_weights(self) -> dict[str, float]:
        """Return the losses that count, name -> weight."""
        weights = {"prompt": 1.0, "init": self.init_weight, "tv": self.tv}
        return {name: weight for name, weight in weights.items() if weight or name == "prompt"}


def make_settings(**values: Any) -> Settings:
    """Build Settings; raise UsageError with one line that names the field and what is wrong."""
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][0] if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            near = nearest_of(str(place), Settings.model_fields)
            raise UsageError(f"unknown setting {brief(place)}{near}", "see: vqclip settings") from None
        reason = plain(first)
        if reason == "there is no prompt":
            raise UsageError(reason, 'say what to draw, e.g. vqclip generate "a red heart"') from None
        given = f" (given: {brief(first['input'])})" if place and not isinstance(first["input"], dict) else ""
        named = f"{str(place).replace('_', '-')}: " if place else ""
        raise UsageError(named + reason + given, "see: vqclip settings") from None


def from_text(name: str, text: str) -> Any:
    """Read a setting's value as people write it: sizes as 192x128, lists joined by commas. Raises UsageError."""
    if name not in Settings.model_fields:
        raise UsageError(
            f"unknown setting {brief(name)}{nearest_of(name, Settings.model_fields)}", "see: vqclip settings"
        )
    default = Settings.model_fields[name].default
    if name == "size":
        return as_size(text)
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text
