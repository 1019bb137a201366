"""What is to be seen of a batch: tables, a contact sheet, a page."""

from ..manifest import Manifest
from .page import Shown, write_page
from .sheet import write_sheet
from .tables import rows_of, write_tables


def report(manifest: Manifest, *, pictures: bool = True) -> None:
    """Write results.csv and .jsonl into a batch's folder, and, with `pictures`, sheet.png and index.html.

    Raises OutputError.
    """
    folder, entries = manifest.folder, list(manifest.entries.values())
    write_tables(folder, rows_of(entries))
    if not pictures:
        return
    shown = [entry for entry in entries if entry.status == "done" and entry.kept]
    if shown:
        cells = [(folder / f"{entry.name}.png", f"{entry.index}  {entry.settings.prompt}") for entry in shown]
        write_sheet(folder / "sheet.png", cells)
    write_page(folder / "index.html", [Shown(manifest.runs / e.name, vars(e)) for e in entries], folder.name)
