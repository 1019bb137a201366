"""Which numbers are computed with on which device."""

import pytest
import torch

from vqclip.core.devices import choose_precision
from vqclip.core.torch_private import BFLOAT16_UNITS


@pytest.mark.parametrize("unit", [*BFLOAT16_UNITS, ""])
def test_auto_computes_in_bfloat16_where_the_processor_has_units_for_it(monkeypatch, unit):
    for name in BFLOAT16_UNITS:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == unit, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == ("bfloat16" if unit else "float32")
    assert choose_precision("auto", torch.device("mps")) == "float32"
    for precision in ("float32", "bfloat16"):
        assert choose_precision(precision, torch.device("cpu")) == precision


def test_auto_is_float32_where_torch_knows_no_such_units(monkeypatch):
    for name in BFLOAT16_UNITS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "float32"
