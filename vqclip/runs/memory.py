"""Memory: what a step needs, what is free, and what to change if that is too little."""

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from ..core.loop import chunk_size
from ..core.torch_private import count_memory
from ..errors import OutOfMemory, is_out_of_memory
from ..models.catalogue import find
from ..models.dalle import BATCH_SIZE
from ..models.dalle.checkpoints import memory_needed
from ..settings.schema import Settings

if TYPE_CHECKING:
    from .session import Session

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
KEEPING = {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_MAX: 0}
USUAL = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25, M_MMAP_MAX: 2**16}  # glibc's own maximum
KEEP_FREED_FACTOR = 3  # freed memory is kept if so many times a step's need is free
OVERHEAD = 1.3  # times the tensors' size that the process takes: gaps in the heap, kernels' memory; measured
# Bytes of address space that a run takes beside its tensors, for ten threads and for kernels compiled at first use;
# measured: 1.0 GB. Libraries crash if a shell's limit leaves less.
ADDRESSES = 1_100_000_000
# Bytes per value of a cutout: float32, and the copies that warp, colour, noise and normalise make; measured.
CUTOUT_BYTES = 32
# What no step of the bundled networks takes, nor their upscaler, up to so many pixels and cutouts at once; counted, but
# for a tile's edges and style layers, for which KEEP_FREED_FACTOR leaves room.
MODEST, MODEST_PIXELS, MODEST_CUTOUTS = 700_000_000, 256 * 256, 8
LOGITS = 16  # copies of logits at a step's peak; measured with 16,384 codes: 12.7 by Adam, 15.6 by DiffGrad


@dataclass(frozen=True)
class Need:
    """Bytes that one step, or enlarging the finished image, takes beside the models.

    decoder_peak: the decoder's peak, forward and backward; decoded: what its forward pass keeps while the cutouts are
    made and CLIP encodes them; cutouts and clips: the peaks of these. upscaling: what enlarging the finished image
    takes, after the last step. logits: what is moved in the latent's place, with its gradient and moments.
    """

    decoder_peak: int
    decoded: int
    cutouts: int
    clips: int
    upscaling: int
    logits: int = 0

    @property
    def total(self) -> int:
        """The peak of all."""
        step = max(self.decoder_peak, self.decoded + self.cutouts + self.clips)
        return max(self.logits + step, self.upscaling)


def estimate(session: "Session") -> Need | None:
    """Count what a step at full size takes, by running one on tensors that have shapes and no contents.

    This takes about half a second and no memory. The estimate is 1.0 to 1.3 times what the process then takes with the
    bundled models (tests/benchmarks/memory.py). None for networks that such tensors can't follow.
    """
    seen = chunk_size(session.settings.largest(), session.device)
    try:
        decoder_peak = count_memory(session.vqgan.decode, session.shape, session.device)
        embedding = [
            count_memory(clip.encode_image, (seen, 3, clip.size, clip.size), session.device) for clip in session.clips
        ]
    except Exception:  # a network may do what can't be followed without contents
        return None
    if decoder_peak is None or None in embedding:
        return None
    decoded, peak = decoder_peak
    clips = [peak for _, peak in filter(None, embedding)]
    cutouts = [seen * 3 * clip.size**2 * CUTOUT_BYTES for clip in session.clips]
    enlarger = session.enlarger
    upscaling = (enlarger.bytes_needed(session.settings.size) if enlarger else 0) or 0  # of an unknown network 0
    # One CLIP's backward pass ends before the next CLIP encodes.
    parts = peak, decoded, max(cutouts), max(clips), upscaling, _logits(session)
    return Need(*(int(OVERHEAD * part) for part in parts))


def is_modest(session: "Session") -> bool:
    """Return whether a run is known to take less than MODEST without being counted.

    Counting imports torch's compiler, which takes longer than ten steps of the bundled networks.
    """
    settings = session.settings
    seen = chunk_size(settings.largest(), session.device)
    bundled = all(find(kind, name).bundled for kind, name in settings.models())
    return bundled and seen <= MODEST_CUTOUTS and math.prod(settings.size) <= MODEST_PIXELS


def _logits(session: "Session") -> int:
    """Return the bytes of LOGITS copies of logits over the codebook; 0 where the latent, which is small, is moved."""
    return 4 * LOGITS * math.prod(session.moved_shape) if session.moved_shape != session.shape else 0


