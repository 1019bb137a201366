"""Devices of this machine, a process each."""

import time
from types import SimpleNamespace

import vqclip.batch.devices
from tests.support.runs import row
from vqclip.batch.devices import _Pool
from vqclip.batch.worker import RETRIES, Losses
from vqclip.config.resolve import resolve


def test_processes_that_hang_have_one_deadline_together(monkeypatch):
    monkeypatch.setattr(vqclip.batch.devices, "LINGER_S", 0.2)
    killed = []
    pool = _Pool(None, ["cpu"] * 5)
    for device in pool._devices:
        device.rows, device.connection = ["a row"], SimpleNamespace(close=lambda: None)
        device.process = SimpleNamespace(
            join=lambda seconds: time.sleep(max(0.0, seconds)), is_alive=lambda: True, kill=lambda: killed.append(1)
        )
    began = time.monotonic()
    pool.close()
    assert len(killed) == 5
    assert time.monotonic() - began < 0.5


def test_a_row_that_is_lost_again_and_again_fails():
    entry, waiting, losses = row("a", resolve("an owl", "tiny", 1)), [], Losses()
    for _ in range(RETRIES):
        assert list(losses.send_again([entry], waiting, "killed")) == []
        assert waiting.pop() == [entry]
    (failed,) = losses.send_again([entry], waiting, "killed")
    assert (failed.status, "killed" in failed.error, waiting) == ("failed", True, [])
