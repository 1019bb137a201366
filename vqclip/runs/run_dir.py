"""A run's folder: run.json, frames/, metrics.jsonl, latest.png, final.png. Nothing appears half-written.

runs/<slug>-<seed>[-n]/
  run.json           settings, seed, models and their hashes, versions, device, threads, status
  frames/000000.png  the picture after that many steps, as it was drawn; 000000 is the start
  cutouts/000010.png the cutouts that CLIP was shown in that step, where that was asked for; -2 of a second CLIP
  latents/000000.safetensors  what it was decoded from, where that was asked for
  metrics.jsonl      one line a step
  state.safetensors  what the loop goes on from, and the one before it as .prev (checkpoint.py)
  latest.png         while running
  final.png          the result, enlarged where the settings say so: then the last frame is kept in any case
  tiled.png          the result several times side by side, where that was asked for
  .lock              held by the process that writes here
"""

import json
import math
import re
import sys
import unicodedata
from pathlib import Path
from typing import IO, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..core.losses import CLIP_LOSSES, LOSSES
from ..errors import InputError
from ..files.atomic import sync, sync_folder, write_atomic, writing
from ..files.locked_folder import LockedFolder, numbered
from ..files.paths import open_regular
from ..files.reading import parse_json, read_json, validate
from .project_files import to_absolute, to_relative

SCHEMA = "vqclip-run/1"
MOTION = "vqclip-motion/1"  # a moving picture's (animate/run.py)
FINISHED = ("done", "converged")  # the states of a run of which nothing is left to do
MAX_RECORD = 1_000_000  # bytes
NAMES = (*CLIP_LOSSES, *LOSSES)
MAX_METRICS = 50_000_000


def slugify(text: str, limit: int = 48) -> str:
    """Turn a prompt into a file name: letters and digits of any script, joined by dashes, at most `limit` bytes."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = text.encode(sys.getfilesystemencoding(), "ignore").decode(sys.getfilesystemencoding())
    slug = re.sub(r"[\W_]+", "-", text).strip("-")
    slug = slug.encode()[:limit].decode(errors="ignore").rstrip("-")
    return slug or "untitled"


class RunRecord(BaseModel):
    """A run.json as far as any reader relies on it; whatever else it says is left as it is."""

    model_config = ConfigDict(defer_build=True)

    schema_version: str = Field("", alias="schema")
    settings: dict[str, Any] = {}
    models: dict[str, Any] = {}
    pictures: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    changes: list[Any] = []
    steps_done: int = 0
    step_shown: int = 0  # whose image is the finished one, where that may not be the last
    distance: float | None = Field(None, allow_inf_nan=False)  # of its image to the prompts
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)  # that were spent on it


def read_run_record(path: Path, schemas: tuple[str, ...] = (SCHEMA,)) -> dict[str, Any]:
    """Return a run.json. Raises InputError for one that is damaged or of none of the schemas."""
    hint = "it must be the run.json of a run"
    record: dict[str, Any] = read_json(path, MAX_RECORD, hint)
    if validate(RunRecord, record, str(path), hint).schema_version not in schemas:
        known = " or ".join(map(repr, schemas))
        raise InputError(f"{path} can't be read: this vqclip reads the schema {known} here", hint)
    return to_absolute(record, path.parent)


def read_losses(run: Path) -> dict[str, list[float]]:
    """Return each loss after each step, "prompt" first, by a run's metrics.jsonl; damaged lines are left out."""
    try:
        with open_regular(run / "metrics.jsonl") as file:
            lines = file.read(MAX_METRICS).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return {}
    losses: dict[str, list[float]] = {}
    for line in lines:
        try:
            step = parse_json(line, "metrics.jsonl")
            if "step" not in step:  # an animation's, which counts its frames under the name of a loss
                step.pop("frame", None)
            values = {name: float(step[name]) for name in NAMES if name == "prompt" or name in step}
        except (
            InputError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
        ):  # half a line of a killed process
            continue
        if all(map(math.isfinite, values.values())):
            for name, value in values.items():
                losses.setdefault(name, []).append(value)
    return losses


def read_distance(record: dict[str, Any], losses: dict[str, list[float]]) -> float | None:
    """Return the distance of a run's final image to the prompts; of a run of 0.1.0 the last step's, by its losses."""
    if (distance := record.get("distance")) is not None:
        return float(distance)
    return losses["prompt"][-1] if losses and record.get("status") in FINISHED else None


def drawn_image(run: Path) -> Path:
    """Return the file of a finished run's image as the VQGAN drew it: its frame, or final.png where there is none.

    Raises InputError for a run.json that is damaged or missing.
    """
    record = read_run_record(run / "run.json")
    frame = run / "frames" / f"{record.get('step_shown', record.get('steps_done', 0)):06d}.png"
    return frame if frame.is_file() else run / "final.png"


