"""How fast this machine draws with given settings, where the time goes, and what some changes would gain."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..core.devices import choose_device, choose_precision
from ..core.loop import clip_schedule, stages
from ..settings.schema import Settings
from .memory import available, estimate, fit_to
from .profile import Stopwatch
from .session import Networks, Session, prepare

OnWay = Callable[[int, int], None]  # measured, in all
FEWEST, MOST, LONG_ENOUGH = 2, 8, 5.0  # steps, and seconds, of one way
PATIENCE = 15.0  # seconds of a step beyond which one must do, and the settings as they are


@dataclass(frozen=True)
class Pace:
    """What one way of drawing takes, in seconds: a step at full size, one of the coarse ones, a whole picture."""

    name: str  # as one types it; empty for the settings as they are
    step: float
    coarse: float | None  # where a picture has none
    picture: float


@dataclass(frozen=True)
class Report:
    """The pace of the settings, of changes to them, and where a step's time goes."""

    settings: Settings
    device: str
    threads: int
    paces: list[Pace]
    parts: Stopwatch  # of the settings as they are, at full size
    memory: int | None  # bytes a step needs; None where that can't be told
    free: int  # bytes there are


def changes(settings: Settings, device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what else to try, as one types it: changes that make a step cheaper, or change its numbers."""
    width, height = (max(16, round(side * 0.75)) for side in settings.size)
    if (width, height) != settings.size:
        yield f"--size {width}x{height}", {"size": (width, height)}
    if settings.cutouts > 1:
        yield f"--cutouts {settings.cutouts // 2}", {"cutouts": settings.cutouts // 2}
    other = "float32" if settings.precision == "bfloat16" else "bfloat16"
    yield f"--precision {other}", {"precision": other}
    if len(settings.clips) > 1 and settings.clip_mix == "sum":
        yield "--clip-mix turns", {"clip_mix": "turns"}
    if device.type == "cpu" and torch.get_num_threads() > 1:
        yield f"OMP_NUM_THREADS={torch.get_num_threads() // 2}", {}


class _Course:
    """Steps of some settings, all at one size, made and timed one at a time."""

    def __init__(self, session: Session, threads: int) -> None:
        self._times: dict[tuple[int, ...], list[float]] = defaultdict(list)  # by which CLIPs saw the step
        self._seeing = iter(clip_schedule(session.targets, session.settings))
        self._turn: tuple[int, ...] = ()  # of the last step
        self._shares = [target.weight for target in session.targets]
        self._steps, self._threads = session.steps(), threads

    def step(self) -> float:
        """Return the seconds of the next step; its own checks wait for the device."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            self._turn = tuple(next(self._seeing))
            began = time.perf_counter()
            next(self._steps)
            return time.perf_counter() - began
        finally:
            torch.set_num_threads(before)

    def measure(self) -> None:
        """Make the next step count."""
        took = self.step()
        self._times[self._turn].append(took)

    def pace(self) -> float:
        """Return the seconds of a step: of its kind the quickest, since other work on the machine only adds.

        Of CLIPs in turns each makes a kind of its own, that comes as often as its share asks.
        """
        shares = {turn: sum(self._shares[k] for k in turn) for turn in self._times}
        return sum(min(times) * shares[turn] for turn, times in self._times.items()) / sum(shares.values())


def _watched(session: Session, steps: int) -> Stopwatch:
    """Make some steps under a stopwatch, after one that warms up."""
    watch = Stopwatch()
    watch.attach(session)
    made = session.steps()
    next(made)
    watch.restart()
    for _ in range(steps):
        next(made)
    return watch


@dataclass(frozen=True)
class _Way:
    """One way of drawing: its steps at full size, and at the coarse ones' where a picture has such."""

    full: _Course
    half: _Course | None
    first: int  # how many of a picture's are coarse

    def step(self) -> float:
        """Make a step of either kind; return their seconds."""
        return self.full.step() + (self.half.step() if self.half else 0.0)

    def measure(self) -> None:
        """Make the next step of either kind count."""
        for course in filter(None, (self.full, self.half)):
            course.measure()

    def pace(self, name: str, steps: int) -> Pace:
        """Return what was measured, for pictures of so many steps."""
        step, coarse = self.full.pace(), self.half.pace() if self.half else None
        return Pace(name, step, coarse, self.first * (coarse or 0.0) + (steps - self.first) * step)


class _Opener:
    """Makes sessions and ways of changed settings; the networks stay loaded, of each precision one set."""

    def __init__(self, device: str) -> None:
        self._device, self._networks = device, defaultdict[str, Networks](Networks)

    def session(self, settings: Settings) -> Session:
        """Return a session whose steps are all at full size; they cost the same from any start."""
        plain = {"coarse": 0.0, "steps": max(MOST, len(settings.clips)) + 2, "init": "grey", "init_image": None}
        return prepare(settings.model_copy(update=plain), self._device, self._networks[settings.precision])

    def way(self, settings: Settings, threads: int) -> _Way:
        """Return the ways of drawing at either size."""
        full = self.session(settings)
        height, width = full.shape[2:]
        coarse, half = stages(settings, height, width)[0], None
        first = coarse.until if coarse.name == "coarse" else 0
        if first:
            size = (coarse.width * full.vqgan.f, coarse.height * full.vqgan.f)
            half = _Course(self.session(settings.model_copy(update={"size": size})), threads)
        return _Way(_Course(full, threads), half, first)


def bench(settings: Settings, device: str = "auto", *, on_way: OnWay | None = None) -> Report:
    """Measure some steps of the settings and of each change to them, after one of each that warms up.

    They take turns, so that other work on the machine meets all alike; models are loaded before the clock starts, and
    nothing is written. Where a step takes longer than PATIENCE, changes are left out. on_way hears how many
    steps that warm up are done, then how many measurements. Raises what `prepare` does.
    """
    tell = on_way or (lambda done, total: None)
    opener, threads = _Opener(device), torch.get_num_threads()
    settings = settings.model_copy(update={"precision": choose_precision(settings.precision, choose_device(device))})
    session = opener.session(settings)
    settings = settings.model_copy(update={"size": session.settings.size})
    fit_to(session, fit=False)
    need, free = estimate(session), available(session.device)

    ways = {"": opener.way(settings, threads)}
    slow = ways[""].full.step() > PATIENCE
    for name, change in () if slow else changes(settings, session.device):
        of_it = threads // 2 if name.startswith("OMP") else threads
        ways[name] = opener.way(settings.model_copy(update=change), of_it)
    turn = 0.0
    for k, way in enumerate(ways.values()):
        tell(k, len(ways))
        turn += way.step()
    rounds = 1 if slow else min(MOST, max(FEWEST, int(LONG_ENOUGH * len(ways) / turn)))
    if not slow or settings.clip_mix == "turns":
        rounds = max(rounds, len(settings.clips))  # of steps in turns, one of each
    total = (rounds + 1) * len(ways)
    for k, way in enumerate(list(ways.values()) * rounds):
        tell(k, total)
        way.measure()
    tell(total - len(ways), total)
    watch = _watched(opener.session(settings), rounds)
    tell(total, total)

    paces = [way.pace(name, settings.steps) for name, way in ways.items()]
    return Report(settings, str(session.device), threads, paces, watch, need.total if need else None, free)
