"""What the program knows of a setting beside its type, range, default and description: written on its field."""

from dataclasses import dataclass
from typing import Literal

# panels of the help
IMAGE, MODELS, START, LOOP, CUTOUTS, CONTROLS = "Image", "Models", "Start", "Loop", "Cutouts", "Controls"


@dataclass(frozen=True)
class Facts:
    """One setting's facts. Stands in `Annotated` beside the type; `schema.facts` returns it."""

    panel: str = ""  # of the help; without one the setting is no option
    short: str = ""  # "-s", beside the long option
    flag: str = ""  # the long option, where it is not the setting's name: a list's is given once for each value
    metavar: str = ""  # what the help calls the value; chosen from the type if empty
    names: Literal["", "file", "vqgan", "clip", "dalle", "upscaler", "head"] = ""  # a path is made absolute
    behind: str = ""  # the sign in a value behind which it names a file, where that is not all of the value
    separator: str = ","  # of a list's values
    later: bool = False  # than release 0.1.0: left out of records where it is the default
    fixed: bool = False  # can't change once a run has begun
    per_image: bool = False  # may differ between the images of one tensor (batch/stacked.py)
    dalle: bool = False  # counts only where a Mini DALL-E draws the start
    upscaling: bool = False  # counts only where the finished image is enlarged
    finishing: bool = False  # counts once, when the image is finished, and in no step
    needs: str = ""  # a key of schema.NEEDS: without it the setting has no effect
    sample: bool = False  # counts in `vqclip sample`
    loss: str = ""  # the loss whose weight it is
    at_random: bool = False  # chosen at random where it is not given