def available(device: torch.device) -> int:
    """Return the bytes that a run may take: the device's free memory, or the machine's and its swap's.

    On Linux a container and a shell (ulimit -v) may allow less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return max(0, min([machine, *_limits()]))


def _limits(group: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield the bytes that each limit of this process leaves."""
    with contextlib.suppress(OSError, ValueError):  # none, or "max"
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = int(statistics.get("inactive_file", 0))  # cached files, which the kernel drops when memory is needed
        yield int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()) + cache
    with contextlib.suppress(ImportError, AttributeError):  # not on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - psutil.Process().memory_info().vms - ADDRESSES


def require_for_drawing(settings: Settings, device: torch.device, *, loaded: bool = False) -> None:
    """Raise OutOfMemory if a Mini DALL-E that is not `loaded` does not fit into memory, before it is loaded.

    On the CPU its file and its weights are in memory together.
    """
    loading, drawn = memory_needed(find("dalle", settings.dalle).weights, BATCH_SIZE)
    have, need = available(device), 0 if loaded else max(loading, drawn) if device.type == "cpu" else drawn
    if need > have:
        what = f"the Mini DALL-E {settings.dalle!r} needs about {_gb(need)} of memory, and {_gb(have)} is free"
        raise OutOfMemory(what, "use a smaller one (--dalle), or let this process have more")


def fit_memory(session: "Session", *, fit: bool) -> dict[str, int]:
    """Check that a step fits into memory; return the settings that were changed for that: `chunk`, if `fit` is true.

    Raises OutOfMemory if it can't fit, before anything has been begun.
    """
    settings, device = session.settings, session.device
    if settings.starts_from_candidates():
        require_for_drawing(settings, device, loaded=session.networks.has_dalle(settings.dalle))
    if available(torch.device("cpu")) <= 0:  # not even a small image could be made
        raise OutOfMemory("there is too little memory to begin", "let this process have more (ulimit -v)")
    keep_freed(False)  # memory that earlier runs kept is given back first
    have = available(device)
    if is_modest(session) and have >= KEEP_FREED_FACTOR * MODEST:
        keep_freed(device.type == "cpu")
        return {}
    need = estimate(session)
    if need is None or need.total <= have:
        keep_freed(bool(need and need.total * KEEP_FREED_FACTOR <= have and device.type == "cpu"))
        return {}
    if need.upscaling > have:
        what = f"enlarging the image needs about {_gb(need.upscaling)} of memory, and {_gb(have)} is free"
        raise OutOfMemory(what, "use a smaller --upscale, or 0 for none")
    each = (need.cutouts + need.clips) / chunk_size(settings.largest(), device)
    room = have - need.logits
    if not fit or max(need.decoder_peak, need.decoded + each) > room:
        what = f"a step needs about {_gb(need.total)} of memory, and {_gb(have)} is free"
        raise OutOfMemory(what, advice(settings, decoder=need.decoder_peak > room, fit=fit))
    change = {"chunk": int((room - need.decoded) / each)}
    session.change(change)
    session.notes.append(f"memory is short: CLIP sees {change['chunk']} of the cutouts at a time")
    return change


def keep_freed(keep: bool) -> None:
    """Keep freed memory for the next step, instead of giving it back to the system, which clears it every time.

    glibc maps blocks over 32 MB anew for each use, which takes a fifth to a third of a large step's time on the CPU.
    Kept memory becomes fragmented, so that the process takes up to twice as much. Holds for the whole process until it
    is called with False, which gives free memory back. Without glibc nothing changes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            for option, value in (KEEPING if keep else USUAL).items():
                library.mallopt(option, value)
            if not keep:
                library.malloc_trim(0)


def smaller_chunk(settings: Settings, device: torch.device) -> int:
    """Return half of the cutouts that CLIP sees at once; 0 if there is only one."""
    return chunk_size(settings.largest(), device) // 2


def advice(settings: Settings, *, decoder: bool, fit: bool) -> str:
    """Say what to change: the size if the decoder alone is too much or all has been tried, else the chunks."""
    if decoder or fit or settings.cutouts == 1:
        return "use a smaller --size"
    return "use --fit (the same picture, in smaller parts) or a smaller --size"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


@contextlib.contextmanager
def watched(settings: Settings, *, fit: bool = False) -> Iterator[None]:
    """Turn the many ways in which memory runs out into OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        width, height = settings.size
        what = f"there is too little memory for {width}x{height} pixels with {settings.largest().cutouts} cutouts"
        raise OutOfMemory(what, advice(settings, decoder=settings.chunk == 1, fit=fit)) from None
