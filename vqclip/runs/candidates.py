"""Candidates: images that a Mini DALL-E samples from a text, and how near CLIP finds each to the prompts."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..core.init import encode
from ..core.interfaces import Clip, Target, Vqgan
from ..core.losses import spherical_distance
from ..core.quantize import lookup
from ..core.threads import side_by_side, workers
from ..errors import InputError, ModelError, UsageError
from ..files.atomic import write_atomic
from ..files.images import fit, to_picture, to_tensor
from ..files.reading import read_record
from ..models.catalogue import find, known_or_absolute
from ..models.dalle import BATCH_SIZE, Dalle, partner_of
from ..settings.schema import Settings
from ..text import brief
from .progress import Progress

if TYPE_CHECKING:
    from .session import Session

Finished = TypeVar("Finished")

FILE = "candidates.json"
SCHEMA = "vqclip-candidates/1"
MAX_FILE = 50_000_000  # bytes; 4,096 candidates of 1,024 codes take half of it
DECIDING = ("seed", "guidance", "temperature", "top_k")  # settings that, with text and model, decide the codes
HINT = 'say what to draw, e.g. vqclip sample "a red heart"'


def text_to_draw(settings: Settings) -> str:
    """Return the text that candidates are sampled from: the first of positive weight. Raises UsageError for none."""
    texts = [prompt.text for prompt in settings.prompts() if prompt.pulls]
    if not texts:
        raise UsageError("there is no text to draw from", HINT)
    return texts[0]


def vqgan_of_dalle(dalle: str, vqgan: str = "") -> str:
    """Return the VQGAN that decodes a Mini DALL-E's codes, once both are known to be installed; loads neither.

    vqgan: the one to be used, if that is decided. Raises ModelError for another one, or if one is not installed.
    """
    if not dalle:
        what = f"no Mini DALL-E is known that writes the codes of the VQGAN {vqgan}"
        raise ModelError(what, "use --vqgan tiny or imagenet_f16_16384, or give one: --dalle FOLDER")
    entry = find("dalle", dalle)
    own = known_or_absolute("vqgan", partner_of(entry.folder))
    if vqgan not in (own, ""):
        what = f"the codes of the Mini DALL-E {entry.name!r} are those of the VQGAN {own}, not of {vqgan}"
        raise ModelError(what, f"use --vqgan {own}")
    find("vqgan", own)
    return own


def notes_on_unread_text(dalle: Dalle, settings: Settings) -> list[str]:
    """Return a line for each part of the text that a Mini DALL-E does not read."""
    text = text_to_draw(settings)
    if not dalle.tokenizer.normalize(text).strip():
        return [f"the Mini DALL-E {dalle.name} reads Latin letters, digits and signs, of which {brief(text)} has none"]
    if not dalle.fits(text):
        tokens = dalle.model.shape.text_length
        return [f"the Mini DALL-E {dalle.name} reads {tokens} tokens, the beginning of the prompt"]
    return []


class CandidatesFile(BaseModel):
    """A candidates.json. of: what the codes were sampled from; codes: a list for each candidate, in order."""

    model_config = ConfigDict(defer_build=True, strict=True)

    schema_version: str = Field(alias="schema")
    of: dict[str, Any]
    codes: list[list[int]]


class CandidateCache:
    """The codes of candidates 0, 1, 2, ...: in a file that grows by a batch at a time, or in memory."""

    def __init__(self, path: Path | None, settings: Settings, dalle: Dalle, sha256: str) -> None:
        """Take up the codes in a file if they were sampled from these settings by this model, whose hash is given."""
        self.path = path
        self.rows: list[list[int]] = []
        self._waiting: dict[int, list[list[int]]] = {}  # number of the first -> codes of a batch that came early
        self._of = {name: getattr(settings, name) for name in DECIDING}
        self._of |= {"text": text_to_draw(settings), "dalle": sha256}
        if path and path.exists():
            try:
                file = read_record(path, CandidatesFile, MAX_FILE)
            except InputError:  # a damaged file: its candidates are sampled again
                return
            if (file.schema_version, file.of) == (SCHEMA, self._of) and _are_codes(file.codes, dalle):
                self.rows = file.codes

    def add(self, first: int, codes: Tensor) -> None:
        """Take the codes `[n, positions]` of candidates `first` and on; kept once all before them are.

        Raises OutputError.
        """
        self._waiting[first] = codes.tolist()
        before = len(self.rows)
        while len(self.rows) in self._waiting:
            self.rows += self._waiting.pop(len(self.rows))
        if self.path and len(self.rows) > before:
            text = json.dumps({"schema": SCHEMA, "of": self._of, "codes": self.rows}, separators=(",", ":"))
            write_atomic(self.path, (text + "\n").encode())

    def codes(self, numbers: range, device: torch.device) -> Tensor | None:
        """Return the codes `[n, positions]` of these candidates, or None if not all of them are here."""
        rows = self.rows[numbers.start : numbers.stop]
        return torch.tensor(rows, dtype=torch.long, device=device) if len(rows) == len(numbers) else None


def _are_codes(rows: list[list[int]], dalle: Dalle) -> bool:
    """Return whether these are the codes of whole images of this model."""
    shape = dalle.model.shape
    return all(len(row) == shape.image_length and min(row) >= 0 and max(row) < shape.codes for row in rows)


@dataclass(frozen=True)
class Batch(Generic[Finished]):
    """Candidates that are sampled together: their codes so far, `[n, k]`; finished once they are complete."""

    first: int  # number of the first candidate
    codes: Tensor
    finished: Finished | None = None


def sample_batches(
    dalle: Dalle,
    settings: Settings,
    cache: CandidateCache,
    device: torch.device,
    finish: Callable[[int, Tensor], Finished],
) -> Iterator[Batch[Finished]]:
    """Sample the candidates that are not in the cache, and add them to it, BATCH_SIZE at a time.

    Yields a batch after each code; one that is in the cache once. `finish(number of the first, codes)` decodes and
    ranks a whole one. On the CPU batches are sampled side by side, so they come in any order.
    """
    length = dalle.model.shape.image_length

    def job(numbers: range) -> Iterator[Batch[Finished]]:
        whole = cache.codes(numbers, device)
        if whole is None:
            for codes in dalle.sample(
                text_to_draw(settings), numbers, seed=settings.seed, top_k=settings.top_k,
                temperature=settings.temperature, scale=settings.guidance,
            ):  # fmt: skip
                if codes.shape[1] == length:
                    whole = codes
                else:
                    yield Batch(numbers.start, codes)
        assert whole is not None
        yield Batch(numbers.start, whole, finish(numbers.start, whole))

    count = settings.candidates
    batches = [range(first, min(first + BATCH_SIZE, count)) for first in range(0, count, BATCH_SIZE)]
    jobs = [functools.partial(job, numbers) for numbers in batches]
    for _, batch in side_by_side(jobs, min(workers(device), len(jobs))):
        if batch.finished is not None:
            cache.add(batch.first, batch.codes)
        yield batch


def rank(images: Tensor, clips: Sequence[Clip], targets: Sequence[Target]) -> Tensor:
    """Return each image's distance to the prompts `[N]`: the loop's own, for the whole image as one cutout.

    Called for a batch at a time: all at once would take gigabytes.
    """
    distances = []
    for clip, target in zip(clips, targets, strict=True):
        with torch.no_grad():
            whole = F.interpolate(images, (clip.size, clip.size), mode="bicubic", antialias=True).clamp(0, 1)
            distance = spherical_distance(clip.encode_image(whole)[:, None], target.embeds)
            distances.append((distance * target.overall).sum(1) * target.weight)
    return torch.stack(distances).sum(0) / sum(target.weight for target in targets)


def distance_of(session: "Session", image: Image.Image) -> float:
    """Return the distance of a whole drawn image to the prompts as they are at the end of the run."""
    targets = [target.at(session.settings.end) for target in session.targets]
    return float(rank(to_tensor(image).to(session.device), session.clips, targets))


def latent(dalle: Dalle, vqgan: Vqgan, codes: Tensor) -> Tensor:
    """Return the latent `[n, C, h, w]` of whole codes: their vectors, or what encoding their images gives."""
    if dalle.pixels == "vqgan":
        return lookup(codes.unflatten(1, (dalle.side, dalle.side)), vqgan.codebook)
    with torch.no_grad():
        return vqgan.encode(dalle.decode(codes, vqgan))


@dataclass(frozen=True)
class Best:
    """The candidate that is nearest to the prompts: what a run starts from."""

    latent: Tensor  # [1, C, h, w]
    picture: Image.Image
    note: str  # a line about it
    distance: float


def draw_best_candidate(
    session: "Session", dalle: Dalle, progress: Progress, folder: Path | None = None
) -> Best | None:
    """Sample candidates, or go on with those that a folder keeps, and return the nearest to the prompts.

    None if `progress` stopped it. An image of another size than the Mini DALL-E's own is scaled to cover it, and
    encoded.
    """
    settings, vqgan, length = session.settings, session.vqgan, dalle.model.shape.image_length
    cache = CandidateCache(folder and folder / FILE, settings, dalle, session.models["dalle"]["sha256"])
    distances: dict[int, float] = {}
    sampled: dict[int, int] = {}  # number of a batch's first candidate -> how many of its codes are sampled

    def finish(first: int, codes: Tensor) -> list[float]:
        return rank(dalle.decode(codes, vqgan), session.clips, session.targets).tolist()

    for batch in sample_batches(dalle, settings, cache, session.device, finish):
        if batch.finished:
            distances |= dict(enumerate(batch.finished, batch.first))
        sampled[batch.first] = batch.codes.numel()
        progress.candidates(sum(sampled.values()), settings.candidates * length)
        if progress.stopped:
            return None
    chosen = min(sorted(distances), key=distances.__getitem__)
    note = f"the start is candidate {chosen}, the best of {settings.candidates}, distance {distances[chosen]:.3f}"
    code = cache.codes(range(chosen, chosen + 1), session.device)
    assert code is not None  # all of them are in the cache
    picture = to_picture(dalle.decode(code, vqgan))
    if settings.size == (dalle.side * vqgan.f,) * 2:
        return Best(latent(dalle, vqgan, code), picture, note, distances[chosen])
    return Best(encode(vqgan, to_tensor(fit(picture, settings.size))), picture, note, distances[chosen])
