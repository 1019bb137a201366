"""Files of rows: every kind read to the same, every bad row named, all before anything is loaded."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqclip.batch.manifest import Manifest, check_template
from vqclip.batch.prompt_files import READERS, listed, read_rows
from vqclip.batch.rows import Row, crossed, make_rows
from vqclip.errors import InputError, UsageError
from vqclip.settings.schema import Settings

BASE = {"preset": "tiny"}
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
    found = read_rows("p", text.encode() if isinstance(text, str) else text, kind)
    return make_rows(crossed(found, cross or {}, limit), BASE, seeds)


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
    assert tuple(row.place for row in rows) == tuple(f"p:{line}" for line in LINES[kind])


def test_text_is_a_prompt_a_line():
    text = "\ufeffa red heart\r\n# a comment\n\n  an owl | night:0.5  \n\\#1 in a list\n"
    rows, _ = rows_of("txt", text)
    assert [(row.place, row.settings.prompt) for row in rows] == [
        ("p:1", "a red heart"), ("p:4", "an owl | night:0.5"), ("p:5", "#1 in a list")]  # fmt: skip


def test_a_csv_field_may_have_commas_and_lines():
    rows, _ = rows_of("csv", 'prompt,seed\n"a cat,\nasleep",1\nan owl,2\n')
    assert [(row.place, row.settings.prompt) for row in rows] == [("p:2", "a cat,\nasleep"), ("p:4", "an owl")]


def test_defaults_lie_under_a_files_rows():
    rows, _ = rows_of("yaml", "defaults: {steps: 5, seed: 1}\nrows:\n- an owl\n- {prompt: a cat, steps: 9}\n")
    assert [(row.settings.steps, row.place) for row in rows] == [(5, "p:3"), (9, "p:4")]


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


def test_braces_are_text_where_nothing_is_crossed():
    assert prompts("txt", "a {colour} heart\n") == ["a {colour} heart"]


def test_seeds_follow_a_rows_own():
    rows, _ = rows_of("txt", "an owl\n", cross={"seed": [5]}, seeds=3)
    assert [row.settings.seed for row in rows] == [5, 6, 7]
    rows, _ = rows_of("txt", "an owl\na cat\n", seeds=[2, 9])
    assert [(row.source, row.settings.seed) for row in rows] == [(0, 2), (0, 9), (1, 2), (1, 9)]


def test_a_cross_beyond_the_limit_is_refused_before_it_is_made():
    with pytest.raises(UsageError, match="1,000,000,000,000 rows, more than 1,000") as caught:
        rows_of("txt", "{a} {b}\n", cross={"a": range(10**6), "b": range(10**6)})
    assert caught.value.hint == "if that is meant: --limit 1000000000000"


@pytest.mark.parametrize(
    ("text", "values"),
    [("1-8", list(range(1, 9))), ("red, blue", ["red", "blue"]), ("3,5-6", ["3", 5, 6]), ([1, "x"], [1, "x"])],
)
def test_a_list_is_read_as_people_write_it(text, values):
    assert listed(text) == values


BAD = {
    "unknown field": ("csv", "prompt,stps\na,1\nb,2\n", ["p:2: unknown setting 'stps': did you mean 'steps'?"] * 2),
    "range": ("jsonl", '"a"\n{"prompt": "b", "steps": 0}\n', ["p:2: steps: 0 is for --init sample only"]),
    "no prompt": ("jsonl", '{"steps": 3}\n', ["p:1: there is no prompt"]),
    "twice": ("jsonl", '"a"\n{"prompt": "b", "prompt": "c"}\n', ["p:2: it is no JSON: 'prompt' is given twice"]),
    "json": ("jsonl", '"a"\n{"prompt": \n', ["p:2: it is no JSON"]),
    "kind": ("yaml", "- a\n- 3\n", ["p:2: it is neither"]),
    "fields": ("csv", "prompt\na,b\n", ["p:2: it has 2 fields, the first line 1"]),
    "model": ("csv", "prompt,vqgan\na,standrd\n", ["p:2: there is no vqgan"]),
    "picture": ("csv", "prompt,init_image\na,/no/such.png\n", ["p:2: /no/such.png does not exist"]),
    "word": ("txt", "a {thing}\na {ting}\n", ["p:2: the cross has no word {ting}"]),
    "size": ("csv", "prompt,size\na,big\n", ["p:2: 'big' is not a size"]),
    "preset": ("csv", "prompt,preset\na,tinny\n", ["p:2: there is no preset named 'tinny'"]),
    "number for a prompt": ("jsonl", '{"prompt": 3}\n', ["p:1: prompt and preset are text"]),
    "seed": ("csv", "prompt,seed\na,-1\n", ["p:2: seed: "]),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_row_is_named_with_its_line(name):
    kind, text, told = BAD[name]
    _, faults = rows_of(kind, text, cross={"thing": ["x"]} if "{" in text and kind == "txt" else None)
    assert len(faults) == len(told)
    for number, (fault, start) in enumerate(zip(faults, told, strict=True)):
        assert fault.startswith(start.replace("p:2", f"p:{2 + number}") if len(told) > 1 else start)


BROKEN = {
    "encoding": ("txt", b"a\n\xff\xfe\n", "p:2: the text is not UTF-8"),
    "empty": ("txt", b"# nothing\n\n", "p has no rows"),
    "empty yaml": ("yaml", b"", "p has no rows"),
    "yaml": ("yaml", b"- a\n- {b: [\n", "p:3: it can't be read as yaml"),
    "aliases": ("yaml", b"- &a x\n- *a\n", "p:2: it can't be read as yaml: it has an alias"),
    "a name twice in yaml": (
        "yaml",
        b"- a\n- prompt: b\n  prompt: c\n",
        "p:3: it can't be read as yaml: 'prompt' is given",
    ),
    "a yaml tag of another kind": ("yaml", b"- !!map [a]\n", "p:1: it can't be read as yaml: expected a mapping"),
    "a quote that stays open": ("csv", b'prompt\na\n"b\n\n', "p:3: it can't be read as csv: unexpected end of data"),
    "semicolons": (
        "csv",
        b"prompt;seed\na;1\n",
        "p:1: it can't be read as csv: its first line has no column 'prompt'; co",
    ),
    "toml": ("toml", b"rows = [\n", "p:2: it can't be read as toml"),
    "no rows": ("toml", b"steps = 3\n", "p: it can't be read as toml: it is no list of rows"),
    "header": ("csv", b"a,b\nc,d\n", "p:1: it can't be read as csv: its first line has no column 'prompt'"),
    "kind": ("docx", b"a\n", "p: unknown kind of prompt file 'docx'"),
    "table": ("yaml", b"rows: [a]\nextra: 1\n", "p: it can't be read as yaml: unknown 'extra'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_in_one_line(name):
    kind, data, told = BROKEN[name]
    with pytest.raises(InputError) as caught:
        read_rows("p", data, kind)
    assert caught.value.what.startswith(told)
    assert "\n" not in caught.value.what


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
    told = json.loads((tmp_path / "batch.json").read_text())
    told["rows"][0]["name"] = "../a"
    (tmp_path / "batch.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="is no name of a run"):
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
    "init=sampel": ("error: init: input should be 'smooth', 'codes', 'grey' or 'sample' (given: 'sampel')", 2),
    "steps=0": ("error: steps: 0 is for --init sample only; give 1 or more", 2),
    "clip_weights=1,2": ("error: clip-weights: there are 2 for 1 CLIPs (given: ('1', '2'))", 2),
    "vqgan=standrd": ("error: there is no vqgan named 'standrd'", 5),
    "init_image=/no/such.png": ("error: /no/such.png does not exist", 4),
}


@pytest.mark.parametrize("given", BASES)
def test_what_is_wrong_for_all_rows_is_blamed_on_none(vq, tmp_path, given):
    (tmp_path / "here/good.txt").write_text("a red heart\nan owl\n")
    told, code = BASES[given]
    done = vq("batch", "good.txt", "-o", "out", "--set", given)
    assert (done.code, done.out, len(done.lines)) == (code, "", 2)
    assert done.lines[0].startswith(told)


def test_what_only_a_rows_own_setting_makes_right_is_right(vq, tmp_path):
    (tmp_path / "here/one.csv").write_text("prompt,init\na,sample\nb,grey\n")
    done = vq("batch", "one.csv", "-o", "out", "--set", "steps=0")
    assert done.lines[:2] == [
        "error: one.csv:3: steps: 0 is for --init sample only; give 1 or more",
        "error: one.csv: 1 of 2 rows are wrong",
    ]


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
