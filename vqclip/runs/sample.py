"""vqclip sample: draw candidates from a text, let CLIP rank them, keep the best; a folder of images and a grid."""

import contextlib
import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..config.resolve import resolve
from ..errors import InputError, UsageError
from ..files.images import is_whole, load_image, tile, to_picture
from ..files.metadata import published, to_png
from ..files.paths import expand
from ..files.reading import read_record
from ..models.catalogue import find
from ..models.dalle import Dalle
from ..settings.schema import Settings
from .candidates import (
    HINT,
    MAX_FILE,
    Batch,
    CandidateCache,
    CandidatesFile,
    notes_on_unread_text,
    rank,
    sample_batches,
    text_to_draw,
    vqgan_of_dalle,
)
from .networks import Networks
from .output import Output
from .progress import Progress
from .project_files import same_models
from .records import KEEP
from .resume import differences
from .run_dir import slugify
from .sample_dir import SampleDir, SamplePlan, facts
from .session import Session, describe_models

PREVIEW_S = 2.0  # between two images of the grid that is being drawn
MOST_ENLARGED = 64  # candidates of a grid: of more it stays as they are drawn
REST = 10  # times as long as such an image took, at least: large ones take seconds
VERSIONS = ("vqclip", "python", "torch")  # those that decide what is drawn


@dataclass(frozen=True)
class Candidate:
    """One image that was drawn. The same number and seed make the same image, however many are drawn."""

    number: int
    distance: float  # to the prompt, as CLIP sees it: less is nearer
    codes: Tensor = field(repr=False)  # [positions]
    picture: Image.Image = field(repr=False)  # as in the grid

    def _repr_png_(self) -> bytes:
        """Return the image for a notebook, which shows it."""
        return to_png(self.picture, None)


@dataclass(frozen=True)
class Sampled:
    """The candidates, the best first; where the kept ones are, the best last. Fewer than `total` if it was stopped."""

    candidates: list[Candidate]
    paths: list[Path]
    folder: Path | None
    seed: int
    seconds: float
    total: int
    drawn: int  # by this call

    def _repr_png_(self) -> bytes | None:
        """Return all of them as a grid, for a notebook, which shows it."""
        return to_png(tile([item.picture for item in self.candidates]), None) if self.candidates else None


def sample_settings(
    prompt: str, count: int | None = None, *, preset: str = "auto", seed: int | None = None, **values: Any
) -> Settings:
    """Return the settings of a sample of `count` candidates.

    values: any fields of Settings; dalle, clips, guidance, temperature, top_k count here. Without a `dalle` it is the
    one that goes with the VQGAN; with one, the VQGAN is its own, and another is refused. Of several prompts the first
    of positive weight is drawn, and all of them rank.

    Raises UsageError, and ModelError for a model that is not here.
    """
    if not prompt.strip():
        raise UsageError("there is no prompt", HINT)
    given = values | {"init": "sample", "init_image": None}
    given |= {} if count is None else {"candidates": count}
    try:
        settings = resolve(prompt, preset, seed, **given)
    except UsageError as error:
        raise UsageError(error.what.replace("candidates:", "count:"), error.hint) from None
    text_to_draw(settings)
    vqgan = settings.vqgan if values.get("vqgan") or not settings.dalle else ""  # else it is the preset's
    own, preset_own = vqgan_of_dalle(settings.dalle, vqgan), settings.vqgan
    suited = {"upscale": 0} if own != preset_own and values.get("upscale") is None else {}
    settings = settings.model_copy(update={"vqgan": own, **suited})
    for kind, name in settings.models():
        find(kind, name)  # a wrong name is said before anything is loaded
    return settings


