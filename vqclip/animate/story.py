"""A story: scenes of prompts that fade into each other, seen by a camera that moves from frame to frame."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from PIL import Image
from pydantic import Field, model_serializer, model_validator
from torch import Tensor

from ..core.interfaces import Target
from ..core.targets import join, load_prompt_images, make_targets
from ..errors import UsageError
from ..files.images import to_tensor
from ..runs.session import Session
from ..settings.checked import Checked
from ..settings.curves import Curve
from ..settings.prompts import parse_prompts
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg
from ..video.timing import MAX_FPS
from .camera import BORDERS, move_camera
from .frame import FramePlan, PlanFrame

MAX_FRAMES = 50_000  # an hour; their curves are checked in some seconds
FADE = 12  # frames, if none are asked for
CURVES = {"zoom": (0.5, 2.0), "turn": (-180.0, 180.0), "pan_x": (-1.0, 1.0), "pan_y": (-1.0, 1.0)}  # ranges a frame


class Story(Checked):
    """The scenes, and how the camera moves. Saved as `motion` in run.json. Curves: see settings/curves.py."""

    kind: Literal["story"] = "story"
    prompts: tuple[str, ...] = Field(min_length=1)  # one for each scene
    frames: int = Field(default=60, ge=2, le=MAX_FRAMES)
    at: tuple[int, ...] = ()  # the frame at which each scene begins; none: equally long scenes
    fade: int | None = Field(default=None, ge=0, le=MAX_FRAMES)  # frames; None: FADE, within the shortest scene
    zoom: str = "1.04"  # factor for each frame
    turn: str = "0"  # degrees a frame, clockwise
    pan_x: str = "0"  # of the width, a frame, the camera to the right
    pan_y: str = "0"  # of the height, a frame, the camera down
    border: str = "reflect"  # of BORDERS
    frame_steps: int = Field(default=6, ge=1, le=100_000)  # updates of each frame but the first
    arrive: bool = False  # each scene is drawn as an image of its own is begun, and morphed to while it fades in
    fps: float = Field(default=15.0, gt=0, le=MAX_FPS)

    footage: ClassVar[None] = None  # it has no clip

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check all that can be checked, so that no frame fails later. Raises UsageError."""
        if self.border not in BORDERS:
            raise UsageError(f"border: {self.border!r} is unknown", f"use {', '.join(BORDERS)}")
        for prompt in self.prompts:
            parse_prompts(prompt)
        starts = self.starts
        if len(starts) != len(self.prompts):
            what = f"at: {len(starts)} frames for {len(self.prompts)} prompts"
            raise UsageError(what, "give one a prompt: --at 0,24")
        if starts[0] != 0 or any(b <= a for a, b in itertools.pairwise((*starts, self.frames))):
            what = f"at: scenes begin at {', '.join(map(str, starts))} of {self.frames} frames"
            raise UsageError(what, "they must begin with 0 and rise, within the frames: --frames, --at")
        if len(starts) > 1 and self.fade is not None and self.fade > self._shortest:
            raise UsageError(f"fade: {self.fade} frames are longer than a scene", f"use --fade {self._shortest}")
        for name, (least, most) in CURVES.items():
            self._curve(name).values(range(self.frames), least, most)
        return self

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, dump: Callable[[Any], Any]) -> dict[str, Any]:
        """Leave out what is not in use of that which records of 0.1.0 do not have."""
        return {name: value for name, value in dump(self).items() if name != "arrive" or value}

    def first_steps(self, settings: Settings) -> int:
        """Return the steps of the first frame: those of any image."""
        return settings.steps

    @property
    def starts(self) -> tuple[int, ...]:
        """Return the frame at which each scene begins."""
        return self.at or tuple(k * self.frames // len(self.prompts) for k in range(len(self.prompts)))

    @property
    def _shortest(self) -> int:
        """Return the frames of the shortest scene that another one fades into: of any but the first."""
        return min((b - a for a, b in itertools.pairwise((*self.starts[1:], self.frames))), default=0)

    def scene_weights(self, t: int) -> dict[int, float]:
        """Return the weights of the one or two scenes of frame `t`; together they are 1."""
        scene = self._scene(t)
        weight = 1.0 if scene == 0 else min(1.0, (t - self.starts[scene] + 1) / (self._fade + 1))
        return {scene: 1.0} if weight == 1 else {scene - 1: 1 - weight, scene: weight}

    def _scene(self, t: int) -> int:
        return sum(start <= t for start in self.starts) - 1

    @property
    def _fade(self) -> int:
        usual = min(FADE, self._shortest // 2 if self.arrive else self._shortest)  # what arrives is to be seen a while
        return usual if self.fade is None else self.fade

    def arrival(self, t: int) -> tuple[int, float]:
        """Return (scene, how far frame `t` goes from the frame before it to that scene's own image).

        So that the way is even, and ends when the scene has faded in.
        """
        scene = self._scene(t)
        frames_left = self._fade + 1 - (t - self.starts[scene])
        return scene, 1 / frames_left if scene and self.arrive and frames_left > 0 else 0.0

    def _curve(self, name: str) -> Curve:
        return Curve.parse(name.replace("_", "-"), getattr(self, name))

    @contextlib.contextmanager
    def planner(self, session: Session, first: int, ffmpeg: Ffmpeg) -> Iterator[PlanFrame]:
        """Give the function that plans frames."""
        images = load_prompt_images(session.settings)
        settings = [session.settings.model_copy(update={"prompt": prompt}) for prompt in self.prompts]
        scenes = [make_targets(session.clips, scene, images, session.device) for scene in settings]
        curves = {name: self._curve(name) for name in CURVES}

        @functools.cache
        def goal(scene: int) -> Tensor:
            start = replace(session, settings=settings[scene], targets=scenes[scene]).start()
            assert start is not None  # nothing stops it
            return start.z

        def plan(t: int, before: Image.Image | None) -> FramePlan:
            targets = mix_targets([(scenes[k], weight) for k, weight in self.scene_weights(t).items()])
            if before is None:
                return FramePlan(None, targets, self.first_steps(session.settings))
            moves = {name: curve.at(t) for name, curve in curves.items()}
            start = move_camera(to_tensor(before), **moves, border=self.border)
            scene, way = self.arrival(t)
            return FramePlan(start, targets, self.frame_steps, goal=goal(scene) if way else None, arrived=way)

        yield plan


def mix_targets(scenes: list[tuple[list[Target], float]]) -> list[Target]:
    """Return the targets, one a CLIP, of (targets, weight) of scenes: the weights of their prompts are scaled."""
    weights = [weight for _, weight in scenes]
    return [join(parts, weights) for parts in zip(*(targets for targets, _ in scenes), strict=True)]
