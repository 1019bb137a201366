"""What cutouts that no step sees say of a run: its best latent so far, and since when it gains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class HeldOut:
    """The lowest distance so far, the averaged latent and the step that it was of, and the last gain that counts."""

    best: Tensor  # [N, C, h, w]
    distance: float
    step: int
    gained: float  # the distance when it last fell by the smallest gain that counts
    gained_at: int  # and the step
    looked_at: int  # the step of the last look

    @classmethod
    def of(cls, before: HeldOut | None, latent: Tensor, distance: float, step: int, min_gain: float) -> HeldOut:
        """Return what is known after one more look."""
        if before is None:
            return cls(latent, distance, step, distance, step, step)
        best = replace(before, looked_at=step)
        if distance < best.distance:
            best = replace(best, best=latent, distance=distance, step=step)
        gains = distance <= best.gained - min_gain
        return replace(best, gained=distance, gained_at=step) if gains else best

    def stalled(self, stop_after: int) -> bool:
        """Say whether so many steps have gained nothing that counts; of 0 never."""
        return 0 < stop_after <= self.looked_at - self.gained_at
