"""What a sample came to: candidates, the best first, as files of a folder; and read back from one that is done."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..files.images import is_whole, load_image
from ..settings.schema import Settings
from .sample_dir import SampleDir, facts


@dataclass(frozen=True)
class Candidate:
    """One picture that was drawn. The same number and seed make the same picture, however many are drawn."""

    number: int
    distance: float  # to the prompt, as CLIP sees it: less is nearer
    codes: Tensor  # [places]
    picture: Image.Image


@dataclass(frozen=True)
class Sampled:
    """The candidates, the best first; where the kept ones lie, the best last. Fewer than `total` if it was stopped."""

    candidates: list[Candidate]
    paths: list[Path]
    folder: Path | None
    seed: int
    seconds: float
    total: int
    drawn: int  # in this sitting


def file_name(place: int, number: int) -> str:
    """Return the file name of a kept candidate; place 1 is the best."""
    return f"{place:02d}-candidate-{number:02d}.png"


def ungrid(sheet: Image.Image, count: int) -> list[Image.Image]:
    """Return the pictures that `tile` joined, all of one size."""
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    width, height = sheet.width // columns, sheet.height // rows
    corners = [(k % columns * width, k // columns * height) for k in range(count)]
    return [sheet.crop((left, top, left + width, top + height)) for left, top in corners]


def read_back(folder: SampleDir, settings: Settings, plan: dict[str, Any], models: dict[str, Any]) -> Sampled | None:
    """Return what a folder has, where all of it was done from these settings by these models and is whole.

    None where anything differs or is damaged: it is for the networks, then. Distances are rounded, as in the record.
    """
    began = time.monotonic()
    try:
        record = folder.read()
        begun = record["settings"], record["plan"], record["models"], record.get("status")
        if begun != (facts(settings), plan, models, "done"):
            return None
        rows = [(int(row["candidate"]), float(row["distance"])) for row in record["candidates"]]
        codes = json.loads(folder.codes.read_text(encoding="utf-8"))["codes"]
        pictures = ungrid(load_image(folder.path / "grid.png"), len(rows))
        found = [Candidate(number, distance, torch.tensor(codes[number]), picture)
                 for (number, distance), picture in zip(rows, pictures, strict=True)]  # fmt: skip
    except (InputError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    paths = [folder.path / file_name(place, number) for place, (number, _) in enumerate(rows[: plan["keep"]], 1)][::-1]
    if len(found) != settings.candidates or not all(map(is_whole, paths)):
        return None
    return Sampled(found, paths, folder.path, settings.seed, time.monotonic() - began, settings.candidates, drawn=0)
