"""How fast this machine draws with given settings, where the time goes, and what some changes would gain."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .images import round_size
from .memory import available, estimate, fit_to
from .precision import choose
from .session import Networks, Session, choose_device, prepare
from .settings import Settings
from .stopwatch import Stopwatch

OnWay = Callable[[int, int], None]  # measured, in all
FEWEST, MOST, LONG_ENOUGH = 2, 8, 5.0  # steps, and seconds, of one way
PATIENCE = 15.0  # seconds of a step beyond which one must do, and the settings as they are


@dataclass(frozen=True)
class Pace:
    """What one way of drawing takes, in seconds: a step at full size, one of the coarse ones, a whole picture."""

    name: str  # as one types it; empty for the settings as they are
    step: float
    coarse: float
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
        self.times: list[float] = []
        self._steps, self._threads = session.steps(), threads

    def step(self) -> float:
        """Return the seconds of the next step; its own checks wait for the device."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            began = time.perf_counter()
            next(self._steps)
            return time.perf_counter() - began
        finally:
            torch.set_num_threads(before)


def bench(settings: Settings, device: str = "auto", *, on_way: OnWay | None = None) -> Report:
    """Measure some steps of the settings and of each change to them, after one of each that warms up.

    They take turns, so that other work on the machine meets all alike; models are loaded before the clock starts, and
    nothing is written. Where a step takes longer than PATIENCE, changes are left out. on_way hears how many
    measurements are done, of 0 while that is not known. Raises what `prepare` does.
    """
    networks: dict[str, Networks] = {}  # by precision; all stay loaded

    def opened(changed: Settings) -> Session:
        alone = changed.model_copy(update={"coarse": 0.0, "steps": MOST + 2})
        return prepare(alone, device, networks.setdefault(changed.precision, Networks()))

    def courses(changed: Settings, threads: int) -> tuple[_Course, _Course]:
        width, height = round_size((changed.size[0] // 2, changed.size[1] // 2), session.vqgan.f)
        half = changed.model_copy(update={"size": (width, height)})
        return _Course(opened(changed), threads), _Course(opened(half), threads)

    tell = on_way or (lambda done, total: None)
    tell(0, 0)
    settings = settings.model_copy(update={"precision": choose(settings.precision, choose_device(device))})
    session, threads = opened(settings), torch.get_num_threads()
    settings = settings.model_copy(update={"size": session.settings.size})
    fit_to(session, fit=False)
    need, free = estimate(session), available(session.device)

    ways = {"": courses(settings, threads)}
    slow = ways[""][0].step() > PATIENCE
    for name, change in () if slow else changes(settings, session.device):
        ways[name] = courses(settings.model_copy(update=change), threads // 2 if name.startswith("OMP") else threads)
    turn = 0.0
    for course in itertools.chain.from_iterable(ways.values()):
        turn += course.step()
        tell(0, 0)
    rounds = 1 if slow else min(MOST, max(FEWEST, int(LONG_ENOUGH * len(ways) / turn)))
    total = (rounds + 1) * len(ways)
    for k, way in enumerate(list(ways.values()) * rounds):
        tell(k, total)
        for course in way:
            course.times.append(course.step())
    tell(total - len(ways), total)
    watch = Stopwatch()
    watched = opened(settings)
    watch.attach(watched)
    seen = watched.steps()
    next(seen)
    watch.restart()
    for _ in range(rounds):
        next(seen)
    tell(total, total)

    paces = []
    for name, way in ways.items():
        step, coarse = (min(course.times) for course in way)  # other work on the machine only adds
        picture = settings.steps * (settings.coarse * coarse + (1 - settings.coarse) * step)
        paces.append(Pace(name, step, coarse, picture))
    return Report(settings, str(session.device), threads, paces, watch, need.total if need else None, free)
