"""A clip drawn anew: each frame begins from the clip's own, blended with the last drawing, which the flow carries."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from PIL import Image
from pydantic import Field
from torch import Tensor

from ..files.images import to_tensor
from ..runs.session import Session
from ..settings.checked import Checked
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg
from .clip import SourceClip, read_frames
from .frame import FramePlan, PlanFrame
from .optical_flow import confidence, optical_flow, warp


class Restyle(Checked):
    """What is drawn anew, and how closely it follows. Saved as `motion` in run.json."""

    kind: Literal["restyle"] = "restyle"
    footage: SourceClip
    frame_steps: int = Field(default=8, ge=1, le=100_000)  # updates a frame: more are less like the clip
    blend: float = Field(default=0.6, ge=0, le=0.95)  # weight of the last drawing in where a frame begins
    smooth: float = Field(default=0.3, ge=0, le=0.95)  # weight of that drawing's latent in the one that is shown

    @property
    def frames(self) -> int:
        """Return how many frames there are."""
        return self.footage.frames

    @property
    def fps(self) -> Fraction:
        """Return the frames a second."""
        return self.footage.fps

    def first_steps(self, settings: Settings) -> int:
        """Return the steps of the first frame: as many as shape a later one, frames before it included."""
        return round(self.frame_steps / (1 - self.blend))

    @contextlib.contextmanager
    def planner(self, session: Session, first: int, ffmpeg: Ffmpeg) -> Iterator[PlanFrame]:
        """Give the function that plans frames, from frame `first` on; call it for one frame after the other."""
        with contextlib.closing(read_frames(ffmpeg, self.footage, session.settings.size, max(first - 1, 0))) as clip:
            clip_frame = to_tensor(next(clip)) if first else None  # the one before

            def plan(number: int, drawing: Image.Image | None) -> FramePlan:
                nonlocal clip_frame
                last, clip_frame = clip_frame, to_tensor(next(clip))
                if drawing is None or last is None:
                    return FramePlan(clip_frame, session.targets, self.first_steps(session.settings))
                past = follow(to_tensor(drawing), last, clip_frame)
                start = clip_frame.lerp(past, self.blend)
                return FramePlan(start, session.targets, self.frame_steps, past, self.smooth)

            yield plan


def follow(drawing: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return the last drawing moved along as the clip moves; where that does not fit, the clip's frame."""
    flow = optical_flow(before, after)
    return after.lerp(warp(drawing, flow), confidence(warp(before, flow), after))
