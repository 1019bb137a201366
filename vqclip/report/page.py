"""One page of HTML that needs nothing else: pictures, frames, curves and settings of runs. Nothing in it is trusted."""

import base64
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from .. import records
from ..disk import write_atomic
from ..errors import InputError, VqclipError
from ..images import load_image
from ..manifest import read_manifest
from ..models.cards import preset
from ..outputs import published
from ..settings import Settings, make_settings

FRAMES, FRAME_SIDE, FINAL_SIDE = 12, 256, 512
POINTS = 120  # of a curve
MAX_METRICS = 50_000_000  # bytes
FLAGS = {"clips": "--clip", "image_prompts": "--image-prompt"}
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


def make_page(shown: Sequence[Shown], title: str) -> str:
    """Return the page. A run that can't be read is told, and stops no other."""
    cards = [_card(k, one) for k, one in enumerate(shown, 1)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(title=title, cards=cards, frames=[card.pop("frames") for card in cards])


def write_page(path: Path, shown: Sequence[Shown], title: str) -> None:
    """Write the page. Raises OutputError."""
    write_atomic(path, make_page(shown, title).encode("utf-8", "replace"))


def _card(number: int, shown: Shown) -> dict[str, Any]:
    more, record, settings, fault = shown.more, {}, more_settings(shown.more), str(shown.more.get("error") or "")
    try:
        record = records.read(shown.run)
        settings = records.settings_of(shown.run, record)
    except VqclipError as error:
        fault = fault or ("" if more.get("status") in ("pending", "stopped") else error.what)
    metrics = _metrics(shown.run / "metrics.jsonl")
    curve = [line["prompt"] for line in metrics]
    frames = [_uri(path, FRAME_SIDE) for path in _frames(shown.run)]
    told = published({"settings": settings.model_dump(mode="json")})["settings"] if settings else {}
    return {
        "number": more.get("index", number),
        "name": shown.run.name,
        "prompt": told.get("prompt") or ", ".join(told.get("image_prompts", ())),
        "status": more.get("status") or str(record.get("status", "unknown")),
        "fault": fault,
        "seed": told.get("seed"),
        "distance": curve[-1] if curve else None,
        "score": more.get("score"),
        "rank": more.get("rank"),
        "kept": more.get("kept", True),
        "seconds": record.get("seconds") if isinstance(record.get("seconds"), int | float) else None,
        "picture": _uri(shown.run / "final.png", FINAL_SIDE) or (frames[-1] if frames else ""),
        "frames": [[path.stem.lstrip("0") or "0", uri] for path, uri in zip(_frames(shown.run), frames, strict=True)],
        "curve": points(curve),
        "first": curve[0] if curve else None,
        "settings": [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in told.items()],
        "command": command(settings) if settings else "",
    }


def more_settings(more: Mapping[str, Any]) -> Settings | None:
    """Return a manifest's settings of a row, if there is one."""
    found = more.get("settings")
    return found if isinstance(found, Settings) else None


def command(settings: Settings) -> str:
    """Return the command that makes the picture again: what differs from the preset tiny, as options."""
    usual = make_settings(**(preset("tiny") | {"prompt": "x"}))
    words = ["vqclip", "generate", settings.prompt, "--preset", "tiny"]
    for name, value in settings:
        if name == "prompt" or (value == getattr(usual, name) and name != "seed"):
            continue
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        if name in FLAGS:
            words += [word for item in value for word in (flag, item)]
        else:
            text = ("x" if name == "size" else ",").join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [flag, text]
    if settings.prompt.startswith("-"):
        words = [*words[:2], *words[3:], "--", settings.prompt]
    return shlex.join(words)


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


def _frames(run: Path) -> list[Path]:
    """Return the run's frames, some of many, the first and the last among them."""
    found = sorted(path for path in run.glob("frames/*.png") if path.stem.isdecimal())
    if len(found) <= FRAMES:
        return found
    return [found[round(k * (len(found) - 1) / (FRAMES - 1))] for k in range(FRAMES)]


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


def _metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines that hold a distance; what is damaged is left out."""
    try:
        if path.stat().st_size > MAX_METRICS:
            return []
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("prompt"), int | float)]
