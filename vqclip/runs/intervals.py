"""How often something is done."""

import re
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Interval:
    """How often something is done: every so many steps, or seconds; neither means never."""

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Read "50" (steps), "30s", "2m" or "0". Raises UsageError."""
        match = re.fullmatch(r"\s*(\d{1,9})\s*([sm]?)\s*", text, re.IGNORECASE)
        if not match:
            raise UsageError(f"{text!r} is no interval", "write steps or seconds, e.g. --checkpoint-every 50 or 30s")
        number = int(match[1])
        return cls(seconds=number * {"s": 1, "m": 60}[match[2].lower()]) if match[2] else cls(steps=number)
