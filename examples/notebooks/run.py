"""Run the notebook beside this file from its first cell to its last, and keep it with its outputs.

python examples/notebooks/run.py
"""

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("vqclip.ipynb")


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave of what was printed what a terminal would show in the end: no bars that are gone, no times of cells.

    And of an image one form, with the name of what it is an image of.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            before = next((each for each in kept if each.get("name") == output.get("name")), None)
            if output.output_type == "stream" and before:
                before.text += output.text
            else:
                kept.append(output)
        for output in kept:
            if "image/png" in output.get("data", {}):
                name = re.match(r"<?[\w.]+", output.data["text/plain"])[0].lstrip("<")
                output.data = {"image/png": output.data["image/png"], "text/plain": name}
            if output.output_type == "stream":
                lines = [line.split("\r")[-1].rstrip() for line in output.text.replace("\r\n", "\n").split("\n")]
                output.text = "\n".join(lines)
        cell.outputs = [each for each in kept if each.output_type != "stream" or each.text.strip()]


def main() -> None:
    """Run it in an empty folder, and replace it."""
    notebook = nbformat.read(NOTEBOOK, 4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
    tidy(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
