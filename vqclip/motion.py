"""A moving picture in a run directory. Its frames are all of its state: each begins from the one before.

runs/<slug>-<seed>[-n]/
  run.json           as of any run, with the schema vqclip-motion/1 and what is played under `motion`
  frames/000001.png ...   every frame, counted from 1
  metrics.jsonl      one line a frame
  final.png          the last frame
  video.mp4          all of them, unless it was to go elsewhere
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from . import records
from .disk import check_free, require_space
from .errors import InputError, UsageError
from .ffmpeg import Ffmpeg, find_ffmpeg
from .film import Made, make_video
from .images import load_image
from .memory import fit_to, watched
from .optimize import Step
from .outputs import published, to_png
from .paths import expand, sha256
from .recording import FRAME_SHARE, METRICS_LINE, check_runs
from .restyle import Restyle
from .rundir import MOTION, RunDir, slugify
from .session import Session, prepare
from .settings import Settings
from .shots import Play, shoot
from .story import Story
from .timing import Timing
from .video import check_codec, check_rate, choose

Score = Story | Restyle
SCORES: dict[str, type[Story] | type[Restyle]] = {"restyle": Restyle, "story": Story}
OnStart = Callable[[Session, RunDir, int], None]  # the last: frames that are there already
OnStep = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Output:
    """Where a moving picture's video goes, and how it is encoded; checked before any work."""

    target: Path | None = None  # None: video.mp4 in the run
    overwrite: bool = False
    quality: int = 80
    ffmpeg: str | Path | None = None

    def check(self, fps: float) -> Ffmpeg:
        """Return the ffmpeg to use. Raises UsageError, InputError (no ffmpeg, no codec), OutputError, OutputExists."""
        codec, _ = choose(self.target, None)
        program = find_ffmpeg(self.ffmpeg)
        check_codec(program, codec)
        check_rate(codec, fps)
        if self.target:
            check_free(self.target, self.overwrite)
        return program


@dataclass(frozen=True)
class Moved:
    """A moving picture that is done: its run and its video, which was decoded and counted."""

    run: Path
    video: Made
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
) -> Moved:
    """Make all frames of a story or of a restyled clip, and their video.

    Raises what `generate` raises, and InputError for the clip.
    """
    output, place = output or Output(), expand(runs)
    program = output.check(float(score.fps))
    check_runs(place)
    with watched(settings):
        session = _prepared(score, settings, device)
        run = RunDir.create(place, f"{slugify(session.title())}-{session.settings.seed}")
        recorded = _record(session, score, metadata=metadata)
        with contextlib.closing(run):
            return _run(session, score, run, recorded, output, program, on_start, on_step)


def resume(
    folder: str | Path,
    *,
    output: Output | None = None,
    device: str = "auto",
    on_start: OnStart | None = None,
    on_step: OnStep | None = None,
) -> Moved:
    """Go on after the last frame that is there, to the bytes that all would have had.

    Raises what `play` raises, RunLocked, and InputError where the models or the clip are not what they were.
    """
    output, path = output or Output(), expand(folder)
    with contextlib.closing(RunDir.open(path)) as run:
        record = run.read_json(MOTION)
        settings, score = records.settings_of(path, record), _score(path, record)
        program = output.check(float(score.fps))
        with watched(settings):
            session = _prepared(score, settings, device)
            plan = record.get("plan")
            now = _record(session, score, metadata=not isinstance(plan, dict) or plan.get("metadata") is not False)
            for key in ("models", "pictures"):
                if record.get(key) != now[key]:
                    raise InputError(f"{path} was begun with other {key}", "put those back, or start anew")
            return _run(session, score, run, now, output, program, on_start, on_step)


def _score(path: Path, record: dict[str, Any]) -> Score:
    told = record.get("motion")
    try:
        if not isinstance(told, dict):
            raise TypeError("it has none")
        return SCORES[told["kind"]].of({key: value for key, value in told.items() if key != "kind"})
    except (UsageError, TypeError, ValueError, LookupError, OverflowError) as error:
        why = getattr(error, "what", repr(error))
        raise InputError(f"{path}: its motion is not vqclip's: {why}", "it must be as vqclip wrote it") from None


