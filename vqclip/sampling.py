"""vqclip sample: draw candidates from a text, let CLIP rank them, keep the best; a folder of pictures and a grid."""

import json
import math
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .candidates import Draw, draw_codes, partner, rank, told
from .disk import check_folder, refused, require_space, write_atomic
from .errors import OutputExists, UsageError
from .images import to_picture
from .models import load_clip, load_dalle, load_vqgan
from .models.cards import find, known_or_absolute, preset
from .models.dalle import Dalle
from .models.interfaces import Clip, Vqgan
from .outputs import published, to_png
from .paths import expand
from .rundir import slugify
from .session import aim, choose_device
from .settings import Settings, make_settings

PREVIEW_S = 2.0  # between two pictures of the grid that is being drawn
OnCode = Callable[[int, int], bool | None]  # codes drawn, codes in all -> whether to stop


@dataclass(frozen=True)
class Candidate:
    """One picture that was drawn. The same number and seed make the same picture, however many are drawn."""

    number: int
    distance: float  # to the prompt, as CLIP sees it: less is nearer
    codes: Tensor  # [places]
    picture: Image.Image


@dataclass(frozen=True)
class Sampled:
    """All candidates, the best first; where the kept ones lie, the best last."""

    candidates: list[Candidate]
    paths: list[Path]
    folder: Path | None
    seed: int
    seconds: float


def sample(
    prompt: str,
    *,
    count: int = 16,
    keep: int = 4,
    seed: int | None = None,
    dalle: str = "mini",
    clips: tuple[str, ...] | None = None,
    top_k: int = 256,
    temperature: float = 1.0,
    guidance: float = 4.0,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    metadata: bool = True,
    device: str = "auto",
    on_code: OnCode | None = None,
) -> Sampled:
    """Draw `count` candidates from a prompt, and keep the `keep` that CLIP finds nearest to it.

    out: the folder for grid.png, the kept pictures and sample.json; runs: make a new one below it. With neither
    nothing is written. clips: without them those of the preset. Of several prompts the first that pulls is drawn, and
    all of them rank. on_code may return True to stop: no picture is kept then, and Sampled has none.

    Raises UsageError, ModelError, IntegrityError, OutputError, OutputExists.
    """
    draw = Draw(dalle, count, top_k, temperature, guidance)
    if keep < 1:
        raise UsageError(f"keep: {keep} is out of range", "use 1 or more")
    names = tuple(known_or_absolute("clip", name) for name in clips or preset("auto")["clips"])
    seed = secrets.randbelow(2**32) if seed is None else seed
    settings = make_settings(prompt=prompt, clips=names, seed=seed)
    text = told(settings)
    pair = partner(dalle)  # a wrong name is said before anything is loaded
    for name in names:
        find("clip", name)
    folder = _folder(out, runs, f"{slugify(prompt)}-sample-{seed}", overwrite)
    place = choose_device(device)
    torch.use_deterministic_algorithms(place.type == "cpu")
    model = load_dalle(dalle, place)
    vqgan: Vqgan = load_vqgan(pair, place)
    seers: list[Clip] = [load_clip(name, place) for name in names]
    began = time.monotonic()
    codes = _drawn(model, vqgan, text, draw, seed, folder, on_code)
    if codes is None:
        return Sampled([], [], folder, seed, time.monotonic() - began)
    found = _ranked(codes, model, vqgan, seers, settings, place)
    record = _record(settings, draw, keep, model, place) if metadata else None
    paths = _write(found, keep, folder, record) if folder else []
    return Sampled(found, paths, folder, seed, time.monotonic() - began)


def _drawn(
    model: Dalle, vqgan: Vqgan, text: str, draw: Draw, seed: int, folder: Path | None, on_code: OnCode | None
) -> Tensor | None:
    """Return the codes `[count, places]` of all candidates; None where on_code stopped it."""
    length = model.model.shape.image_length
    whole = torch.zeros(draw.count, length, dtype=torch.long, device=vqgan.codebook.device)
    shown = time.monotonic()
    for first, codes in draw_codes(model, text, draw, seed):
        whole[first : first + len(codes), : codes.shape[1]] = codes
        if on_code and on_code(first * length + codes.numel(), draw.count * length):
            return None
        if folder and time.monotonic() - shown > PREVIEW_S:
            pictures = [to_picture(image) for image in model.decode(whole[: first + len(codes)], vqgan)]
            write_atomic(folder / "latest.png", to_png(grid(pictures)))
            shown = time.monotonic()
    return whole


