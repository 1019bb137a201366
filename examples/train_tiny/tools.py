"""What the training scripts share: device and numbers' type, steps by Muon, files that are whole or not there."""

import argparse
import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vqclip.core.devices import choose_precision


def add_arguments(parser: argparse.ArgumentParser, seed: int) -> None:
    """Add the arguments that all trainings have."""
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--stop-after", type=float, default=math.inf, help="minutes of this call; the schedule goes on")


def begin(args: argparse.Namespace) -> torch.device:
    """Set threads and seed; return the device."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    name = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    return torch.device(name)


class Limit:
    """Says when a call is to stop: after so many minutes, or when asked to end (SIGTERM, Ctrl-C), after its step."""

    def __init__(self, minutes: float) -> None:
        self.until, self.asked = time.monotonic() + minutes * 60, False
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    @property
    def reached(self) -> bool:
        """Return whether to stop now."""
        return self.asked or time.monotonic() > self.until


def lower(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager:
    """Compute in bfloat16 within it, where the device has units for that: elsewhere it is slower than float32."""
    fast = choose_precision("auto", device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and fast)


def cosine(progress: float, floor: float = 0.03) -> float:
    """Return the learning rate at a share of the schedule, 1 at its begin and `floor` at its end."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average of weights towards the model's."""
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file so that it is there whole, or as it was before."""
    part = path.with_name(path.name + ".part")
    save(part)
    part.replace(path)


def write_state(path: Path, state: dict) -> None:
    """Save a training's state."""
    write(path, lambda part: torch.save(state, part))


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Save weights for use: floating-point numbers in fp16."""
    half = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in weights.items()}
    write(path, lambda part: save_file(half, part))


def read_state(path: Path, device: torch.device) -> dict | None:
    """Return a training's state, if there is one."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


class Log:
    """A file of JSON lines, one for every so many steps, with the means of what was told it."""

    def __init__(self, path: Path) -> None:
        self.file, self.sums, self.count = path.open("a"), {}, 0

    def add(self, figures: dict[str, Tensor | float]) -> None:
        """Take one step's figures."""
        self.count += 1
        for name, value in figures.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + value

    def line(self, **more: object) -> None:
        """Write a line: `more`, and the means since the last one."""
        means = {name: round(float(value) / self.count, 4) for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        print(json.dumps({**more, **means}), file=self.file, flush=True)


class Muon(torch.optim.Optimizer):
    """Momentum whose every matrix is made orthogonal before the step (Jordan et al. 2024); for convolutions too.

    torch.optim.Muon takes matrices alone. Here a kernel `[out, in, k, k]` is one of `[out, in k k]`. The step has the
    size that AdamW's usually has (Liu et al. 2025), so that one learning rate fits both.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                moving = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                aim = parameter.grad.lerp(moving, group["momentum"])
                flat = aim.reshape(len(aim), -1)
                step = orthogonal(flat).view_as(aim) * (0.2 * max(flat.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"])


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Return about the orthogonal matrix that is nearest, by Newton and Schulz's quintic iteration."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)
