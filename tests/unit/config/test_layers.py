"""Where settings come from: which layer wins, what its origin is called, and every file that is no settings file."""

import json
import re
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import QUICK
from tests.support.values import limits, others
from vqclip.config.layers import FOLDER_FILE, MAX_CONFIG, gather, read_config, write_config
from vqclip.errors import InputError, ModelError, UsageError
from vqclip.settings.augmentations import AUGMENTS
from vqclip.settings.prompts import parse_prompts
from vqclip.settings.schema import Settings, facts, fields_with, make_settings
from vqclip.text import as_text

FIELDS = sorted(Settings.model_fields)
# one of each type: values are read by their types
TYPES = ("prompt", "seed", "size", "steps", "image_prompts", "vqgan", "clips", "clip_weights", "clip_mix", "init_image",
         "tv", "augments", "palette", "noise_prompts", "regions")  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def layered(flags=None, *, config=None, preset=None, environ=None, prompt="-"):
    """Gather in the current folder."""
    return gather(flags or {}, config=config, preset_name=preset, environ=environ or {}, folder=Path(), prompt=prompt)


def wrote(values, name="given.toml"):
    """Write values as a TOML file, by hand; return its path."""
    path = Path(name)
    lines = (f"{key} = {json.dumps(value, default=str)}\n" for key, value in values.items())
    path.write_text("".join(lines), encoding="utf-8")
    return path


def refused(content, name="given.toml"):
    """Return what is said of a file that is no settings file."""
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert "\n" not in caught.value.what
    assert caught.value.hint
    return caught.value.what


# layers


def test_one_of_each_type_is_tried():
    alone = [name for name in FIELDS if name != "image_prompt_weights"]  # which need image prompts
    kinds, tried = ({str(Settings.model_fields[name].annotation) for name in names} for names in (alone, TYPES))
    assert {kind for kind in kinds - tried if "Literal" not in kind} == set()


@pytest.mark.parametrize("field", TYPES)
@pytest.mark.parametrize("source", ["given.toml", "given.JSON", "environment", FOLDER_FILE])
def test_a_setting_is_read_from_each_source_in_each_spelling(field, source):
    for value in others(field):
        text = as_text(field, value)
        for written in [text] if source == "environment" else [value, text] if value else [value]:
            if source == "given.JSON":
                Path(source).write_text(json.dumps({field: written}, default=str))
            elif source != "environment":
                wrote({field: written}, source)
            settings, origins = layered(
                config=Path(source) if source.startswith("given") else None,
                environ={f"VQCLIP_{field.upper()}": text} if source == "environment" and text else {},
            )
            if text or source != "environment":
                assert (getattr(settings, field), origins[field]) == (value, source)


def test_weights_stay_with_the_clips_they_were_given_with():
    wrote({"clips": ["/a", "/b"], "clip_weights": [1, 0.5]}, FOLDER_FILE)
    assert layered()[0].clip_weights == (1.0, 0.5)
    assert layered({"clips": ("/c",)})[0].clip_weights == ()
    assert layered({"clips": ("/c",), "clip_weights": (2.0,)})[0].clip_weights == (2.0,)
    assert layered({"clip_weights": ("3", "4")})[0].clip_weights == (3.0, 4.0)


def test_a_presets_weights_go_with_its_clips(monkeypatch):
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {"clips": ("/a", "/b"), "clip_weights": (1, 0.5)})
    assert layered(preset="tiny")[0].clip_weights == (1.0, 0.5)
    assert layered({"clips": ("/c",)}, preset="tiny")[0].clip_weights == ()


def test_weights_that_are_dropped_have_no_origin(monkeypatch):
    wrote({"clips": ["/a", "/b"], "clip_weights": [1, 0.5]}, FOLDER_FILE)
    assert layered()[1]["clip_weights"] == FOLDER_FILE
    assert layered({"clips": ("/c",)})[1]["clip_weights"] == "default"
    Path(FOLDER_FILE).unlink()
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {"clips": ("/a", "/b"), "clip_weights": (1, 0.5)})
    assert layered()[1]["clip_weights"] == "preset auto"
    assert layered({"clips": ("/c",)})[1]["clip_weights"] == "default"


