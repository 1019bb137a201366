"""Where a run's time goes: into its networks, forward and backward, and the work between them."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from .progress import Progress

if TYPE_CHECKING:
    from .run_dir import RunDir
    from .session import Session, Start

DECODE, CLIP, PICTURES, START = "VQGAN decoder", "CLIP", "pictures decoded", "start chosen"
BACK = " back"
# What is done after a part until the next one begins. Every second belongs to one part.
BETWEEN = {
    DECODE: "cutouts and losses",
    CLIP: "cutouts and losses",
    CLIP + BACK: "cutouts and losses",
    DECODE + BACK: "update of the latent",
    PICTURES: "files",
}


class Profile(Progress):
    """Splits the seconds of a session's steps into parts, from `watch` (or `started`) until it is left.

    The images are the same. On a GPU it waits for the device between parts, so a profiled run is slower there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self._session: Session | None = None
        self._device = torch.device("cpu")
        self._part, self._then = DECODE + BACK, 0.0
        self._timed = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timed.close()

    def start(self, session: "Session", run: "RunDir | None") -> None:
        """Take the session whose steps are to be timed."""
        self._session = session

    def started(self, start: "Start") -> None:
        """Begin to count, with what the start took."""
        if self._session:
            self.watch(self._session)
        self.seconds[START] = start.seconds

    def watch(self, session: "Session") -> None:
        """Time the networks of a session, and begin to count."""
        self._device = session.device
        self._time(session.vqgan, "decode", DECODE)
        for clip in {id(clip): clip for clip in session.clips}.values():
            self._time(clip, "encode_image", CLIP)
        self.restart()

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

    def _begin(self) -> None:
        self._count(BETWEEN[self._part])

    def _end(self, part: str) -> None:
        self._count(part)
        self._part = part
        self.steps += part == DECODE

    def _time(self, network: Any, name: str, part: str) -> None:
        """Replace a network's method by one that is timed."""
        method: Callable[[Tensor], Tensor] = getattr(network, name)

        def timed(x: Tensor) -> Tensor:
            self._begin()
            if not torch.is_grad_enabled():
                y = method(x)
                self._end(PICTURES)
                return y
            x = x.view_as(x)
            y = method(x)
            self._end(part)
            if y.requires_grad:
                y.register_hook(lambda grad: self._begin())
                x.register_hook(lambda grad: self._end(part + BACK))
            return y

        own = name in vars(network)
        setattr(network, name, timed)
        self._timed.callback(setattr, network, name, method) if own else self._timed.callback(delattr, network, name)

    def table(self) -> list[str]:
        """Return a line for each part, the longest first: its fraction and its milliseconds a step."""
        total = sum(self.seconds.values()) or 1.0
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        return [
            f"{name:<24} {took / total:6.1%} {took / (1 if name == START else max(1, self.steps)) * 1e3:9.1f} ms "
            + ("once" if name == START else "a step")
            for name, took in parts
        ]

    def record(self) -> dict[str, Any]:
        """Return the same as one JSON object."""
        seconds = {part: round(took, 4) for part, took in self.seconds.items()}
        return {"steps": self.steps, "device": str(self._device), "seconds": seconds}
