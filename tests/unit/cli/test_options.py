"""Options of settings: made from the fields, the same for every command; and that one place is enough to add one."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from PIL import Image

import vqclip.cli
from tests.conftest import QUICK
from tests.support.values import NEEDED, arguments, others
from vqclip.cli.options import describe, limits, takes_settings
from vqclip.config.resolve import resolve
from vqclip.models.catalogue import preset
from vqclip.settings.schema import Settings, facts, fields_with, flag, make_settings
from vqclip.text import as_text

FIELDS = [field for field in Settings.model_fields if field != "prompt"]
LEFT_OUT = {  # command -> the settings that mean nothing to it, or that it decides itself
    "generate": set(),
    "batch": set(),
    "story": set(),
    "rerun": set(),
    "bench": {"seed"},
    "resume": set(fields_with("fixed")),
    "sample": set(FIELDS) - set(fields_with("sample")) | {"init"},
    "restyle": {"steps", "coarse", "init", "init_image", "tries", "mask", "mask_feather", *fields_with("dalle")},
}
QUICK_ALONE = ["--steps", "1", "--size", "32", "--cutouts", "2", "--init", "grey"]
CASES = [(command, field) for command, out in LEFT_OUT.items() for field in FIELDS if field not in out]


@functools.cache
def options(command):
    """Return a command's options: parameter's name -> option."""
    return {option.name: option for option in typer.main.get_command(vqclip.cli.app).commands[command].params}


@pytest.fixture(scope="module")
def run():
    """Return a command of all settings' options as a function of its words; it gives the values it receives."""
    app, received = typer.Typer(), []

    @app.command()
    @takes_settings()
    def command(*, values: dict[str, Any]) -> None:
        received.append(values)

    made = typer.main.get_command(app)

    def run(*words):
        made.main(list(words), standalone_mode=False)
        return received[-1]

    return run


@pytest.mark.parametrize("field", FIELDS)
def test_an_option_gives_its_setting_its_value(run, field):
    assert run() == {}
    for value in filter(None, others(field)):
        values = run(*arguments(field, value))
        assert (
            getattr(resolve("x", "tiny", **{"seed": 1, "clips": ("/a",), **NEEDED.get(field, {}), **values}), field)
            == value
        )
        assert list(run("--set", f"{field}={as_text(field, value)}")) == [field]


def test_an_option_wins_over_set(run):
    assert run("--steps", "3", "--set", "steps=4", "--set", "tries=5") == {"steps": 3, "tries": "5"}


def test_a_short_option_is_the_same(run):
    for field in FIELDS:
        if short := facts(field).short:
            long, value = arguments(field, others(field)[0])[:2]
            assert run(short, value) == run(long, value)


@pytest.mark.parametrize("command", LEFT_OUT)
def test_a_command_takes_every_setting_that_means_something_to_it(command):
    assert set(options(command)) & set(FIELDS) == set(FIELDS) - LEFT_OUT[command]
    assert "--set" in options(command)["changes"].opts


@pytest.mark.parametrize(("command", "field"), CASES)
def test_an_option_is_the_same_for_every_command(command, field):
    option, first = options(command)[field], options("generate").get(field)
    assert flag(field) in option.opts
    assert option.default is None
    assert option.metavar == first.metavar
    assert option.rich_help_panel == facts(field).panel
    assert facts(field).at_random or limits(field) in option.help


@pytest.mark.full
@pytest.mark.parametrize("field", FIELDS)
def test_the_help_of_an_option_is_its_settings(field):
    option, info = options("generate")[field], Settings.model_fields[field]
    assert describe(field).lower() in option.help.lower()
    if info.default not in (None, (), "") and field != "seed":
        assert option.help.endswith((rf"\[{as_text(field, info.default)}]", f", else {as_text(field, info.default)}]"))
    if get_origin(info.annotation) is Literal:
        assert option.metavar.split("|") == list(get_args(info.annotation))


@pytest.mark.as_shipped
@pytest.mark.parametrize("field", FIELDS)
def test_the_help_shows_what_a_prompt_alone_is_drawn_with(field):
    usual = as_text(field, getattr(resolve("a fox", guidance=0.0), field))
    shown = re.search(r"\\\[([^]]*?)( by preset.*)?\]$", options("generate")[field].help)
    assert shown is None or field == "guidance" or shown[1] == usual


def test_help_groups_the_options(vq):
    out = vq("generate", "--help").out
    assert all(f" {facts(field).panel} " in out for field in FIELDS)
    assert "[128x128]" in out
    assert "\\[" not in out


@pytest.mark.parametrize("command", ["rerun", "resume"])
def test_help_shows_no_default_where_that_of_the_picture_counts(command):
    assert not any(option.help.endswith("]") for name, option in options(command).items() if name in FIELDS)