def test_what_follows_from_the_start_says_so():
    settings, origins = layered({"init": "sample", "coarse": 0.25})
    assert settings.steps != Settings.model_fields["steps"].default
    assert [origins[name] for name in ("steps", "step_size", "init_weight")] == ["init sample"] * 3
    assert (settings.coarse, origins["coarse"]) == (0.25, "command line")
    Path("a.png").touch()
    assert layered({"init_image": "a.png"})[1]["coarse"] == "init-image"


ORDER = ["command line", "given.toml", "environment", FOLDER_FILE, "preset tiny", "default"]


@pytest.mark.parametrize("highest", range(5))
def test_of_all_layers_that_give_a_setting_the_highest_wins(monkeypatch, highest):
    monkeypatch.setattr("vqclip.config.resolve.preset", lambda name: {"steps": 14} if highest <= 4 else {})
    monkeypatch.setattr("vqclip.config.layers.preset", lambda name: {"steps": 14} if highest <= 4 else {})
    flags = {"steps": 10} if highest == 0 else {}
    config = wrote({"steps": 11}) if highest <= 1 else None
    environ = {"VQCLIP_STEPS": "12"} if highest <= 2 else {}
    if highest <= 3:
        wrote({"steps": 13}, FOLDER_FILE)
    settings, origins = layered(flags, config=config, environ=environ, preset="tiny")
    assert (settings.steps, origins["steps"]) == (10 + highest, ORDER[highest])


