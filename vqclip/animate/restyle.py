"""A clip drawn anew: every frame begins from its own picture, blended with the drawing before it, carried along."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UsageError
from ..files.images import to_tensor
from ..runs.session import Session
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg
from ..video.writer import Sound
from .clip import Footage, frames
from .frame import Play, Shot
from .optical_flow import carry, flow, trust


@dataclass(frozen=True)
class Restyle:
    """What is drawn anew, and how closely it follows."""

    footage: Footage
    frame_steps: int = 8
    blend: float = 0.6  # of the drawing before, carried along, where it fits
    smooth: float = 0.3  # of its latent, in the one that is shown

    kind = "restyle"

    def __post_init__(self) -> None:
        """Check the numbers. Raises UsageError."""
        for name, low, high in (("frame_steps", 1, 100_000), ("blend", 0, 0.95), ("smooth", 0, 0.95)):
            if not low <= getattr(self, name) <= high:
                told = f"{name.replace('_', '-')}: {getattr(self, name):g} is out of range"
                raise UsageError(told, f"use {low:g} to {high:g}")

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Restyle":
        """Read what `told` says. Raises UsageError, KeyError, TypeError or ValueError."""
        clip = Footage.of(told["footage"])
        return cls(clip, int(told["frame_steps"]), float(told["blend"]), float(told["smooth"]))

    def told(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "footage": self.footage.told(), "frame_steps": self.frame_steps, "blend": self.blend, "smooth": self.smooth,
        }  # fmt: skip

    @property
    def frames(self) -> int:
        """Return how many frames there are."""
        return self.footage.frames

    @property
    def fps(self) -> Fraction:
        """Return the frames a second."""
        return self.footage.fps

    @property
    def clip(self) -> Path | None:
        """Return the file that is restyled."""
        return self.footage.path

    @property
    def sound(self) -> Sound | None:
        """Return the clip's sound, for the video."""
        clip = self.footage
        return Sound(clip.path, clip.sound, clip.seconds) if clip.sound else None

    def first_steps(self, settings: Settings) -> int:
        """Return the steps of the first frame: as many as the later ones have of their own and by what they keep."""
        return round(self.frame_steps / (1 - self.blend))

    @contextlib.contextmanager
    def play(self, session: Session, first: int, ffmpeg: Ffmpeg) -> Iterator[Play]:
        """Give the function that says what a frame is made of, from frame `first` on; they must come in order."""
        size = session.settings.size
        with contextlib.closing(frames(ffmpeg, self.footage, size, max(first - 1, 0))) as clip:
            old = to_tensor(next(clip)) if first else None

            def shot(number: int, before: Image.Image | None) -> Shot:
                nonlocal old
                now, last = to_tensor(next(clip)), old
                old = now
                if before is None or last is None:
                    return Shot(now, session.targets, self.first_steps(session.settings))
                moves = flow(last, now)
                drawn = now.lerp(carry(to_tensor(before), moves), trust(carry(last, moves), now))
                return Shot(now.lerp(drawn, self.blend), session.targets, self.frame_steps, drawn, self.smooth)

            yield shot
