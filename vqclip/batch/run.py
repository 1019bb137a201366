"""From rows to a folder of pictures: what is done is skipped, what was stopped goes on, the best seeds are kept."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from ..errors import InputError, UsageError, VqclipError
from ..files.atomic import write_atomic
from ..files.images import is_whole, load_image
from ..runs.rank import Judge
from .engines import draw
from .manifest import Entry, Manifest
from .worker import OnStep, Task, Work

OnRow = Callable[[Entry], None]
REST = 20  # times as long as a save of the manifest took until the next: of 10,000 rows it takes a second


def run_batch(
    manifest: Manifest,
    wanted: Sequence[Entry],
    work: Work,
    *,
    engine: str = "local",
    address: str | None = None,
    workers: int = 0,
    retry: bool = False,
    on_step: OnStep,
    on_row: OnRow = lambda entry: None,
    on_start: Callable[[int, int], None] = lambda done, total: None,
) -> list[Entry]:
    """Draw the wanted rows that are not done; return all wanted, as they are then.

    retry: also those that failed. on_start gets how many need nothing, of how many;
    on_row gets each row as it ends; on_step may return True to stop in good order.
    The manifest is written before the first row and in the end, after one that failed, and between as often as costs
    little: of rows that ended well their folders tell. Raises OutputError where that can't be.
    """
    manifest.look()
    names = [entry.name for entry in wanted]
    again = ("pending", "stopped", "failed") if retry else ("pending", "stopped")
    todo = [manifest.entries[name] for name in names if manifest.entries[name].status in again]
    for name in names:  # a process may have been killed between a run's end and its picture
        _publish(manifest, manifest.entries[name])
    due = _save(manifest)
    on_start(len(names) - len(todo), len(names))
    tasks = [Task(entry.name, entry.settings) for entry in todo]
    try:
        for outcome in draw(engine, work, tasks, on_step, address=address, workers=workers) if tasks else ():
            told = {key: value for key, value in asdict(outcome).items() if key != "name"}
            entry = manifest.update(outcome.name, **told)
            try:
                _publish(manifest, entry)
            except VqclipError as error:
                entry = manifest.update(outcome.name, status="failed", error=error.what)
            if entry.status == "failed" or time.monotonic() >= due:
                due = _save(manifest)
            on_row(entry)
    finally:
        manifest.save()
    return [manifest.entries[name] for name in names]


def _save(manifest: Manifest) -> float:
    """Write the manifest; return when it may be written again."""
    began = time.monotonic()
    manifest.save()
    return (now := time.monotonic()) + (now - began) * REST


def _publish(manifest: Manifest, entry: Entry) -> None:
    """Put a finished row's picture into the folder, or take away one that is not kept."""
    picture, final = manifest.folder / f"{entry.name}.png", manifest.runs / entry.name / "final.png"
    if entry.status == "done" and not entry.kept:
        picture.unlink(missing_ok=True)
    elif entry.status == "done" and not is_whole(picture):
        try:
            data = final.read_bytes()
        except OSError as error:
            raise InputError(f"{final} can't be read: {error.strerror}", "the same command makes it again") from None
        write_atomic(picture, data)


def read_keep(text: str) -> int:
    """Read what --keep says: "all" (0), "best" (1) or how many of each prompt. Raises UsageError."""
    if text in ("all", "best"):
        return int(text == "best")
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise UsageError(f"--keep {text!r} is not understood", "use all, best or a number")
    return int(text)


def choose(
    manifest: Manifest, wanted: Sequence[Entry], *, keep: int, ranker: str | None, device: str,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[str]:  # fmt: skip
    """Rank the finished rows of each prompt by a CLIP and keep the best; yield remarks.

    ranker: a CLIP that was not optimised. Without one the run's own first is asked, which flatters what was made to
    please it. keep: how many of each prompt have their picture in the folder; 0: all. on_picture gets how many
    pictures have been seen, of how many. Raises ModelError; InputError for a picture that was a prompt and is gone.
    """
    done = [entry for entry in wanted if manifest.entries[entry.name].status == "done"]
    judges: dict[str, Judge] = {}
    seen = 0
    for _, group in groupby(sorted(done, key=_but_seed), key=_but_seed):
        rows = [manifest.entries[entry.name] for entry in group]
        if len(rows) == 1 and not ranker:  # it may have had others beside it that were better
            _publish(manifest, manifest.update(rows[0].name, score=None, rank=None, kept=True))
            seen += 1
            continue
        name = ranker or rows[0].settings.clips[0]
        if name not in judges:
            judges.clear()
            judges[name] = Judge(name, device)
            if name in rows[0].settings.clips:
                yield f"ranked by {Path(name).name}, which the runs themselves optimised: --ranker names another CLIP"
        judge = judges[name]
        target = judge.target(rows[0].settings)
        scored = []
        for row in rows:
            try:
                scored.append((judge.score(load_image(manifest.runs / row.name / "final.png"), target), row))
            except InputError as error:
                yield f"{row.name} is not ranked: {error.what}"
            seen += 1
            on_picture(seen, len(done))
        for place, (score, row) in enumerate(sorted(scored, key=lambda pair: -pair[0]), 1):
            entry = manifest.update(row.name, score=round(score, 6), rank=place, kept=not keep or place <= keep)
            _publish(manifest, entry)
    manifest.save()


def _but_seed(entry: Entry) -> str:
    return entry.settings.model_copy(update={"seed": 0}).model_dump_json()
