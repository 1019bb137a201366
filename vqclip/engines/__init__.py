"""Where rows are drawn: here, or on a Ray cluster. An engine takes tasks and yields how each ended."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence

from ..errors import UsageError
from ..worker import OnStep, Outcome, Task, Work
from . import local

Engine = Callable[..., Iterator[Outcome]]


def draw(
    engine: str, work: Work, tasks: Sequence[Task], on_step: OnStep, *, address: str | None = None, workers: int = 0
) -> Iterator[Outcome]:
    """Draw tasks with an engine."""
    yield from ENGINES[engine](work, tasks, on_step, address, workers)


def check_engine(engine: str, address: str | None) -> None:
    """Raise UsageError for an engine that is not known or not installed."""
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}", f"use {', '.join(ENGINES)}")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("ray is not installed", "pip install 'vqclip[ray]'")
    if address and engine != "ray":
        raise UsageError(f"the engine {engine!r} has no address", "give --engine ray")


def _ray(work: Work, tasks: Sequence[Task], on_step: OnStep, address: str | None, workers: int) -> Iterator[Outcome]:
    from .cluster import draw as draw_there  # ray is an extra

    return draw_there(work, tasks, on_step, address=address, workers=workers)


ENGINES: dict[str, Engine] = {
    "local": local.draw,
    "ray": _ray,
}