def test_all_options_reach_a_run(vq):
    Image.new("RGB", (40, 40), "red").save("given.png")
    chosen = {field: others(field)[0] for field in FIELDS if not facts(field).names and not facts(field).dalle}
    chosen |= {"size": (32, 32), "steps": 2, "cutouts": 2, "clip_weights": (0.5,)}
    del chosen["tile"], chosen["aesthetic_weight"]  # which has no edges for a frame; which needs a head
    del chosen["learning_rate"]  # in place of a step size
    words = [word for field, value in chosen.items() for word in arguments(field, value)]
    done = vq("generate", "x", *words, "--init-image", "given.png", "-i", "given.png", "--clip", "tiny")
    run = Path(done.out.strip()).parent
    record = json.loads((run / "run.json").read_text())["settings"]
    assert {field: record[field] for field in chosen} == json.loads(json.dumps(chosen))
    assert record["init_image"] == record["image_prompts"][0]
    assert (run / record["init_image"]).samefile("given.png")


def test_settings_that_are_not_given_are_the_presets_and_the_defaults(vq, monkeypatch):
    monkeypatch.setattr(
        "vqclip.cli.progress.Reporter.stopped", property(lambda self: bool(self.steps))
    )  # the first step is enough
    done = vq("generate", "x", "--seed", "7")
    made = Settings(**json.loads((Path(done.out.strip()).parent / "run.json").read_text())["settings"])
    assert made.precision in ("float32", "bfloat16")  # what auto is here
    assert made.model_copy(update={"precision": "auto"}) == make_settings(prompt="x", seed=7, **preset("auto"))


IDLE = {  # what is given -> the option that has no effect
    ("--top-k", "5"): "--top-k",
    ("--dalle", "tiny", "--init-image", "given.png"): "--dalle",
    ("--tries", "3"): "--tries",
    ("--set", "tries=3"): "--tries",
    ("--clip-mix", "turns"): "--clip-mix",
    ("--image-prompt-weight", "2"): "--image-prompt-weight",
    ("--tries", "3", "--init", "smooth"): "",
    ("--image-prompt-weight", "2", "-i", "given.png"): "",
}


@pytest.mark.full
@pytest.mark.parametrize("given", IDLE)
@pytest.mark.parametrize("command", [["generate", "x"], ["batch", "p.txt", "-o", "b"]])
def test_an_option_without_effect_is_named(vq, command, given):
    Image.new("RGB", (40, 40), "red").save("given.png")
    Path("p.txt").write_text("a cat\n")
    done = vq(*command, *QUICK_ALONE, *given)
    idle = [line.split()[0] for line in done.lines if "has no effect" in line]
    assert (done.code, idle) == (0, [IDLE[given]] if IDLE[given] else [])


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "x", "--set", "steps=3"],
        ["sample", "x", "--set", "prompt=y"],
        ["story", "x", "--set", "prompt=y"],
        ["restyle", "a.mp4", "x", "--set", "init=codes"],
        ["bench", "--set", "seed=3"],
    ],
)
def test_a_setting_that_a_command_does_not_take_is_refused_by_set_too(vq, words):
    done = vq(*words)
    assert done.code == 2
    assert words[-1].split("=")[0] in done.lines[0]


def test_a_batch_takes_options_for_its_rows(vq):
    Path("prompts.csv").write_text("prompt,tv\na cat,\na dog,0.5\n")
    done = vq("batch", "prompts.csv", "-o", "b", *QUICK, "--init", "codes", "--vqgan", "tiny", "--tv", "2")
    assert done.code == 0, done.err
    records = [json.loads(path.read_text())["settings"] for path in sorted(Path("b/runs").glob("*/run.json"))]
    assert [(record["seed"], record["init"], record["tv"]) for record in records] == [
        (7, "codes", 2.0),
        (7, "codes", 0.5),
    ]


# one place is enough: in a fresh interpreter, before anything else is imported

ADDED = """
import importlib.util, json, os, sys
from pathlib import Path
from typing import Annotated, Literal
from pydantic import Field
from vqclip.settings import schema
from vqclip.settings.facts import LOOP, START, Facts

class Settings(schema.Settings):
    sparkle: Annotated[float, Facts(LOOP, "-X", loss="sparkle")] = Field(0.0, ge=0, le=9, description="weight of stars")
    twist: Annotated[int, Facts(START, fixed=True, per_image=True, sample=True)] = Field(1, ge=1, description="turns")
    init: Annotated[Literal["smooth", "codes", "grey", "sample", "half"], Facts(START, fixed=True)] = "grey"

schema.Settings = Settings

spec = importlib.util.find_spec("vqclip.cli")
cli = sys.modules["vqclip.cli"] = importlib.util.module_from_spec(spec)
cli.__path__.append(os.getcwd())  # a file beside those of the other commands
spec.loader.exec_module(cli)

import pytest
from tests.conftest import stand_in
from vqclip.core.init import INITS
from vqclip.core.losses import LOSSES
from vqclip.files import metadata

stand_in(pytest.MonkeyPatch())
LOSSES["sparkle"] = lambda context: context.image.mean((1, 2, 3))
INITS["half"] = lambda inputs: INITS["grey"](inputs) / 2
metadata.WRITERS[".bmp"] = lambda image, info: metadata.WRITERS[".png"](image, info)

def run(*words):
    sys.argv = ["vqclip", *words]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code or 0

sys.stderr = sys.stdout
os.environ["COLUMNS"] = "100"
for words in json.loads(sys.argv[1]):
    print("::", run(*words))
"""


