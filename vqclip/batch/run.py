"""From rows to a folder of images: finished rows are skipped, stopped ones go on, the best seeds are kept."""

import importlib.util
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InputError, UsageError, VqclipError
from ..files.images import load_image
from ..runs.rank import Ranker, judge_of, said_of
from ..runs.run_dir import drawn_image
from .manifest import Entry, Manifest
from .progress import SILENT, BatchProgress
from .worker import Work, Worker

ENGINES = ("local", "ray")
CONNECT_S = 10.0  # seconds that a cluster's first answer may take
SAVE_PAUSE = 20  # the next save comes after so many times the time of the last: with 10,000 rows a save takes a second


@dataclass(frozen=True)
class Engine:
    """Where rows are made: in this process, on several devices of this machine, or on a Ray cluster.

    workers: 0 is as many as the cluster has room for.
    """

    name: str = "local"
    address: str | None = None
    workers: int = 0
    devices: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UsageError for an engine that is unknown, not installed or not reached."""
        if self.name not in ENGINES:
            raise UsageError(f"there is no engine {self.name!r}", f"use {', '.join(ENGINES)}")
        if self.workers < 0:
            raise UsageError(f"workers: {self.workers} is negative", "use 0 or more")
        if self.devices and self.name != "local":
            raise UsageError("devices are those of this machine", "leave --devices or --engine out")
        if self.name == "local":
            if self.address:
                raise UsageError("the engine 'local' has no address", "give --engine ray")
            return
        if importlib.util.find_spec("ray") is None:
            raise UsageError("ray is not installed", "pip install 'vqclip[ray]'")
        host, _, port = (self.address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            return
        try:  # ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except (OSError, OverflowError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"there is no Ray cluster at {host}:{port}: {reason}", "start it: ray start --head"
            ) from None

    def run(self, work: Work, entries: Sequence[Entry], progress: BatchProgress) -> Iterator[Entry]:
        """Make the images of rows; yield each row as it ended."""
        if self.devices:
            from .devices import run_on_devices

            return run_on_devices(work, entries, progress, self.devices)
        if self.name == "local":
            return Worker(work, progress).run(entries)
        from .ray import run_on_cluster  # ray is an extra

        return run_on_cluster(work, entries, progress, self.address, self.workers)


LOCAL = Engine()


def run_batch(
    manifest: Manifest,
    entries: Sequence[Entry],
    work: Work,
    *,
    engine: Engine = LOCAL,
    retry: bool = False,
    progress: BatchProgress = SILENT,
) -> list[Entry]:
    """Make the images of rows that are not finished; return all rows as they are then.

    retry: also rows that failed. The manifest is saved before the first row and in the end, after a row that failed,
    and in between as often as it costs little: the states of rows that ended well are in their run directories.
    Raises OutputError if it can't be saved.
    """
    manifest.refresh()
    entries = [manifest.entries[entry.name] for entry in entries]
    for entry in entries:  # a process may have been killed between a run's end and the copy of its image
        manifest.publish(entry)
    save_due = _save(manifest)
    unfinished = ("pending", "stopped", "failed") if retry else ("pending", "stopped")
    todo = [entry for entry in entries if entry.status in unfinished]
    progress.rows(len(entries) - len(todo), len(entries))
    try:
        for entry in engine.run(work, todo, progress) if todo else ():
            try:
                manifest.publish(entry)
            except VqclipError as error:
                entry = entry.failed(error.what, entry.steps)
            manifest.entries[entry.name] = entry
            if entry.status == "failed" or time.monotonic() >= save_due:
                save_due = _save(manifest)
            progress.row(entry)
    finally:
        manifest.save()
    return [manifest.entries[entry.name] for entry in entries]


def _save(manifest: Manifest) -> float:
    """Write the manifest; return when it may be written again."""
    start = time.monotonic()
    manifest.save()
    end = time.monotonic()
    return end + (end - start) * SAVE_PAUSE


@dataclass(frozen=True)
class Selection:
    """Which images of each prompt are kept in the folder.

    keep: how many, the best first; 0: all. ranker: the CLIP that ranks them; without one that of `judge_of`.
    """

    keep: int = 0
    ranker: str | None = None
    device: str = "auto"


def select(
    manifest: Manifest,
    entries: Sequence[Entry],
    selection: Selection,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[str]:
    """Rank the finished rows of each prompt and keep the best; yield messages.

    on_image: called with the number of images that are ranked, and of all. Raises ModelError; InputError for an image
    prompt that is gone.
    """
    finished = [manifest.entries[entry.name] for entry in entries]
    finished = sorted((entry for entry in finished if entry.status == "done"), key=_settings_but_seed)
    counter = itertools.count(1)
    ranker: Ranker | None = None
    name = ""
    for _, group in itertools.groupby(finished, key=_settings_but_seed):
        rows = list(group)
        if len(rows) == 1 and not selection.ranker:  # in an earlier call better seeds may have stood beside it
            manifest.publish(manifest.update(rows[0].name, score=None, rank=None, kept=True))
            next(counter)
            continue
        clips = rows[0].settings.clips
        judge = selection.ranker or judge_of(clips)
        if name != judge:
            ranker = None  # so that two are never loaded at once
            name = judge
            ranker = Ranker(name, selection.device)
            if name in clips:
                yield said_of(name, clips)
        assert ranker is not None  # a name is never empty
        yield from _rank_rows(manifest, rows, ranker, selection.keep, lambda: on_image(next(counter), len(finished)))
    manifest.save()


def _rank_rows(
    manifest: Manifest, rows: Sequence[Entry], ranker: Ranker, keep: int, on_image: Callable[[], None]
) -> Iterator[str]:
    """Score and rank the rows of one prompt and publish those that are kept; yield messages."""
    target = ranker.target(rows[0].settings)
    scores = []
    for row in rows:
        try:
            image = load_image(drawn_image(manifest.runs / row.name))
        except InputError as error:
            yield f"{row.name} is not ranked: {error.what}"
        else:
            scores.append((ranker.score(image, target), row.name))
        on_image()
    best_first = sorted(scores, key=lambda pair: -pair[0])
    for rank, (score, name) in enumerate(best_first, 1):
        manifest.publish(manifest.update(name, score=round(score, 6), rank=rank, kept=not keep or rank <= keep))


def _settings_but_seed(entry: Entry) -> str:
    return entry.settings.model_copy(update={"seed": 0}).model_dump_json()
