"""vqclip sample: draw candidates from a text, let CLIP rank them, keep the best; a folder of pictures and a grid."""

import contextlib
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..config.resolve import resolve
from ..core.devices import choose_device
from ..core.interfaces import Clip, Vqgan
from ..core.targets import make_targets
from ..errors import InputError, UsageError
from ..files.images import tile, to_picture
from ..files.metadata import published, to_png
from ..files.paths import expand
from ..models import load_clip, load_dalle, load_vqgan
from ..models.catalogue import find
from ..models.dalle import Dalle
from ..settings.schema import Settings
from .candidates import HINT, Kept, draw_codes, partner, rank, told, unread
from .memory import require_for_drawing
from .metadata import KEEP
from .run_dir import slugify
from .sample_dir import SampleDir, facts
from .sampled import Candidate, Sampled, file_name, read_back

MOST = next(limit.le for limit in Settings.model_fields["candidates"].metadata if hasattr(limit, "le"))
PREVIEW_S = 2.0  # between two pictures of the grid that is being drawn
REST = 10  # times as long as such a picture took, at least: large ones take seconds
OnCode = Callable[[int, int], bool | None]  # codes drawn, codes in all -> whether to stop
OnNote = Callable[[str], None]


def sample(
    prompt: str,
    *,
    count: int | None = None,
    keep: int = KEEP,
    preset: str = "auto",
    seed: int | None = None,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    metadata: bool = True,
    device: str = "auto",
    on_code: OnCode | None = None,
    on_note: OnNote | None = None,
    **values: Any,
) -> Sampled:
    """Draw `count` candidates from a prompt, and keep the `keep` that CLIP finds nearest to it.

    values: any fields of Settings; dalle, clips, guidance, temperature, top_k count here. Without a `dalle` it is the
    one that goes with the VQGAN; with one, the VQGAN is its own, and another is refused. out: the folder to fill;
    where the same call was stopped there, it goes on. runs: make a new one below it. With neither nothing is written.
    Of several prompts the first that pulls is drawn, and all of them rank. on_code may return True to stop: what is
    whole by then is ranked and written. on_note gets remarks.

    Raises UsageError, ModelError, IntegrityError, OutOfMemory, OutputError, OutputExists, RunLocked.
    """
    if not prompt.strip():
        raise UsageError("there is no prompt", HINT)
    if keep < 1:
        raise UsageError(f"keep: {keep} is out of range", "use 1 or more")
    count = values.get("candidates") if count is None else count
    if isinstance(count, int) and not 1 <= count <= MOST:
        raise UsageError(f"count: {count} is out of range", f"use 1 to {MOST}")
    given = values | {"init": "sample", "init_image": None, "candidates": count}
    settings = resolve(prompt, preset, seed, **given)
    told(settings)
    # A wrong name is said before anything is loaded.
    asked = settings.vqgan if values.get("vqgan") or not settings.dalle else ""  # else it is the preset's
    settings = settings.model_copy(update={"vqgan": partner(settings.dalle, asked)})
    for name in settings.clips:
        find("clip", name)
    plan: dict[str, Any] = {"keep": keep, "metadata": metadata}
    if on_note and keep != KEEP and keep > settings.candidates:
        on_note(f"keep is {keep}, of {settings.candidates} candidates: all are kept")
    folder = None
    if out is not None:
        folder, settings = SampleDir.at(out, settings, plan, seeded=seed is not None, overwrite=overwrite)
    elif runs is not None:
        folder = SampleDir.new(expand(runs), f"{slugify(prompt)}-sample-{settings.seed}")
    with folder or contextlib.nullcontext():
        return _drawn(settings, plan, folder, device, on_code, on_note)


def resume(
    folder: str | Path, *, device: str = "auto", on_code: OnCode | None = None, on_note: OnNote | None = None
) -> Sampled:
    """Go on with a sample that was stopped, by whatever, to the bytes that it would have ended with.

    Raises what `sample` raises, and InputError for a record that is damaged or of other models.
    """
    held, record, settings = SampleDir.open(expand(folder))
    with held:
        partner(settings.dalle, settings.vqgan)
        return _drawn(settings, record["plan"], held, device, on_code, on_note)


def _drawn(
    settings: Settings, plan: dict[str, Any], folder: SampleDir | None, device: str,
    on_code: OnCode | None, on_note: OnNote | None,
) -> Sampled:  # fmt: skip
    """Draw, unless all is done: that is found without loading a network."""
    record = _record(settings, plan, choose_device(device))
    done = read_back(folder, settings, plan, record["models"]) if folder else None
    return done or _Sampling(settings, plan, folder, record, on_code, on_note).run()


