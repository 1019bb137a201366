"""Rows drawn in this process, one tensor after the other."""

from collections.abc import Iterator, Sequence

from .worker import OnStep, Outcome, Task, Work, Worker


def draw(
    work: Work, tasks: Sequence[Task], on_step: OnStep, address: str | None = None, workers: int = 0
) -> Iterator[Outcome]:
    """Yield how each task ended; address and workers are other engines' business."""
    yield from Worker(work).draw(tasks, on_step)
