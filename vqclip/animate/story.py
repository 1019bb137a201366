"""A story: scenes of prompts that fade into each other, seen by a camera that moves from frame to frame."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..core.interfaces import Target
from ..core.targets import make_targets
from ..errors import UsageError
from ..files.images import load_image, to_tensor
from ..runs.session import Session
from ..settings.prompts import parse_prompts
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg
from ..video.timing import Timing
from .camera import BORDERS, move
from .frame import Play, Shot
from .keyframes import Curve

FADE = 12  # frames, where nobody says
RANGES = {"zoom": (0.5, 2.0), "turn": (-180.0, 180.0), "pan_x": (-1.0, 1.0), "pan_y": (-1.0, 1.0)}  # a frame


@dataclass(frozen=True)
class Story:
    """What is told, and how the camera moves; a curve (keyframes.py) is a function of the frame's number, from 0."""

    prompts: tuple[str, ...]
    frames: int = 60
    at: tuple[int, ...] = ()  # the frame at which each prompt begins; none: evenly shared
    fade: int | None = None  # frames; None: FADE, within the shortest scene
    zoom: str = "1.04"  # a frame
    turn: str = "0"  # degrees a frame, the picture clockwise
    pan_x: str = "0"  # of the width, a frame, the camera to the right
    pan_y: str = "0"
    border: str = "reflect"
    frame_steps: int = 6  # updates a frame, after the first, which gets all of the settings'
    fps: float = 15.0

    kind = "story"
    clip = sound = None  # there is none

    def __post_init__(self) -> None:
        """Check all that can be checked, so that no frame fails later. Raises UsageError."""
        for name, low, high in (("frames", 2, 1_000_000), ("frame_steps", 1, 100_000), ("fade", 0, 1_000_000)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                told = f"{name.replace('_', '-')}: {value} is out of range"
                raise UsageError(told, f"use {low} to {high}")
        Timing(fps=float(self.fps))
        if self.border not in BORDERS:
            raise UsageError(f"border: {self.border!r} is unknown", f"use {', '.join(BORDERS)}")
        for prompt in self.prompts:
            parse_prompts(prompt)
        starts = self.starts
        if len(starts) != len(self.prompts):
            raise UsageError(
                f"at: {len(starts)} frames for {len(self.prompts)} prompts", "give one a prompt: --at 0,24"
            )
        ends = [*starts[1:], self.frames]
        if starts[0] != 0 or any(end <= start for start, end in zip(starts, ends, strict=True)):
            told = f"at: scenes begin at {', '.join(map(str, starts))} of {self.frames} frames"
            raise UsageError(told, "they must begin with 0 and rise, within the frames: --frames, --at")
        if len(starts) > 1 and self.fade is not None and self.fade > self._shortest:
            raise UsageError(f"fade: {self.fade} frames are longer than a scene", f"use --fade {self._shortest}")
        for name, (least, most) in RANGES.items():
            self._curve(name).values(range(self.frames), least, most)

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Story":
        """Read what `told` says. Raises UsageError, KeyError, TypeError or ValueError."""
        lists = {"prompts": tuple(map(str, told["prompts"])), "at": tuple(map(int, told["at"]))}
        return cls(**told | lists)

    def told(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self)

    def first_steps(self, settings: Settings) -> int:
        """Return the steps of the first frame: those of any picture."""
        return settings.steps

    @property
    def starts(self) -> tuple[int, ...]:
        """Return the frame at which each scene begins."""
        return self.at or tuple(k * self.frames // len(self.prompts) for k in range(len(self.prompts)))

    @property
    def _shortest(self) -> int:
        """Return the frames of the shortest scene that another one fades into; the first has none before it."""
        return min((b - a for a, b in itertools.pairwise((*self.starts[1:], self.frames))), default=0)

    def shares(self, t: int) -> dict[int, float]:
        """Return how much each scene counts in frame `t`: at most two of them do, and together they make 1."""
        now = sum(start <= t for start in self.starts) - 1
        fade = min(FADE, self._shortest) if self.fade is None else self.fade
        share = 1.0 if now == 0 else min(1.0, (t - self.starts[now] + 1) / (fade + 1))
        return {now: 1.0} if share == 1 else {now - 1: 1 - share, now: share}

    def _curve(self, name: str) -> Curve:
        return Curve.parse(name.replace("_", "-"), getattr(self, name))

    @contextlib.contextmanager
    def play(self, session: Session, first: int, ffmpeg: Ffmpeg) -> Iterator[Play]:
        """Give the function that says what a frame is made of, from frame `first` on."""
        pictures = [load_image(path) for path in session.settings.image_prompts]
        scenes = [
            make_targets(
                session.clips, session.settings.model_copy(update={"prompt": prompt}), pictures, session.device
            )
            for prompt in self.prompts
        ]
        curves = {name: self._curve(name) for name in RANGES}

        def shot(t: int, before: Any) -> Shot:
            targets = mixed([(scenes[k], share) for k, share in self.shares(t).items()])
            if before is None:
                return Shot(None, targets, self.first_steps(session.settings))
            moved = move(to_tensor(before), **{n: c.at(t) for n, c in curves.items()}, border=self.border)
            return Shot(moved, targets, self.frame_steps)

        yield shot


def mixed(scenes: list[tuple[list[Target], float]]) -> list[Target]:
    """Return the targets, one a perceptor, of scenes that count by their shares: every prompt's weight is scaled."""
    return [
        replace(
            parts[0],
            embeds=torch.cat([part.embeds for part in parts]),
            weights=torch.cat([part.weights * share for part, (_, share) in zip(parts, scenes, strict=True)]),
            stops=torch.cat([part.stops for part in parts]),
        )
        for parts in zip(*(targets for targets, _ in scenes), strict=True)
    ]