class _Sampling:
    """One sitting of a sample."""

    def __init__(
        self, settings: Settings, plan: dict[str, Any], folder: SampleDir | None, record: dict[str, Any],
        on_code: OnCode | None, on_note: OnNote | None,
    ) -> None:  # fmt: skip
        """Load the networks. record: as `_record` returns it."""
        self.settings, self.plan, self.folder = settings, plan, folder
        self.on_code, self.on_note = on_code, on_note
        self.place, self.record = torch.device(record["device"]), record
        if folder and (folder.path / "sample.json").exists():
            self._compare(folder)
        require_for_drawing(settings, self.place)
        torch.use_deterministic_algorithms(self.place.type == "cpu")
        self.model: Dalle = load_dalle(settings.dalle, self.place)
        if on_note:
            for line in unread(self.model, settings):
                on_note(line)
        self.vqgan: Vqgan = load_vqgan(settings.vqgan, self.place)
        self.clips: list[Clip] = [load_clip(name, self.place) for name in settings.clips]
        self.targets = make_targets(self.clips, settings, [], self.place)

    def _compare(self, folder: SampleDir) -> None:
        """Refuse to go on with other models; say what else differs. Raises InputError."""
        try:
            before = folder.read()
        except InputError:  # to be overwritten
            return
        if before["settings"] != facts(self.settings):
            return
        if before["models"] != self.record["models"]:
            raise InputError(f"{folder.path} was begun with other models", "put those back, or give another folder")
        for key in ("versions", "device", "threads"):
            if before.get(key) != self.record[key] and self.on_note:
                self.on_note(f"it was begun with other {key}: what is drawn now may differ")

    def run(self) -> Sampled:
        """Draw what is not there yet, rank and write."""
        began, folder = time.monotonic(), self.folder
        if folder:
            folder.write(self.record | {"status": "running"})
        found, drawn = self._drawn()
        whole = len(found) == self.settings.candidates
        found.sort(key=lambda one: (one.distance, one.number))
        paths = self._write(folder, found, whole) if folder else []
        return Sampled(found, paths, folder.path if folder else None, self.settings.seed, time.monotonic() - began,
                       self.settings.candidates, drawn)  # fmt: skip

    def _drawn(self) -> tuple[list[Candidate], int]:
        """Return all candidates, or those that were whole when on_code stopped it; and how many were drawn now."""
        model, count, length = self.model, self.settings.candidates, self.model.model.shape.image_length
        kept = Kept(self.folder.codes if self.folder else None, self.settings, model)
        before = len(kept.rows)
        found: list[Candidate] = []
        due = time.monotonic() + PREVIEW_S
        for first, codes in draw_codes(model, self.settings, kept, self.place):
            if codes.shape[1] == length:
                found += self._judged(first, codes)
            if self.on_code and self.on_code(first * length + codes.numel(), count * length):
                break
            if self.folder and (began := time.monotonic()) > due:
                self._preview(self.folder, found, codes[len(found) - first :])
                due = (now := time.monotonic()) + max(PREVIEW_S, REST * (now - began))
        return found, max(0, len(found) - before)

    def _judged(self, first: int, codes: Tensor) -> list[Candidate]:
        """Return candidates `first` and on, of which all codes are there."""
        images = self.model.decode(codes, self.vqgan)
        distances = rank(images, self.clips, self.targets).tolist()
        return [Candidate(first + k, distances[k], codes[k].cpu(), to_picture(images[k])) for k in range(len(codes))]

    def _preview(self, folder: SampleDir, found: list[Candidate], codes: Tensor) -> None:
        """Show the candidates that are whole, and as far as they are there those at hand."""
        half = [to_picture(image) for image in self.model.decode(codes, self.vqgan)] if len(codes) else []
        folder.preview(to_png(tile([one.picture for one in found] + half)))

    def _write(self, folder: SampleDir, found: list[Candidate], whole: bool) -> list[Path]:
        """Write the grid, best first, the kept pictures and the record; return the kept ones' paths, the best last."""
        kept = {
            file_name(place, one.number): to_png(one.picture, self._about(sample=self._told(one) | {"place": place}))
            for place, one in reversed(list(enumerate(found[: self.plan["keep"]], 1)))
        }
        rows = [self._told(one) for one in found]
        sheet = to_png(tile([one.picture for one in found]), self._about(sample={}, candidates=rows)) if found else b""
        paths = folder.write_pictures(sheet, kept) if found else []
        folder.write(self.record | {"status": "done" if whole else "stopped", "candidates": rows})
        return paths

    def _told(self, one: Candidate) -> dict[str, Any]:
        return {"candidate": one.number, "distance": round(one.distance, 6)}

    def _about(self, *, sample: dict[str, Any], **more: Any) -> dict[str, Any] | None:
        """Return what a picture says of itself: the record, what of the sample it is, and more."""
        if not self.plan["metadata"]:
            return None
        kept = {key: value for key, value in self.record.items() if key != "plan"}
        return published(kept | {"sample": sample | {"side": self.model.side}} | more)


def _record(settings: Settings, plan: dict[str, Any], place: torch.device) -> dict[str, Any]:
    """Return what is needed to draw the same again."""
    cards = [
        find("dalle", settings.dalle),
        find("vqgan", settings.vqgan),
        *(find("clip", name) for name in settings.clips),
    ]
    dalle, vqgan, *clips = ({"name": card.name, "sha256": card.sha256()} for card in cards)
    return {
        "settings": facts(settings),
        "plan": plan,
        "models": {"dalle": dalle, "vqgan": vqgan, "clips": clips},
        "versions": {"vqclip": __version__, "python": platform.python_version(), "torch": version("torch")},
        "device": str(place),
        "threads": torch.get_num_threads(),
    }
