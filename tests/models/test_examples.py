"""The examples run."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vqclip.batch.prompt_files import read_rows
from vqclip.batch.rows import cross_rows, make_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)], capture_output=True, text=True, check=True
    )


def test_the_steps_example_saves_a_picture(tmp_path):
    run("steps.py", "a red heart", tmp_path / "heart.png", "--steps", 3)
    with Image.open(tmp_path / "heart.png") as picture:
        assert picture.size == (512, 512)


def test_the_sheet_example_draws_every_prompt(tmp_path):
    (tmp_path / "prompts.txt").write_text("# two\na red heart\n\na tree\n")
    kept = tmp_path / "kept"
    run("sheet.py", tmp_path / "prompts.txt", tmp_path / "sheet.png", "--columns", 2, "--steps", 2, "--keep", kept)
    assert sorted(path.name for path in kept.iterdir()) == ["00.png", "01.png"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * 136


def test_images_are_named_blindly_and_counted(tmp_path):
    prompts, sheets = ["a red heart", "a tree", "a blue cup"], tmp_path / "sheets"
    images = [tmp_path / f"{k}.png" for k in range(3)]
    for path, prompt in zip(images, prompts, strict=True):
        info = PngInfo()
        info.add_itxt("vqclip", json.dumps({"settings": {"prompt": prompt}}))
        Image.new("RGB", (32, 32), "red").save(path, pnginfo=info)
    run("blind.py", "sheets", sheets, *images)
    with Image.open(sheets / "sheet-01.png") as sheet:
        assert sheet.width > 4 * 384 > sheet.height
    key = {row["number"]: row["prompt"] for row in csv.DictReader((sheets / "key.csv").read_text().splitlines())}
    names = {"a red heart": "red heart", "a tree": "", "a blue cup": "mug"}
    form = "".join(f"{number},{names[prompt]},yes\n" for number, prompt in key.items())
    (sheets / "form.csv").write_text("number,name,confident\n" + form)
    run("blind.py", "table", sheets)
    marks = (sheets / "marks.csv").read_text()
    right = {row["prompt"]: row["right"] for row in csv.DictReader((sheets / "marks.csv").read_text().splitlines())}
    assert right == {"a red heart": "yes", "a tree": "no", "a blue cup": ""}
    (sheets / "marks.csv").write_text(marks.replace("mug,yes,", "mug,yes,no"))
    assert "named 1 of 3, with confidence 1" in run("blind.py", "table", sheets).stdout


def test_the_crossed_example_is_read_to_the_end():
    found = read_rows("crossed.yaml", (EXAMPLES / "crossed.yaml").read_bytes(), "yaml")
    rows, faults = make_rows(cross_rows(found, {}, 100), {})
    assert faults == []
    assert len(rows) == 12
    assert rows[6].settings.prompt == "a red heart on a white background"
