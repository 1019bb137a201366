"""Which of the CLIPs a head gives its marks by."""

import torch

from ..core.interfaces import Head, Target
from ..errors import ModelError
from ..models.catalogue import find, is_name
from ..settings.schema import Settings
from .networks import Networks


def marked_clips(settings: Settings) -> list[bool]:
    """Say of each CLIP whether it may be the one whose embeddings the head is for; none where no head counts.

    Raises ModelError if no CLIP is.
    """
    if not settings.counts("head"):
        return [False] * len(settings.clips)
    known = find("head", settings.head).facts.needs
    fitting = [not known or name in known or not is_name("clip", name) for name in settings.clips]
    if not any(fitting):
        what = f"the head {settings.head!r} is for the embeddings of {known[0]}, which is not among the CLIPs"
        raise ModelError(what, f"use --clip {known[0]}, or leave --aesthetic-weight out")
    return fitting


def heads_of(settings: Settings, targets: list[Target], device: torch.device, networks: Networks) -> list[Head | None]:
    """Return the head for each CLIP, None for one whose embeddings it is not for. Raises ModelError."""
    fitting = marked_clips(settings)
    if not any(fitting):
        return [None] * len(targets)
    head = networks.head(settings.head, device)
    width = len(head.weight)
    heads = [
        head if fits and target.embeds.shape[-1] == width else None
        for fits, target in zip(fitting, targets, strict=True)
    ]
    if not any(heads):
        what = f"the head {settings.head!r} is for embeddings of {width} numbers"
        raise ModelError(
            what, f"those of the CLIPs have {', '.join(str(target.embeds.shape[-1]) for target in targets)}"
        )
    return heads
