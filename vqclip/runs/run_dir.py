"""A run's folder: run.json, frames/, metrics.jsonl, latest.png, final.png. Nothing appears half-written.

runs/<slug>-<seed>[-n]/
  run.json           settings, seed, models and their hashes, versions, device, threads, status
  frames/000000.png  the picture after that many steps; 000000 is the start
  latents/000000.safetensors  what it was decoded from, where that was asked for
  metrics.jsonl      one line a step
  state.safetensors  what the loop goes on from, and the one before it as .prev (checkpoint.py)
  latest.png         while running
  final.png          the result
  .lock              held by the process that writes here
"""

import json
import math
import re
import sys
import unicodedata
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ..core.losses import LOSSES
from ..errors import InputError, OutputError, RunLocked
from ..files.atomic import PARTS, refused, sync, sync_folder, write_atomic

SCHEMA = "vqclip-run/1"
MOTION = "vqclip-motion/1"  # a moving picture's (motion.py)
MAX_RECORD = 1_000_000  # bytes
MAX_METRICS = 50_000_000
KINDS = {"settings": dict, "models": dict, "pictures": dict, "versions": dict, "changes": list, "steps_done": int}


def slugify(text: str, limit: int = 48) -> str:
    """Turn a prompt into a file name: letters and digits of any script, joined by dashes, at most `limit` bytes."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = text.encode(sys.getfilesystemencoding(), "ignore").decode(sys.getfilesystemencoding())
    slug = re.sub(r"[\W_]+", "-", text).strip("-")
    slug = slug.encode()[:limit].decode(errors="ignore").rstrip("-")
    return slug or "untitled"


def read_record(path: Path, schemas: tuple[str, ...] = (SCHEMA,)) -> dict[str, Any]:
    """Return a run.json. Raises InputError for one that is damaged or of none of the schemas."""
    try:
        if path.stat().st_size > MAX_RECORD:
            raise ValueError("it is too large")
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("schema") not in schemas:
            raise ValueError(f"this vqclip reads the schema {' or '.join(map(repr, schemas))} here")
        for key, kind in KINDS.items():
            if not isinstance(record.get(key, kind()), kind):
                raise ValueError(f"its {key!r} is not as vqclip writes it")
        return record
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}", "it must be the run.json of a run") from None


def read_losses(run: Path) -> dict[str, list[float]]:
    """Return each loss after each step, "prompt" first, by a run's metrics.jsonl; damaged lines are left out."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            lines = file.read(MAX_METRICS).splitlines()
    except OSError:
        return {}
    found: dict[str, list[float]] = {}
    for line in lines:
        try:
            told = json.loads(line)
            values = {name: float(told[name]) for name in ("prompt", *LOSSES) if name == "prompt" or name in told}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # half a line of a killed process
            continue
        if all(map(math.isfinite, values.values())):
            for name, value in values.items():
                found.setdefault(name, []).append(value)
    return found


