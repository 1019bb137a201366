"""An image enlarged and drawn anew: window by window, so that memory is that of one window, without seams.

The settings are those of a window: `init_image` is the image, `upscale` the factor, `size` that of a window.
"""

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config.resolve import REFINE, resolve
from ..core.decoding import decode_to_show
from ..core.init import encode
from ..core.interfaces import Target
from ..core.loop import optimize
from ..core.quantize import quantize
from ..core.regions import masks_within
from ..core.seeding import derive
from ..errors import InputError, UsageError
from ..files.atomic import refused, write_atomic
from ..files.carry_metadata import encode as encode_file
from ..files.images import load_image, opened, round_size, shown_size, to_picture, to_tensor
from ..files.locked_folder import LockedFolder
from ..files.metadata import ImageInfo, published, to_png
from ..models.catalogue import find
from ..models.upscaler.enlarge import check_factor
from ..settings.regions import Box
from ..settings.schema import Settings
from ..settings.sizes import MAX_PIXELS
from .memory import fit_memory, watched
from .output import Output
from .project_files import files_in, find_again, hash_of
from .records import is_of_sample, read, settings_of
from .run_dir import SCHEMA, drawn_image
from .session import Session

# What belongs to the whole image, or to its making, and not to a window.
WHOLE = {
    "init": "grey",
    "mask": None,
    "target_image": None,
    "tile": "none",
    "symmetry": "none",
    "frame": "",
    "stop_after": 0,
    "final": "last",
}
STEPS, STEP_SIZE = 20, 0.15  # of a window: what is there is to stay
BROAD = 1 / 16  # of a window: the radius beyond which colours are the source's
OnWindow = Callable[[int, int], None]  # windows done, of how many


@dataclass(frozen=True)
class Layout:
    """Sizes (width, height) of an image, of what it becomes and of a window, and where windows begin on each axis."""

    before: tuple[int, int]
    size: tuple[int, int]
    window: tuple[int, int]
    lefts: list[int]
    tops: list[int]

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return len(self.lefts) * len(self.tops)


def settings_for(source: Path, preset: str | None, given: dict[str, Any]) -> Settings:
    """Return the settings of windows: those that a run or an image records, else the preset's.

    given: settings over all of that. Raises UsageError, InputError, ModelError.
    """
    check_windowed(given)
    if "init_image" in given:
        raise UsageError(f"init-image: what is drawn anew is {source}", "leave it out")
    try:
        record: dict[str, Any] | None = read(source)
    except InputError:
        if not source.is_file():
            raise
        record = None
    if record and source.is_dir() and record["schema"] != SCHEMA:
        raise UsageError(f"{source} is no run of one image", "give one of its images or frames")
    usual = {**REFINE, "steps": STEPS, "step_size": STEP_SIZE, **WHOLE}
    changes = {**usual, **given, "init_image": str(source_image(source))}
    if given.get("learning_rate") and "step_size" not in given:
        del changes["step_size"]
    if record is None:
        if not given.get("prompt"):
            raise UsageError(f"{source} does not say what it shows", 'say it: --prompt "a red heart"')
        return resolve(changes.pop("prompt"), preset or "auto", changes.pop("seed", 0), **changes)
    if preset:
        what = f"preset: {source} says itself with which settings it was drawn"
        raise UsageError(what, "leave --preset out, or change single ones: --set cutouts=16")
    settings = settings_of(source, record, changes, sample=is_of_sample(record))
    return find_again(source, record, settings, files_in(settings, changes)) if source.is_dir() else settings


def check_windowed(names: Sequence[str] | dict[str, Any]) -> None:
    """Refuse settings that belong to a whole image. Raises UsageError."""
    if whole := [name for name in names if name in WHOLE]:
        raise UsageError(f"{whole[0].replace('_', '-')} has no effect on windows", "leave it out")


def source_image(source: Path) -> Path:
    """Return the file of an image, or of a run's as it was drawn. Raises InputError."""
    return drawn_image(source) if source.is_dir() else source