COMMAND = """
from typing import Any
from .commands import LOOK, command
from .options import takes_settings

@command(LOOK)
@takes_settings()
def echo(*, values: dict[str, Any]) -> None:
    "Print what is given."
    print(values)
"""


@pytest.fixture
def added(tmp_path):
    """Return a function that runs vqclip with a setting of each kind, a loss, a start, a writer and a command added."""

    def run(*commands):
        code = [sys.executable, "-c", ADDED, json.dumps(commands)]
        paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH"))))
        inherited = os.environ | {"PYTHONPATH": paths}  # where tests.conftest is, and vqclip where it is not installed
        done = subprocess.run(
            code, cwd=tmp_path, env=inherited, capture_output=True, text=True, check=True, timeout=200
        )
        answers = re.split(r"^:: (\d+)\n", done.stdout, flags=re.MULTILINE)
        return list(zip(answers[0::2], map(int, answers[1::2]), strict=False))

    return run


@pytest.mark.full
def test_what_is_added_in_one_place_is_everywhere(added, tmp_path):
    quick = ["--size", "32", "--steps", "2", "--cutouts", "2", "--seed", "7", "--runs", "runs", "-q"]
    quick += ["--set", "init=grey", "--upscale", "0"]
    (tmp_path / "echo.py").write_text(COMMAND)
    (tmp_path / "own.toml").write_text("sparkle = 0.25\n")
    (tmp_path / "bad.toml").write_text("tv = 1\nsparkle = 10\n")
    run = str(tmp_path / "runs/a-cat-7")
    commands = {
        "commands": ["--help"],
        "help": ["generate", "--help"],
        "help of resume": ["resume", "--help"],
        "help of sample": ["sample", "--help"],
        "made": ["generate", "a cat", *quick, "-X", "0.5", "--twist", "3", "--init", "half", "-o", "a.bmp"],
        "from a file": ["generate", "a dog", *quick, "--config", "own.toml"],
        "refused": ["generate", "a cat", "--config", "bad.toml"],
        "settings": ["settings", "--config", "own.toml"],
        "shown": ["show", run],
        "resumed": ["resume", run, "--steps", "3", "--sparkle", "1", "-q"],
        "not resumed": ["resume", run, "--set", "twist=4"],
        "rerun": ["rerun", run, "--twist", "4", "--runs", "again", "-q"],
        "a command": ["echo", "--sparkle", "2"],
    }
    told, codes = {}, {}
    for name, (text, code) in zip(commands, added(*commands.values()), strict=True):
        told[name], codes[name] = text, code
    assert {name for name, code in codes.items() if code} == {"refused", "not resumed"}
    assert (codes["refused"], codes["not resumed"]) == (4, 2)
    assert "Print what is given." in told["commands"]
    assert re.search(r"--sparkle +-X +N +Weight of stars \(0 to 9\)\s", told["help"])
    assert "smooth|codes|grey|sample|half" in told["help"]
    assert "--sparkle" in told["help of resume"]
    assert "--twist" not in told["help of resume"]
    assert "--twist" in told["help of sample"]
    assert "--sparkle" not in told["help of sample"]
    with Image.open(tmp_path / "a.bmp") as image:
        assert image.size == (32, 32)
    record = json.loads((tmp_path / "runs/a-cat-7/run.json").read_text())
    assert {"sparkle": 1.0, "twist": 3, "init": "half"}.items() <= record["settings"].items()
    losses = [json.loads(line) for line in (tmp_path / "runs/a-cat-7/metrics.jsonl").read_text().splitlines()]
    assert [("sparkle" in json.dumps(line)) for line in losses] == [True] * 3
    assert json.loads((tmp_path / "runs/a-dog-7/run.json").read_text())["settings"]["sparkle"] == 0.25
    assert "bad.toml:2: sparkle" in told["refused"]
    assert re.search(r"^sparkle +0.25 +own.toml +weight of stars, 0 to 9 \[0.0\]", told["settings"], re.MULTILINE)
    assert re.search(r"(?m)^twist +3$", told["shown"])
    assert "twist can't change" in told["not resumed"]
    assert json.loads((tmp_path / "again/a-cat-7/run.json").read_text())["settings"]["twist"] == 4
    assert told["a command"].strip() == "{'sparkle': 2.0}"
