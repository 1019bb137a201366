"""One HTML page of runs that needs no other file: images, frames, curves and settings. No content of it is trusted."""

import base64
import functools
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image

from ..batch.manifest import Entry, read_manifest
from ..errors import InputError, OutputExists, VqclipError
from ..files.atomic import check_free, refused, write_atomic
from ..files.images import load_image
from ..files.metadata import published
from ..files.paths import is_within, open_regular
from ..runs import records
from ..runs.records import SAMPLE
from ..runs.run_dir import MOTION, read_distance, read_losses
from ..runs.sample_dir import PICTURE
from ..settings.schema import Settings, facts, fields_with
from ..text import as_text, pasted

MAX_FRAMES = 12  # of a run
MAX_PAGE_FRAMES = 1200  # of a page: of many runs each shows fewer, of very many none
MAX_POINTS = 120  # of a curve
FINALS = ("final.png", "grid.png", "latest.png")
FRAME_SIDE, FINAL_SIDE, LARGE_SIDE = 256, 512, 1024  # pixels; large: of a page of one run
REFRESH_S = 2  # of a page that grows, where no JavaScript runs
MARK = '<meta name="generator" content="vqclip">'
HERE = Path(__file__).parent
TURNS = dict.fromkeys(
    [*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)  # characters that change the direction of text

TITLES = {"prompt": "how far CLIP finds the cutouts of a step from the prompt"} | {  # of curves
    facts(name).loss: str(Settings.model_fields[name].description).removeprefix("weight of ")
    for name in fields_with("loss")
}
OnRun = Callable[[int, int], None]  # runs that are on the page, of how many
ImageSource = Callable[[Path, Path, int], str]  # (run, image of it, side) -> what stands in src; "" for none
RECORDS = ("run.json", SAMPLE)
HINT = "give a run directory, a batch's or a sample's folder, or a folder of runs"


@dataclass(frozen=True)
class PageRun:
    """A run to be shown: its folder, and its row in a batch's manifest, if it has one."""

    path: Path
    entry: Entry | None = None


@dataclass(frozen=True)
class Card:
    """A run as it is on a page."""

    html: str
    status: str
    kept: bool
    score: float | None


def find_runs(path: Path, read_rows: Callable[[Path], dict[str, Entry]] = read_manifest) -> list[PageRun]:
    """Return the runs and samples of a folder: of one of them, of a batch, or of several. Raises InputError."""
    if any((path / name).is_file() for name in RECORDS):
        return [PageRun(path)]
    if entries := read_rows(path):
        return [PageRun(path / "runs" / name, entry) for name, entry in entries.items()]
    try:
        runs = sorted({record.parent for name in RECORDS for record in path.glob(f"*/{name}")})
    except OSError:
        runs = []
    if not path.exists():
        raise InputError(f"{path} does not exist", HINT)
    if not runs:
        raise InputError(f"{path} holds no runs", HINT)
    return [PageRun(run) for run in runs]


def check_page(path: Path) -> None:
    """Refuse to overwrite a file that is no page of vqclip. Raises OutputExists, OutputError."""
    check_free(path, overwrite=True)
    try:
        if not path.exists():
            return
        with open_regular(path) as file:
            start = file.read(1000)
    except OSError as error:
        raise refused(path, error) from error
    if MARK.encode() not in start:
        raise OutputExists(f"{path} exists already, and is no page of vqclip", "give another name (-o)")


def make_page(runs: Sequence[PageRun], folder: Path, on_run: OnRun = lambda done, total: None) -> str:
    """Return the page of runs below a folder. A run that can't be read is shown with its fault."""
    cards = []
    for number, run in enumerate(runs, 1):
        cards.append(make_card(number, run, _data_uri, of=len(runs)))
        on_run(number, len(runs))
    return render(folder.name, cards)


def render(title: str, cards: Sequence[Card], *, live: bool = False) -> str:
    """Return the page of cards; live: one that asks its server for what has come, and shows it."""
    return _template("page.html").render(title=title, cards=cards, live=REFRESH_S if live else 0)


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((HERE / name).read_text(encoding="utf-8"))


def write_page(path: Path, runs: Sequence[PageRun], folder: Path, on_run: OnRun = lambda done, total: None) -> None:
    """Write the page. Raises OutputError."""
    write_atomic(path, make_page(runs, folder, on_run).encode("utf-8", "replace"))


def make_card(number: int, run: PageRun, source: ImageSource, *, of: int = 1, live: bool = False) -> Card:
    """Return what a page of so many runs shows of one of them."""
    entry = run.entry
    record, settings, fault = _read_run(run)
    losses = read_losses(run.path)
    values = published({"settings": settings.model_dump(mode="json")})["settings"] if settings else {}
    frames = pick_frames(run.path, min(MAX_FRAMES, MAX_PAGE_FRAMES // max(1, of)))
    side = LARGE_SIDE if of == 1 else FINAL_SIDE
    shown: dict[str, Any] = {
        "key": key_of(run.path),
        "number": entry.index if entry and not live else number,
        "name": run.path.name,
        "prompt": _without_turns(values.get("prompt") or ", ".join(values.get("image_prompts", ()))),
        "status": _status(entry, record),
        "fault": fault,
        "seed": values.get("seed"),
        "distance": read_distance(record, losses),
        "score": entry.score if entry else None,
        "rank": entry.rank if entry else None,
        "kept": entry.kept if entry else True,
        "seconds": _number(record.get("seconds")) or None,
        "done": len(losses.get("prompt", ())),
        "total": _total(record, values),
        "unit": _unit(record),
        "image": next(filter(None, (source(run.path, run.path / name, side) for name in FINALS)), ""),
        "frames": [(_label(path, record), source(run.path, path, FRAME_SIDE)) for path in frames],
        "losses": {name: curve for name, curve in losses.items() if len(curve) > 1},
        "settings": {name: _without_turns(as_text(name, value) or "-") for name, value in values.items()},
        "command": _rerun_command(run.path.absolute()) if record else "",
    }
    html = _template("card.html").render(
        card=shown, single=of == 1, live=live, curve_points=curve_points, titles=TITLES
    )
    return Card(html, shown["status"], shown["kept"], shown["score"])


def key_of(run: Path) -> str:
    """Return a run's folder as links have it."""
    return quote(os.fsencode(run.name), safe="")


def _status(entry: Entry | None, record: dict[str, Any]) -> str:
    """Return how far a run is. Of a batch's row that waits its folder knows whether it has begun."""
    status = str(record.get("status", "unknown"))
    return status if not entry or (entry.status == "pending" and status == "running") else entry.status


def _label(frame: Path, record: dict[str, Any]) -> str:
    """Return what a frame is called: "step 10"; "candidate 3" of a sample."""
    return f"{_unit(record)} {frame.stem.rpartition('-')[2].lstrip('0') or '0'}"


def _unit(record: dict[str, Any]) -> str:
    """Return what a run is made of."""
    return "candidate" if records.is_of_sample(record) else "frame" if record.get("schema") == MOTION else "step"


def _total(record: dict[str, Any], settings: dict[str, Any]) -> int:
    """Return how many of them a run has in the end; 0 where that is unknown."""
    if (unit := _unit(record)) != "frame":
        return settings.get("steps", 0) if unit == "step" else 0
    motion = record.get("motion")
    source = motion.get("footage", motion) if isinstance(motion, dict) else None  # of a restyled clip
    return int(_number(source.get("frames")) or 0) if isinstance(source, dict) else 0


def _read_run(run: PageRun) -> tuple[dict[str, Any], Settings | None, str]:
    """Return a run's record, its settings, and what is wrong with it."""
    fault = run.entry.error if run.entry else ""
    try:
        record = records.read(run.path)
        return record, records.settings_of(run.path, record, sample=records.is_of_sample(record)), fault
    except VqclipError as error:
        not_begun = run.entry and run.entry.status in ("pending", "stopped")
        return {}, run.entry.settings if run.entry else None, fault or ("" if not_begun else error.what)


def _rerun_command(run: Path) -> str:
    """Return the command that makes a run's image again, to be typed where the page was made."""
    try:
        path = os.path.relpath(run)
    except ValueError:  # another drive
        path = str(run)
    return f"vqclip rerun {pasted(f'./{path}' if path.startswith('-') else path)}"


def _without_turns(text: str) -> str:
    """Return text without the characters that change its direction, which could make it look like another text."""
    return text.translate(TURNS)


def _number(value: Any) -> float | None:
    """Return a number that can be shown; None for anything else."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def curve_points(values: Sequence[float], width: int = 200, height: int = 40) -> str:
    """Return the points of an SVG polyline, the lowest value at the bottom; "" for fewer than two values."""
    if len(values) < 2:
        return ""
    values = _spread(values, MAX_POINTS)
    low, high = min(values), max(values)
    x_scale, y_scale = width / (len(values) - 1), height / (high - low or 1.0)
    return " ".join(f"{k * x_scale:.1f},{height - (value - low) * y_scale:.1f}" for k, value in enumerate(values))


def _spread(items: Sequence[Any], count: int) -> Sequence[Any]:
    """Return at most `count` items, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]


def pick_frames(run: Path, max_frames: int = MAX_FRAMES) -> Sequence[Path]:
    """Return the run's frames, or the sample's images, evenly spread; none if not even two may be shown."""
    frames = sorted(path for path in run.glob("frames/*.png") if path.stem.isdecimal())
    frames = frames or sorted(path for path in run.glob("*-candidate-*.png") if PICTURE.fullmatch(path.name))
    return _spread(frames, max_frames) if max_frames >= 2 else []


def _data_uri(run: Path, path: Path, side: int) -> str:
    """Return an image of a run as a data URI, WebP, at most `side` pixels a side.

    "" for one that can't be read, or is a link out of the run: a page is to be given away.
    """
    if not is_within(run, path):
        return ""
    try:
        image = load_image(path)
    except InputError:
        return ""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
