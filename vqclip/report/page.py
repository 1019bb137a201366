"""One page of HTML that needs nothing else: pictures, frames, curves and settings of runs. Nothing in it is trusted."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from ..batch.manifest import read_manifest
from ..errors import InputError, OutputExists, VqclipError
from ..files.atomic import check_free, refused, write_atomic
from ..files.images import load_image
from ..files.metadata import published
from ..files.paths import check_regular
from ..runs import metadata as records
from ..runs.commands import command
from ..runs.run_dir import read_losses
from ..settings.schema import Settings
from ..text import as_text

FRAMES, FRAME_SIDE, FINAL_SIDE = 12, 256, 512
BUDGET = 1200  # frames on a page, in all: of many runs each shows fewer, of very many none
POINTS = 120  # of a curve
MARK = '<meta name="generator" content="vqclip">'
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shown:
    """A run to be shown, and what a batch knows of it: score, rank, error and the like."""

    run: Path
    more: Mapping[str, Any]


def find_runs(path: Path) -> list[Shown]:
    """Return the runs of a run directory, of a batch's folder, or of a folder of runs. Raises InputError."""
    if (path / "run.json").is_file():
        return [Shown(path, {})]
    if entries := read_manifest(path):
        return [Shown(path / "runs" / name, vars(entry)) for name, entry in entries.items()]
    try:
        runs = sorted(found.parent for found in path.glob("*/run.json"))
    except OSError:
        runs = []
    if not runs:
        raise InputError(f"{path} holds no runs", "give a run directory, a batch's folder, or a folder of runs")
    return [Shown(run, {}) for run in runs]


def check_page(path: Path) -> None:
    """Refuse a place for a page where something else lies. Raises OutputExists, OutputError."""
    check_free(path, overwrite=True)
    try:
        if path.exists():
            check_regular(path)
            with path.open("rb") as file:
                ours = MARK.encode() in file.read(1000)
            if not ours:
                raise OutputExists(f"{path} exists already, and is no page of vqclip", "give another name (-o)")
    except OSError as error:
        raise refused(path, error) from error


def make_page(shown: Sequence[Shown], title: str, on_run: Callable[[int, int], None] = lambda done, total: None) -> str:
    """Return the page. A run that can't be read is told, and stops no other. on_run: as in `report`."""
    cards: list[dict[str, Any]] = []
    frames = min(FRAMES, BUDGET // max(1, len(shown)))
    for one in shown:
        cards.append(_card(len(cards) + 1, one, frames))
        on_run(len(cards), len(shown))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(title=title, cards=cards, frames=[card.pop("frames") for card in cards])


def write_page(
    path: Path, shown: Sequence[Shown], title: str, on_run: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write the page. Raises OutputError."""
    write_atomic(path, make_page(shown, title, on_run).encode("utf-8", "replace"))


def _card(number: int, shown: Shown, most: int) -> dict[str, Any]:
    more, record, settings, fault = shown.more, {}, more_settings(shown.more), str(shown.more.get("error") or "")
    try:
        record = records.read(shown.run)
        settings = records.settings_of(shown.run, record)
    except VqclipError as error:
        fault = fault or ("" if more.get("status") in ("pending", "stopped") else error.what)
    losses, picked = read_losses(shown.run), _frames(shown.run, most)
    score, seconds, nearness = (
        _number(of) for of in (more.get("score"), record.get("seconds"), record.get("distance"))
    )
    distance = losses["prompt"][-1] if losses else nearness
    frames = [_uri(path, FRAME_SIDE) for path in picked]
    told = published({"settings": settings.model_dump(mode="json")})["settings"] if settings else {}
    return {
        "number": more.get("index", number),
        "name": shown.run.name,
        "prompt": _plain(told.get("prompt") or ", ".join(told.get("image_prompts", ()))),
        "status": more.get("status") or str(record.get("status", "unknown")),
        "fault": fault,
        "distance": distance,
        "score": score,
        "rank": more.get("rank"),
        "kept": more.get("kept", True),
        "seconds": seconds,
        "told": [
            (name, form.format(value))
            for name, form, value in (
                ("seed", "{}", told.get("seed")),
                ("distance", "{:.4f}", distance),
                ("score", "{:.4f}", score),
                ("time", "{:.1f} s", seconds),
            )
            if value is not None
        ],
        "picture": _uri(shown.run / "final.png", FINAL_SIDE) or _uri(shown.run / "latest.png", FINAL_SIDE),
        "frames": [[path.stem.lstrip("0") or "0", uri] for path, uri in zip(picked, frames, strict=True)],
        "curves": [
            ("distance" if name == "prompt" else name, points(curve), f"{curve[0]:.4g}", f"{curve[-1]:.4g}")
            for name, curve in losses.items()
            if len(curve) > 1
        ],
        "settings": [(key, _plain(as_text(key, value) or "-")) for key, value in told.items()],
        "command": command(settings) if settings else "",
    }


def _plain(text: str) -> str:
    """Return text without the marks that turn its direction, by which it could look like another."""
    return text.translate(dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"))


def _number(value: Any) -> float | None:
    """Return a number that can be shown; of anything else none."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def more_settings(more: Mapping[str, Any]) -> Settings | None:
    """Return a manifest's settings of a row, if there is one."""
    found = more.get("settings")
    return found if isinstance(found, Settings) else None


def points(curve: Sequence[float], width: int = 200, height: int = 40) -> str:
    """Return a curve as an SVG polyline's points, lowest value at the bottom."""
    if len(curve) < 2:
        return ""
    picked = (
        [curve[round(k * (len(curve) - 1) / (POINTS - 1))] for k in range(POINTS)] if len(curve) > POINTS else curve
    )
    low, high = min(picked), max(picked)
    spread = high - low or 1.0
    return " ".join(
        f"{k * width / (len(picked) - 1):.1f},{height - (value - low) / spread * height:.1f}"
        for k, value in enumerate(picked)
    )


def _frames(run: Path, most: int = FRAMES) -> list[Path]:
    """Return the run's frames, some of many, the first and the last among them; none where two are too many."""
    found = sorted(path for path in run.glob("frames/*.png") if path.stem.isdecimal())
    if most < 2:
        return []
    if len(found) <= most:
        return found
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]


def _uri(path: Path, side: int) -> str:
    """Return a picture as a data URI, WebP, no larger than `side`; nothing for one that can't be read."""
    try:
        picture = load_image(path)
    except InputError:
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