def sample(
    settings: Settings,
    output: Output,
    *,
    keep: int = KEEP,
    seeded: bool = True,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Sampled:
    """Draw candidates, and keep the `keep` that CLIP finds nearest to the prompt.

    settings: as `sample_settings` returns them; seeded: whether their seed was given. output: `out` is a folder to
    fill, which goes on if the same call was stopped in it; `runs` makes a new one below it; with neither nothing is
    written. If `progress` is stopped, the candidates that are whole are ranked and written.

    Raises UsageError, ModelError, IntegrityError, OutOfMemory, OutputError, OutputExists, RunLocked.
    """
    progress = progress or Progress()
    if keep < 1:
        raise UsageError(f"keep: {keep} is out of range", "use 1 or more")
    plan, folder = SamplePlan(keep=keep, metadata=output.metadata), None
    if keep != KEEP and keep > settings.candidates:
        progress.note(f"keep is {keep}, of {settings.candidates} candidates: all are kept")
    if output.out:
        folder, settings = SampleDir.at(output.out, settings, plan, seeded=seeded, overwrite=output.overwrite)
    elif output.runs:
        folder = SampleDir.new(output.runs, f"{slugify(settings.prompt)}-sample-{settings.seed}")
    with folder or contextlib.nullcontext():
        return _draw(settings, plan, folder, device, networks, progress)


def resume(
    folder: str | Path,
    files: Mapping[str, Any] = {},
    *,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Sampled:
    """Go on with a sample that was stopped, by whatever, to the bytes that it would have ended with.

    files: settings that say where its models are by now. Raises what `sample` raises, UsageError for a model that is
    another, and InputError for a record that is damaged or of other models.
    """
    with SampleDir.open(expand(folder)) as held:
        record = held.read(said=files)
        settings = record.make_settings()
        vqgan_of_dalle(settings.dalle, settings.vqgan)
        return _draw(settings, record.plan, held, device, networks, progress or Progress())


def file_name(rank: int, number: int) -> str:
    """Return the file name of a kept candidate; rank 1 is the best."""
    return f"{rank:02d}-candidate-{number:02d}.png"


def _draw(
    settings: Settings, plan: SamplePlan, folder: SampleDir | None, device: str, networks: Networks | None,
    progress: Progress,
) -> Sampled:  # fmt: skip
    """Draw what is not drawn yet, rank and write; a sample that is done is answered without loading a network."""
    done = _read_done(folder, settings, plan) if folder else None
    if done:
        return done
    # Only what counts in a sample; candidates are drawn and ranked in float32.
    alone = Settings(**facts(settings), precision="float32")
    session = Session.load(alone, device, networks)
    drawing = _Drawing(session, plan, folder, progress)
    if folder:
        _compare(folder, settings, drawing.record, progress)
    return drawing.run()


class _Drawing:
    """One sample that is being drawn."""

    def __init__(self, session: Session, plan: SamplePlan, folder: SampleDir | None, progress: Progress) -> None:
        self.session, self.plan, self.folder, self.progress = session, plan, folder, progress
        record = session.record()
        self.record = {
            "settings": facts(session.settings),
            "plan": plan.model_dump(),
            "models": record["models"],
            "versions": {name: record["versions"][name] for name in VERSIONS},
            "device": record["device"],
            "threads": record["threads"],
        }

    def run(self) -> Sampled:
        """Draw what is not drawn yet, rank and write."""
        session, folder, count = self.session, self.folder, self.session.settings.candidates
        dalle = session.dalle()
        for note in (*session.notes, *notes_on_unread_text(dalle, session.settings)):
            self.progress.note(note)
        began = time.monotonic()
        if folder:
            folder.write(self.record | {"status": "running"})
            self.progress.opened(folder.path)
        path, sha256 = folder.codes if folder else None, session.models["dalle"]["sha256"]
        cache = CandidateCache(path, session.settings, dalle, sha256)
        before = len(cache.rows)
        candidates = self._candidates(dalle, cache)
        drawn = max(0, len(candidates) - before)
        candidates.sort(key=lambda candidate: (candidate.distance, candidate.number))
        enlarge = bool(session.enlarger) and count <= MOST_ENLARGED and len(candidates) == count
        if enlarge:
            candidates = [replace(item, picture=session.finished(item.picture)) for item in candidates]
        paths = self._write(folder, candidates, dalle, enlarged=enlarge) if folder else []
        seconds = time.monotonic() - began
        return Sampled(candidates, paths, folder.path if folder else None, session.settings.seed, seconds, count, drawn)

    def _candidates(self, dalle: Dalle, cache: CandidateCache) -> list[Candidate]:
        """Return all candidates, or those that were whole when it was stopped."""
        session = self.session
        total = session.settings.candidates * dalle.model.shape.image_length
        batches: dict[int, Batch[list[Candidate]]] = {}
        due = time.monotonic() + PREVIEW_S
        finish = functools.partial(self._ranked, dalle)
        for batch in sample_batches(dalle, session.settings, cache, session.device, finish):
            batches[batch.first] = batch
            self.progress.candidates(sum(each.codes.numel() for each in batches.values()), total)
            if self.progress.stopped:
                break
            if self.folder and (began := time.monotonic()) > due:
                self._preview(self.folder, dalle, [batches[first] for first in sorted(batches)])
                now = time.monotonic()
                due = now + max(PREVIEW_S, REST * (now - began))
        return [candidate for batch in batches.values() for candidate in batch.finished or ()]

    def _ranked(self, dalle: Dalle, first: int, codes: Tensor) -> list[Candidate]:
        """Return candidates `first` and on, of which all codes are drawn."""
        images = dalle.decode(codes, self.session.vqgan)
        distances = rank(images, self.session.clips, self.session.targets).tolist()
        return [Candidate(first + k, distances[k], codes[k].cpu(), to_picture(images[k])) for k in range(len(codes))]

    def _preview(self, folder: SampleDir, dalle: Dalle, batches: list[Batch[list[Candidate]]]) -> None:
        """Show the candidates that are whole, and the others as far as they are drawn."""
        pictures = []
        for batch in batches:
            if batch.finished:
                pictures += [candidate.picture for candidate in batch.finished]
            else:
                pictures += [to_picture(image) for image in dalle.decode(batch.codes, self.session.vqgan)]
        grid = tile(pictures)
        folder.preview(to_png(grid))
        self.progress.image(grid)

    def _write(self, folder: SampleDir, candidates: list[Candidate], dalle: Dalle, *, enlarged: bool) -> list[Path]:
        """Write the grid, the kept images and the record; return the kept ones' paths, the best last.

        enlarged: whether the candidates are already; the kept ones are in any case.
        """
        rows = [{"candidate": item.number, "distance": round(item.distance, 6)} for item in candidates]
        kept = {}
        for k in reversed(range(len(candidates[: self.plan.keep]))):
            about = self._about({**rows[k], "place": k + 1, "side": dalle.side}, **self.session.upscaled)
            picture = candidates[k].picture if enlarged else self.session.finished(candidates[k].picture)
            kept[file_name(k + 1, candidates[k].number)] = to_png(picture, about)
        paths = []
        if candidates:
            about = self._about({"side": dalle.side}, candidates=rows, **(self.session.upscaled if enlarged else {}))
            grid = tile([item.picture for item in candidates])
            self.progress.image(grid)
            paths = folder.write_pictures(to_png(grid, about), kept)
        status = "done" if len(rows) == self.session.settings.candidates else "stopped"
        folder.write(self.record | {"status": status, "candidates": rows})
        return paths

    def _about(self, sample: dict[str, Any], **more: Any) -> dict[str, Any] | None:
        """Return what an image says of itself: the record, what of the sample it is, and more."""
        if not self.plan.metadata:
            return None
        record = {key: value for key, value in self.record.items() if key != "plan"}
        return published(record | {"sample": sample} | more)


def _compare(folder: SampleDir, settings: Settings, record: dict[str, Any], progress: Progress) -> None:
    """Refuse to go on with other models; note what else differs. Raises InputError."""
    try:
        before = folder.read(settings)
        if facts(before.make_settings()) != record["settings"]:
            return
    except InputError:  # none yet, or one to be overwritten
        return
    if not same_models(before.models, record["models"]):
        raise InputError(f"{folder.path} was begun with other models", "put those back, or give another folder")
    for note in differences(before.model_dump(), record):
        progress.note(note)


def _read_done(folder: SampleDir, settings: Settings, plan: SamplePlan) -> Sampled | None:
    """Return what a folder has if all of it was drawn from these settings by these models and is whole, else None.

    Distances are rounded, as in the record.
    """
    began = time.monotonic()
    try:
        record = folder.read(settings)
        if (facts(record.make_settings()), record.plan, record.status) != (facts(settings), plan, "done"):
            return None
        if not same_models(record.models, describe_models(settings)):
            return None
        codes = read_record(folder.codes, CandidatesFile, MAX_FILE).codes
        images = _untile(load_image(folder.path / "grid.png"), len(record.candidates))
        candidates = [
            Candidate(row.candidate, row.distance, torch.tensor(codes[row.candidate]), image)
            for row, image in zip(record.candidates, images, strict=True)
        ]
    except (InputError, ValueError, LookupError, TypeError, ArithmeticError):
        return None
    kept = enumerate(candidates[: plan.keep], 1)
    paths = [folder.path / file_name(rank, candidate.number) for rank, candidate in kept][::-1]
    if len(candidates) != settings.candidates or not all(map(is_whole, paths)):
        return None
    seconds = time.monotonic() - began
    return Sampled(candidates, paths, folder.path, settings.seed, seconds, settings.candidates, drawn=0)


def _untile(sheet: Image.Image, count: int) -> list[Image.Image]:
    """Return the images that `tile` joined, all of one size."""
    columns = math.ceil(math.sqrt(count))
    width, height = sheet.width // columns, sheet.height // math.ceil(count / columns)
    corners = [(k % columns * width, k // columns * height) for k in range(count)]
    return [sheet.crop((left, top, left + width, top + height)) for left, top in corners]
