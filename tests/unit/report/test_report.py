"""What is to be seen of a batch: tables that read back, a sheet of all pictures, a page that runs nothing."""

import csv
import html
import json
import math
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.browser import MISSING, browser
from vqclip.batch.manifest import Entry
from vqclip.core.targets import embed_image_prompt
from vqclip.errors import InputError
from vqclip.report.page import MAX_FRAMES, PageRun, curve_points, find_runs, make_page, pick_frames
from vqclip.report.sheet import CELL, GAP, LARGE_CELL, make_sheet
from vqclip.runs.run_dir import read_losses
from vqclip.settings.schema import Settings

NASTY = """<img src=x onerror=alert(1)> "'</script><script>alert(2)</script> & [[ 7 * 7 ]]"""
SET = ("--steps", "4", "--size", "32x32", "--set", "cutouts=2", "--frames-every", "1", "--preset", "tiny")


@pytest.fixture
def made(vq, tmp_path):
    """Return the folder of a batch of two prompts with two seeds each."""
    (tmp_path / "p.txt").write_text(f"{NASTY}\nan owl, é\n", encoding="utf-8")
    done = vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--seeds", "3-4", "--keep", "best", *SET)
    assert done.code == 0, done.err
    return tmp_path / "out"


def test_the_tables_hold_a_line_for_every_row(made):
    with (made / "results.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (made / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in table] == [line["prompt"] for line in lines] == [NASTY] * 2 + ["an owl, é"] * 2
    assert [(line["seed"], line["status"], line["steps"], line["source"]) for line in lines] == [
        (3, "done", 4, 1), (4, "done", 4, 1), (3, "done", 4, 2), (4, "done", 4, 2)]  # fmt: skip


def test_the_best_of_each_prompt_is_kept_by_its_score(made):
    lines = [json.loads(line) for line in (made / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    for pair in (lines[:2], lines[2:]):
        best = max(pair, key=lambda line: line["score"])
        assert sorted(line["rank"] for line in pair) == [1, 2]
        assert best["rank"] == 1
        for line in pair:
            assert line["kept"] is (line is best)
            assert (made / f"{line['name']}.png").exists() is (line is best)


def test_a_page_may_be_of_several_runs(vq):
    runs = [str(Path(vq("generate", "a fox", "--seed", seed, *SET).out.strip()).parent) for seed in "34"]
    done = vq("page", *runs)
    assert (done.code, done.out) == (0, "index.html\n")
    assert all(Path("index.html").read_text().count(f"a-fox-{seed}") for seed in "34")


def test_the_sheet_has_every_kept_picture(made):
    with Image.open(made / "sheet.png") as sheet:
        assert sheet.width == 2 * (CELL + GAP) + GAP
        assert CELL + 2 * GAP < sheet.height < 1.5 * CELL  # one row, with its captions


@pytest.mark.full
@pytest.mark.parametrize(("sides", "cell"), [((8, 300), 300), ((600, 8), LARGE_CELL), ((512,) * 300, 8192 // 18 - GAP)])
def test_large_images_have_larger_cells(tmp_path, sides, cell):
    for side in set(sides):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    sheet = make_sheet([(tmp_path / f"{side}.png", "") for side in sides])
    assert sheet.width == math.ceil(math.sqrt(len(sides))) * (cell + GAP) + GAP


def test_a_sheet_keeps_the_aspect_and_the_order(tmp_path):
    for k, (size, colour) in enumerate([((64, 32), "red"), ((32, 64), "blue"), ((32, 32), "lime")]):
        Image.new("RGB", size, colour).save(tmp_path / f"{k}.png")
    sheet = make_sheet([(tmp_path / f"{k}.png", "") for k in range(3)])
    middles = [(GAP + CELL // 2 + k % 2 * (CELL + GAP), GAP + CELL // 2 + k // 2 * (CELL + GAP)) for k in range(4)]
    assert [sheet.getpixel(place) for place in middles] == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]
    left, top = GAP + CELL // 2, GAP
    assert sheet.getpixel((left, top + 10)) == (255, 255, 255)  # a wide picture has white above
    assert sheet.getpixel((left, top + CELL // 4 + 2)) == (255, 0, 0)


def test_the_command_makes_the_same_picture_again(vq, made, tmp_path, monkeypatch):
    run = sorted((made / "runs").iterdir())[0]
    monkeypatch.chdir(made)  # the command is to be typed where the page was made
    page, page_of_run = (make_page(find_runs(folder), folder) for folder in (made, Path("runs", run.name)))
    commands = [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page)]
    assert len(commands) == 4
    assert f"<pre>{html.escape(commands[0])}</pre>" in page_of_run
    done = vq(*shlex.split(commands[0])[1:], "-o", tmp_path / "again.png")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "again.png") as again, Image.open(run / "final.png") as first:
        assert again.tobytes() == first.tobytes()


def test_a_curve_falls_from_the_top_to_the_bottom():
    assert curve_points([3.0, 2.0, 1.0], 100, 40) == "0.0,0.0 50.0,20.0 100.0,40.0"
    assert curve_points([1.0]) == ""
    assert len(curve_points([float(k) for k in range(5000)]).split()) == 120


def test_a_page_of_one_run_lies_in_its_folder(vq, made):
    run = sorted((made / "runs").iterdir())[0]
    assert vq("page", run).out == f"{run / 'index.html'}\n"
    assert len(find_runs(made / "runs")) == len(find_runs(made)) == 4


def test_a_folder_without_runs_has_no_page(vq, tmp_path):
    with pytest.raises(InputError):
        find_runs(tmp_path)
    assert vq("page", tmp_path).code == 4


@pytest.mark.full
@pytest.mark.skipif(bool(MISSING), reason=MISSING or "all there")
def test_the_page_works_in_a_browser_and_asks_nobody(made):
    with browser() as page:
        page.open(made / "index.html")
        assert page.run("return document.querySelectorAll('article').length") == 4
        assert page.run("return [...document.querySelectorAll('h2')].map(h => h.textContent)")[0] == NASTY
        assert page.run("return document.querySelectorAll('script, img[src=x]').length") == 1
        loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert page.run(loaded)
        scrub = (
            "const s = document.querySelector('[type=range]'), i = document.querySelector('img'), a = i.src;"
            "const v = s.value; s.value = arguments[0]; s.dispatchEvent(new Event('input'));"
            "return [s.offsetWidth > 0, v, s.max, i.src === a, document.querySelector('output').textContent]"
        )
        assert page.run(scrub, 0) == [True, "5", "5", False, "step 0"]
        assert page.run(scrub, 5) == [True, "0", "5", False, "result"]
        order = (
            "const s = document.getElementById('sort'); s.value = arguments[0]; s.dispatchEvent(new Event('change'));"
            "return [...document.querySelectorAll('article')].map(a => a.dataset[arguments[0]])"
        )
        distances = page.run(order, "distance")
        assert distances == sorted(distances, key=float)
        scores = page.run(order, "score")
        assert scores == sorted(scores, key=float, reverse=True)
        assert page.run(order, "number") == ["1", "2", "3", "4"]
        seen = (
            "const [name, to] = arguments, i = document.getElementById(name);"
            "if (i.type === 'checkbox') i.click(); else { i.value = to; i.dispatchEvent(new Event('input')); }"
            "return [[...document.querySelectorAll('article')].filter(a => a.offsetWidth).length,"
            "        document.getElementById('count').textContent]"
        )
        assert page.run(seen, "find", "OWL") == [2, "2 of 4 runs"]
        assert page.run(seen, "kept", "") == [1, "1 of 4 runs"]
        assert page.run(seen, "find", "") == [2, "2 of 4 runs"]
        page.click("article:not([hidden]) summary")
        page.click("details[open] button")
        copied = page.run("return [document.querySelector('details[open] button').textContent, String(getSelection())]")
        assert copied == ["Copied", page.run("return document.querySelector('details[open] pre').textContent")]
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        assert page.console() == []
        assert [url for url in page.requests() if not url.startswith(("file:", "data:"))] == []


def test_a_long_run_shows_some_of_its_frames(tmp_path):
    (tmp_path / "frames").mkdir()
    for k in range(40):
        (tmp_path / "frames" / f"{k:06d}.png").touch()
    names = [path.stem for path in pick_frames(tmp_path)]
    assert len(names) == MAX_FRAMES
    assert (names[0], names[-1]) == ("000000", "000039")


def test_a_page_replaces_pages_alone(vq, made, tmp_path):
    (tmp_path / "notes.html").write_text("mine")
    done = vq("page", made, "-o", tmp_path / "notes.html")
    assert (done.code, (tmp_path / "notes.html").read_text()) == (10, "mine")
    assert vq("page", made).code == 0  # where the batch's own lies


@pytest.mark.parametrize("name", ["results.csv", "index.html", "sheet.png"])
def test_a_folder_with_files_of_somebody_else_is_left_alone(vq, tmp_path, name):
    (tmp_path / "p.txt").write_text("a red heart\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    assert vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", *SET).code == 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_a_picture_of_somebody_else_is_no_rows_picture(vq, tmp_path):
    (tmp_path / "p.txt").write_text("a red heart\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/owl.png").write_bytes(b"mine")
    done = vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", "--template", "owl", *SET)
    assert done.code == 0, done.err
    assert (tmp_path / "out/owl.png").read_bytes() == b"mine"
    assert (tmp_path / "out/owl-2.png").read_bytes() == (tmp_path / "out/runs/owl-2/final.png").read_bytes()


def test_every_loss_has_its_curve(tmp_path):
    lines = [{"step": k, "prompt": 1 / k, "tv": 0.5, "changed": 0.1, "seconds": 1, "odd": 3} for k in (1, 2, 4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_losses(tmp_path) == {"prompt": [1.0, 0.5, 0.25], "tv": [0.5] * 3}
    page = make_page([PageRun(tmp_path)], tmp_path)
    assert page.count("<polyline") == 2
    assert ">prompt 1</span>" in page
    assert ">tv 0.5</span>" in page


def test_the_number_of_a_frame_is_no_loss_of_that_name(tmp_path):
    lines = ({"frame": k, "prompt": 1.0} for k in (1, 2))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_losses(tmp_path) == {"prompt": [1.0, 1.0]}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "prompt": 1.0, "frame": 0.5}\n')
    assert read_losses(tmp_path) == {"prompt": [1.0], "frame": [0.5]}


@pytest.mark.parametrize(
    ("record", "shown"),
    [({"schema": "vqclip-run/1"}, "step 2 of 9"),
     ({"schema": "vqclip-motion/1", "motion": {"kind": "story", "frames": 60}}, "frame 2 of 60"),
     ({"schema": "vqclip-motion/1", "motion": {"kind": "restyle", "footage": {"frames": 48}}}, "frame 2 of 48"),
     ({"schema": "vqclip-motion/1", "motion": [3]}, "")],
)  # fmt: skip
def test_a_page_says_how_far_a_run_is(tmp_path, record, shown):
    settings = {"prompt": "a", "steps": 9, "seed": 1}
    (tmp_path / "run.json").write_text(json.dumps(record | {"settings": settings, "status": "running"}))
    (tmp_path / "metrics.jsonl").write_text('{"prompt": 1}\n{"prompt": 1}\n')
    page = make_page([PageRun(tmp_path)], tmp_path)
    assert re.findall(r"<p>(.* of .*)</p>", page) == [shown] * bool(shown)
    assert f"{shown.split(' ')[0] or 'frame'}s 1 to 2" in page


def test_half_a_line_of_metrics_costs_the_curve_nothing(made):
    run = sorted((made / "runs").iterdir())[0]
    whole = make_page([PageRun(run)], run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'{{"prompt": NaN}}\n{{"prompt": 1{"0" * 400}}}\n3\n{{"step": 5, "prom')
    assert "<polyline" in whole
    assert make_page([PageRun(run)], run) == whole


@pytest.mark.full
@pytest.mark.parametrize(
    "change", [{"score": "high"}, {"index": "<b>"}, {"kept": 3}, {"status": "fine"}, {"error": None}, {"nope": 1}]
)
def test_a_manifest_of_odd_contents_is_an_input_error(vq, made, change):
    manifest = json.loads((made / "batch.json").read_text(encoding="utf-8"))
    manifest["rows"][0] |= change
    (made / "batch.json").write_text(json.dumps(manifest))
    assert vq("page", made).code == 4


def test_a_prompt_can_not_turn_its_direction():
    turned = Settings(prompt="an owl \u202e ;mr-\na \\ 'cat'", seed=1)
    entry = Entry(name="none", index=1, source=0, location="p:1", key="k", settings=turned)
    page = make_page([PageRun(Path("none"), entry)], Path("none"))
    assert "an owl" in page
    assert "\u202e" not in page


@pytest.mark.parametrize("name", ["-n 3", "a\n\x1b[31m'b"])
def test_a_folders_name_is_no_part_of_the_command(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "run.json").write_text(json.dumps({"schema": "vqclip-run/1", "settings": {"prompt": "a"}}))
    page = make_page([PageRun(tmp_path / name)], tmp_path / name)
    command = html.unescape(re.search(r"<pre>(.*?)</pre>", page)[1])
    assert command.isprintable()
    heard = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    words = heard.decode().split("\0")[:-1]
    assert words[:2] == ["vqclip", "rerun"]
    assert Path(words[2]).samefile(tmp_path / name)
    assert not words[2].startswith("-")


def test_of_many_runs_a_page_shows_fewer_frames(made, monkeypatch):
    runs, calls = find_runs(made), []
    monkeypatch.setattr("vqclip.report.page.MAX_PAGE_FRAMES", 8)
    page = make_page(runs, made, lambda *at: calls.append(at))
    assert page.count("data:image/webp") == 4 * (1 + 2)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr("vqclip.report.page.MAX_PAGE_FRAMES", 7)
    assert make_page(runs, made).count("data:image/webp") == 4


def test_a_caption_stands_below_its_image_in_letters_of_one_size(tmp_path):
    for name, size in (("wide", (64, 16)), ("square", (32, 32))):
        Image.new("RGB", size, "lime").save(tmp_path / f"{name}.png")
    sheet = make_sheet([(tmp_path / "wide.png", "owl"), (tmp_path / "square.png", "owl")])
    lefts = [GAP + k * (CELL + GAP) for k in range(2)]
    assert sheet.getpixel((lefts[1] + 2, GAP + CELL - 1)) == (0, 255, 0)  # down to the image's last row
    captions = [sheet.crop((left, GAP + CELL, left + CELL, sheet.height)) for left in lefts]
    assert captions[0].convert("L").getextrema()[0] < 100  # dark letters
    assert captions[0].tobytes() == captions[1].tobytes()


def test_a_sheet_says_where_its_font_has_no_letters(vq, tmp_path):
    (tmp_path / "p.txt").write_text("\u4e00\n", encoding="utf-8")
    done = vq("batch", tmp_path / "p.txt", "-o", tmp_path / "out", *SET)
    assert "the sheet's font has no letters \u4e00; the page shows all" in done.lines


def test_a_page_of_nothing_says_that_there_is_nothing(vq):
    assert "nope does not exist" in vq("page", "nope").err


@pytest.mark.full
def test_rank_and_page_say_how_far_they_are(vq, made, networks, monkeypatch):
    pictures = sorted(made.glob("runs/*/final.png"))
    assert "image 4 of 4" not in vq("rank", *pictures, "--prompt", "an owl").lines  # it took a moment
    for name in ("MOMENT_S", "PLAIN_EVERY_S"):
        monkeypatch.setattr(f"vqclip.cli.progress.{name}", -1.0)
    assert "image 4 of 4" in vq("rank", *pictures, "--prompt", "an owl").lines
    assert "run 4 of 4" in vq("page", made).lines
    assert vq("page", made, "-q").err == ""


def test_a_page_shows_nothing_that_links_lead_to_out_of_a_run(made, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "private.png")
    run = next((made / "runs").iterdir())
    whole = make_page([PageRun(run)], made).count("data:image")
    for name in ("frames/000002.png", "final.png"):
        (run / name).unlink()
        (run / name).symlink_to(tmp_path / "private.png")
    assert make_page([PageRun(run)], made).count("data:image") == whole - 2
    (run / "frames").rename(tmp_path / "frames")
    (run / "frames").symlink_to(tmp_path / "frames")
    assert "data:image" not in make_page([PageRun(run)], made)


@pytest.fixture
def pictures():
    """Return two images and, between them, what is none."""
    for name, colour in (("a", "red"), ("c", "blue")):
        Image.new("RGB", (32, 32), colour).save(f"{name}.png")
    Path("b.png").write_bytes(b"none")
    return ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(("command", "made"), [("rank", ["a.png", "c.png"]), ("reconstruct", ["a-r", "c-r"])])
def test_a_broken_file_in_a_list_can_be_left_out(vq, pictures, command, made):
    words = ("--prompt", "a") if command == "rank" else ("-o", "to")
    refused = vq(command, *pictures, *words)
    assert (refused.code, refused.out) == (4, "")
    assert "b.png" in refused.err
    done = vq(command, *pictures, *words, "--skip-bad")
    assert done.code == 0, done.err
    assert "b.png" in done.err
    assert sorted(done.out.split()) == made if command == "rank" else len(done.out.split()) == 2
    assert vq(command, "b.png", *words, "--skip-bad").code == 4


def test_a_clip_that_only_a_picture_names_is_asked_for(vq, tmp_path):
    info = PngInfo()
    info.add_itxt("vqclip", json.dumps({"settings": {"clips": [str(tmp_path)]}}))
    Image.new("RGB", (32, 32)).save("a.png", pnginfo=info)
    refused = vq("rank", "a.png", "--prompt", "a")
    assert (refused.code, "--ranker" in refused.err) == (4, True)
    assert vq("rank", "a.png", "--prompt", "a", "--ranker", "tiny").code == 0


@pytest.mark.full
def test_a_clip_that_gives_no_numbers_is_named_and_leaves_no_nan(vq, made, pictures, monkeypatch):
    monkeypatch.setattr("vqclip.runs.rank.embed_image_prompt", lambda *given: embed_image_prompt(*given) * math.nan)
    assert vq("rank", "a.png", "c.png", "--prompt", "a", "--json").code == 5
    (made.parent / "p.txt").write_text("a\n")
    done = vq("batch", made.parent / "p.txt", "-o", made, "--seeds", "5-6", "--keep", "best", *SET)
    assert done.code == 5
    for name in ("results.jsonl", "batch.json"):
        assert "NaN" not in (made / name).read_text()
