"""torch's private interfaces that vqclip uses, each with what happens if a later torch lacks it.

Nothing else in vqclip imports a private name of torch. All of these save time or memory, or tell how much memory is
needed; without them the public and slower way is used, and the images are the same up to rounding.
"""

import contextlib
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def optional(module: str, name: str) -> Any:
    """Return a module's attribute, or None if this torch has no such module or attribute."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


# Without them: `is_fake` is always False, `count_memory` returns None, and memory is not estimated beforehand.
FakeTensor = optional("torch._subclasses.fake_tensor", "FakeTensor")
FakeTensorMode = optional("torch._subclasses.fake_tensor", "FakeTensorMode")
TorchDispatchMode = optional("torch.utils._python_dispatch", "TorchDispatchMode")
tree_leaves = optional("torch.utils._pytree", "tree_leaves")
TRUNCATED_NORMAL = "_no_grad_trunc_normal_"  # of torch.nn.init
# Without them: bfloat16 is not chosen on a CPU by itself.
BFLOAT16_UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def onednn_linear() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """Return oneDNN's `F.linear` for float32 on the CPU, that torch's compiler calls; None without it: use `F.linear`.

    It reads the bias without regard to its strides.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return operator and (lambda x, weight, bias: operator(x, weight, bias, "none", [], ""))


def cpu_has_bfloat16_units() -> bool:
    """Return whether the CPU multiplies in bfloat16 natively, by AMX or AVX512-BF16."""
    return any(getattr(torch.cpu, name, bool)() for name in BFLOAT16_UNITS)


def is_fake(tensor: Tensor) -> bool:
    """Return whether a tensor has a shape only, and no contents."""
    return FakeTensor is not None and isinstance(tensor, FakeTensor)


class Tally(TorchDispatchMode or object):  # type: ignore[misc]
    """Counts the bytes of all tensors that are made under it and still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count the tensors that it returns."""
        made = func(*args, **(kwargs or {}))
        for tensor in () if func.is_view else tree_leaves(made):  # a view of a weight would count the weight
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._counted:
            self._counted.add(key)
            self.now += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


@contextlib.contextmanager
def no_truncated_normals() -> Iterator[None]:
    """Let `torch.nn.init.trunc_normal_` leave a tensor as it is.

    It draws again until all numbers are within bounds, which never happens if nothing is drawn. A later torch that
    lacks the name draws as it likes.
    """
    draw = getattr(torch.nn.init, TRUNCATED_NORMAL, None)
    if draw is None:
        yield
        return
    setattr(torch.nn.init, TRUNCATED_NORMAL, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        setattr(torch.nn.init, TRUNCATED_NORMAL, draw)


def count_memory(
    network: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device, *, backward: bool = True
) -> tuple[int, int] | None:
    """Return the bytes that a network holds after its forward pass, and at the peak of forward and backward.

    It is run on tensors without contents, which takes no memory. backward: False for the forward pass alone, without
    gradients. None if this torch has no such tensors.
    """
    if None in (FakeTensor, FakeTensorMode, TorchDispatchMode, tree_leaves):
        return None
    with torch.set_grad_enabled(backward), FakeTensorMode(allow_non_fake_inputs=True), Tally() as tally:
        out = network(torch.empty(shape, device=device, requires_grad=backward))
        held = tally.now
        if backward:
            out.backward(torch.empty_like(out))
    return held, tally.peak