def is_source(settings: Settings, record: dict[str, Any]) -> bool:
    """Say whether the image of settings is the one that an enlarged image, by its record, was made of."""
    pictures = record.get("pictures")
    return isinstance(pictures, dict) and hash_of("file", str(settings.init_image)) in pictures.values()


def layout_of(settings: Settings, overlap: float, f: int = 0) -> Layout:
    """Return how an image is enlarged. f: of the VQGAN; otherwise as the catalogue has it.

    Raises UsageError, InputError, ModelError.
    """
    if not settings.init_image:  # as the record of an image may have it that is anybody's
        raise InputError("there is no image to enlarge", "give it: --init-image FILE")
    check_factor(settings.upscale)
    before, _ = _look_at(Path(settings.init_image))
    size = before[0] * settings.upscale, before[1] * settings.upscale
    if math.prod(size) > MAX_PIXELS:
        raise UsageError("the enlarged image has over 64 million pixels", "use a smaller --by")
    f = f or find("vqgan", settings.vqgan).facts.f or 1
    rounded = round_size(_window_within(settings, size), f)
    width, height = (side - f * (side > room) for side, room in zip(rounded, size, strict=True))
    return Layout(
        before, size, (width, height), starts(size[0], width, overlap), starts(size[1], height, overlap)
    )  # fmt: skip


def _window_within(settings: Settings, size: tuple[int, int]) -> tuple[int, int]:
    return min(settings.size[0], size[0]), min(settings.size[1], size[1])


def enlarge(
    settings: Settings, overlap: float, output: Output, *, device: str = "auto", on_window: OnWindow
) -> tuple[int, int]:
    """Enlarge an image, refine each window of it towards its prompts, write it to `output.out`; return its size.

    Until it is written, the windows that are done are kept in a folder beside it: the same call goes on with the next.
    Raises UsageError, InputError, OutputError, OutputExists, RunLocked, OutOfMemory, Diverged.
    """
    assert output.out
    layout = layout_of(settings, overlap)
    _, profile = _look_at(Path(str(settings.init_image)))
    with watched(settings):
        window = {"size": _window_within(settings, layout.size)}
        session = Session.load(settings.model_copy(update=window), device, whole=layout.before)
        record = session.record() | session.upscaled | {"enlarge": {"overlap": overlap, "size": layout.before}}
        layout = layout_of(settings, overlap, session.vqgan.f)
        with _kept_windows(output.out, record) as kept:
            image = _refined(session, layout, overlap, kept, on_window)
            info = replace(ImageInfo.of(published(record) if output.metadata else None), profile=profile)
            write_atomic(output.out, encode_file(image, output.out, info), replace=output.overwrite)
    return layout.size


def _look_at(source: Path) -> tuple[tuple[int, int], bytes | None]:
    """Return an image's size and its colour profile. Raises InputError."""
    load_image(source)  # says what is wrong with it
    with opened(source) as file:
        return shown_size(file), file.info.get("icc_profile")


@contextlib.contextmanager
def _kept_windows(target: Path, record: dict[str, Any]) -> Iterator[LockedFolder]:
    """Hold the folder in which the windows of an image are kept until that is written."""
    made_of = {key: record[key] for key in ("settings", "models", "pictures", "enlarge")}
    key = hashlib.sha256(json.dumps(published(made_of), sort_keys=True).encode()).hexdigest()[:8]
    path, done = target.with_name(f"{target.stem}-windows-{key}"), False
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error
    folder = LockedFolder(path)
    try:
        yield folder
        done = True
    finally:
        folder.close()
        if done or not any(path.glob("*.png")):
            shutil.rmtree(path, ignore_errors=True)


