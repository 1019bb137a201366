"""What a run writes, and where."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field

from ..errors import UsageError
from ..files.atomic import check_folder
from ..files.metadata import check_target
from ..files.reading import validate


@dataclass(frozen=True)
class Interval:
    """How often something is done: every so many steps, or seconds; neither means never."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "50" (steps), "30s", "2m" or "0". Raises UsageError."""
        match = re.fullmatch(r"\s*(\d{1,9})\s*([sm]?)\s*", text, re.IGNORECASE)
        if not match:
            raise UsageError(f"{text!r} is no interval", "write steps or seconds, e.g. --checkpoint-every 50 or 30s")
        number = int(match[1])
        return cls(seconds=number * {"s": 1, "m": 60}[match[2].lower()]) if match[2] else cls(steps=number)


HALF_A_MINUTE = Interval(seconds=30)


class IntervalRecord(BaseModel):
    """An Interval in run.json, which has both of its numbers."""

    steps: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)


class Plan(BaseModel):
    """The part of an Output that run.json keeps: a resumed run writes what it wrote at its beginning."""

    metadata: bool
    frames_every: int = Field(ge=0)
    checkpoint_every: IntervalRecord
    latents: bool = False
    save_cutouts: int = Field(0, ge=0)


@dataclass(frozen=True)
class Output:
    """What a run writes.

    runs: the folder that gets a run directory, with frames, metrics and checkpoints; None: none is made.
    out: a file that also gets the final image. overwrite: replace that file. metadata: write settings into the images.
    frames_every: steps between frames; 0 saves none but the final image. checkpoint_every: how often the state is
    saved, which is saved at the end in any case. save_latents: keep each frame's latent too.
    save_cutouts: steps between sheets of what CLIP is shown, beside that of the first step; 0 for none.
    fit: if memory is short, let CLIP encode the cutouts in smaller chunks.
    """

    runs: Path | None = None
    out: Path | None = None
    overwrite: bool = False
    metadata: bool = True
    frames_every: int = 10
    checkpoint_every: Interval = HALF_A_MINUTE
    save_latents: bool = False
    save_cutouts: int = 0
    fit: bool = False

    def check(self) -> None:
        """Refuse what could not be written, before any work. Raises UsageError, OutputExists, OutputError."""
        for name, every in (("frames-every", self.frames_every), ("save-cutouts", self.save_cutouts)):
            if every < 0:
                raise UsageError(f"{name}: {every} is negative", "use 0 for none, or a number of steps")
        check_target(self.out, self.overwrite)
        if self.runs:
            check_folder(self.runs)

    def plan(self) -> dict[str, Any]:
        """Return what run.json keeps of it."""
        return {
            "metadata": self.metadata,
            "frames_every": self.frames_every,
            "checkpoint_every": asdict(self.checkpoint_every),
            "latents": self.save_latents,
        } | ({"save_cutouts": self.save_cutouts} if self.save_cutouts else {})

    def following(self, record: dict[str, Any]) -> "Output":
        """Return the same with what the run.json of a run that was begun says. Raises InputError."""
        plan = validate(Plan, record.get("plan"), "the plan in run.json")
        return replace(
            self,
            metadata=plan.metadata,
            frames_every=plan.frames_every,
            checkpoint_every=Interval(**plan.checkpoint_every.model_dump()),
            save_latents=plan.latents,
            save_cutouts=plan.save_cutouts,
        )