@pytest.mark.parametrize(("upper", "lower"), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
def test_the_layers_are_taken_field_by_field(upper, lower):
    """The upper layer gives steps, the lower one steps and tries: each field has its own winner."""
    flags, config, environ = {}, None, {}
    for layer, values in ((lower, {"steps": 20, "tries": 21}), (upper, {"steps": 10})):
        if layer == 0:
            flags = values
        elif layer == 1:
            config = wrote(values)
        elif layer == 2:
            environ = {f"VQCLIP_{key.upper()}": str(value) for key, value in values.items()}
        else:
            wrote(values, FOLDER_FILE)
    settings, origins = layered(flags, config=config, environ=environ)
    assert (settings.steps, settings.tries) == (10, 21)
    assert (origins["steps"], origins["tries"]) == (ORDER[upper], ORDER[lower])


def test_a_setting_that_nobody_gives_is_the_default():
    settings, origins = layered()
    assert (settings.steps, origins["steps"]) == (Settings.model_fields["steps"].default, "default")


def test_a_setting_of_the_preset_says_which():
    assert layered(preset="tiny")[1]["vqgan"] == "preset tiny"


def test_every_setting_has_an_origin():
    assert list(layered()[1]) == list(Settings.model_fields)


@pytest.mark.parametrize("given", [{"flags": {"seed": -1}}, {"environ": {"VQCLIP_SEED": "-1"}}])
def test_a_seed_of_minus_one_is_any(given):
    seeds = set()
    for _ in range(2):
        settings, origins = layered(**given)
        seeds.add(settings.seed)
    assert len(seeds) == 2
    assert origins["seed"] == "drawn"


def test_a_seed_that_nobody_gives_is_drawn_and_said_to_be():
    assert layered()[1]["seed"] == "drawn"
    assert len({layered()[0].seed for _ in range(5)}) > 1


@pytest.mark.parametrize("flag", [None, "tiny"])
def test_a_file_may_name_the_preset_and_a_flag_another(monkeypatch, flag):
    presets = {"tiny": {"steps": 5}, "other": {"steps": 6}}
    for module in ("resolve", "layers"):
        monkeypatch.setattr(f"vqclip.config.{module}.preset", presets.__getitem__)
    settings, origins = layered(config=wrote({"preset": "other"}), preset=flag)
    name = flag or "other"
    assert (settings.steps, origins["steps"]) == (presets[name]["steps"], f"preset {name}")


def test_the_environment_may_name_the_preset():
    with pytest.raises(ModelError, match=r"VQCLIP_PRESET: .*sparkle"):
        layered(environ={"VQCLIP_PRESET": "sparkle"})


@pytest.mark.parametrize("name", ["VQCLIP_DEBUG", "VQCLIP_MODELS", "vqclip_steps", "STEPS", "VQCLIP_"])
def test_a_variable_that_names_no_setting_is_none_of_ours(name):
    assert layered(environ={name: "x"})[1]["steps"] == "default"


def test_an_empty_variable_is_as_good_as_none():
    assert layered(environ={"VQCLIP_STEPS": "", "VQCLIP_PROMPT": ""})[0].prompt == "-"


@pytest.mark.parametrize(
    ("name", "text"), [("STEPS", "many"), ("SIZE", "8by8"), ("NOISE", "nan"), ("AUGMENTS", "sparkle"), ("SEED", "-2")]
)
def test_a_wrong_variable_is_named(name, text):
    with pytest.raises(UsageError, match=f"^VQCLIP_{name}: "):
        layered(environ={f"VQCLIP_{name}": text})


def test_a_wrong_value_in_a_layer_is_refused_even_where_another_wins():
    wrote({"steps": -1}, FOLDER_FILE)
    with pytest.raises(InputError, match=r"vqclip\.toml:1: steps"):
        layered({"steps": 5})


@pytest.mark.parametrize(
    ("name", "value", "text"), [("steps", 0, "0"), ("clip_weights", [1, 2], "1,2"), ("augments", ["flp"], "flp")]
)
def test_values_that_do_not_go_together_are_said_to_be_of_their_file_or_variable(name, value, text):
    with pytest.raises(InputError, match=f"^given.toml.*: {name.replace('_', '-')}: "):
        layered(config=wrote({name: value}))
    with pytest.raises(UsageError, match=f"^VQCLIP_{name.upper()}: {name.replace('_', '-')}: "):
        layered(environ={f"VQCLIP_{name.upper()}": text})


def test_no_steps_are_right_where_another_layer_draws_the_start():
    wrote({"steps": 0}, FOLDER_FILE)
    assert layered({"init": "sample"})[0].steps == 0


def test_a_prompt_of_the_folder_counts_where_none_is_given():
    wrote({"prompt": "a cat"}, FOLDER_FILE)
    assert layered(prompt="")[0].prompt == "a cat"


def test_no_prompt_anywhere_is_a_usage_error():
    with pytest.raises(UsageError, match="no prompt"):
        layered(prompt="")


def test_paths_of_a_file_become_absolute():
    settings, _ = layered(config=wrote({"init_image": "a.png", "image_prompts": ["b/../c.png"], "vqgan": "mine"}))
    here = Path.cwd()
    assert settings.init_image == str(here / "a.png")
    assert settings.image_prompts == (str(here / "c.png"),)
    assert settings.vqgan == str(here / "mine")


# what a file may look like


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", 'steps = 9{}prompt = "ä"'), ("a.json", '{{"steps": 9,{}"prompt": "ä"}}')]
)
def test_files_of_every_editor_are_read(name, text, mark, end):
    Path(name).write_bytes((mark + text.format(end) + end).encode())
    assert read_config(Path(name)) == {"steps": 9, "prompt": "ä"}


@pytest.mark.parametrize("name", ["a.toml", "a.txt", "settings", "a.TOML"])
def test_whatever_is_not_called_json_is_toml(name):
    assert read_config(wrote({"steps": 9}, name)) == {"steps": 9}


def test_an_empty_toml_file_gives_nothing():
    assert read_config(wrote({})) == {}


