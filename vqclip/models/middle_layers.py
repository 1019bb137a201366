"""What layers in the middle of a CLIP's image encoder make of an image: its style, more than its contents."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

DEPTHS = (1 / 4, 1 / 2, 3 / 4)  # of a transformer's blocks, about where its layers see textures and parts


class MiddleLayers:
    """Listens to some layers of an encoder, for as long as it lives; each thread hears its own runs."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._local = threading.local()
        for layer in layers:
            layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, args: Any, out: Tensor) -> None:
        kept = getattr(self._local, "kept", None)
        if kept is not None:  # `[M, C, H, W]`, or `[M, L, C]` of a class token and patches
            kept.append((out.flatten(2) if out.ndim == 4 else out[:, 1:].transpose(1, 2)).float())

    def of(self, encode: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return what the encoder returns, and what its middle layers do: each `[M, C, positions]`, float32."""
        kept: list[Tensor] = []
        self._local.kept = kept
        try:
            return encode(), kept
        finally:
            self._local.kept = None


def in_the_middle(encoder: nn.Module) -> list[nn.Module]:
    """Return the middle layers of an image encoder of open_clip's; none of one that is not known."""
    names = dict(encoder.named_modules())
    if blocks := names.get("transformer.resblocks"):
        listed = list(blocks.children())
        return [listed[round(depth * len(listed)) - 1] for depth in DEPTHS if len(listed) >= len(DEPTHS)]
    return [names[name] for name in ("layer1", "layer2", "layer3") if name in names]
