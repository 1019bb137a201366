"""How fast this machine draws with given settings, where the time goes, and what some changes would gain."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from .images import round_size
from .memory import available, estimate, fit_to
from .session import Networks, prepare
from .settings import Settings
from .stopwatch import Stopwatch

OnWay = Callable[[int, int], None]  # measured, in all
FEWEST, MOST, LONG_ENOUGH = 2, 8, 3.0  # steps, and seconds, of one measurement
PATIENCE = 15.0  # seconds after which one step must do


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


def bench(settings: Settings, device: str = "auto", *, on_way: OnWay | None = None) -> Report:
    """Measure some steps, after one that warms up, of the settings and of each change to them; nothing is written.

    Models are loaded before the clock starts. on_way hears how many measurements are done. Raises what `prepare` does.
    """
    networks, threads = Networks(), torch.get_num_threads()
    session = prepare(settings.model_copy(update={"coarse": 0.0}), device, networks)
    settings = settings.model_copy(update={"size": session.settings.size, "precision": session.settings.precision})
    fit_to(session, fit=False)
    need, free = estimate(session), available(session.device)
    tried = [("", {}), *changes(settings, session.device)]
    paces: list[Pace] = []
    if on_way:
        on_way(0, len(tried) + 1)
    for name, change in tried:
        changed = settings.model_copy(update=change)
        half = round_size((changed.size[0] // 2, changed.size[1] // 2), session.vqgan.f)
        torch.set_num_threads(threads // 2 if name.startswith("OMP") else threads)
        try:
            step = seconds_a_step(changed, device, networks)
            coarse = seconds_a_step(changed.model_copy(update={"size": half}), device, networks)
        finally:
            torch.set_num_threads(threads)
        whole = settings.steps * (settings.coarse * coarse + (1 - settings.coarse) * step)
        paces.append(Pace(name, step, coarse, whole))
        if on_way:
            on_way(len(paces), len(tried) + 1)
    watch = Stopwatch()
    seconds_a_step(settings, device, networks, watch)
    if on_way:
        on_way(len(tried) + 1, len(tried) + 1)
    return Report(settings, str(session.device), threads, paces, watch, need.total if need else None, free)


def seconds_a_step(settings: Settings, device: str, networks: Networks, watch: Stopwatch | None = None) -> float:
    """Return the seconds of the quickest step, all at full size, the first left out; a watch counts all."""
    session = prepare(settings.model_copy(update={"coarse": 0.0, "steps": MOST + 1}), device, networks)
    if watch:
        watch.attach(session)
    times: list[float] = []
    began = then = time.perf_counter()
    for step in session.steps():  # its own checks wait for the device
        now = time.perf_counter()
        if step.step > 1:
            times.append(now - then)
        then = now
        if times and now - began > (LONG_ENOUGH if len(times) >= FEWEST else PATIENCE):
            break
    return min(times)  # other work on the machine only adds
