"""How many threads an operation takes, and how many operations run side by side, on the CPU.

The operations of small networks are too short to be divided: on two idle cores two threads gain a seventh, and on a
busy machine, where threads spin while they wait for each other, they take several times as long. So these networks take
one thread an operation, and independent work (candidates, images) runs side by side. The bytes are then the same on any
number of cores. Large networks take all threads in each operation.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, local
from typing import TypeVar

import torch

from ..errors import UsageError

VARIABLE = "VQCLIP_THREADS"  # set by --threads too
MOST = 1024
DEFAULT = torch.get_num_threads()  # that of OMP_NUM_THREADS, or of the cores

Result = TypeVar("Result")
job = local()  # its `number` is that of the job that this thread runs


def threads() -> int:
    """Return how many threads may compute at a time. Raises UsageError for a VQCLIP_THREADS that is no number."""
    given = os.environ.get(VARIABLE, "")
    if not given:
        return DEFAULT
    if not given.isdecimal() or not 1 <= int(given) <= MOST:
        raise UsageError(f"threads: {given[:20]!r} is out of range", f"use 1 to {MOST} (--threads, {VARIABLE})")
    return int(given)


def use_threads(*, small: bool) -> None:
    """Let each operation take one thread, if the networks are small, or all. Raises UsageError."""
    torch.set_num_threads(1 if small else threads())


def workers(device: torch.device) -> int:
    """Return how many jobs should run side by side: those whose operations take one thread, on the CPU.

    1 within such a job: the others have the other cores.
    """
    alone = device.type != "cpu" or torch.get_num_threads() > 1 or getattr(job, "number", None) is not None
    return 1 if alone else threads()


def side_by_side(jobs: Sequence[Callable[[], Iterator[Result]]], count: int) -> Iterator[tuple[int, Result]]:
    """Run jobs, `count` at a time, and yield (number of the job, what it yielded) as it comes.

    What a job raises is raised here. Once the caller looks no further, jobs end at what they yield next.
    """
    if count > 1:
        yield from _concurrently(jobs, count)
        return
    for number, work in enumerate(jobs):
        for result in work():
            yield number, result


def _concurrently(jobs: Sequence[Callable[[], Iterator[Result]]], count: int) -> Iterator[tuple[int, Result]]:
    results: SimpleQueue[tuple[int, Result] | BaseException | None] = SimpleQueue()  # None: a job has ended
    stopped, per_operation = Event(), torch.get_num_threads()

    def run(number: int, work: Callable[[], Iterator[Result]]) -> None:
        try:
            torch.set_num_threads(per_operation)  # OpenMP counts them in each thread
            job.number = number
            for result in work():
                if stopped.is_set():
                    return
                results.put((number, result))
            results.put(None)
        except BaseException as error:  # raised where the jobs were asked for
            results.put(error)

    with ThreadPoolExecutor(count, thread_name_prefix="vqclip") as pool:
        running = [pool.submit(run, number, work) for number, work in enumerate(jobs)]
        try:
            left = len(jobs)
            while left:
                item = results.get()
                if isinstance(item, BaseException):
                    raise item
                if item:
                    yield item
                else:
                    left -= 1
        finally:
            stopped.set()
            for future in running:
                future.cancel()
