"""Files of rows: every kind read to the same, every bad row named, all before anything is loaded."""

import contextlib
import json
import os
import resource
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import QUICK
from vqclip.batch.manifest import Manifest, check_template, row_key
from vqclip.batch.prompt_files import READERS, load_rows, read_rows, split_values
from vqclip.batch.rows import Row, cross_rows, expand_rows, make_rows
from vqclip.errors import InputError, UsageError
from vqclip.settings.schema import Settings

BASE = {"preset": "tiny"}
DATA = Path(__file__).parents[2] / "data" / "cases"
FILES = {
    "csv": "prompt,seed,size,cutouts\na red heart,7,64x32,3\n\nan owl,8,,\n",
    "jsonl": '{"prompt": "a red heart", "seed": 7, "size": [64, 32], "cutouts": 3}\n\n'
    '{"prompt": "an owl", "seed": 8}\n',
    "yaml": "- {prompt: a red heart, seed: 7, size: 64x32, cutouts: 3}\n\n- prompt: an owl\n  seed: 8\n",
    "toml": '[[rows]]\nprompt = "a red heart"\nseed = 7\nsize = "64x32"\ncutouts = 3\n'
    '[[rows]]\nprompt = "an owl"\nseed = 8\n',
}
LINES = {"csv": (2, 4), "jsonl": (1, 3), "yaml": (1, 3), "toml": (1, 6)}


def rows_of(kind, text, cross=None, limit=1000, seeds=1):
    file = read_rows("p", text.encode() if isinstance(text, str) else text, kind)
    return make_rows(expand_rows(cross_rows(file, cross or {}, limit), BASE, (), limit), BASE, seeds)


def prompts(kind, text, **more):
    rows, faults = rows_of(kind, text, **more)
    assert faults == []
    return [row.settings.prompt for row in rows]


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_says_the_same(kind):
    rows, faults = rows_of(kind, FILES[kind])
    assert faults == []
    heart, owl = (row.settings for row in rows)
    assert (heart.prompt, heart.seed, heart.size, heart.cutouts) == ("a red heart", 7, (64, 32), 3)
    assert (owl.prompt, owl.seed, owl.size) == ("an owl", 8, Settings.model_fields["size"].default)
    assert tuple(row.location for row in rows) == tuple(f"p:{line}" for line in LINES[kind])


@pytest.mark.parametrize(
    ("text", "cross", "expected"),
    [
        ("a {red|blue} heart\nan owl\n", {}, ["a red heart", "a blue heart", "an owl"]),
        ("a {c} {1..2}\n", {"c": ["x", "y"]}, ["a x 1", "a x 2", "a y 1", "a y 2"]),
        ("a {red|blue} heart:2 | b\n", {}, ["a red heart:2 | b", "a blue heart:2 | b"]),
    ],
)
def test_alternatives_make_rows(text, cross, expected):
    assert prompts("txt", text, cross=cross) == expected


def test_alternatives_are_not_seeds_of_one_prompt():
    rows, _ = rows_of("txt", "a {red|blue} heart\n", seeds=2)
    assert [row.source for row in rows] == [0, 0, 1, 1]
    assert {row.location for row in rows} == {"p:1"}


def test_braces_that_are_not_understood_are_named_with_their_line():
    _, faults = rows_of("txt", "an owl\na {colour} heart\na {x|y heart\n")
    assert [fault.split(": ")[0] for fault in faults] == ["p:2", "p:3"]
    assert "--cross" in faults[0]


def test_more_alternatives_than_the_limit_are_refused():
    with pytest.raises(UsageError):
        rows_of("txt", "{1..6}\n{1..6}\n", limit=10)
    _, faults = rows_of("txt", "{1..9}{1..9}{1..9}\n", limit=100)
    assert "100" in faults[0]


