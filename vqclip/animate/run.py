"""Make an animation in a run directory, or go on with one.

runs/<slug>-<seed>[-n]/
  run.json           as of any run, with the schema vqclip-motion/1 and the Story or Restyle as `motion`
  frames/000001.png ...   every frame, counted from 1: all of the state, because each begins from the one before
  metrics.jsonl      one line a frame
  final.png          the last frame
  video.mp4          all of them, unless it was to go elsewhere
"""

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, UsageError
from ..files.atomic import check_folder, check_free
from ..files.paths import absolute, expand, sha256
from ..files.reading import validate
from ..runs import records
from ..runs.memory import fit_memory, watched
from ..runs.project_files import find_file, locate, same_models
from ..runs.resume import differences
from ..runs.run_dir import MOTION, RunDir
from ..runs.session import Session
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg, find_ffmpeg
from ..video.make import Video, VideoOptions, make_video
from ..video.timing import Timing
from ..video.writer import check_codec, check_fps, choose
from .progress import AnimationProgress
from .render import Animation, FrameRenderer
from .story import Story


class Plan(BaseModel):
    """What is written beside the frames, as run.json has it."""

    model_config = ConfigDict(defer_build=True, strict=True)

    metadata: bool
    quality: int = Field(ge=0, le=100)
    fps: float = 0.0  # for `vqclip video`


class Recorded(BaseModel):
    """What is read of the run.json of an animation, beside the settings."""

    motion: Annotated[Animation, Field(discriminator="kind")]
    plan: Plan


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
    out: Path | None = None,
    options: VideoOptions | None = None,
    device: str = "auto",
    progress: AnimationProgress | None = None,
) -> Result:
    """Make all frames of a story or of a restyled clip, and their video.

    out: where the video goes; None: video.mp4 in the run. options: its quality and metadata; its timing and sound are
    the animation's. Raises what `generate` raises, and InputError for the clip.
    """
    options, folder = options or VideoOptions(), expand(runs)
    ffmpeg = check_output(animation, out, options)
    check_curves(animation, settings)
    check_folder(folder)
    with watched(settings, fit=True):
        session = _load(animation, settings, device)
        with contextlib.closing(RunDir.create(folder, session.folder_name())) as run:
            renderer = FrameRenderer(session, animation, run, _record(session, animation, options))
            return _make(renderer, ffmpeg, out, options, progress or AnimationProgress())


def resume(
    folder: str | Path,
    *,
    options: VideoOptions | None = None,
    out: Path | None = None,
    files: Mapping[str, Any] = {},
    footage: Path | None = None,
    device: str = "auto",
    progress: AnimationProgress | None = None,
) -> Result:
    """Go on after the last frame that exists, to the same bytes as without the interruption.

    options: only `overwrite` and `ffmpeg` are used. files: settings with the new paths of images and models that were
    moved; footage: the new path of the clip.

    Raises what `animate` raises, RunLocked, and InputError if models, images or the clip are not what they were.
    """
    path, options = expand(folder), options or VideoOptions()
    with contextlib.closing(RunDir.open(path)) as run:
        before = run.read_json(MOTION)
        settings, recorded = records.settings_of(path, before), _read(path, before)
        settings = locate(path, before, settings, files)
        plan, animation = recorded.plan, _with_footage(path, before, recorded.motion, footage)
        options = options.model_copy(update={"quality": plan.quality, "metadata": plan.metadata})
        encoder = check_output(animation, out, options)
        with watched(settings, fit=True):
            session = _load(animation, settings, device)
            record = _record(session, animation, options)
            if not same_models(before.get("models"), record["models"]):
                raise InputError(f"{path} was begun with other models", "put those back, or start anew")
            session.notes += differences(before, record)
            renderer = FrameRenderer(session, animation, run, record)
            return _make(renderer, encoder, out, options, progress or AnimationProgress())


def check_curves(animation: Animation, settings: Settings) -> None:
    """Raise UsageError for a curve that is out of range at a step of a frame, or of a scene's prompt."""
    prompts = animation.prompts if isinstance(animation, Story) else (settings.prompt,)
    for prompt, steps in itertools.product(prompts, {animation.first_steps(settings), animation.frame_steps}):
        settings.model_copy(update={"prompt": prompt, "steps": steps}).largest()


def check_output(animation: Animation, out: Path | None, options: VideoOptions) -> Ffmpeg:
    """Return the ffmpeg to use. Raises UsageError, InputError (no ffmpeg, no codec), OutputError, OutputExists."""
    codec, ending = choose(out, options.codec)
    ffmpeg = find_ffmpeg(options.ffmpeg)
    check_codec(ffmpeg, codec)
    check_fps(codec, float(animation.fps))
    clip = animation.footage
    if clip and (sound := clip.track()):
        sound.check(ffmpeg, ending)
    if out:
        if clip and out.exists() and out.samefile(clip.path):
            raise UsageError(f"{out} is the clip itself", "give another name: -o")
        check_free(out, options.overwrite)
    return ffmpeg


def _make(
    renderer: FrameRenderer, ffmpeg: Ffmpeg, out: Path | None, options: VideoOptions, progress: AnimationProgress
) -> Result:
    """Render the frames that are missing, and make the video of all, with the clip's sound."""
    renderer.render(ffmpeg, progress)
    animation, run = renderer.animation, renderer.run.path
    timing = Timing(fps=float(animation.fps), hold_last=0)
    sound = animation.footage.track() if animation.footage else None
    changes = {"timing": timing, "sound": sound, "overwrite": options.overwrite or out is None}
    video = make_video(
        [str(run)], out or run / "video.mp4", options.model_copy(update=changes), on_frame=progress.frame
    )
    return Result(run, video, renderer.session.settings)


def _read(path: Path, record: dict[str, Any]) -> Recorded:
    """Return what a run.json says of an animation. Raises InputError."""
    try:
        return validate(Recorded, record, f"{path}/run.json")
    except UsageError as error:
        what = f"{path}/run.json can't be read: motion.{error.what}"
        raise InputError(what, "it must be as vqclip wrote it") from None


def _with_footage(path: Path, record: dict[str, Any], animation: Animation, said: Path | None) -> Animation:
    """Return an animation with its clip where that lies now. Raises InputError if it is gone, or is another."""
    if (clip := animation.footage) is None:
        return animation
    sha256 = str((record.get("pictures") or {}).get(str(clip.path), ""))
    where = find_file(path, clip.path, sha256, said and Path(absolute(said)))
    if where is None or (said and where != Path(absolute(said))):
        hint = "put it back, or say where it is now: --footage FILE"
        raise InputError(f"{path} was begun with another clip, or one that is gone: {clip.path}", hint)
    return animation.model_copy(update={"footage": clip.model_copy(update={"path": where})})


def _load(animation: Animation, settings: Settings, device: str) -> Session:
    session = Session.load(settings, device)
    fit_memory(session, fit=True)  # CLIP gets the cutouts in parts if memory is short
    if animation.footage:
        path = animation.footage.path
        try:
            session.image_hashes[str(path)] = sha256(path)
        except OSError as error:
            raise InputError(f"{path} can't be read: {error.strerror}", "put it back") from None
    return session


def _record(session: Session, animation: Animation, options: VideoOptions) -> dict[str, Any]:
    """Return the contents of run.json."""
    plan = Plan(metadata=options.metadata, quality=options.quality, fps=float(animation.fps))
    motion = animation.model_dump(mode="json")
    return session.record() | {"schema": MOTION, "motion": motion, "plan": plan.model_dump()}
