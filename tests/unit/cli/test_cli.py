"""The command: what goes where, every bad input in one line with its exit code, and signals."""

import errno
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import pyte
import pytest
from PIL import Image

import vqclip.cli
from vqclip import __version__
from vqclip.cli.progress import loading
from vqclip.models.catalogue import model_entry
from vqclip.settings.augmentations import AUGMENTS
from vqclip.settings.schema import Settings

PLAIN = ("--init", "grey", "--upscale", "0")  # what the preset tiny has otherwise
QUICK = ("--steps", "3", "--size", "32x32", "--cutouts", "2", *PLAIN)
LINUX = sys.platform == "linux"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def draw(vq):
    """Return `vqclip generate` with few steps; more options may be given."""
    return lambda prompt="a red heart", *more: vq("generate", prompt, *QUICK, "--seed", "7", *more)


def note(path):
    """Return the run.json beside a picture."""
    return json.loads((Path(path.strip()).parent / "run.json").read_text(encoding="utf-8"))


# what goes where


def test_stdout_has_the_path_of_the_picture_and_nothing_else(draw):
    assert draw().out == f"{Path('runs') / 'a-red-heart-7' / 'final.png'}\n"


def test_the_path_on_stdout_is_a_picture(draw):
    with Image.open(draw().out.strip()) as image:
        assert image.size == (32, 32)


def test_a_good_run_has_exit_code_0(draw):
    assert draw().code == 0


def test_the_path_on_stdout_is_the_output_that_was_asked_for(draw, tmp_path):
    assert draw("x", "-o", tmp_path / "a.png").out == f"{tmp_path / 'a.png'}\n"


def test_json_is_one_object_on_one_line(draw):
    out = draw("x", "--json").out
    assert out.count("\n") == 1
    assert isinstance(json.loads(out), dict)


def test_json_names_the_picture_the_run_and_the_seed(draw):
    record = json.loads(draw("x", "--json").out)
    assert (record["path"], record["run"], record["seed"]) == ("runs/x-7/final.png", "runs/x-7", 7)


def test_stderr_says_which_models_are_used_and_how_to_change_them(draw):
    (line,) = [line for line in draw().lines if "VQGAN tiny" in line]
    assert "CLIP tiny" in line
    assert "--preset" in line


def test_a_number_of_another_kind_is_refused_in_plain_words(vq):
    done = vq("generate", "x", "--steps", "1.5")
    assert done.code == 2
    assert "--steps" in done.lines[0]
    assert "whole number" in done.lines[0]
    assert done.lines[1].strip() == "use 0 to 100000"