CASES = {  # files as people have them -> their prompts and seeds, and how many notes are given
    "capital-header.tsv": ([("a red heart", None), ("an owl, asleep", None)], 1),
    "excel-semicolons.csv": ([("a red heart", 1)], 0),
    "extra-column.csv": ([("an owl", None), ("a key", None)], 1),
    "hashtag.txt": ([("a key", None)], 1),
    "list.json": ([("a red heart", None), ("an owl", None)], 0),
    "prompts.yaml": ([("a red heart", None), ("an owl", None)], 0),
    "powershell-utf16.txt": ([("a red heart", None), ("an owl", None)], 0),
    "quoted-lines.txt": ([("A meal of fries", None), ("A hot dog, and a bun", None)], 0),
    "options-in-lines.txt": (None, 4),
    "sections.txt": (None, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_as_people_have_it_is_understood_or_noted(name):
    expected, notes = CASES[name]
    file = read_rows("p", (DATA / name).read_bytes(), name.rpartition(".")[2])
    rows, faults = make_rows(file.rows, BASE)
    assert faults == []
    if expected:
        assert [(row.settings.prompt, None if row.random_seed else row.settings.seed) for row in rows] == expected
    assert len({*file.notes, *(f"{row.location}: {note}" for row in rows for note in row.notes())}) == notes


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("csv", "sep=;\nprompt;seed\na red heart;7\n"),
        ("csv", "prompt,seed,,\na red heart,7,,\n"),
        ("csv", "\nprompt,seed\n\na red heart,7\n"),
        ("json", '{"prompt": "a red heart", "seed": 7}'),
        ("yaml", "prompt: a red heart\nseed: 7\n"),
        ("toml", 'prompt = "a red heart"\nseed = 7\n'),
    ],
)
def test_what_spreadsheets_and_people_leave_out_or_add_is_understood(kind, text):
    rows, faults = rows_of(kind, text)
    assert faults == []
    assert [(row.settings.prompt, row.settings.seed) for row in rows] == [("a red heart", 7)]


@pytest.mark.parametrize("line", ["- a red heart", "2. a red heart", "\u2022 a red heart", "Negative prompt: text",
                                  "Steps: 20, Sampler: Euler a, Seed: 5, Size: 512x512"])  # fmt: skip
def test_a_line_of_a_list_or_of_another_tool_is_noted(line):
    assert len(read_rows("p", line.encode(), "txt").notes) == 1


def test_typographic_quotes_around_a_line_are_taken_off():
    assert prompts("txt", "\u201ca red heart\u201d\n\u201ean owl\u201c\n") == ["a red heart", "an owl"]


