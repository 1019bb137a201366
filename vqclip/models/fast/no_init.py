"""Networks built without numbers in them, where a file's are to come: drawing those takes longer than reading these."""

from typing import Any

from torch.overrides import TorchFunctionMode


class Hollow(TorchFunctionMode):
    """Within it no layer draws its first weights: what they hold is not defined. For who loads all of them, strictly.

    On the device "meta" that also spares the second in which torch imports a compiler, to draw nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is called, but for `torch.nn.init` and the random fills of a tensor."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


DRAWS = ("normal_", "uniform_")
