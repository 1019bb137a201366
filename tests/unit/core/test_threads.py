"""Threads: how many an operation takes, and independent work side by side."""

import itertools
import threading

import pytest
import torch

from vqclip.core import threads
from vqclip.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restored():
    """Leave torch with the threads that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def counting(number, length):
    """Return a job that yields `length` pairs."""
    return lambda: iter([(number, k) for k in range(length)])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_jobs_yield_all_in_their_own_order(count):
    yielded = list(threads.side_by_side([counting(n, 4) for n in range(5)], count))
    assert sorted(yielded) == [(n, (n, k)) for n in range(5) for k in range(4)]
    for n in range(5):
        assert [result for number, result in yielded if number == n] == [(n, k) for k in range(4)]


def test_two_jobs_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=30)

    def job():
        meeting.wait()
        yield torch.get_num_threads()

    threads.use_threads(small=True)
    assert [result for _, result in threads.side_by_side([job, job], 2)] == [1, 1]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_job_is_raised(count):
    def job():
        yield 1
        raise UsageError("no", "yes")

    with pytest.raises(UsageError):
        list(threads.side_by_side([counting(0, 3), job], count))


def test_jobs_end_once_no_more_is_wanted():
    ended = []

    def job():
        try:
            yield from itertools.count()
        finally:
            ended.append(True)

    results = threads.side_by_side([job, job], 2)
    next(results)
    results.close()
    assert ended == [True, True]


def test_small_networks_take_one_thread_an_operation_and_work_side_by_side(monkeypatch):
    monkeypatch.setenv("VQCLIP_THREADS", "3")
    threads.use_threads(small=True)
    assert (torch.get_num_threads(), threads.workers(CPU), threads.workers(torch.device("cuda"))) == (1, 3, 1)
    threads.use_threads(small=False)
    assert (torch.get_num_threads(), threads.workers(CPU)) == (3, 1)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "99999", "²"])
def test_a_wrong_number_of_threads_is_refused(given, monkeypatch):
    monkeypatch.setenv("VQCLIP_THREADS", given)
    with pytest.raises(UsageError, match="threads"):
        threads.use_threads(small=False)
