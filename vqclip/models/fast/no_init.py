"""Networks without initial weights, for those of a file: to draw random ones takes longer than to read these."""

from typing import Any

from torch.overrides import TorchFunctionMode

RANDOM_FILLS = ("normal_", "uniform_")


class NoInit(TorchFunctionMode):
    """Skips the initialisation of weights. Use it only if all parameters are then loaded, strictly.

    On the device "meta" it also saves the second in which torch imports a compiler, to draw nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is called, except for `torch.nn.init` and the random fills of a tensor."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
