"""What is to be seen of a batch: tables, a contact sheet, a page."""

from collections.abc import Callable

from ..batch.manifest import Manifest
from ..files.images import is_whole
from ..video.captions import CaptionStyle
from .page import Shown, write_page
from .sheet import write_sheet
from .tables import rows_of, write_tables


def report(
    manifest: Manifest, *, pictures: bool = True, on_run: Callable[[int, int], None] = lambda done, total: None
) -> list[str]:
    """Write results.csv and .jsonl into a batch's folder, and, with `pictures`, sheet.png and index.html.

    on_run gets how many runs are on the page, of how many. Returns remarks. Raises OutputError.
    """
    folder, entries = manifest.folder, list(manifest.entries.values())
    write_tables(folder, rows_of(entries))
    if not pictures:
        return []
    kept = [(folder / f"{entry.name}.png", entry) for entry in entries if entry.status == "done" and entry.kept]
    cells = [(path, f"{entry.index} · {entry.settings.prompt}") for path, entry in kept if is_whole(path)]
    if cells:
        write_sheet(folder / "sheet.png", cells)
    shown = [Shown(manifest.runs / entry.name, vars(entry)) for entry in entries]
    write_page(folder / "index.html", shown, folder.name, on_run)
    style = CaptionStyle()
    missing = "".join(dict.fromkeys("".join(style.missing_characters(caption) for _, caption in cells)))
    return [f"the sheet's font has no letters {missing[:20]}; the page shows all"] if missing else []
