"""Apple's MPS has no float64: a whole run from a drawn start, where none may be made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vqclip.core import devices
from vqclip.models.dalle import sampling
from vqclip.runs.api import generate

DRAWING = ("rand", "to", "randn", "dtype", "__get__")  # random numbers are drawn on the CPU, and looked at


class NoFloat64(TorchFunctionMode):
    """Raises what MPS raises where a result is in float64."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch's, and look at what it gives."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float64 and func.__name__ not in DRAWING:
            raise TypeError(f"{func.__name__}: Cannot convert a MPS Tensor to float64 dtype")
        return result


def test_a_run_from_a_drawn_start_needs_no_float64(monkeypatch, tmp_path):
    assert devices.exact_float(torch.device("mps")) == torch.float32
    assert devices.exact_float(torch.device("cpu")) == torch.float64
    monkeypatch.setattr(sampling, "exact_float", lambda device: torch.float32)
    monkeypatch.setattr(sampling, "BATCH_SIZE", 1)
    with NoFloat64():
        result = generate("a cat", init="sample", candidates=1, steps=1, size=(64, 64), cutouts=2, runs=tmp_path)
    assert result.path.is_file()
