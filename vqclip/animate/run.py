"""A moving picture in a run directory. Its frames are all of its state: each begins from the one before.

runs/<slug>-<seed>[-n]/
  run.json           as of any run, with the schema vqclip-motion/1 and what is played under `motion`
  frames/000001.png ...   every frame, counted from 1
  metrics.jsonl      one line a frame
  final.png          the last frame
  video.mp4          all of them, unless it was to go elsewhere
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..files.atomic import check_folder, check_free
from ..files.paths import expand, sha256
from ..runs import metadata as records
from ..runs.memory import fit_to, watched
from ..runs.resume import differences
from ..runs.run_dir import MOTION, RunDir, slugify
from ..runs.session import Session, prepare
from ..settings.schema import Settings
from ..video.ffmpeg import Ffmpeg, find_ffmpeg
from ..video.frames import OnFrame
from ..video.make import Video, VideoOptions, make_video
from ..video.timing import Timing
from ..video.writer import check_codec, check_fps, choose
from .render import OnStart, OnStep, Score, Takes
from .restyle import Restyle
from .story import Story


@dataclass(frozen=True)
class Output:
    """Where a moving picture's video goes, and how it is encoded; checked before any work."""

    target: Path | None = None  # None: video.mp4 in the run
    overwrite: bool = False
    quality: int = 80  # 0 to 100; who goes on keeps the one of the beginning
    ffmpeg: str | Path | None = None

    def check(self, score: Score) -> Ffmpeg:
        """Return the ffmpeg to use. Raises UsageError, InputError (no ffmpeg, no codec), OutputError, OutputExists."""
        if not 0 <= self.quality <= 100:
            raise UsageError(f"quality: {self.quality} is out of range", "use 0 to 100")
        codec, ending = choose(self.target, None)
        program = find_ffmpeg(self.ffmpeg)
        check_codec(program, codec)
        check_fps(codec, float(score.fps))
        if score.sound:
            score.sound.check(program, ending)
        if self.target:
            if score.clip and self.target.exists() and self.target.samefile(score.clip):
                raise UsageError(f"{self.target} is the clip itself", "give another name: -o")
            check_free(self.target, self.overwrite)
        return program

    def encode(self, score: Score, run: Path, *, metadata: bool, on_frame: OnFrame | None) -> Video:
        """Make the video of all frames of a run, with the clip's sound."""
        options = VideoOptions(
            quality=self.quality,
            timing=Timing(fps=float(score.fps), hold_last=0),
            overwrite=self.overwrite or self.target is None,
            metadata=metadata,
            ffmpeg=self.ffmpeg,
            sound=score.sound,
        )
        return make_video([str(run)], self.target or run / "video.mp4", options, on_frame=on_frame)


@dataclass(frozen=True)
class Moved:
    """A moving picture that is done: its run and its video, which was decoded and counted."""

    run: Path
    video: Video
    settings: Settings


def play(
    score: Score,
    settings: Settings,
    *,
    runs: str | Path,
    output: Output | None = None,
    metadata: bool = True,
    device: str = "auto",
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
    on_frame: OnFrame | None = None,
) -> Moved:
    """Make all frames of a story or of a restyled clip, and their video, of which on_frame hears.

    Raises what `generate` raises, and InputError for the clip.
    """
    output, place = output or Output(), expand(runs)
    program = output.check(score)
    check_folder(place)
    with watched(settings, fit=True):
        session = _prepared(score, settings, device)
        record = _record(session, score, output, metadata=metadata)
        with contextlib.closing(RunDir.create(place, f"{slugify(session.title())}-{session.settings.seed}")) as run:
            Takes(session, score, run, record).make(program, on_start, on_step)
            made = output.encode(score, run.path, metadata=metadata, on_frame=on_frame)
    return Moved(run.path, made, session.settings)


def resume(
    folder: str | Path,
    *,
    output: Output | None = None,
    device: str = "auto",
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
    on_frame: OnFrame | None = None,
) -> Moved:
    """Go on after the last frame that is there, to the bytes that all would have had.

    Raises what `play` raises, RunLocked, and InputError where models, pictures or the clip are not what they were.
    """
    output, path = output or Output(), expand(folder)
    with contextlib.closing(RunDir.open(path)) as run:
        before = run.read_json(MOTION)
        settings, score = records.settings_of(path, before), _score(path, before)
        metadata, quality = _plan(path, before)
        output = replace(output, quality=quality)
        program = output.check(score)
        with watched(settings, fit=True):
            session = _prepared(score, settings, device)
            record = _record(session, score, output, metadata=metadata)
            for key in ("models", "pictures"):
                if before.get(key) != record[key]:
                    raise InputError(f"{path} was begun with other {key}", "put those back, or start anew")
            session.notes += tuple(differences(before, session))
            Takes(session, score, run, record).make(program, on_start, on_step)
            made = output.encode(score, path, metadata=metadata, on_frame=on_frame)
    return Moved(path, made, session.settings)


def _score(path: Path, record: dict[str, Any]) -> Score:
    told = record.get("motion")
    try:
        if not isinstance(told, dict):
            raise TypeError("it has none")
        return SCORES[told["kind"]].of({key: value for key, value in told.items() if key != "kind"})
    except (UsageError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        why = getattr(error, "what", repr(error))
        raise InputError(f"{path}: its motion is not vqclip's: {why}", "it must be as vqclip wrote it") from None


def _plan(path: Path, record: dict[str, Any]) -> tuple[bool, int]:
    """Return whether metadata is written, and the video's quality."""
    try:
        metadata, quality = record["plan"]["metadata"], record["plan"]["quality"]
        if not (isinstance(metadata, bool) and isinstance(quality, int) and 0 <= quality <= 100):
            raise ValueError(f"metadata {metadata!r}, quality {quality!r}")
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: run.json has no sound plan: {error!r}", "it must be as vqclip wrote it") from None
    return metadata, quality


def _prepared(score: Score, settings: Settings, device: str) -> Session:
    session = prepare(settings, device)
    session.change(fit_to(session, fit=True))  # CLIP sees the views in parts, where memory is short
    if score.clip:
        session.pictures[str(score.clip)] = _hash(score.clip)
    return session


def _hash(clip: Path) -> str:
    try:
        return sha256(clip)
    except OSError as error:
        raise InputError(f"{clip} can't be read: {error.strerror}", "put it back") from None


def _record(session: Session, score: Score, output: Output, *, metadata: bool) -> dict[str, Any]:
    motion = {"kind": score.kind} | score.told()
    plan = {"metadata": metadata, "quality": output.quality, "fps": float(score.fps)}  # the pace: for `vqclip video`
    return session.record() | {"schema": MOTION, "motion": motion, "plan": plan}


SCORES: dict[str, type[Story] | type[Restyle]] = {"restyle": Restyle, "story": Story}
