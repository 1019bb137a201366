"""How fast this machine runs the given settings, where the time goes, and what some changes would gain."""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..core.devices import choose_device, choose_precision
from ..core.loop import clips_by_step, stages
from ..core.threads import workers
from ..errors import UsageError
from ..models.dalle import BATCH_SIZE
from ..settings.schema import Settings
from .candidates import text_to_draw
from .memory import available, estimate, fit_memory
from .networks import Networks
from .profile import Profile
from .session import Session

FEWEST, MOST, LONG_ENOUGH = 2, 8, 5.0  # steps, and seconds, of one variant
PATIENCE = 15.0  # seconds; if a step takes longer, it is measured once, and no change is tried


@dataclass(frozen=True)
class Pace:
    """What one variant takes, in seconds: a step at full size, one of the coarse stage, a whole image."""

    name: str  # as options; empty for the unchanged settings
    step: float
    coarse: float | None  # None if an image has no coarse stage
    picture: float


@dataclass(frozen=True)
class Report:
    """The pace of the settings, of changes to them, and where a step's time goes."""

    settings: Settings
    device: str
    threads: int
    paces: list[Pace]
    parts: Profile  # of the settings as they are, at full size
    memory: int | None  # bytes a step needs; None if that is unknown
    free: int  # bytes