def test_dashes_in_names_are_taken_as_on_the_command_line():
    Path("a.toml").write_text("step-size = 0.5\n")
    assert read_config(Path("a.toml")) == {"step_size": 0.5}


def test_the_largest_file_is_read():
    Path("a.toml").write_text("steps = 9\n#" + "x" * (MAX_CONFIG - 11))
    assert read_config(Path("a.toml")) == {"steps": 9}


# what a file may not look like


@pytest.mark.parametrize(
    ("content", "line", "nearest"),
    [
        ("stepz = 3\n", 1, "steps"),
        ("\n# steps\n\nstepz = 3\n", 4, "steps"),
        ("steps = 3\r\nstepz = 4\r\n", 2, "steps"),
        ("\ufeffsteps = 3\nstepz = 4\n", 2, "steps"),
        ("  stepz=3", 1, "steps"),
        ('tv = 1\n"cut-outs" = 3\n', 2, "cutouts"),
        ("steps = 3\n\n[stepz]\nx = 1\n", 3, "steps"),
        ("steps = 3\n[[stepz]]\nx = 1\n", 2, "steps"),
        ("steps = 3\nstepz.x = 1\n", 2, "steps"),
        ('prompt = "a, stepz: b"\nstepz = 1\n', 2, "steps"),
    ],
)
def test_an_unknown_setting_is_named_with_its_line_and_the_nearest_spelling(content, line, nearest):
    what = refused(content)
    assert what.startswith(f"given.toml:{line}: unknown setting ")
    assert what.endswith(f"did you mean {nearest!r}?")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"stepz": 3}', 1),
        ('{"steps": 3, "stepz": 4}', 1),
        ('{\n  "steps": 3,\n  "stepz": 4\n}', 3),
        ('{"stepz"\n:1}', 2),
    ],
)
def test_an_unknown_setting_of_a_json_file_is_named_with_its_line(content, line):
    assert refused(content, "a.json").startswith(f"a.json:{line}: unknown setting 'stepz': did you mean 'steps'?")


def test_of_a_setting_unlike_any_other_nothing_is_guessed():
    assert refused("style = 1") == "given.toml:1: unknown setting 'style'"


def test_a_setting_of_another_tool_is_answered_with_ours():
    assert refused("lr = 1").endswith("did you mean 'learning_rate'?")


WRONG = {  # what is written for a value -> the word that must be in the answer
    "steps": ["-1", "100001", "1.5", '"many"', "true and", "[1]", "{ x = 1 }", "nan", "inf", "2020-01-01", "1e400"],
    "size": ['"8by8"', "[8]", "[8, 8, 8]", "[0, 8]", "8.5", "[8, 8193]", '["a", "b"]', "{ w = 1 }"],
    "noise": ["-0.1", "1.1", "nan", "inf", "[]", '"loud"'],
    "seed": ["-2", "9223372036854775808", "1.5", "nan"],
    "augments": ['["sparkle"]', "[1]", "1", "[[]]", '"flip, sparkle"'],
    "clips": ["[]", '""', "[1]", "5", "{ a = 1 }"],
    "prompt": ["5", "[]", '"a |"', '"a\\u0007"', '"a:0"', "true", "nan"],
    "init": ['"random"', "1", "[]"],
    "init_image": ["5", "[]", "false"],
    "image_prompts": ["5", "[5]", "{ a = 1 }"],
    "vqgan": ["5", "[]", "1979-05-27T07:32:00"],
    "preset": ['"sparkle"', "5", "[1]", "{ a = 1 }"],
}


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in WRONG.items() for text in texts])
def test_a_wrong_value_is_named_with_its_line(field, text):
    what = refused(f"# mine\n{field} = {text}\n")
    assert re.match(r"given\.toml(:2: |:2 can't be read)", what)


