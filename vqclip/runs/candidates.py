"""Candidates: pictures that a Mini DALL-E draws from a text, and how near CLIP finds each to the prompt."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..core.init import encode
from ..core.interfaces import Clip, Target, Vqgan
from ..core.losses import spherical_distance
from ..core.quantize import lookup
from ..errors import ModelError, UsageError
from ..files.atomic import write_atomic
from ..files.images import fit, to_picture, to_tensor
from ..models.catalogue import find, known_or_absolute
from ..models.dalle import BATCH_SIZE, Dalle, partner_of
from ..models.dalle.tokenizer import plain
from ..settings.schema import Settings
from ..text import brief
from .progress import Progress

if TYPE_CHECKING:
    from .session import Session

FILE = "candidates.json"
SCHEMA = "vqclip-candidates/1"
MAX_FILE = 50_000_000  # bytes; 4,096 candidates of 1,024 codes take half of it
HINT = 'say what to draw, e.g. vqclip sample "a red heart"'


def told(settings: Settings) -> str:
    """Return the text that is drawn: the first that pulls. Raises UsageError where none does."""
    texts = [prompt.text for prompt in settings.prompts() if prompt.weight > 0]
    if not texts:
        raise UsageError("there is no text to draw from", HINT)
    return texts[0]


def partner(name: str, vqgan: str = "") -> str:
    """Return the VQGAN that a Mini DALL-E's codes are of, once both are found to be here; loads neither.

    vqgan: the one that is to be used, where that is decided. Raises ModelError for another, or where one is not here.
    """
    if not name:
        what = f"no Mini DALL-E is known that writes the codes of the VQGAN {vqgan}"
        raise ModelError(what, "use --vqgan tiny or imagenet_f16_16384, or give one: --dalle FOLDER")
    card = find("dalle", name)
    own = known_or_absolute("vqgan", partner_of(card.folder))
    if vqgan not in (own, ""):
        what = f"the codes of the Mini DALL-E {card.name!r} are those of the VQGAN {own}, not of {vqgan}"
        raise ModelError(what, f"use --vqgan {own}")
    find("vqgan", own)
    return own


def unread(dalle: Dalle, settings: Settings) -> list[str]:
    """Say what of the text a Mini DALL-E does not read, a line each."""
    text = told(settings)
    if not plain(text):
        return [f"the Mini DALL-E {dalle.name} reads Latin letters, digits and signs, of which {brief(text)} has none"]
    if not dalle.fits(text):
        return [
            f"the Mini DALL-E {dalle.name} reads {dalle.model.shape.text_length} tokens, the beginning of the prompt"
        ]
    return []


class Kept:
    """The codes of candidates 0, 1, 2, ..., in a file that grows by a group at a time; without a file in memory."""

    def __init__(self, path: Path | None, settings: Settings, dalle: Dalle, sha256: str) -> None:
        """Take up what a file has that was drawn from these settings by this model, whose hash is given."""
        self.path = path
        self.rows: list[list[int]] = []
        names = ("seed", "guidance", "temperature", "top_k")
        self._of = {name: getattr(settings, name) for name in names}
        self._of |= {"text": told(settings), "dalle": sha256}
        try:
            if path and path.is_file() and path.stat().st_size <= MAX_FILE:
                found = json.loads(path.read_text(encoding="utf-8"))
                if (found["schema"], found["of"]) == (SCHEMA, self._of) and _right(found["codes"], dalle):
                    self.rows = found["codes"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass  # damaged: they are drawn again

    def add(self, codes: Tensor) -> None:
        """Keep those that follow, `[n, places]`. Raises OutputError."""
        self.rows += codes.tolist()
        if self.path:
            text = json.dumps({"schema": SCHEMA, "of": self._of, "codes": self.rows}, separators=(",", ":"))
            write_atomic(self.path, (text + "\n").encode())

    def codes(self, count: int, device: torch.device) -> Tensor:
        """Return the first of them, `[count, places]` at most."""
        return torch.tensor(self.rows[:count], dtype=torch.long, device=device)


def _right(rows: Any, dalle: Dalle) -> bool:
    """Say whether these are pictures' codes of this model."""
    shape = dalle.model.shape
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == shape.image_length for row in rows):
        return False
    return all(type(code) is int and 0 <= code < shape.codes for row in rows for code in row)


