"""Notebooks: the example runs from its first cell to its last; results show themselves; an interrupt costs nothing."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / "vqclip.ipynb"
MOST = 2_000_000  # bytes, with its outputs


def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cell, kind):
    return [out["data"][kind] for out in cell.outputs if kind in out.get("data", {})]


def test_the_notebook_is_kept_with_its_outputs_and_small():
    nbformat = pytest.importorskip("nbformat")
    kept = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(kept)
    assert NOTEBOOK.stat().st_size < MOST
    assert sum(bool(outputs(cell, "image/png")) for cell in cells(kept)) >= 5
    assert not [out for cell in cells(kept) for out in cell.outputs if out.output_type == "error"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where).execute()
    shown = [len(outputs(cell, "image/png")) for cell in cells(notebook)]
    assert sum(map(bool, shown)) >= 5
    assert max(shown) <= 2  # an image that grows is one, whatever the steps
    text = "".join(out.text for cell in cells(notebook) for out in cell.outputs if out.output_type == "stream")
    assert "interrupted" in text
    assert "done 20 steps" in text