def test_a_prompt_may_come_from_stdin_and_what_looks_like_more_than_text_is_said(vq, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufeffan owl --ar 16:9\n".encode("utf-16-le"))))
    done = vq("generate", "-", *QUICK)
    assert done.code == 0, done.err
    assert "an-owl" in done.out
    assert "--ar 16:9" in done.err


def test_stderr_says_which_seed_was_drawn(vq):
    done = vq("generate", "x", *QUICK)
    assert f"seed {note(done.out)['settings']['seed']}" in done.err


def test_stderr_says_where_the_run_is(draw):
    assert "runs/a-red-heart-7" in draw().err


def test_stderr_says_that_a_size_was_rounded(draw):
    done = draw("x", "--size", "101x67")
    width, height = note(done.out)["settings"]["size"]
    assert "101x67" in done.err
    assert f"{width}x{height}" in done.err


def test_stderr_says_nothing_when_quiet(draw):
    assert draw("x", "-q").err == ""


def test_quiet_still_prints_the_path(draw):
    assert draw("x", "--quiet").out == "runs/x-7/final.png\n"


def test_quiet_still_says_what_is_wrong(vq):
    assert vq("generate", "", "--quiet").err.startswith("error: ")


def test_the_bar_is_not_drawn_where_there_is_no_terminal(draw):
    assert "\r" not in draw().err
    assert "it/s" not in draw().err


def test_the_run_directory_is_made_where_it_is_wanted(draw, tmp_path):
    draw("x", "--runs", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "x-7" / "final.png").is_file()


def test_a_runs_frames_come_as_often_as_is_wanted(draw):
    run = Path(draw("x", "--frames-every", "2").out.strip()).parent
    assert [path.name for path in sorted((run / "frames").iterdir())] == ["000000.png", "000002.png", "000003.png"]


def test_no_metadata_leaves_the_pictures_bare(draw):
    with Image.open(draw("x", "--no-metadata").out.strip()) as image:
        image.load()
        assert image.text == {}


def test_a_file_is_replaced_when_that_is_asked_for(draw):
    Path("a.png").write_text("mine")
    assert draw("x", "-o", "a.png", "--overwrite").code == 0


@pytest.mark.parametrize("args", [[], ["models"]], ids=["vqclip", "vqclip models"])
def test_without_a_command_the_help_is_printed(vq, args):
    done = vq(*args)
    assert len([line for line in (done.out + done.err).splitlines() if line.strip()]) > 5


def test_the_version_is_printed(vq):
    assert vq("--version").out == f"vqclip {__version__}\n"


@pytest.mark.skipif(not LINUX, reason="only there are names any bytes")
def test_a_name_that_is_not_utf_8_does_not_spoil_a_good_run(draw, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))  # strict, as most locales' is
    assert draw("x", "-o", os.fsdecode(b"\xff.png")).code == 0


# help


@pytest.mark.parametrize("args", [[], ["generate"], ["sample"], ["rank"], ["models"], ["models", "pull"]])
def test_help_shows_no_types_of_python(vq, args):
    text = vq(*args, "--help").out
    assert "--help" in text
    assert not re.search(r"<\w+", text)


def test_no_example_of_the_help_is_broken_by_80_columns():
    texts = [command.epilog or "" for command in vqclip.cli.app.registered_commands] + [vqclip.cli.models.EXAMPLES]
    examples = [line for text in texts for line in text.splitlines() if line.startswith("  ")]
    assert len(examples) > 20
    assert [line for line in examples if len(line) > 77] == []


def test_help_has_examples(vq):
    assert 'vqclip generate "a red heart" --seed 7' in vq("generate", "--help").out


HELP = """
import sys, typer
from typer.testing import CliRunner
from vqclip.cli import app

def walk(command, path):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, [*path, name])

made = typer.main.get_command(app)
typer.main.get_command = lambda app: made
paths = list(walk(made, []))
for path in paths:
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0, path
print(len(paths), [name for name in ("torch", "kornia", "open_clip", "taming") if name in sys.modules])
"""


@pytest.mark.full
def test_the_help_of_no_command_loads_torch():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[5-9] \[\]|\d\d \[\]", done.stdout.strip())  # vqclip, generate, settings, models, models list


