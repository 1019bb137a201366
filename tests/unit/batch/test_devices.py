"""Devices of this machine, a process each."""

import time
from types import SimpleNamespace

import vqclip.batch.devices
from vqclip.batch.devices import _Pool


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
