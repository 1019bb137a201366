"""What a batch shows of itself: tables, a contact sheet, a page."""

from collections.abc import Callable

from ..batch.manifest import Manifest
from ..files.images import is_whole
from ..video.captions import CaptionStyle
from .page import PageRun, write_page
from .sheet import write_sheet
from .tables import write_tables


def report(
    manifest: Manifest, *, images: bool = True, on_run: Callable[[int, int], None] = lambda done, total: None
) -> list[str]:
    """Write results.csv and .jsonl into a batch's folder, and, with `images`, sheet.png and index.html.

    on_run: called with the number of runs that are on the page, and of all. Returns messages. Raises OutputError.
    """
    folder, entries = manifest.path, list(manifest.entries.values())
    write_tables(folder, entries)
    if not images:
        return []
    kept = [(folder / f"{entry.name}.png", entry) for entry in entries if entry.status == "done" and entry.kept]
    cells = [(path, f"{entry.index} · {entry.settings.prompt}") for path, entry in kept if is_whole(path)]
    if cells:
        write_sheet(folder / "sheet.png", cells)
    write_page(folder / "index.html", [PageRun(manifest.runs / entry.name, entry) for entry in entries], folder, on_run)
    style = CaptionStyle()
    missing = "".join(dict.fromkeys("".join(style.missing_characters(caption) for _, caption in cells)))
    return [f"the sheet's font has no letters {missing[:20]}; the page shows all"] if missing else []