class RunDir(LockedFolder):
    """One run's folder, held by this process; nothing of an earlier run is ever touched."""

    def __init__(self, path: Path) -> None:
        """Hold a folder that exists; `create` makes a new one. Raises RunLocked, OutputError."""
        self._metrics: IO[str] | None = None
        super().__init__(path, "frames")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Hold a run that was begun. Raises InputError, RunLocked, OutputError."""
        try:
            is_run = (path / "run.json").is_file()
            linked = [name for name in ("frames", "latents", "cutouts", "metrics.jsonl") if (path / name).is_symlink()]
            linked += ["metrics.jsonl"] * (path / "metrics.jsonl").is_fifo()
            what = "is no run directory: it has no run.json" if path.exists() else "does not exist"
        except (OSError, ValueError):  # a name that no file can have
            is_run, what = False, "is no run directory"
        if not is_run:
            raise InputError(f"{path} {what}", "give the folder of a run, such as runs/a-red-heart-7")
        if linked:  # what is written there would land elsewhere
            raise InputError(f"{path / linked[0]} is a link or a pipe", "put the real one in its place")
        return cls(path)

    def read_json(self, schema: str = SCHEMA) -> dict[str, Any]:
        """Return run.json. Raises InputError."""
        return read_run_record(self.path / "run.json", (schema,))

    def rewind(self, step: int, frames_every: int) -> None:
        """Take away what a run that goes on from `step` will make again, and the odd frame where it was stopped.

        And the half-written files that a killed process left. frames_every: as of an Output.
        """
        with writing(self.path):
            self.sweep("frames", "latents", "cutouts")
            for frame in (*self.path.glob("frames/*.png"), *self.path.glob("latents/*.safetensors")):
                number = int(frame.stem) if frame.stem.isdecimal() else 0
                if number > step or not frames_every or number % frames_every:
                    frame.unlink()
            for sheet in self.path.glob("cutouts/*.png"):
                name = sheet.stem.partition("-")[0]
                if not name.isdecimal() or int(name) > step:
                    sheet.unlink()
            metrics = self.path / "metrics.jsonl"
            if metrics.exists():
                lines = metrics.read_bytes().splitlines(keepends=True)[:step]
                write_atomic(metrics, b"".join(lines))

    def write_json(self, record: dict[str, Any]) -> None:
        """Replace run.json."""
        self.check()
        text = json.dumps(to_relative({"schema": SCHEMA, **record}, self.path), indent=2, ensure_ascii=False)
        write_atomic(self.path / "run.json", (text + "\n").encode())

    def add_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.check()
        with writing(self.path / "metrics.jsonl"):
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
            self._metrics.write(json.dumps(record) + "\n")

    def sync_metrics(self) -> None:
        """Have what was added to metrics.jsonl on the disk. Raises OutputError."""
        self.check()
        if self._metrics is None:
            return
        with writing(self.path / "metrics.jsonl"):
            self._metrics.flush()
            sync(self._metrics.fileno())

    def write_frame(self, step: int, png: bytes, latest: bytes = b"") -> None:
        """Write frames/NNNNNN.png and latest.png, which is the same if none is given."""
        self.check()
        write_atomic(self.path / "frames" / f"{step:06d}.png", png)
        write_atomic(self.path / "latest.png", latest or png)

    def write_latent(self, step: int, data: bytes) -> None:
        """Write latents/NNNNNN.safetensors."""
        write_atomic(self._folder("latents") / f"{step:06d}.safetensors", data)

    def write_cutouts(self, step: int, clip: int, png: bytes) -> None:
        """Write cutouts/NNNNNN.png, what a CLIP was shown in a step; clip: its number, from 0."""
        write_atomic(self._folder("cutouts") / f"{step:06d}{f'-{clip + 1}' if clip else ''}.png", png)

    def _folder(self, name: str) -> Path:
        """Return a folder of the run's, made where it is missing. Raises OutputError."""
        self.check()
        folder = self.path / name
        with writing(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(self.path)
        return folder

    def write_final(self, png: bytes) -> Path:
        """Write final.png, and take latest.png away. Returns the path."""
        self.check()
        write_atomic(self.path / "final.png", png)
        with writing(self.path / "latest.png"):
            (self.path / "latest.png").unlink(missing_ok=True)
        return self.path / "final.png"

    def write_tiled(self, png: bytes) -> None:
        """Write tiled.png."""
        self.check()
        write_atomic(self.path / "tiled.png", png)

    def keep_final(self, steps: int) -> None:
        """Keep final.png, of so many steps, under a name of its own: another is to take its place."""
        self.check()
        names = (self.path / f"{name}.png" for name in numbered(f"final-{steps:06d}"))
        with writing(self.path):
            write_atomic(next(path for path in names if not path.exists()), (self.path / "final.png").read_bytes())

    def close(self) -> None:
        """Close metrics.jsonl and let the folder go. Raises OutputError."""
        super().close()
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            with writing(self.path / "metrics.jsonl"):
                metrics.close()