@pytest.mark.parametrize("field", TYPES)
@pytest.mark.parametrize("table", ["\n[{}]\nx = 1", "\n[[{}]]\nx = 1", "\n{}.x = 1", "\n{} = {{ x = 1 }}"])
def test_a_table_in_a_values_place_is_named_with_its_line(field, table):
    assert refused(table.format(field)).startswith("given.toml:2: ")


@pytest.mark.parametrize(
    "content",
    [
        b"steps = 3\nsteps = 4\n",
        b"steps",
        b"= 3",
        b"steps = ",
        b"[",
        b"[]",
        b'prompt = "a',
        b"\x00\x01\x02",
        'prompt = "é"'.encode("latin-1"),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"PK\x03\x04",
        b"<!DOCTYPE html><html>404</html>",
        b"steps = " + b"[" * 100_000,
        b"steps = " + b"[" * 3000 + b"]" * 3000,
        b"steps = " + b"{a=" * 3000 + b"1" + b"}" * 3000,
        b"x" + b".x" * 5000 + b" = 1",
        b"steps = 1" + b"0" * 5000,
        b"steps = 0x" + b"F" * 5000,
        b"noise = 1" + b"0" * 400,
        b'prompt = "\\ud800"',
        b"[steps]\n" * 2,
        b'__class__ = "x"',
        b"model_config = 1",
        b"#" * (MAX_CONFIG + 1),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_what_is_no_toml_of_settings_is_refused_in_one_short_line(content):
    assert len(refused(content)) < 600


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        '"steps"',
        "3",
        "NaN",
        "{",
        "{}}",
        '{"steps": }',
        '{"steps": NaN}',
        '{"noise": Infinity}',
        '{"noise": -Infinity}',
        '{"noise": NaN}',
        '{"noise": 1' + "0" * 400 + "}",
        '{"noise": 1e400}',
        '{"steps": 1' + "0" * 5000 + "}",
        '{"prompt": "\\ud800"}',
        '{"prompt": "\\u0000"}',
        '{"steps": ' + "[" * 100_000,
        '{"clips": ' + "[" * 900 + "]" * 900 + "}",
        '{"steps": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
        '{"steps": null}',
        '{"": 1}',
        '{"steps": "' + "9" * 100_000 + '"}',
    ],
    ids=lambda content: repr(content[:24]),
)
def test_what_is_no_json_of_settings_is_refused_in_one_short_line(content):
    assert len(refused(content, "a.json")) < 600


@pytest.mark.parametrize("field", ["init_image", "vqgan", "clips", "image_prompts"])
@pytest.mark.parametrize("name", ["a\\u0000b", "\\ud800"])
def test_a_path_that_no_file_could_have_is_refused(field, name):
    value = f'["{name}"]' if field in ("clips", "image_prompts") else f'"{name}"'
    Path("a.json").write_text(f'{{"{field}": {value}}}')
    with pytest.raises(InputError):
        layered(config=Path("a.json"))


@pytest.mark.parametrize("name", ["missing.toml", "a" * 300, "folder", "folder/a", "a.toml/b", "loop", "dangling"])
def test_a_file_that_is_none_is_named(name):
    Path("folder").mkdir()
    Path("a.toml").touch()
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nowhere")
    with pytest.raises(InputError) as caught:
        read_config(Path(name))
    assert name in caught.value.what


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    ["\n" * 900_000 + "steps = 9", "a." * 40_000 + "a = 1", "[" + "a." * 40_000 + "a]"],
    ids=["blank lines", "dotted keys", "a table of tables"],
)
def test_a_file_that_is_slow_to_read_is_not_read(content):
    assert refused(content).endswith(f"it is over {MAX_CONFIG:,} bytes")


