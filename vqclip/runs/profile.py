"""Where a run's time goes, told by what passes the doors of its networks, forward and backward."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .session import Session

DECODE, CLIP, PICTURES, START = "VQGAN decoder", "CLIP", "pictures decoded", "start chosen"
BACK = " back"
# What is done between one door and the next: after -> name. Every second is of one part.
BETWEEN = {
    DECODE: "cutouts and losses",
    CLIP: "cutouts and losses",
    CLIP + BACK: "cutouts and losses",
    DECODE + BACK: "update of the latent",
    PICTURES: "files",
}


class Stopwatch:
    """Splits the seconds of a session's steps into parts; `attach` it before the first step.

    The pictures are the same. On a GPU it waits for the device at every door, so a watched run is slower there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self._device = torch.device("cpu")
        self._after, self._then = DECODE + BACK, 0.0

    def attach(self, session: Session) -> None:
        """Stand at the doors of a session's networks, and begin to count."""
        self._device = session.device
        session.vqgan = _Door(session.vqgan, "decode", DECODE, self)
        session.clips = [_Door(clip, "encode_image", CLIP, self) for clip in session.clips]
        if "z" in vars(session):  # made already: candidates were drawn
            self.seconds[START] = session.begun_in
        self._then = self._now()

    def restart(self) -> None:
        """Forget what was counted, and count from here."""
        self.seconds, self.steps, self._then = {}, 0, self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def _count(self, part: str) -> None:
        now = self._now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._then
        self._then = now

    def enter(self) -> None:
        """Come to a door: what was done since the last one is over."""
        self._count(BETWEEN[self._after])

    def leave(self, part: str) -> None:
        """Come out of a door."""
        self._count(part)
        self._after = part
        self.steps += part == DECODE

    def table(self) -> list[str]:
        """Return a line for each part, the longest first: its share and its milliseconds a step."""
        total = sum(self.seconds.values()) or 1.0
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        return [
            f"{name:<24} {took / total:6.1%} {took / (1 if name == START else max(1, self.steps)) * 1e3:9.1f} ms "
            + ("once" if name == START else "a step")
            for name, took in parts
        ]

    def record(self) -> dict[str, Any]:
        """Return the same as one JSON object."""
        return {
            "steps": self.steps,
            "device": str(self._device),
            "seconds": {k: round(v, 4) for k, v in self.seconds.items()},
        }


class _Door:
    """A network one of whose methods is timed; everything else is the network's own."""

    def __init__(self, network: Any, method: str, part: str, watch: Stopwatch) -> None:
        self._network, self._part, self._watch = network, part, watch
        setattr(self, method, self._through(getattr(network, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def _through(self, method: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        part, watch = self._part, self._watch

        def timed(x: Tensor) -> Tensor:
            watch.enter()
            if not torch.is_grad_enabled():
                y = method(x)
                watch.leave(PICTURES)
                return y
            x = x.view_as(x)
            y = method(x)
            watch.leave(part)
            if y.requires_grad:
                y.register_hook(lambda grad: watch.enter())
                x.register_hook(lambda grad: watch.leave(part + BACK))
            return y

        return timed