def test_a_bad_option_is_refused_without_loading_torch():
    code = (
        "import sys, vqclip.cli\n"
        "sys.argv = ['vqclip', 'generate', 'x', '--steps', '-1']\n"
        "try: vqclip.cli.main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# other commands


def test_settings_lists_every_augmentation(vq):
    (line,) = [line for line in vq("settings").out.splitlines() if line.startswith("augments ")]
    assert all(name in line for name in AUGMENTS)


def test_settings_as_json_are_values_or_a_schema(vq):
    assert json.loads(vq("settings", "steps", "--json").out) == {"steps": {"value": 100, "from": "default"}}
    assert set(json.loads(vq("settings", "--schema").out)["properties"]) == set(Settings.model_fields)


def test_settings_may_be_named(vq):
    assert {line.split()[0] for line in vq("settings", "tile", "mask-f").out.splitlines()} == {
        "tile",
        "tile_preview",
        "mask_feather",
    }
    done = vq("settings", "stpes")
    assert (done.code, "'steps'" in done.lines[0]) == (2, True)


@pytest.mark.parametrize("kind", ["vqgan", "clip"])
def test_models_list_has_the_bundled(vq, kind):
    assert re.search(rf"^{kind} +tiny ", vq("models", "list").out, re.MULTILINE)


@pytest.mark.parametrize("key", ["kind", "name", "bytes", "installed", "about", "licence"])
def test_models_list_as_json_tells(vq, key):
    rows = json.loads(vq("models", "list", "--json").out)
    assert all(key in row for row in rows)
    here = [
        row
        for row in rows
        if row["name"] == "tiny" and (row["kind"] != "dalle" or model_entry("dalle", "tiny").installed())
    ]
    assert all(row[key] for row in here)


# bad input: (id, exit code, arguments). Files that are named are made by `bad_files`.

NO_HOME = "~no-such-user/a.png"
BAD_PROMPTS = {
    "no prompt": [],
    "empty prompt": [""],
    "blank prompt": [" \t\n"],
    "lone surrogate": ["\ud800"],
    "undecodable": [os.fsdecode(b"\xff")],
    "control character": ["a\x07b"],
    "empty part": ["a |"],
    "weight alone": [" :2"],
    "no weight counts": ["a:0"],
    "weight too large": ["a:1e9"],
    "endless prompt": ["a" * 2001],
    "a brace that is not closed": ["{red|blue"],
    "a word in braces": ["a {colour} fox"],
}
BAD_OPTIONS = {
    "--size": ["0", "abc", "8x8x8", "99999x1", "0x64", "64x0", "-64x64", "64.5", ""],
    "--steps": ["0", "-5", "abc", "1.5", "100001", "nan"],
    "--seed": ["-2", str(2**64), "abc", "1.5"],
    "--device": ["nonsense", "cuda:99", "meta", ""],
    "--augments": ["flipp", "flip,nonsense"],
    "--init": ["nonsense"],
    "--cutouts": ["0", "abc"],
    "--tries": ["0"],
    "--noise": ["nan", "inf", "-1", "2"],
    "--step-size": ["nan", "0", "inf"],
    "--init-weight": ["nan", "-1", "inf"],
    "--image-prompt-weight": ["nan", "inf", "1e9"],
    "--tv": ["nan", "-inf"],
    "--ema": ["nan", "1"],
    "--momentum": ["1"],
    "--overview": ["2"],
    "--smallest-cutout": ["0"],
    "--frames-every": ["-1", "abc"],
    "-o": ["a.gif", "a"],
    "--count": ["0", "101", "x"],
    "--save-cutouts": ["-1"],
    "--nonsense": ["1"],
}
BAD_PICTURES = [
    "missing.png",
    "text.png",
    "empty.png",
    "truncated.png",
    "huge.png",
    "huger.png",
    "folder.png",
    "text.png/a.png",
    NO_HOME,
]
CASES = {
    **{name: (2, args) for name, args in BAD_PROMPTS.items()},
    **{f"{flag} {value}": (2, ["x", flag, value]) for flag, values in BAD_OPTIONS.items() for value in values},
    **{
        f"{flag} {name}": (4, ["x", flag, name]) for flag in ("--init-image", "--image-prompt") for name in BAD_PICTURES
    },
    "one picture of two": (4, ["x", "-i", "fine.png", "-i", "missing.png"]),
    "--vqgan nonsense": (5, ["x", "--vqgan", "nonsense"]),
    "--vqgan of no home": (5, ["x", "--vqgan", "~no-such-user"]),
    "--vqgan of a long name": (5, ["x", "--vqgan", "a" * 300]),
    "--vqgan empty": (5, ["x", "--vqgan", ""]),
    "--vqgan folder": (5, ["x", "--vqgan", "folder.png"]),
    "--clip nonsense": (5, ["x", "--clip", "nonsense"]),
    "--clip second of two": (5, ["x", "--clip", "tiny", "--clip", "nonsense"]),
    "--preset nonsense": (5, ["x", "--preset", "nonsense"]),
    "-o folder": (8, ["x", "-o", "folder.png"]),
    "-o below a file": (8, ["x", "-o", "text.png/a.png"]),
    "-o of a long name": (8, ["x", "-o", "a" * 300 + ".png"]),
    "-o of no home": (8, ["x", "-o", NO_HOME]),
    "--runs file": (8, ["x", "--runs", "text.png"]),
    "--runs below a file": (8, ["x", "--runs", "text.png/runs"]),
    "-o that exists": (10, ["x", "-o", "fine.png"]),
}

if LINUX:
    CASES["-o in /proc"] = (8, ["x", "-o", "/proc/a.png"])
    CASES["--runs in /proc"] = (8, ["x", "--runs", "/proc/runs"])


def png_header(width, height):
    """Return the beginning of a PNG that says it is very large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.fixture
def bad_files(vq):
    """Make the files that the bad inputs name, and return what a folder looks like: name -> content."""
    Image.effect_noise((60, 60), 50).convert("RGB").save("fine.png")
    Path("truncated.png").write_bytes(Path("fine.png").read_bytes()[:1000])
    Path("text.png").write_text("not a picture")
    Path("empty.png").touch()
    Path("huge.png").write_bytes(png_header(12_000, 12_000))
    Path("huger.png").write_bytes(png_header(2**31 - 1, 2**31 - 1))
    Path("folder.png").mkdir()

    def look():
        return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}

    return look


@pytest.mark.parametrize("case", CASES)
def test_bad_input_has_its_exit_code_one_line_and_a_hint_and_leaves_nothing_behind(vq, networks, bad_files, case):
    code, args = CASES[case]
    before = bad_files()
    done = vq("generate", *args, *([] if "--steps" in args else ["--steps", "2"]))
    assert done.code == code
    assert [line for line in done.lines if not line.startswith("  ")] == done.lines[:1]
    assert re.match(r"error: \S", done.lines[0])
    assert re.match(r"  \S", "\n".join(done.lines[1:]))
    assert "fault" not in done.err
    assert done.out == ""
    assert bad_files() == before
    assert networks.loaded == []


@pytest.mark.skipif(not LINUX, reason="there is no /proc")
def test_a_folder_that_is_there_is_not_said_to_be_missing(vq):
    assert "does not exist" not in vq("generate", "x", "-o", "/proc/a.png").err


def test_a_size_too_small_for_the_vqgan_is_refused(vq):
    done = vq("generate", "x", "--size", "4x4", "-o", "a.png")
    first, second = done.lines
    assert done.code == 2
    assert "too small" in first
    assert "at least 8" in second
    assert list(Path().iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--steps", "0"], "steps"),
        (["--steps", "abc"], "steps"),
        (["--noise", "nan"], "noise"),
        (["--size", "abc"], "abc"),
        (["--seed", "-2"], "seed"),
        (["--vqgan", "nonsense"], "nonsense"),
        (["--clip", "nonsense"], "nonsense"),
        (["--preset", "nonsense"], "nonsense"),
        (["--augments", "flipp"], "did you mean 'flip'"),
        (["--device", "nonsense"], "nonsense"),
        (["-o", "a.gif"], ".gif"),
        (["-o", "/dev/null/a.png"], "/dev/null"),
        (["--init-image", "missing.png"], "missing.png"),
        (["--smallest-cutout", "0"], "smallest-cutout"),
        (["--frames-every", "-1"], "frames-every"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_the_line_names_what_was_wrong(vq, args, word):
    assert word in vq("generate", "x", *args).lines[0]


@pytest.mark.skipif(ROOT, reason="root may read and write anything")
def test_a_picture_that_may_not_be_read_has_exit_code_4(vq, bad_files):
    Path("fine.png").chmod(0)
    assert vq("generate", "x", "--init-image", "fine.png").code == 4


@pytest.mark.skipif(ROOT, reason="root may read and write anything")
def test_an_output_in_a_read_only_folder_has_exit_code_8(vq, bad_files):
    Path("folder.png").chmod(0o500)
    assert vq("generate", "x", "-o", "folder.png/a.png").code == 8


def test_an_error_shows_its_traceback_when_debugging(vq, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vqclip", "--debug", "generate", ""])
    monkeypatch.setenv("VQCLIP_DEBUG", "")  # so that what --debug sets is undone
    with pytest.raises(SystemExit) as left:
        vqclip.cli.main()
    assert left.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def fails_with(error):
    def fail(*_args, **_more):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 7),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 7),
        (ZeroDivisionError("by zero"), 1),
    ],
    ids=["memory", "torch's memory", "bug"],
)
def test_what_goes_wrong_in_the_loop_has_its_exit_code(draw, networks, error, code):
    networks.vqgan.decode = fails_with(error)
    assert draw().code == code


def test_a_loss_that_is_not_finite_has_exit_code_9(draw, networks):
    networks.clip.projection = networks.clip.projection * float("nan")
    assert draw().code == 9


def test_a_full_disk_has_exit_code_8(draw, monkeypatch):
    monkeypatch.setattr("os.fsync", fails_with(OSError(errno.ENOSPC, "No space left on device")))
    assert draw().code == 8


def test_a_bug_is_called_one_in_one_line_and_a_hint(draw, networks):
    networks.vqgan.encode = fails_with(ZeroDivisionError("by\nzero"))
    *_, first, second = draw().lines  # after what the run computes with
    assert "ZeroDivisionError" in first
    assert "--debug" in second


def test_a_file_name_cannot_speak_to_the_terminal(vq):
    assert "\x1b" not in vq("generate", "x", "--init-image", "\x1b[31mred.png").err


# signals


def at_step(number, act):
    """Return a reporter's step that acts once, at the given step, and then reports as before."""
    from vqclip.cli.progress import Reporter

    report = Reporter.step

    def step(self, step):
        if step.step == number:
            act()
        return report(self, step)

    return step


def send(*signals):
    def act():
        for number in signals:
            os.kill(os.getpid(), number)

    return act


@pytest.fixture
def signalled(draw, monkeypatch):
    """Return how a run ends to which the given signals are sent at its second step."""

    def run(*signals):
        monkeypatch.setattr("vqclip.cli.progress.Reporter.step", at_step(2, send(*signals)))
        return draw()

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_run_at_once_with_its_exit_code(signalled, number, code):
    assert signalled(number, number).code == code


def test_a_second_signal_keeps_the_picture_so_far(signalled):
    signalled(signal.SIGINT, signal.SIGINT)
    assert json.loads(Path("runs/a-red-heart-7/run.json").read_text())["steps_done"] == 2
    assert Path("runs/a-red-heart-7/final.png").is_file()


def test_a_second_signal_leaves_a_run_that_was_stopped_not_one_that_failed(signalled):
    signalled(signal.SIGINT, signal.SIGINT)
    assert json.loads(Path("runs/a-red-heart-7/run.json").read_text())["status"] == "stopped"


def test_a_signal_while_models_load_ends_the_run_before_it_makes_anything(draw, monkeypatch):
    from vqclip.runs.session import Session

    load = Session.load

    def load_and_stop(*args):
        send(signal.SIGTERM)()
        return load(*args)

    monkeypatch.setattr(Session, "load", load_and_stop)
    done = draw()
    assert (done.code, done.out) == (143, "")
    assert "nothing was begun" in done.err
    assert not Path("runs").exists()


def test_a_stopped_run_still_prints_its_path(signalled):
    assert signalled(signal.SIGINT).out == "runs/a-red-heart-7/final.png\n"


ODD = ["a b", "it's", "a\u00a0b", "a\tb", "a\nb", "\x1b[31m", "a\u3000b", "a\u202eb", "\udcff\udcfe", "-x", "--",
       "~", "$HOME", "ünï", "\\x41'\x07", "❤"]  # fmt: skip


@pytest.mark.full
@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="there is no bash")
@pytest.mark.parametrize("name", ODD)
def test_the_line_to_go_on_with_can_be_pasted(vq, monkeypatch, name):
    monkeypatch.setattr("vqclip.cli.progress.Reporter.step", at_step(2, send(signal.SIGINT)))
    folder = Path(name) / "deep"
    folder.mkdir(parents=True)
    told = vq(
        "generate", "c", *QUICK, "--seed", "1", f"--runs=./{folder}", f"--out=./{folder}/out.png", "--json"
    ).lines[-1]
    assert told.isprintable()
    line = told.removeprefix("go on with: vqclip resume ")
    shown = subprocess.run(["/bin/bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    run, flag, out, last = (os.fsdecode(word) for word in shown.split(b"\0")[:-1])
    assert (flag, last) == ("-o", "--overwrite")
    assert (Path(run).absolute(), Path(out).absolute()) == (folder.absolute() / "c-1", folder.absolute() / "out.png")
    assert not run.startswith(("-", "~"))


def test_a_signal_in_the_last_step_leaves_nothing_to_go_on_with(draw, monkeypatch):
    monkeypatch.setattr("vqclip.cli.progress.Reporter.step", at_step(3, send(signal.SIGINT)))
    done = draw()
    assert done.code == 130
    assert "go on with" not in done.err


def test_a_folder_called_tilde_is_not_ones_home(vq, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("~").mkdir()
    vq("generate", "c", *QUICK, "--seed", "1", "--runs", "./~", "--out", "./~/a.png", "--save-config", "./~/a.toml")
    assert sorted(path.name for path in Path("~").iterdir()) == ["a.png", "a.toml", "c-1"]
    assert vq("show", "./~/a.png").code == 0
    assert vq("resume", "./~/c-1").code == 0
    assert (
        vq("generate", "d", *QUICK, "--config", "./~/a.toml", "--init-image", "./~/a.png", "-i", "./~/a.png").code == 0
    )
    assert not (tmp_path / "home").exists()


class Interrupting(io.RawIOBase):
    """A stderr that is sent a signal while it is written to."""

    def __init__(self):
        self.said = b""

    def writable(self):
        return True

    def write(self, data):
        if not self.said:
            os.kill(os.getpid(), signal.SIGINT)
        self.said += bytes(data)
        return len(data)


def test_a_signal_in_the_midst_of_talk_stops_the_run_in_good_order(draw, monkeypatch):
    stderr = Interrupting()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(stderr), write_through=True))
    assert draw().code == 130
    assert b"fault" not in stderr.said
    assert json.loads(Path("runs/a-red-heart-7/run.json").read_text())["status"] == "stopped"


def test_handlers_are_as_before_after_a_run(draw):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    draw()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_handlers_are_as_before_after_an_error(draw):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    draw("x", "--size", "4x4")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


HANG_UP = """
import os, signal
from vqclip.cli.progress import Reporter
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests
with Reporter() as reporter:
    os.kill(os.getpid(), signal.SIGHUP)
    print(reporter.stopped_by)
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_a_terminal_that_closes_stops_a_run_in_good_order():
    done = subprocess.run([sys.executable, "-c", HANG_UP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(int(signal.SIGHUP)))


MISUSED = {
    "a prompt without quotes": (["generate", "an", "owl"], "'an', 'owl'", "in quotes"),
    "a whole prompt without quotes": (["an", "owl", "--steps", "2"], "'an'", "vqclip 'an owl'"),
    "a command that is misspelt": (["generat", "an owl"], "mean 'generate'", "vqclip generate generat"),
    "a prompt of one word for a command": (["owl"], "owl", "vqclip generate owl"),
    "quotes are for prompts": (["resume", "a", "b"], "extra argument(s) (b)", "see: vqclip"),
    "the nearest option first": (["generate", "a", "--stpes", "5"], "No such option: --stpes", "mean '--steps'"),
    "a preset among settings": (["rerun", "a", "--set", "preset=fine"], "a preset is no setting", "use --preset fine"),
    "another tool's option": (["generate", "a", "--iterations", "5"], "--iterations", "mean '--steps'"),
    "another tool's short one": (["generate", "a", "-ii", "b.png"], "'b.png'", "'--init-image'"),
    "another tool's, read as ours": (["generate", "a", "-cuts", "32"], "cutouts", "-cuts: did you mean '--cutouts'"),
    "another tool's optimiser": (["generate", "a", "-opt", "Adam"], "'Adam'", "'--optimizer'"),
    "another tool's learning rate": (["generate", "a", "--lr", "0.1"], "--lr", "'--learning-rate'"),
    "another tool's, no setting": (["generate", "a", "--outdir", "b"], "--outdir", "--out FILE"),
    "another tool's setting": (
        ["generate", "a", "--set", "lr=1"],
        "unknown setting 'lr': did you mean 'learning_rate'",
        "",
    ),
    "nothing that is far off": (["generate", "a", "--qqq"], "--qqq", "see: vqclip generate --help"),
    "an argument that is missing": (["watch"], "Missing argument", "see: vqclip watch --help"),
    "an image among colours": (["generate", "a", "--palette", "red,cat.jpg"], "'cat.jpg'", "@cat.jpg"),
    "a colour in two words": (["generate", "a", "--palette", "dark-blue"], "'dark-blue'", "'darkblue'"),
    "a symmetric tile": (["generate", "a", "--tile", "both", "--symmetry", "x"], "a tile", "one of both"),
    "an option of another command": (["page", "a", "--iterations", "5"], "--iterations", "see: vqclip"),
    "a CLIP of OpenAI's": (["generate", "a", "--clip", "ViT-B/33"], "no clip named 'ViT-B/33'", "mean 'ViT-B/32'"),
}


@pytest.mark.parametrize("name", MISUSED)
def test_what_was_meant_is_said(vq, name):
    args, what, hint = MISUSED[name]
    done = vq(*args)
    assert len(done.lines) == 2
    assert what in done.lines[0]
    assert hint in done.lines[1]
    assert ("quotes" in done.err) == ("without quotes" in name)


@pytest.mark.full
@pytest.mark.parametrize("args", [["--help"], ["generate", "--help"], ["--version"], ["settings"]])
def test_a_reader_that_has_gone_is_no_fault(args):
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "vqclip", *args]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("args", [["sample", "an owl"], ["batch", "prompts.txt"]])
def test_a_file_is_no_folder(vq, args):
    Path("owl.png").touch()
    Path("prompts.txt").write_text("an owl")
    done = vq(*args, "-o", "owl.png")
    assert (done.code, done.out, done.lines[0]) == (10, "", "error: owl.png is a file, no folder")


STOPPED = """
import os, signal, sys
from vqclip.cli.signals import Stoppable
at_hand, shown = sys.argv[1:]
with Stoppable(at_hand=at_hand):
    sys.stderr.write(shown)
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("at_hand", "shown"), [("this step", "a bar"), ("loading", "loading ...\r^C")])
def test_what_is_said_of_a_signal_stands_on_a_line_of_its_own(at_hand, shown):
    ours, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", STOPPED, at_hand, shown], stderr=theirs, check=True)
    os.close(theirs)
    screen = pyte.Screen(80, 5)
    pyte.Stream(screen).feed(os.read(ours, 1000).decode())
    os.close(ours)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert lines == ["a bar"] * (shown == "a bar") + [f"stopping after {at_hand}; once more to stop at once"]