def changes(settings: Settings, device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what else to measure, as options: changes that make a step cheaper, or its precision another."""
    size = tuple(max(16, round(side * 0.75)) for side in settings.size)
    if size != settings.size:
        yield f"--size {size[0]}x{size[1]}", {"size": size}
    if settings.cutouts > 1:
        yield f"--cutouts {settings.cutouts // 2}", {"cutouts": settings.cutouts // 2}
    other = "float32" if settings.precision == "bfloat16" else "bfloat16"
    yield f"--precision {other}", {"precision": other}
    if len(settings.clips) > 1 and settings.clip_mix == "sum":
        yield "--clip-mix turns", {"clip_mix": "turns"}
    if device.type == "cpu" and torch.get_num_threads() > 1:
        yield f"--threads {torch.get_num_threads() // 2}", {}


class Timed:
    """Steps of some settings, all at one size, run and timed one at a time."""

    def __init__(self, session: Session, threads: int) -> None:
        self._seconds: dict[tuple[int, ...], list[float]] = defaultdict(list)  # by the CLIPs of the step
        self._clips = iter(clips_by_step(session.targets, session.settings))
        self._weights = [target.weight for target in session.targets]
        self._steps, self._threads = session.steps(), threads

    def step(self, *, counts: bool = True) -> float:
        """Run the next step; return its seconds. Its own checks wait for the device."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            clips = tuple(next(self._clips))
            began = time.perf_counter()
            next(self._steps)
            seconds = time.perf_counter() - began
        finally:
            torch.set_num_threads(before)
        if counts:
            self._seconds[clips].append(seconds)
        return seconds

    def seconds(self) -> float:
        """Return the seconds of a step: the quickest of its kind, since other work on the machine only adds.

        Of CLIPs in turns each makes a kind of its own, which comes as often as its weight asks.
        """
        weights = {clips: sum(self._weights[k] for k in clips) for clips in self._seconds}
        return sum(min(times) * weights[clips] for clips, times in self._seconds.items()) / sum(weights.values())


class Variant:
    """Steps of changed settings: at full size, and at half of it if an image has a coarse stage."""

    def __init__(self, name: str, settings: Settings, threads: int, load: Callable[[Settings], Session]) -> None:
        session = load(settings)
        parts = stages(settings, *session.shape[2:])
        first, coarse = parts[0], max((part.until for part in parts if part.name == "coarse"), default=0)
        self.name, self.full, self.half = name, Timed(session, threads), None
        self._steps, self._coarse = settings.steps, coarse
        if self._coarse:
            size = (first.width * session.vqgan.f, first.height * session.vqgan.f)
            self.half = Timed(load(settings.model_copy(update={"size": size})), threads)

    def step(self, *, counts: bool = True) -> float:
        """Run one step of either size; return their seconds."""
        return self.full.step(counts=counts) + (self.half.step(counts=counts) if self.half else 0.0)

    def pace(self) -> Pace:
        """Return what was measured."""
        step, coarse = self.full.seconds(), self.half.seconds() if self.half else None
        picture = self._coarse * (coarse or 0.0) + (self._steps - self._coarse) * step
        return Pace(self.name, step, coarse, picture)


def _plain(settings: Settings) -> Settings:
    """Return settings of a few steps, all at full size; they cost the same from any start."""
    steps = max(MOST, len(settings.clips)) + 2
    plain = {"coarse": 0.0, "steps": steps, "init": "grey", "init_image": None, "mask": None}
    return settings.model_copy(update=plain)


def expected_seconds(settings: Settings, device: str = "auto", whole: tuple[int, int] | None = None) -> float:
    """Return about how long an image takes once models are loaded, by two of its steps and some codes of a candidate.

    Enlarging the result is not in it. whole: as of `Session.load`. Raises what `Session.load` does.
    """
    networks = Networks()

    def load(changed: Settings) -> Session:
        return Session.load(_plain(changed), device, networks, whole)

    seconds = 0.0
    if settings.starts_from_candidates():
        session = Session.load(settings, device, networks)
        batches = -(-settings.candidates // BATCH_SIZE)
        rounds = -(-batches // min(batches, workers(session.device)))
        seconds = _seconds_of_candidates(session) * rounds
    if settings.steps:
        variant = Variant("", settings, torch.get_num_threads(), load)
        variant.step(counts=False)
        variant.step()
        seconds += variant.pace().picture
    return seconds


def _seconds_of_candidates(session: Session) -> float:
    """Return the seconds that a batch of candidates takes, by its first codes."""
    settings, dalle = session.settings, session.dalle()
    codes = dalle.sample(
        text_to_draw(settings), range(min(BATCH_SIZE, settings.candidates)), seed=settings.seed, top_k=settings.top_k,
        temperature=settings.temperature, scale=settings.guidance,
    )  # fmt: skip
    next(codes)
    began = time.perf_counter()
    made = sum(1 for _ in itertools.islice(codes, MOST))
    return (time.perf_counter() - began) / max(1, made) * dalle.model.shape.image_length


def bench(
    settings: Settings, device: str = "auto", *, on_measured: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """Measure some steps of the settings and of each change to them, after one of each that warms up.

    They take turns, so that other work on the machine meets all alike; models are loaded before the clock starts, and
    nothing is written. If a step takes longer than PATIENCE, changes are left out. on_measured gets how many steps that
    warm up are done, then how many measurements, and of how many. Raises what `Session.load` does.
    """
    if not settings.steps:
        raise UsageError("steps: 0 leaves nothing to measure", "give 1 or more")
    networks = defaultdict[str, Networks](Networks)

    def load(settings: Settings) -> Session:
        return Session.load(_plain(settings), device, networks[settings.precision])

    precision = choose_precision(settings.precision, choose_device(device))
    settings = settings.largest().model_copy(update={"precision": precision})
    session = load(settings)
    threads = torch.get_num_threads()
    settings = settings.model_copy(update={"size": session.settings.size})
    fit_memory(session, fit=False)
    need, free = estimate(session), available(session.device)

    variants = [Variant("", settings, threads, load)]
    slow = variants[0].full.step(counts=False) > PATIENCE
    for name, change in () if slow else changes(settings, session.device):
        used = threads // 2 if name.startswith("--threads") else threads
        variants.append(Variant(name, settings.model_copy(update=change), used, load))
    once = 0.0
    for k, variant in enumerate(variants):
        on_measured(k, len(variants))
        once += variant.step(counts=False)
    rounds = 1 if slow else min(MOST, max(FEWEST, int(LONG_ENOUGH * len(variants) / once)))
    if not slow or settings.clip_mix == "turns":
        rounds = max(rounds, len(settings.clips))  # of steps in turns, one of each
    total = (rounds + 1) * len(variants)
    for k, variant in enumerate(variants * rounds):
        on_measured(k, total)
        variant.step()
    on_measured(total - len(variants), total)
    parts = _profiled(load(settings), rounds)
    on_measured(total, total)

    paces = [variant.pace() for variant in variants]
    return Report(settings, str(session.device), threads, paces, parts, need.total if need else None, free)


def _profiled(session: Session, steps: int) -> Profile:
    """Profile some steps, after one that warms up."""
    with Profile() as profile:
        profile.watch(session)
        made = session.steps()
        next(made)
        profile.restart()
        for _ in range(steps):
            next(made)
    return profile