@pytest.mark.timeout(20)
def test_the_line_of_a_fault_is_found_at_once_among_blank_ones():
    blank = MAX_CONFIG - 100
    assert refused("\n" * (blank // 2) + " \n" * (blank // 4) + "steps = -1\n").startswith(
        f"given.toml:{blank // 2 + blank // 4 + 1}: steps"
    )


# writing


def valid(field):
    """Return a strategy for all values that a field takes."""
    info = Settings.model_fields[field]
    strict = {key for limit in info.metadata for key in ("gt", "lt") if getattr(limit, key, None) is not None}
    words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
    colours = st.integers(0, 2**24 - 1).map(lambda number: f"#{number:06x}")
    special = {
        "prompt": st.text(max_size=40).filter(parses),
        "upscale": st.sampled_from([0, *range(2, 9)]),
        "size": st.tuples(*[st.integers(1, 999)] * 2),  # which any of these enlarges
        "steps": st.integers(1, limits("steps")[1]),  # 0 goes with a drawn start alone
        "clips": st.lists(words, min_size=1, max_size=3).map(tuple),
        "clip_weights": st.just(()),  # as many as there are CLIPs: see the example below
        "image_prompts": st.lists(words, max_size=3).map(tuple),
        "augments": st.lists(st.sampled_from(sorted(AUGMENTS))).map(tuple),
        "image_prompt_weights": st.just(()),  # as many as there are image prompts
        "noise_prompts": st.lists(st.integers(0, 2**59).map(str), max_size=3).map(tuple),
        "regions": st.lists(st.sampled_from(["a@left", "b:{t} | c@0,0,1,0.5", "d@/m.png"])).map(tuple),
        "tile": st.just("none"),  # goes without regions, and without much else
        "mask": st.none(),  # goes with an init image, and without a tile, alone
        "palette": st.lists(colours, max_size=3).map(tuple),
        "frame": st.just("") | colours,
    }
    if field in special:
        return special[field]
    if get_origin(info.annotation) is Literal:
        return st.sampled_from(get_args(info.annotation))
    if info.annotation is str:
        return words
    if facts(field).names == "file":
        return st.none() | words
    low, high = limits(field)
    if info.annotation is int:
        return st.integers(low, high - ("lt" in strict))
    return st.floats(low, high, exclude_min="gt" in strict, exclude_max="lt" in strict)


def parses(text):
    try:
        return bool(parse_prompts(text))
    except UsageError:
        return False


def counting(settings):
    """Return settings without a Mini DALL-E's where none draws: those are not written."""
    unused = () if settings.init == "sample" else fields_with("dalle")
    return settings.model_copy(update={name: DEFAULT[name] for name in unused})


DEFAULT = {name: field.default for name, field in Settings.model_fields.items()}
ANY = st.builds(make_settings, **{field: valid(field) for field in FIELDS}).map(counting)
ALONE = make_settings(prompt="", image_prompts=("/a.png",))


@pytest.mark.full
@given(ANY)
@example(ALONE)
@example(make_settings(prompt="x", clips=("a", "b"), clip_weights=(1, 0.25)))
@example(make_settings(prompt='"""\t\\u0041 \' # = [x]\r\n\x7f\x85\u2028\U0001f600', noise=5e-324, tv=1e-7))
def test_settings_that_were_written_are_read_the_same(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(write_config(settings), encoding="utf-8", newline="")
    assert make_settings(**{"prompt": "", **read_config(path)}) == settings


def test_no_steps_are_right_beside_a_start_that_is_drawn(tmp_path):
    settings = make_settings(prompt="a", init="sample", steps=0)
    (tmp_path / "c.toml").write_text(write_config(settings))
    assert make_settings(**read_config(tmp_path / "c.toml")) == settings
    layers = {"config": None, "preset_name": None, "folder": tmp_path, "prompt": "a"}
    assert gather({}, environ={"VQCLIP_STEPS": "0", "VQCLIP_INIT": "sample"}, **layers)[0].steps == 0


def test_what_is_written_is_one_line_a_setting():
    settings = make_settings(prompt="a\ncat", init="sample", init_image="/a.png", mask="/m.png")
    names = [name for name in Settings.model_fields if getattr(settings, name) is not None]
    assert [line.split(" = ")[0] for line in write_config(settings).splitlines()] == names


def test_what_is_written_is_toml():
    settings = make_settings(prompt="a cat", tv=0.5, palette=("red",))
    written = tomllib.loads(write_config(settings))
    assert written.items() >= settings.model_dump(mode="json", exclude_none=True).items()
    assert (written["upscale"], written["tile"], written["palette"]) == (0, "none", ["#ff0000"])


# on the command line


def saved(run):
    return json.loads(Path(run.out.strip()).with_name("run.json").read_text(encoding="utf-8"))["settings"]


@pytest.mark.parametrize("words", [("--augments", "flip"), ("--learning-rate", "0.1 * (1 - t)")])
def test_settings_that_a_run_saved_make_the_same_run_again(vq, words):
    first = vq("generate", "a cat:2 | text:-0.5", *QUICK, *words, "--save-config", "saved.toml")
    second = vq("generate", "--config", "saved.toml")
    assert saved(first) == saved(second)
    one, two = (Path(run.out.strip()).read_bytes() for run in (first, second))
    assert one == two


@pytest.mark.parametrize("names", [("learning_rate", "step_size"), ("step_size", "learning_rate")])
def test_of_step_size_and_learning_rate_the_nearer_counts(vq, monkeypatch, names):
    below, given = names
    wrote({below: 0.5}, FOLDER_FILE)
    monkeypatch.setenv(f"VQCLIP_{below.upper()}", "0.4")
    settings = saved(vq("generate", "a cat", *QUICK, f"--{given.replace('_', '-')}", "0.25"))
    assert (settings[given], settings.get("learning_rate", 0.0)) == (0.25, 0.25 if given == "learning_rate" else 0.0)


def test_settings_that_were_saved_hold_in_a_folder_with_others(vq):
    first = vq("generate", "a cat", *QUICK, "--save-config", "saved.toml")
    wrote({"prompt": "a dog", "steps": 9, "tv": 9, "clips": ["/nowhere"], "augments": []}, FOLDER_FILE)
    assert saved(vq("generate", "--config", "saved.toml")) == saved(first)


def test_an_option_changes_settings_that_were_saved(vq):
    vq("generate", "a cat", *QUICK, "--save-config", "saved.toml")
    settings = saved(vq("generate", "a dog", "--steps", "2", "--config", "saved.toml"))
    assert (settings["prompt"], settings["steps"], settings["size"]) == ("a dog", 2, [32, 32])


def test_the_file_of_the_folder_is_used(vq):
    wrote({"prompt": "a cat", "steps": 2, "size": "32", "cutouts": 2, "init": "codes"}, FOLDER_FILE)
    assert (saved(vq("generate"))["steps"], saved(vq("generate", "--steps", "1"))["steps"]) == (2, 1)


def test_the_environment_is_used(vq, monkeypatch):
    monkeypatch.setenv("VQCLIP_STEPS", "1")
    monkeypatch.setenv("VQCLIP_PROMPT", "a cat")
    settings = saved(vq("generate", "--size", "32", "--cutouts", "2"))
    assert (settings["steps"], settings["prompt"]) == (1, "a cat")


@pytest.mark.parametrize("command", ["generate", "settings"])
@pytest.mark.parametrize("args", [["--config", "bad.toml"], []], ids=["--config", FOLDER_FILE])
@pytest.mark.parametrize("content", ["stepz = 3", "steps = 0", "steps", "[steps]", "preset = 'sparkle'"])
def test_a_wrong_file_has_exit_code_4_before_a_model_loads(vq, networks, command, args, content):
    name = "bad.toml" if args else FOLDER_FILE
    Path(name).write_text(content)
    done = vq(command, *(["x"] if command == "generate" else []), *args)
    assert (done.code, done.out, networks.loaded) == (4, "", [])
    assert done.lines[0].startswith(f"error: {name}")
    assert len(done.lines) == 2
    assert list(Path().iterdir()) == [Path(name)]


def test_a_wrong_variable_has_exit_code_2_before_a_model_loads(vq, networks, monkeypatch):
    monkeypatch.setenv("VQCLIP_NOISE", "loud")
    done = vq("generate", "x")
    assert (done.code, networks.loaded) == (2, [])
    assert "VQCLIP_NOISE" in done.lines[0]


def test_settings_cannot_be_saved_where_nothing_can_be_written(vq, networks):
    done = vq("generate", "x", "--save-config", "/proc/a.toml")
    assert (done.code, networks.loaded) == (8, [])


# vqclip settings


def row(out, name):
    (line,) = [line for line in out.splitlines() if line.split(" ")[0] == name]
    return line


APART = ("prompt", "mask", "regions", "tile", "learning_rate")  # which others exclude


def test_the_list_of_settings_gives_value_origin_and_meaning(vq):
    given = {field: as_text(field, others(field)[0]) for field in FIELDS if field not in APART}
    out = vq("settings", "--config", wrote(given)).out
    for field, text in given.items():
        line = row(out, field)
        assert line.split()[1:3] == [text, "given.toml"]
        assert Settings.model_fields[field].description in line
        assert ("with init sample" in line) == (facts(field).dalle or field == "steps")


@pytest.mark.parametrize(
    ("field", "limits"),
    [
        ("steps", "0 to 100000"),
        ("step_size", "more than 0, to 10, or a curve"),
        ("momentum", "0 or more, below 1"),
        ("seed", f"0 or more, below {2**63}"),
    ],
)
def test_the_list_of_settings_gives_ranges(vq, field, limits):
    assert row(vq("settings").out, field).endswith(", " + limits)


@pytest.mark.parametrize(
    ("field", "shown"), [("init_weight", "0.0"), ("init_image", "-"), ("image_prompts", "-"), ("size", "128x128")]
)
def test_the_list_of_settings_tells_zero_from_nothing(vq, field, shown):
    assert row(vq("settings").out, field).split()[1:3] == [shown, "default"]


def test_the_list_of_settings_tells_a_preset_and_a_drawn_seed(vq):
    out = vq("settings").out
    assert " preset auto " in row(out, "vqgan")
    assert " drawn " in row(out, "seed")


def test_a_file_cannot_speak_to_the_terminal(vq):
    Path("vqclip.toml").write_text('vqgan = "\\u001b]0;pwn\\u0007\\u202e"\nprompt = "a\\u009b31m\\u202e"\n')
    out = vq("settings").out
    assert not set(out) & set("\x1b\x07\x9b\u202e")


def test_the_schema_describes_every_setting(vq):
    schema = json.loads(vq("settings", "--schema").out)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert all(schema["properties"][field]["description"] for field in FIELDS)
    assert {"type", "anyOf", "enum", "const", "$ref"} & set(schema["properties"]["init"])


def test_the_schema_gives_defaults_and_ranges(vq):
    steps = json.loads(vq("settings", "--schema").out)["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"], steps["default"]) == ("integer", 0, 100_000, 100)


def test_the_schema_is_one_by_json_schemas_own_rules(vq):
    schema = json.loads(vq("settings", "--schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid(make_settings(prompt="a cat", size=(64, 32)).model_dump(mode="json"))
    assert not check.is_valid({"prompt": "a cat", "steps": -1})
    assert not check.is_valid({"prompt": "a cat", "stepz": 1})


@pytest.mark.parametrize(("name", "text"), [("vqclip.toml", "upscale = \n"), ("a.json", '{"steps" 3}')])
def test_a_file_of_settings_that_can_not_be_read_is_not_said_to_be_of_another_kind(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        read_config(tmp_path / name)
    assert "it must be" not in refused.value.hint
    assert "steps" in refused.value.hint