class RunDir:
    """One run's folder, made new; nothing of an earlier run is ever touched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: IO[str] | None = None
        self._lock = FileLock(path / ".lock")
        self._places: dict[Path, tuple[int, int]] = {}  # the folders that are this run's, by device and number

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Take hold of a run that is there already. Raises InputError, RunLocked, OutputError."""
        try:
            there = (path / "run.json").is_file()
            linked = [name for name in ("frames", "latents", "metrics.jsonl") if (path / name).is_symlink()]
            linked += ["metrics.jsonl"] * (path / "metrics.jsonl").is_fifo()
            what = "is no run directory: it has no run.json" if path.exists() else "does not exist"
        except (OSError, ValueError):  # a name that no file could have
            there, linked, what = False, [], "is no run directory"
        if not there:
            raise InputError(f"{path} {what}", "give a folder below --runs")
        if linked:  # what is written there would land elsewhere
            raise InputError(f"{path / linked[0]} is a link or a pipe", "put the real one in its place")
        run = cls(path)
        run._hold()
        return run

    def _hold(self) -> None:
        try:
            self._lock.acquire(timeout=0)
            (self.path / "frames").mkdir(exist_ok=True)  # somebody may have tidied up
            self._places = {place: _number(place) for place in (self.path, self.path / "frames")}
        except Timeout:
            raise RunLocked(f"{self.path} is in use by another vqclip", "wait for it, or stop it first") from None
        except OSError as error:
            raise refused(self.path, error) from error

    @classmethod
    def create(cls, runs: Path, name: str) -> "RunDir":
        """Make `runs/name`, or `name-2`, `name-3`, ... where that is taken. Raises OutputError."""
        attempt = 1
        try:
            runs.mkdir(parents=True, exist_ok=True)
            while True:
                path = runs / (name if attempt == 1 else f"{name}-{attempt}")
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    attempt += 1
        except OSError as error:
            raise refused(runs, error) from error
        run = cls(path)
        run._hold()
        try:
            sync_folder(path)
            sync_folder(runs)
        except OSError as error:
            raise refused(runs, error) from error
        return run

    def check(self) -> None:
        """Refuse to write where the folder is not this run's any more: moved away, replaced, or a link.

        The lock is on the folder that was opened, and files are written by name. Raises OutputError.
        """
        try:
            strange = [place for place, number in self._places.items() if _number(place) != number]
        except OSError:
            strange = [self.path]
        if strange:
            raise OutputError(f"{strange[0]} is gone, or another folder by now", "leave a run's folder until it ends")

    def read_json(self, schema: str = SCHEMA) -> dict[str, Any]:
        """Return run.json. Raises InputError."""
        return read_record(self.path / "run.json", (schema,))

    def rewind(self, step: int, frames_every: int) -> None:
        """Take away what a run that goes on from `step` will make again, and the odd frame where it was stopped.

        And the half-written files that a killed process left.
        """
        try:
            for part in (
                *self.path.glob(PARTS),
                *self.path.glob(f"frames/{PARTS}"),
                *self.path.glob(f"latents/{PARTS}"),
            ):
                part.unlink()
            for frame in (*self.path.glob("frames/*.png"), *self.path.glob("latents/*.safetensors")):
                number = int(frame.stem) if frame.stem.isdecimal() else 0
                if number > step or (frames_every and number % frames_every):
                    frame.unlink()
            metrics = self.path / "metrics.jsonl"
            if metrics.exists():
                lines = metrics.read_bytes().splitlines(keepends=True)[:step]
                write_atomic(metrics, b"".join(lines))
        except OSError as error:
            raise refused(self.path, error) from error

    def write_json(self, record: dict[str, Any]) -> None:
        """Replace run.json."""
        self.check()
        text = json.dumps({"schema": SCHEMA, **record}, indent=2, ensure_ascii=False)
        write_atomic(self.path / "run.json", (text + "\n").encode())

    def add_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.check()
        try:
            if self._metrics is None:
                self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
            self._metrics.write(json.dumps(record) + "\n")
        except OSError as error:
            raise refused(self.path / "metrics.jsonl", error) from error

    def sync_metrics(self) -> None:
        """Have what was added to metrics.jsonl on the disk. Raises OutputError."""
        self.check()
        if self._metrics is None:
            return
        try:
            self._metrics.flush()
            sync(self._metrics.fileno())
        except OSError as error:
            raise refused(self.path / "metrics.jsonl", error) from error

    def write_frame(self, step: int, png: bytes) -> None:
        """Write frames/NNNNNN.png and latest.png."""
        write_atomic(self.path / "frames" / f"{step:06d}.png", png)
        write_atomic(self.path / "latest.png", png)

    def write_latent(self, step: int, data: bytes) -> None:
        """Write latents/NNNNNN.safetensors."""
        self.check()
        folder = self.path / "latents"
        try:
            folder.mkdir(exist_ok=True)
            sync_folder(self.path)
        except OSError as error:
            raise refused(folder, error) from error
        write_atomic(folder / f"{step:06d}.safetensors", data)

    def write_final(self, png: bytes) -> Path:
        """Write final.png, and take latest.png away. Returns the path."""
        self.check()
        write_atomic(self.path / "final.png", png)
        (self.path / "latest.png").unlink(missing_ok=True)
        return self.path / "final.png"

    def close(self) -> None:
        """Close metrics.jsonl and let the folder go. Raises OutputError."""
        self._lock.release()
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            try:
                metrics.close()
            except OSError as error:
                raise refused(self.path / "metrics.jsonl", error) from error


def _number(folder: Path) -> tuple[int, int]:
    """Return what tells a folder from another of the same name; of a link its own."""
    found = folder.lstat()
    return found.st_dev, found.st_ino