@pytest.mark.full
def test_the_process_looks_for_garbage_seldom_and_not_as_it_ends():
    """What torch's libraries leave is large, and is no garbage."""
    code = (
        "import atexit, gc, sys; sys.argv = ['vqclip', '--version']; from vqclip.__main__ import SELDOM, main\n"
        "atexit.register(lambda: print(gc.get_threshold()[0] == SELDOM, len(gc.get_objects()) < 1000))\n"
        "main()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split()[-2:] == ["True", "True"]


def test_what_is_loaded_is_said_on_a_terminal_in_the_place_of_the_next_line(monkeypatch, capsys):
    loading(quiet=False)
    assert capsys.readouterr().err == ""  # not of a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    loading(quiet=True)
    assert capsys.readouterr().err == ""
    loading(quiet=False)
    assert capsys.readouterr().err == "loading ...\r"


INTERRUPTED = """
import importlib, os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "typer":  # the command line is being imported
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
sys.argv = ["vqclip", "settings"]
module, name = sys.stdin.read().split(":")
getattr(importlib.import_module(module), name)()
"""


def test_ctrl_c_while_the_command_is_still_being_imported_prints_no_traceback():
    project = Path(__file__).parents[3] / "pyproject.toml"
    entry = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]["vqclip"]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], input=entry, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_settings_are_not_written_as_toml_into_a_json_file(vq):
    outcome = vq("generate", "x", *QUICK, "--save-config", "x.json")
    assert outcome.code == 2
    assert not Path("x.json").exists()