def _ranked(
    codes: Tensor, model: Dalle, vqgan: Vqgan, clips: list[Clip], settings: Settings, place: torch.device
) -> list[Candidate]:
    images = torch.cat([model.decode(part, vqgan) for part in codes.split(8)])
    distances = rank(images, clips, [aim(clip, settings, [], place) for clip in clips]).tolist()
    order = sorted(range(len(codes)), key=lambda k: (distances[k], k))
    return [Candidate(k, distances[k], codes[k].cpu(), to_picture(images[k])) for k in order]


def grid(pictures: list[Image.Image]) -> Image.Image:
    """Join pictures of one size row by row, about as many columns as rows."""
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    return sheet


def _folder(out: str | Path | None, runs: str | Path | None, name: str, overwrite: bool) -> Path | None:
    """Return the folder to fill, which is there and writable. Raises OutputExists, OutputError."""
    if out is None and runs is None:
        return None
    try:
        if out is not None:
            folder = expand(out)
            if (folder / "sample.json").exists() and not overwrite:
                raise OutputExists(f"{folder} has candidates already", "give another folder, or --overwrite")
            folder.mkdir(parents=True, exist_ok=True)
        else:
            check_folder(expand(runs or ""))
            folder = _fresh(expand(runs or ""), name)
        require_space(folder, 20_000_000, "a sample")
        return folder
    except OSError as error:
        raise refused(expand(out or runs or ""), error) from error


def _fresh(runs: Path, name: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    for folder in _names(runs, name):
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError  # there is always another name


def _names(runs: Path, name: str) -> Iterator[Path]:
    yield runs / name
    for k in range(2, 2**31):
        yield runs / f"{name}-{k}"


def _record(settings: Settings, draw: Draw, keep: int, model: Dalle, place: torch.device) -> dict[str, Any]:
    """Return what is needed to draw the same again."""
    cards = [find("dalle", draw.dalle), find("vqgan", model.vqgan), *(find("clip", name) for name in settings.clips)]
    dalle, vqgan, *clips = ({"name": card.name, "sha256": card.sha256()} for card in cards)
    side = model.side
    return {
        "settings": {"prompt": settings.prompt, "seed": settings.seed, "clips": list(settings.clips)},
        "sample": asdict(draw) | {"keep": keep, "side": side},
        "models": {"dalle": dalle, "vqgan": vqgan, "clips": clips},
        "versions": {"vqclip": __version__, "python": platform.python_version(), "torch": version("torch")},
        "device": str(place),
        "threads": torch.get_num_threads(),
    }


def _write(found: list[Candidate], keep: int, folder: Path, record: dict[str, Any] | None) -> list[Path]:
    """Write the grid, best first, the kept pictures and the record; return the kept ones' paths, the best last."""

    def about(candidate: Candidate) -> dict[str, Any] | None:
        more = {"candidate": candidate.number, "distance": round(candidate.distance, 6)}
        return published(record | {"sample": record["sample"] | more}) if record else None

    write_atomic(folder / "grid.png", to_png(grid([one.picture for one in found])))
    (folder / "latest.png").unlink(missing_ok=True)
    paths = []
    for place, candidate in reversed(list(enumerate(found[:keep], 1))):
        path = folder / f"{place:02d}-candidate-{candidate.number:02d}.png"
        write_atomic(path, to_png(candidate.picture, about(candidate)))
        paths.append(path)
    rows = [{"candidate": one.number, "distance": round(one.distance, 6), "codes": one.codes.tolist()} for one in found]
    text = json.dumps({**(record or {}), "candidates": rows}, ensure_ascii=False)
    write_atomic(folder / "sample.json", (text + "\n").encode())
    return paths