def _refined(session: Session, layout: Layout, overlap: float, kept: LockedFolder, on_window: OnWindow) -> Image.Image:
    """Return the enlarged image, its windows refined and faded into each other: a band of them at a time."""
    enlarger, session.enlarger = session.enlarger, None
    assert enlarger
    assert session.init_image
    image, session.init_image = enlarger.image(session.init_image), None
    session.change({"size": layout.window})
    fit_memory(session, fit=True)
    (width, height), lefts, tops = layout.window, layout.lefts, layout.tops
    columns, rows = fades(lefts, image.width, width, overlap), fades(tops, image.height, height, overlap)
    band, number = torch.zeros(3, height, image.width), 0
    for top, below, row in zip(tops, [*tops[1:], image.height], rows, strict=True):
        for left, column in zip(lefts, columns, strict=True):
            on_window(number, layout.windows)
            window = _window(session, image, (left, top), number, kept)
            band[..., left : left + width] += row[:, None] * column * to_tensor(window)[0]
            number += 1
        image.paste(to_picture(band[:, : below - top]), (0, top))  # no window below sees that any more
        band = torch.cat([band[:, below - top :], torch.zeros(3, below - top, image.width)], 1)
    on_window(number, number)
    return session.finished(image)


def _window(session: Session, whole: Image.Image, at: tuple[int, int], number: int, kept: LockedFolder) -> Image.Image:
    """Return the window of an image that begins at (left, top), refined; one that was done before is read."""
    path = kept.path / f"{number:05d}.png"
    (width, height), (left, top) = session.settings.size, at
    with contextlib.suppress(InputError):
        if (done := load_image(path)).size == (width, height):
            return done
    part = left / whole.width, top / whole.height, width / whole.width, height / whole.height
    image = to_tensor(whole.crop((left, top, left + width, top + height)))
    window = to_picture(with_colours_of(image, _refine(session, image, part, number).to(image)))
    kept.check()
    write_atomic(path, to_png(window))
    return window


def _refine(session: Session, image: Tensor, part: Box, number: int) -> Tensor:
    """Run the loop on a window `[1, 3, h, w]`, which is a part of the image; return it anew, in 0..1."""
    inputs = session.inputs([of_part(target, part) for target in session.targets])
    z = encode(session.vqgan, image)
    for step in optimize(inputs, z, seeds=[derive(session.settings.seed, "window", number)]):
        z = step.latent
    with torch.no_grad():
        return decode_to_show(inputs, quantize(z, session.vqgan.codebook)).clamp(0, 1)


def with_colours_of(image: Tensor, refined: Tensor) -> Tensor:
    """Return a refined window `[1, 3, h, w]` with the image's colours, but for what is finer than about `BROAD` of it.

    Each window's loop shifts its colours in a way of its own, which showed as pale squares on a flat ground. Low
    frequencies of the source and high ones of the result: the colour fix of Wang et al., StableSR, 2023
    (arXiv:2305.07015), here with a box twice each way for the wavelet.
    """
    apart, radius = refined - image, max(1, round(min(image.shape[-2:]) * BROAD))
    for sides in ((2 * radius + 1, 1), (1, 2 * radius + 1)) * 2:
        around = [side // 2 for side in sides]
        apart = F.avg_pool2d(apart, sides, 1, around, count_include_pad=False)
    return refined - apart


def of_part(target: Target, part: Box) -> Target:
    """Return a target whose prompts count where their regions lie in a part of the image."""
    masks = target.region_masks
    return target if masks is None else replace(target, region_masks=masks_within(masks, part))


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin that cover an axis, evenly, and overlap by at least a share."""
    gaps = math.ceil((length - window) / max(1, window * (1 - overlap)))
    return [round((length - window) * k / gaps) for k in range(gaps + 1)] if gaps else [0]


def fades(starts: Sequence[int], length: int, window: int, overlap: float) -> Tensor:
    """Return how much each window counts along an axis, `[n, window]`: 1 for all together, everywhere.

    Raised cosines over the overlap, but for where the image ends.
    """
    over = max(1, round(window * overlap))
    ramp = torch.sin(((torch.arange(window) + 0.5) / over).clamp(max=1) * math.pi / 2).square()
    weights, total = torch.ones(len(starts), window), torch.zeros(length)
    weights[1:] *= ramp
    weights[:-1] *= ramp.flip(0)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + window] += weight
    return torch.stack([weight / total[start : start + window] for start, weight in zip(starts, weights, strict=True)])