def test_a_password_in_an_address_is_not_shown(run_here, tmp_path):
    (tmp_path / "catalogue.toml").write_text('[vqgan.mine]\nmirrors = ["https://me:pa@ss@127.0.0.1:9/x"]\n')
    shown = [run_here("models", "show", "mine"), run_here("models", "show", "mine", "--json")]
    shown.append(run_here("models", "pull", "mine"))
    assert all("127.0.0.1" in each.out + each.err and "ss@" not in each.out + each.err for each in shown)


@pytest.mark.parametrize("token", ["hf_abcdefghijk", "hf_abcdefghijk\nand more of it", "hf_abc defghijk"])
def test_no_secret_is_said(draw, monkeypatch, run_here, token):
    """Whatever library puts it into an error: not in the message, nor in the traceback, nor in a row's error."""

    def fail(*_):
        raise ValueError(f"Bearer {token!r} at https://me:{token}@host/x, {token}")

    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("vqclip.runs.session.make_deterministic", fail)
    monkeypatch.setenv("VQCLIP_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["vqclip", "generate", "x", "--steps", "1"])
    ended = draw()
    Path("p.txt").write_text("x")
    run_here("batch", "p.txt", "-o", "out")
    for said in (ended.err, ended.out, Path("out/batch.json").read_text(), Path("out/results.csv").read_text()):
        for part in [token, *token.splitlines()]:
            assert part not in said
    assert "(secret)" in ended.err


def test_a_presets_missing_models_are_pulled_by_one_command(run_here):
    refused = run_here("generate", "an owl", "--preset", "standard")
    assert refused.code == 5
    assert "vqclip models pull standard " in refused.err
    assert "--vqgan tiny --clip tiny" in refused.err
    assert "?;" not in run_here("generate", "an owl", "--vqgan", "tinny").err


def test_the_words_of_the_bundled_models_are_listed(run_here):
    done = run_here("models", "words", "strawb")
    assert (done.code, "strawberry" in done.out.splitlines()) == (0, True)
    assert "strawberry" in json.loads(run_here("models", "words", "--json").out)
    assert run_here("models", "words", "qqq").code == 4


def test_a_prompt_beyond_the_bundled_models_gets_one_note(vq):
    words = ("--steps", "2", "--size", "32", "--set", "cutouts=2")
    for prompt, notes in (("an owl", 0), ("quuxx | zzyx", 1), ("an owl painted by Monet", 1)):
        done = vq("generate", prompt, *words)
        assert done.err.count("vqclip models pull standard") == notes, done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [("MemoryError()", 7), ("ImportError('x.so: failed to map segment from shared object')", 7), ("ImportError()", 1)],
)
def test_too_little_memory_to_say_so_in_any_other_way_is_said_all_the_same(error, code):
    finder = f"class No:\n  def find_spec(self, *_): raise {error}\nsys.meta_path[:0] = [No()]\n"
    program = f"import vqclip.__main__, sys\n{finder}vqclip.__main__.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines()) == 2) == (code, code == 7)
