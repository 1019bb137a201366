"""The benchmark for a GPU runs here, small and on the CPU: what a machine is lent for must not fail for a slip."""

import json

from tests.benchmarks import peers, step
from tests.benchmarks.gpu import SECTIONS, main


def test_every_section_measures_something(tmp_path, monkeypatch, capfd):
    for module in (peers, step):  # which --quick changes
        monkeypatch.setattr(module, "CUTOUTS", module.CUTOUTS)
    found = main(["--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.json")])
    errors = [line for line in json.dumps(found, indent=0).splitlines() if '"error"' in line]
    assert errors == []
    assert json.loads((tmp_path / "gpu.json").read_text()).keys() == {"device", "torch", "quick", *SECTIONS}
    assert found["agreement"]["agrees"]
    assert found["agreement"]["equal_codes"] == 1
    assert found["repetition"]["same_bytes_again"]
    assert found["repetition"]["same_bytes_resumed"]
    assert found["memory"]["refused"]
    assert {way.split()[0] for way in found["speed"]["ways"]} >= {"nerdyrodent", "rkhamilton", "float32", "bfloat16"}
    assert len(capfd.readouterr().out.splitlines()) == len(SECTIONS)


def test_what_there_is_no_time_for_is_said(tmp_path):
    found = main(["--device", "cpu", "--minutes", "0", "--only", "training", "--out", str(tmp_path / "gpu.json")])
    assert "no time" in found["training"]["error"]
