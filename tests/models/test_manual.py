"""The README and the guides: every command line runs, every link leads somewhere, the reference is the code's."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.clips import make_clip

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES]
REFERENCE = ROOT / "examples" / "guides" / "commands.md"
LINKED = [*PAGES, *sorted((ROOT / "examples").glob("**/README.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```sh\n(.*?)```", re.DOTALL)
CELL = re.compile(r"^\| `(vqclip [^`]+)` \|", re.MULTILINE)  # a command alone in a table's first column
QUICK = {"STEPS": "2", "CANDIDATES": "1", "CUTOUTS": "2", "TRIES": "1"}


def commands(page):
    """Return the command lines of a page that are to run, in order."""
    text = page.read_text()
    lines = [(found.start(), line) for found in BLOCK.finditer(text) if not found[1] for line in found[2].splitlines()]
    lines += [(found.start(), found[1]) for found in CELL.finditer(text)]
    return [line for _, line in sorted(lines, key=lambda each: each[0]) if line.strip()]


def furnish(folder):
    """Put into a folder what the pages' commands read."""
    (folder / "prompts.txt").write_text("a red heart\na tree\n")
    (folder / "crossed.yaml").write_bytes((ROOT / "examples" / "crossed.yaml").read_bytes().replace(b"60", b"2"))
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "photos").mkdir()
    (folder / "wildcards").mkdir()
    (folder / "wildcards" / "colours.txt").write_text("red\norange\n")
    (folder / "styles.toml").write_text('[flat]\nprefix = "a"\nsuffix = ", on a white background"\nadd = "text:-0.3"\n')
    for name in ("photo.jpg", "apple.png", "mask.png", "photos/one.png", "photos/two.jpg"):
        Image.new("RGB", (96, 96), "red").save(folder / name)
    make_clip(folder / "clip.mp4", 8)


@pytest.mark.as_shipped
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_every_command_line_runs(page, run_here, monkeypatch):
    furnish(Path.cwd())
    for name, value in QUICK.items():
        monkeypatch.setenv(f"VQCLIP_{name}", value)
    for line in commands(page):
        name, *arguments = shlex.split(line, comments=True)
        if name == "python":
            subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL)
            continue
        assert name == "vqclip", f"{line!r}: mark its block with <!-- not run: REASON -->"
        done = run_here(*arguments)
        assert done.code == 0, f"{line}\n{done.err}"


def target(page, link):
    """Return the file and the heading that a link of a page leads to."""
    path, _, heading = link.partition("#")
    return (page.parent / path).resolve() if path else page, heading


def headings(page):
    """Return the anchors of a page's headings, as they are made on GitHub."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    beyond = {"vqclip", "CHANGELOG.md", "CITATION.cff"}  # not beside an installed package
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, heading = target(page, link)
        inside = path.relative_to(ROOT)
        there = path.exists() or (inside.parts[0] in beyond and not (ROOT / "vqclip").exists())
        assert there, f"{page.name}: {link}"
        assert not heading or heading in headings(path), f"{page.name}: {link}"


def test_the_reference_is_the_codes(tmp_path):
    made = tmp_path / "commands.md"
    command = [sys.executable, "-m", "typer", "--app", "app", "vqclip.cli", "utils", "docs", "--name", "vqclip"]
    subprocess.run([*command, "--title", "Commands", "--output", made], check=True, stdout=subprocess.DEVNULL)
    assert made.read_text() == REFERENCE.read_text(), "write it anew: see CONTRIBUTING.md"