def draw_codes(dalle: Dalle, settings: Settings, kept: Kept, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Draw the candidates that are not kept yet, and keep them, BATCH_SIZE at a time.

    Yields (number of the first, codes so far `[n, k]`) after each code; of those that are kept already all at once.
    """
    count = settings.candidates
    for first in range(0, count, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, count))
        if len(kept.rows) >= numbers.stop:
            yield first, kept.codes(count, device)[numbers.start : numbers.stop]
            continue
        kept.rows = kept.rows[:first]
        for codes in dalle.sample(told(settings), numbers, seed=settings.seed, top_k=settings.top_k,
                                  temperature=settings.temperature, scale=settings.guidance):  # fmt: skip
            if codes.shape[1] == dalle.model.shape.image_length:
                kept.add(codes)
            yield first, codes


def rank(images: Tensor, clips: Sequence[Clip], targets: Sequence[Target]) -> Tensor:
    """Return each picture's distance to the prompts `[N]`: the loop's own, of the whole picture, CLIPs by their shares.

    Called for BATCH_SIZE pictures at a time, as they get whole: all at once would take gigabytes.
    """
    distances = []
    for clip, target in zip(clips, targets, strict=True):
        with torch.no_grad():
            view = F.interpolate(images, (clip.size, clip.size), mode="bicubic", antialias=True).clamp(0, 1)
            apart = spherical_distance(clip.encode_image(view)[:, None], target.embeds)
            distances.append((apart * target.weights).sum(1) * target.weight)
    return torch.stack(distances).sum(0) / sum(target.weight for target in targets)


def latent(dalle: Dalle, vqgan: Vqgan, codes: Tensor) -> Tensor:
    """Return the latent `[n, C, h, w]` of whole codes: their vectors, or what encoding their pictures gives."""
    if dalle.pixels == "vqgan":
        return lookup(codes.unflatten(1, (dalle.side, dalle.side)), vqgan.codebook)
    with torch.no_grad():
        return vqgan.encode(dalle.decode(codes, vqgan))


@dataclass(frozen=True)
class Best:
    """The candidate that is nearest to the prompts: what a run starts from."""

    latent: Tensor  # [1, C, h, w]
    picture: Image.Image
    note: str  # a line that tells of it
    distance: float


def best(session: "Session", dalle: Dalle, progress: Progress, folder: Path | None = None) -> Best | None:
    """Draw candidates, or go on with those that a folder keeps, and return the nearest to the prompts.

    None if `progress` stopped it. An image of another size than the Mini DALL-E's own is scaled to cover it, and
    encoded.
    """
    settings, vqgan = session.settings, session.vqgan
    count, length = settings.candidates, dalle.model.shape.image_length
    kept = Kept(folder and folder / FILE, settings, dalle, session.models["dalle"]["sha256"])
    distances: list[float] = []
    for first, codes in draw_codes(dalle, settings, kept, session.device):
        if codes.shape[1] == length:
            distances += rank(dalle.decode(codes, vqgan), session.clips, session.targets).tolist()
        progress.candidates(first * length + codes.numel(), count * length)
        if progress.stopped:
            return None
    chosen = distances.index(min(distances))
    note = f"the start is candidate {chosen}, the best of {count}, distance {distances[chosen]:.3f}"
    code = kept.codes(count, session.device)[chosen : chosen + 1]
    picture = to_picture(dalle.decode(code, vqgan))
    if settings.size == (dalle.side * vqgan.f,) * 2:
        return Best(latent(dalle, vqgan, code), picture, note, distances[chosen])
    return Best(encode(vqgan, to_tensor(fit(picture, settings.size))), picture, note, distances[chosen])
