"""How settings change over a run by themselves: a warm-up and fades, which multiply what is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..settings.schema import Settings


def fade(name: str, progress: float, settings: Settings) -> float:
    """Return what a setting is multiplied by at a share of the run; 1 with a flat schedule."""
    return FADES[name](progress) if settings.schedule == "cosine" else 1.0


def learning_rate(progress: float) -> float:
    """Return the learning rate's scale: from a fifth up over the first 4% of the run, and a cosine down to a tenth."""
    return min(1.0, 0.2 + progress / 0.05) * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


FADES: dict[str, Callable[[float], float]] = {
    "init_weight": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "latent_noise": lambda progress: 1 - progress,
    "step_size": learning_rate,
}
