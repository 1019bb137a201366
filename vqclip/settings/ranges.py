"""The range of a number in words, for help and for messages."""

from collections.abc import Sequence
from typing import Any

from .number_or_curve import NumberOrCurve

BOUNDS = ("ge", "gt", "le", "lt")


def describe_range(metadata: Sequence[Any]) -> str:
    """Return "0 to 1", "more than 0, to 10", "0 to 1, or a curve"; "" for what has no bounds.

    metadata: of a pydantic field.
    """
    bounds = {key: getattr(item, key) for item in metadata for key in BOUNDS if getattr(item, key, None) is not None}
    curve = "or a curve" if any(isinstance(item, NumberOrCurve) for item in metadata) else ""
    if bounds.keys() == {"ge", "le"}:
        return ", ".join(filter(None, (f"{bounds['ge']} to {bounds['le']}", curve)))
    low = f"{bounds['ge']} or more" if "ge" in bounds else f"more than {bounds['gt']}" if "gt" in bounds else ""
    high = f"to {bounds['le']}" if "le" in bounds else f"below {bounds['lt']}" if "lt" in bounds else ""
    return ", ".join(filter(None, (low, high, curve)))
