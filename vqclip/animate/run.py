"""Make an animation in a run directory, or go on with one.

runs/<slug>-<seed>[-n]/
  run.json           as of any run, with the schema vqclip-motion/1 and the Story or Restyle as `motion`
  frames/000001.png ...   every frame, counted from 1: all of the state, because each begins from the one before
  metrics.jsonl      one line a frame
  final.png          the last frame
  video.mp4          all of them, unless it was to go elsewhere
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, UsageError
from ..files.atomic import check_folder, check_free
from ..files.paths import expand, sha256
from ..files.reading import validate
from ..runs import metadata as records
from ..runs.memory import fit_to, watched
from ..runs.resume import differences
from ..runs.run_dir import MOTION, RunDir, slugify
from ..runs.session import Session, prepare
from ..settings.checked import Checked
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg, find_ffmpeg
from ..video.make import Video, VideoOptions, make_video
from ..video.timing import Timing
from ..video.writer import check_codec, check_fps, choose
from .progress import AnimationProgress
from .render import Animation, FrameRenderer


class Plan(BaseModel):
    """What is written beside the frames, as run.json has it."""

    model_config = ConfigDict(strict=True)

    metadata: bool
    quality: int = Field(ge=0, le=100)
    fps: float = 0.0  # for `vqclip video`


class Recorded(BaseModel):
    """What is read of the run.json of an animation, beside the settings."""

    motion: Annotated[Animation, Field(discriminator="kind")]
    plan: Plan


class Output(Checked):
    """Where an animation's video goes, and how it is encoded; checked before any work."""

    target: Path | None = None  # None: video.mp4 in the run
    overwrite: bool = False
    quality: int = Field(default=80, ge=0, le=100)  # a resumed animation keeps its own
    metadata: bool = True  # of frames and video; a resumed animation keeps its own
    ffmpeg: str | Path | None = None

    def check(self, animation: Animation) -> Ffmpeg:
        """Return the ffmpeg to use. Raises UsageError, InputError (no ffmpeg, no codec), OutputError, OutputExists."""
        codec, ending = choose(self.target, None)
        ffmpeg = find_ffmpeg(self.ffmpeg)
        check_codec(ffmpeg, codec)
        check_fps(codec, float(animation.fps))
        if animation.sound:
            animation.sound.check(ffmpeg, ending)
        if self.target:
            if animation.clip and self.target.exists() and self.target.samefile(animation.clip):
                raise UsageError(f"{self.target} is the clip itself", "give another name: -o")
            check_free(self.target, self.overwrite)
        return ffmpeg

    def encode(self, animation: Animation, run: Path, progress: AnimationProgress) -> Video:
        """Make the video of all frames of a run, with the clip's sound."""
        options = VideoOptions(
            quality=self.quality,
            timing=Timing(fps=float(animation.fps), hold_last=0),
            overwrite=self.overwrite or self.target is None,
            metadata=self.metadata,
            ffmpeg=self.ffmpeg,
            sound=animation.sound,
        )
        return make_video([str(run)], self.target or run / "video.mp4", options, on_frame=progress.frame)


@dataclass(frozen=True)
class Result:
    """An animation that is done: its run and its video, which was decoded and counted."""

    run: Path
    video: Video
    settings: Settings


def animate(
    animation: Animation,
    settings: Settings,
    *,
    runs: str | Path,
    output: Output | None = None,
    device: str = "auto",
    progress: AnimationProgress | None = None,
) -> Result:
    """Make all frames of a story or of a restyled clip, and their video.

    Raises what `generate` raises, and InputError for the clip.
    """
    output, folder, progress = output or Output(), expand(runs), progress or AnimationProgress()
    ffmpeg = output.check(animation)
    check_folder(folder)
    with watched(settings, fit=True):
        session = _load(animation, settings, device)
        name = f"{slugify(session.title())}-{session.settings.seed}"
        with contextlib.closing(RunDir.create(folder, name)) as run:
            renderer = FrameRenderer(session, animation, run, _record(session, animation, output))
            renderer.render(ffmpeg, progress)
            return Result(run.path, output.encode(animation, run.path, progress), session.settings)


def resume(
    folder: str | Path,
    *,
    output: Output | None = None,
    device: str = "auto",
    progress: AnimationProgress | None = None,
) -> Result:
    """Go on after the last frame that exists, to the same bytes as without the interruption.

    Raises what `animate` raises, RunLocked, and InputError if models, images or the clip are not what they were.
    """
    output, path, progress = output or Output(), expand(folder), progress or AnimationProgress()
    with contextlib.closing(RunDir.open(path)) as run:
        before = run.read_json(MOTION)
        settings, recorded = records.settings_of(path, before), _read(path, before)
        animation = recorded.motion
        output = output.model_copy(update=recorded.plan.model_dump(include={"quality", "metadata"}))
        ffmpeg = output.check(animation)
        with watched(settings, fit=True):
            session = _load(animation, settings, device)
            record = _record(session, animation, output)
            for key in ("models", "pictures"):
                if before.get(key) != record[key]:
                    raise InputError(f"{path} was begun with other {key}", "put those back, or start anew")
            session.notes += tuple(differences(before, session))
            FrameRenderer(session, animation, run, record).render(ffmpeg, progress)
            return Result(path, output.encode(animation, path, progress), session.settings)


def _read(path: Path, record: dict[str, Any]) -> Recorded:
    """Return what a run.json says of an animation. Raises InputError."""
    try:
        return validate(Recorded, record, f"{path}/run.json")
    except UsageError as error:
        raise InputError(
            f"{path}/run.json can't be read: motion.{error.what}", "it must be as vqclip wrote it"
        ) from None


def _load(animation: Animation, settings: Settings, device: str) -> Session:
    session = prepare(settings, device)
    session.change(fit_to(session, fit=True))  # CLIP gets the cutouts in parts if memory is short
    if animation.clip:
        try:
            session.pictures[str(animation.clip)] = sha256(animation.clip)
        except OSError as error:
            raise InputError(f"{animation.clip} can't be read: {error.strerror}", "put it back") from None
    return session


def _record(session: Session, animation: Animation, output: Output) -> dict[str, Any]:
    """Return the contents of run.json."""
    plan = Plan(metadata=output.metadata, quality=output.quality, fps=float(animation.fps))
    motion = animation.model_dump(mode="json")
    return session.record() | {"schema": MOTION, "motion": motion, "plan": plan.model_dump()}