@pytest.mark.full
@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("kind", "text"),
    [("txt", "ab\n" * 5_000_000), ("jsonl", '""\n' * 5_000_000), ("csv", "prompt\n" + "a\n" * 5_000_000),
     ("json", "[" + '"",' * 5_000_000 + '""]')],
    ids=["txt", "jsonl", "csv", "json"],
)  # fmt: skip
def test_rows_are_counted_before_much_is_made_of_them(kind, text):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="100,000"):
        read_rows("p", text.encode(), kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("kind", ["csv", "jsonl", "yaml"])
def test_a_name_that_is_no_setting_is_filled_into_prompts(kind):
    text = {"csv": "Prompt,style\n{style} owl,oil\n", "jsonl": '{"prompt": "{style} owl", "style": "oil"}',
            "yaml": "defaults: {style: oil}\nprompts: ['{style} owl']"}[kind]  # fmt: skip
    assert prompts(kind, text) == ["oil owl"]
    assert read_rows("p", text.encode(), kind).notes == []


def test_text_is_a_prompt_a_line():
    text = "\ufeffa red heart\r\n# a comment\n\n  an owl | night:0.5  \n\\#1 in a list\n"
    rows, _ = rows_of("txt", text)
    assert [(row.location, row.settings.prompt) for row in rows] == [
        ("p:1", "a red heart"), ("p:4", "an owl | night:0.5"), ("p:5", "#1 in a list")]  # fmt: skip


def test_a_csv_field_may_have_commas_and_lines():
    rows, _ = rows_of("csv", 'prompt,seed\n"a cat,\nasleep",1\nan owl,2\n')
    assert [(row.location, row.settings.prompt) for row in rows] == [("p:2", "a cat,\nasleep"), ("p:4", "an owl")]


def test_defaults_lie_under_a_files_rows():
    rows, _ = rows_of("yaml", "defaults: {steps: 5, seed: 1}\nrows:\n- an owl\n- {prompt: a cat, steps: 9}\n")
    assert [(row.settings.steps, row.location) for row in rows] == [(5, "p:3"), (9, "p:4")]


def test_a_rows_own_settings_win():
    rows, _ = make_rows(read_rows("p", b"prompt,steps\na,\nb,9\n", "csv").rows, BASE | {"steps": 5})
    assert [row.settings.steps for row in rows] == [5, 9]


def test_crosses_multiply_words_and_settings():
    text = "rows: ['a {colour} {thing}']\ncross: {colour: [red, blue], thing: 'heart, star', seed: 1-2}\n"
    rows, faults = rows_of("yaml", text)
    assert faults == []
    assert [(row.settings.prompt, row.settings.seed) for row in rows] == [
        (f"a {colour} {thing}", seed) for colour in ("red", "blue") for thing in ("heart", "star") for seed in (1, 2)
    ]


def test_seeds_follow_a_rows_own():
    rows, _ = rows_of("txt", "an owl\n", cross={"seed": [5]}, seeds=3)
    assert [row.settings.seed for row in rows] == [5, 6, 7]
    rows, _ = rows_of("txt", "an owl\na cat\n", seeds=[2, 9])
    assert [(row.source, row.settings.seed) for row in rows] == [(0, 2), (0, 9), (1, 2), (1, 9)]


def test_a_seed_of_minus_one_is_drawn():
    rows, faults = rows_of("csv", "prompt,seed\na,-1\n")
    assert faults == []
    assert rows[0].random_seed


def test_a_cross_beyond_the_limit_is_refused_before_it_is_made():
    with pytest.raises(UsageError, match="90,000") as caught:
        rows_of("txt", "{a} {b}\n", cross={"a": range(300), "b": range(300)})
    assert "--limit 90000" in caught.value.hint
    with pytest.raises(UsageError, match="1,000,000,000,000"):
        rows_of("txt", "{a} {b}\n", cross={"a": range(10**6), "b": range(10**6)}, limit=10**20)


@pytest.mark.parametrize(
    ("text", "values"),
    [("1-8", list(range(1, 9))), ("red, blue", ["red", "blue"]), ("3,5-6", ["3", 5, 6]), ([1, "x"], [1, "x"])],
)
def test_a_list_is_read_as_people_write_it(text, values):
    assert split_values(text) == values


BAD = {
    "unknown field": ("csv", "prompt,stps\na,1\nb,2\n", {2: "'steps'", 3: "'steps'"}),
    "range": ("jsonl", '"a"\n{"prompt": "b", "steps": 0}\n', {2: "steps"}),
    "no prompt": ("jsonl", '{"steps": 3}\n', {1: "prompt"}),
    "twice": ("jsonl", '"a"\n{"prompt": "b", "prompt": "c"}\n', {2: "twice"}),
    "json": ("jsonl", '"a"\n{"prompt": \n', {2: "JSON"}),
    "kind": ("yaml", "- a\n- 3\n", {2: "neither"}),
    "fields": ("csv", "prompt\na,b\n", {2: "2 fields"}),
    "model": ("csv", "prompt,vqgan\na,standrd\n", {2: "standrd"}),
    "image": ("csv", "prompt,init_image\na,/no/such.png\nb,/no/such.png\n", {2: "/no/such.png", 3: "/no/such.png"}),
    "word": ("txt", "a {thing}\na {ting}\n", {2: "{ting}"}),
    "size": ("csv", "prompt,size\na,big\n", {2: "'big'"}),
    "preset": ("csv", "prompt,preset\na,tinny\n", {2: "'tinny'"}),
    "number for a prompt": ("jsonl", '{"prompt": 3}\n', {1: "text"}),
    "seed": ("csv", "prompt,seed\na,-2\n", {2: "seed"}),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_row_is_named_with_its_line(name):
    kind, text, expected = BAD[name]
    _, faults = rows_of(kind, text, cross={"thing": ["x"]} if "{" in text and kind == "txt" else None)
    assert len(faults) == len(expected)
    for fault, (line, word) in zip(faults, expected.items(), strict=True):
        assert fault.startswith(f"p:{line}: ")
        assert word in fault


BROKEN = {
    "encoding": ("txt", b"a\n\xff\xfe\n", "p:2", "UTF-8"),
    "empty": ("txt", b"# nothing\n\n", "p", "no rows"),
    "empty yaml": ("yaml", b"", "p", "no rows"),
    "yaml": ("yaml", b"- a\n- {b: [\n", "p:3", "expected"),
    "aliases": ("yaml", b"- &a x\n- *a\n", "p:2", "aliases"),
    "a name twice in yaml": ("yaml", b"- a\n- prompt: b\n  prompt: c\n", "p:3", "'prompt'"),
    "a yaml tag of another kind": ("yaml", b"- !!map [a]\n", "p:1", "tag"),
    "a quote that stays open": ("csv", b'prompt\na\n"b\n\n', "p:3", "end of data"),
    "toml": ("toml", b"a = 1\nrows = ?\n", "p:2", "Invalid value"),
    "no rows": ("toml", b"steps = 3\n", "p", "'rows'"),
    "header": ("csv", b"a,b\nc,d\n", "p:1", "'prompt'"),
    "a column twice": ("csv", b"prompt,seed,seed\na,1,2\n", "p:1", "same name"),
    "kind": ("docx", b"a\n", "p", "'docx'"),
    "table": ("yaml", b"rows: [a]\nextra: 1\n", "p", "'extra'"),
    "defaults": ("yaml", b"rows: [a]\ndefaults: [1]\n", "p", "'defaults'"),
    "a cross that grows": ("yaml", b"rows: [a]\ncross: {seed: '" + b"1-90000," * 100 + b"'}\n", "p", "9,000,000"),
    "a cross without end": ("yaml", b"rows: [a]\ncross: {seed: 1-99999999999}\n", "p", "100,000"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_the_line(name):
    kind, data, location, word = BROKEN[name]
    with pytest.raises(InputError) as caught:
        read_rows("p", data, kind)
    assert caught.value.what.split()[0].rstrip(":") == location
    assert word in caught.value.what
    assert "\n" not in caught.value.what


def test_a_pipe_may_be_a_file_of_prompts(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"a\n"))
    writer.start()
    assert load_rows(tmp_path / "pipe") == b"a\n"
    writer.join()


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
def test_no_bytes_make_a_traceback(kind, data):
    with contextlib.suppress(UsageError, InputError):
        rows_of(kind, data)


@pytest.mark.parametrize(
    "template",
    ["../{slug}", "/tmp/{slug}", "a/b", "a\\b", "{slug.__class__}", "{0}", "{nope}", "{slug!r}", "{index:999999999d}",
     "{index", "", ".{slug}", "-{slug}", "{slug:>99999}", "{slug:.0}", "a\nb", "c:{slug}", "~{slug}"],
)  # fmt: skip
def test_a_template_that_may_leave_the_folder_is_refused(template):
    with pytest.raises(UsageError) as caught:
        check_template(template)
    assert caught.value.exit_code == 2


def test_names_never_collide(tmp_path):
    rows = [Row("p", k, Settings(prompt=prompt)) for k, prompt in enumerate(["A b", "a B", "a-b", "a b", "a b"])]
    manifest = Manifest(tmp_path)
    names = [entry.name for entry in manifest.add(rows, "{slug}")]
    assert names == ["a-b", "a-b-2", "a-b-3", "a-b-4", "a-b-5"]
    assert [entry.name for entry in manifest.add([Row("p", 0, Settings(prompt="runs"))], "{slug}")] == ["runs-"]
    manifest.close()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "vqclip-batch/1", "rows": [{"name": "../x"}]}', '{"schema": 3}']
)
def test_a_damaged_manifest_is_an_input_error(tmp_path, text):
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises(InputError, match="can't be read"):
        Manifest(tmp_path)


def test_a_manifest_names_no_place_outside(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.add([Row("p", 0, Settings(prompt="a"))], "{slug}")
    manifest.save()
    manifest.close()
    manifest = json.loads((tmp_path / "batch.json").read_text())
    manifest["rows"][0]["name"] = "../a"
    (tmp_path / "batch.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"\.\./a"):
        Manifest(tmp_path)


CODES = {
    "a missing file": (("none.txt",), 4),
    "an unknown field": (("bad.csv",), 4),
    "no rows": (("empty.txt",), 4),
    "a template that escapes": (("good.txt", "--template", "../{slug}"), 2),
    "too many rows": (("good.txt", "--limit", "1"), 2),
    "no such engine": (("good.txt", "--engine", "cloud"), 2),
    "no cluster": (("good.txt", "--engine", "ray", "--address", "127.0.0.1:1"), 2),
    "a batch size": (("good.txt", "--batch-size", "0"), 2),
    "seeds": (("good.txt", "--seeds", "x"), 2),
    "a device": (("good.txt", "--device", "foo"), 2),
    "keep": (("good.txt", "--keep", "worst"), 2),
    "a cross": (("good.txt", "--cross", "colour=red"), 2),
    "an unknown kind": (("good.txt", "--format", "doc"), 4),
}


BASES = {
    "init=sampel": ("init", 2),
    "steps=0": ("steps", 2),
    "clip_weights=1,2": ("clip-weights", 2),
    "vqgan=standrd": ("standrd", 5),
    "init_image=/no/such.png": ("/no/such.png", 4),
}


@pytest.mark.parametrize("given", BASES)
def test_what_is_wrong_for_all_rows_is_blamed_on_none(vq, tmp_path, given):
    (tmp_path / "here/good.txt").write_text("a red heart\nan owl\n")
    word, code = BASES[given]
    done = vq("batch", "good.txt", "-o", "out", "--set", given)
    assert (done.code, done.out, len(done.lines)) == (code, "", 2)
    assert word in done.lines[0]
    assert "good.txt" not in done.lines[0]


@pytest.mark.parametrize("names", [("learning_rate", "step_size"), ("step_size", "learning_rate")])
def test_a_rows_own_rate_counts_and_not_that_of_all(vq, tmp_path, names):
    (tmp_path / "here/one.csv").write_text(f"prompt,{names[0]}\na,0.25\n")
    done = vq("batch", "one.csv", "-o", "out", "--set", f"{names[1]}=0.5", *QUICK)
    (run,) = Path("out/runs").iterdir()
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (done.code, settings[names[0]], settings.get("learning_rate", 0.25)) == (0, 0.25, 0.25)


def test_what_only_a_rows_own_setting_makes_right_is_right(vq, tmp_path):
    (tmp_path / "here/one.csv").write_text("prompt,init\na,sample\nb,grey\n")
    done = vq("batch", "one.csv", "-o", "out", "--set", "steps=0")
    assert done.code == 4
    assert done.lines[0].startswith("error: one.csv:3: steps: 0")
    assert [line for line in done.lines if "one.csv:2" in line] == []


@pytest.mark.parametrize("name", CODES)
def test_bad_input_ends_before_anything_is_begun(vq, networks, tmp_path, name):
    (tmp_path / "here/good.txt").write_text("a red heart\nan owl\n")
    (tmp_path / "here/bad.csv").write_text("prompt,stps\na,1\n")
    (tmp_path / "here/empty.txt").write_text("# none\n")
    args, code = CODES[name]
    done = vq("batch", *args, "-o", "out")
    assert done.code == code, done.err
    assert done.out == ""
    assert len(done.lines) <= 3
    assert networks.loaded == []
    assert not (tmp_path / "here/out").exists()


KEYS = {  # of release 0.1.0: settings -> with a given seed, with a random one
    ("prompt", "a red heart"): ("725395661a356dcc", "1d30b186a38461e0"),
    ("init", "sample"): ("6355b21c57f3ee2c", "5559d07c39a0a8c5"),
}


def test_a_row_has_the_key_of_release_0_1_whatever_settings_are_added():
    class Later(Settings):
        added: int = 3

    plain = {"prompt": "a red heart", "seed": 7}
    drawn = {"prompt": "a", "seed": 3, "init": "sample", "steps": 0, "size": (64, 32), "clip_weights": (2,),
             "dalle": "tiny", "guidance": 4.0}  # fmt: skip
    for kind in (Settings, Later):
        for values, keys in zip((plain, drawn), KEYS.values(), strict=True):
            assert tuple(row_key(Row("p", 0, kind(**values), drawn), 1) for drawn in (False, True)) == keys
    changed = Later(**plain, added=4)
    assert row_key(Row("p", 0, changed), 1) != KEYS["prompt", "a red heart"][0]
