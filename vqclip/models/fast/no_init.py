"""Networks without initial weights, for those of a file: to draw random ones takes longer than to read these."""

import contextlib
from typing import Any, Self

from torch.overrides import TorchFunctionMode

from ...core.torch_private import no_truncated_normals

RANDOM_FILLS = ("normal_", "uniform_")


class NoInit(TorchFunctionMode):
    """Skips the initialisation of weights. Use it only if all parameters are then loaded, strictly.

    On the device "meta" it also saves the second in which torch imports a compiler, to draw nothing.
    """

    def __enter__(self) -> Self:
        """Begin to skip."""
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(no_truncated_normals())
        return super().__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End."""
        self._stack.close()
        super().__exit__(kind, error, trace)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is called, except for `torch.nn.init` and the random fills of a tensor."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