def _prepared(score: Score, settings: Settings, device: str) -> Session:
    session = prepare(settings, device)
    fit_to(session, fit=False)
    if score.clip:
        session.pictures[str(score.clip)] = _hash(score.clip)
    return session


def _hash(clip: Path) -> str:
    try:
        return sha256(clip)
    except OSError as error:
        raise InputError(f"{clip} can't be read: {error.strerror}", "put it back") from None


def _record(session: Session, score: Score, *, metadata: bool) -> dict[str, Any]:
    motion = {"kind": score.kind} | score.told()
    return session.record() | {"schema": MOTION, "motion": motion, "plan": {"metadata": metadata}}


def _run(
    session: Session,
    score: Score,
    run: RunDir,
    record: dict[str, Any],
    output: Output,
    ffmpeg: Ffmpeg,
    on_start: OnStart | None,
    on_step: OnStep | None,
) -> Moved:
    done, before = _there(run.path)
    target, status = output.target or run.path / "video.mp4", "failed"
    width, height = session.settings.size
    frame = round(width * height * 3 * FRAME_SHARE)
    try:
        run.rewind(done, 0)
        run.write_json(record | {"status": "running", "frames_done": done})
        left = score.frames - done
        require_space(run.path, left * (frame + METRICS_LINE) + 4 * frame, "all of its frames and their video")
        if on_start:
            on_start(session, run, done)
        with score.play(session, done, ffmpeg) as play:
            for number in range(done, score.frames):
                require_space(run.path, 4 * frame, "a frame, with what the end needs,")
                before = _frame(session, score, run, record, play, number, before, on_step)
                done = number + 1
        assert before is not None
        run.write_final(_png(before, record, done))
        status = "done"
    except (KeyboardInterrupt, SystemExit):
        status = "stopped"
        raise
    finally:
        run.write_json(record | {"status": status, "frames_done": done})
    made = make_video(
        [str(run.path)], target, timing=Timing(fps=float(score.fps), hold_last=0), quality=output.quality,
        overwrite=output.overwrite or output.target is None, metadata=record["plan"]["metadata"],
        ffmpeg=output.ffmpeg, sound=score.sound,
    )  # fmt: skip
    return Moved(run.path, made, session.settings)


def _frame(
    session: Session,
    score: Score,
    run: RunDir,
    record: dict[str, Any],
    play: Play,
    number: int,
    before: Image.Image | None,
    on_step: OnStep | None,
) -> Image.Image:
    """Make one frame and write it, its line of metrics first."""
    began, shot = time.monotonic(), play(number, before)
    last: Step | None = None
    for last in shoot(session, number, shot):
        if on_step:
            first = score.first_steps(session.settings)
            at = first + (number - 1) * score.frame_steps if number else 0
            on_step(at + last.step, first + (score.frames - 1) * score.frame_steps)
    assert last is not None
    picture = session.picture(last.latent)
    losses = {name: round(float(value.mean()), 6) for name, value in last.losses.items()}
    run.add_metrics({"frame": number + 1, **losses, "seconds": round(time.monotonic() - began, 4)})
    run.write_frame(number + 1, _png(picture, record, number + 1))
    return picture


def _png(picture: Image.Image, record: dict[str, Any], frame: int) -> bytes:
    if not record["plan"]["metadata"]:
        return to_png(picture, None)
    told = {key: value for key, value in record.items() if key != "plan"}
    return to_png(picture, published(told) | {"frame": frame})


def _there(path: Path) -> tuple[int, Image.Image | None]:
    """Return how many frames are there, without a gap, and the last one that can be read."""
    done = 0
    while (path / "frames" / f"{done + 1:06d}.png").exists():
        done += 1
    while done:
        try:
            return done, load_image(path / "frames" / f"{done:06d}.png")
        except InputError:  # it is made again
            done -= 1
    return 0, None
