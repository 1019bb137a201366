"""Where rows are drawn: here, or on a Ray cluster. An engine takes tasks and yields how each ended."""

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator, Sequence

from ..errors import UsageError
from . import local
from .worker import OnStep, Outcome, Task, Work

REACH_S = 10.0  # that a cluster's first answer may take

Engine = Callable[..., Iterator[Outcome]]


def draw(
    engine: str, work: Work, tasks: Sequence[Task], on_step: OnStep, *, address: str | None = None, workers: int = 0
) -> Iterator[Outcome]:
    """Draw tasks with an engine."""
    yield from ENGINES[engine](work, tasks, on_step, address, workers)


def check_engine(engine: str, address: str | None) -> None:
    """Raise UsageError for an engine that is not known or not installed, and where nobody answers at its address."""
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}", f"use {', '.join(ENGINES)}")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("ray is not installed", "pip install 'vqclip[ray]'")
    if address and engine != "ray":
        raise UsageError(f"the engine {engine!r} has no address", "give --engine ray")
    host, _, port = (address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://").rpartition(":")
    if engine == "ray" and host and port.isdecimal():  # ray itself would wait for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
        except (OSError, OverflowError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            raise UsageError(
                f"there is no Ray cluster at {host}:{port}: {told}", "start it: ray start --head"
            ) from None


def _ray(work: Work, tasks: Sequence[Task], on_step: OnStep, address: str | None, workers: int) -> Iterator[Outcome]:
    from .ray import draw as draw_there  # ray is an extra

    return draw_there(work, tasks, on_step, address=address, workers=workers)


ENGINES: dict[str, Engine] = {
    "local": local.draw,
    "ray": _ray,
}
