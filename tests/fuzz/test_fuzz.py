"""Thousands of bad inputs: each is taken, or answered by a VqclipError of one line and a hint; nothing else happens.

The default run tries a few hundred of each kind, `-m slow` thousands, VQCLIP_FUZZ=N as many as it says.
"""

import contextlib
import io
import json
import os
import string
import struct
import sys
import zlib
from pathlib import Path

import pytest
import typer
from hypothesis import strategies as st
from PIL import Image

import vqclip.cli
from tests.support.fakes import draw
from tests.support.fuzzing import edits, fuzz, mutated, odd, values, words
from vqclip.config.layers import gather
from vqclip.core.loop import State
from vqclip.core.optimizers import Moments
from vqclip.errors import UsageError, VqclipError
from vqclip.files.images import load_image
from vqclip.files.metadata import ImageInfo, parameters, to_png, write_jpeg
from vqclip.runs.checkpoint import NAME, PREVIOUS, load_state, save_state
from vqclip.runs.output import Output
from vqclip.runs.records import read, settings_of
from vqclip.runs.run_dir import RunDir, slugify
from vqclip.settings.prompts import parse_prompts, prompt_notes
from vqclip.settings.schema import Settings, make_settings

fields = st.sampled_from(list(Settings.model_fields))
names = fields | fields.map(lambda name: name[:-1]) | words | st.sampled_from(["preset", "step-size", "", "__class__"])
SETTINGS = make_settings(prompt="a cat", seed=5, steps=3, size=(32, 32), cutouts=2, tries=1).model_dump(mode="json")
TINY = {"name": "tiny", "sha256": "0123456789abcdef" * 4}  # as the fixture `networks` has it
RECORD = {
    "settings": SETTINGS,
    "models": {"vqgan": TINY, "clips": [TINY]},
    "versions": {"vqclip": "0.1.0", "torch": "2.14.1"},
    "pictures": {},
    "device": "cpu",
    "threads": 1,
}
keys = st.tuples(st.integers(0, 99), st.integers(0, 99))


def spoilt(record, place, value):
    """Return a record in which one entry, or one entry of an entry, is another value."""
    record = json.loads(json.dumps(record))
    key = sorted(record)[place[0] % len(record)]
    inner = record[key]
    if isinstance(inner, dict) and inner and place[1] % 4:
        inner[sorted(inner)[place[1] % len(inner)]] = value
    else:
        record[key] = value
    return record


def png_of(text):
    """Return a PNG that says a text of itself, as bytes; surrogates stay in it as they are."""
    body = b"vqclip\0\0\0\0\0" + text.encode("utf-8", "surrogatepass")
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]


# what is done with them


def use_prompt(folder, source):
    """Take a prompt from the start of a run to its last file: what is accepted must be writable hours later."""
    taken = make_settings(**SETTINGS | {"prompt": source})
    assert parse_prompts(taken.prompt)
    assert all(note.isprintable() for note in prompt_notes(taken.prompt))
    assert len(os.fsencode(f"{slugify(taken.prompt)}-{2**63 - 1}-99999")) < 256
    record = RECORD | {"settings": taken.model_dump(mode="json")}
    (folder / "a.png").write_bytes(to_png(Image.new("RGB", (4, 4)), record))
    assert settings_of(folder / "a.png", read(folder / "a.png")) == taken
    assert write_jpeg(Image.new("RGB", (4, 4)), ImageInfo.of(record))
    assert parameters(record).count("\n") == 1


def lay(folder, *, config=None, environ=None):
    gather({}, config=config, preset_name=None, environ=environ or {}, folder=folder, prompt="a cat")


def use_config_bytes(folder, content):
    name, data = content
    (folder / name).write_bytes(data)
    lay(folder / "none", config=folder / name)


def use_config(folder, content):
    (folder / "a.json").write_text(json.dumps(content))
    lay(folder / "none", config=folder / "a.json")


def use_toml(folder, content):
    lines = "".join(f"{name} = {value}\n" for name, value in content)
    (folder / "vqclip.toml").write_text(lines, encoding="utf-8", errors="replace")
    lay(folder)


def use_environment(folder, content):
    lay(folder / "none", environ={f"VQCLIP_{name.upper()}": text.replace("\0", "") for name, text in content.items()})


def use_picture(folder, data):
    """Show a picture and take its settings."""
    path = folder / "a.png"
    path.write_bytes(data)
    fault: VqclipError | None = None
    try:
        settings_of(path, read(path))
    except VqclipError as error:
        fault = error
    for flag in (False, True):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(VqclipError):
            vqclip.cli.rerun.show(path, flag)
        assert flag or all(c.isprintable() or c == "\n" for c in out.getvalue())
    with contextlib.suppress(VqclipError):
        load_image(path)
    if fault:
        raise fault


def use_state(folder, data):
    (folder / NAME).write_bytes(data)
    state, _ = load_state(folder)
    assert isinstance(state, State)


def use_run(folder, text):
    """Take hold of a run that is there and go on with it."""
    from vqclip.runs.api import resume

    run = folder / "run"
    (run / "frames").mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    for name in (NAME, PREVIOUS, "metrics.jsonl", "final.png"):
        (run / name).unlink(missing_ok=True)
    with contextlib.closing(RunDir.open(run)) as held:
        record = held.read_json()
        Output().following(record)
        taken = settings_of(run, record)
    if small(taken):
        resume(run, device="cpu")


def use_command(folder, args):
    """Run a command line here; everything is written below the current folder."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape"), io.StringIO()
    sys.argv = ["vqclip", *args]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        vqclip.cli.main()
    code, said = ended.value.code or 0, err.getvalue()
    assert code in (0, *range(2, 12)), said
    assert "fault" not in said
    assert "Traceback" not in said
    if code:
        lines = said.splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith("error: "))
        if len(lines) == at + 2:
            raise UsageError(lines[at], lines[at + 1].strip())
        raise AssertionError(said)


def small(taken):
    return max(taken.size) <= 64 and taken.steps <= 3 and taken.cutouts <= 4 and taken.tries <= 4


# the table

CONFIG = "".join(f"{name} = {json.dumps(value)}\n" for name, value in SETTINGS.items() if value is not None).encode()
Z, EMA, M, V = (draw(1, 3, 2, 2, seed=seed) for seed in range(4))
STATE = State(7, "full", Z, EMA, Moments(M, V, 3))
RUN = RECORD | {
    "schema": "vqclip-run/1",
    "plan": {"metadata": True, "frames_every": 2, "checkpoint_every": {"steps": 0, "seconds": 30.0}},
    "changes": [],
    "status": "stopped",
    "steps_done": 2,
    "seconds": 0.1,
}
toml_values = (
    values.map(json.dumps)
    | odd
    | st.text(string.punctuation + string.digits + "einfxat \n", max_size=12)
    | st.sampled_from(["1979-05-27", "07:32:00", "0xFF", "0o7", "1_000", "'''a\n'''", "{a = 1}", "0x" + "F" * 5000])
)


def state_bytes(folder):
    save_state(folder, STATE)
    return (folder / NAME).read_bytes()


COMMANDS = typer.main.get_command(vqclip.cli.app).commands
FLAGS = {  # command -> flag -> whether a value follows
    name: {flag: not option.is_flag for option in command.params for flag in option.opts if flag.startswith("-")}
    for name, command in COMMANDS.items()
    if not hasattr(command, "commands")
}
GOOD = {
    "--seed": "3", "--size": "32x48", "--steps": "2", "--init-image": "a.png", "--image-prompt": "a.png",
    "--out": "o.jpg",
    "--config": "good.toml", "--save-config": "s.toml", "--set": "steps=2", "--preset": "tiny", "--augments": "flip",
    "--init": "codes", "--device": "cpu", "--checkpoint-every": "1", "--vqgan": "tiny", "--clip": "tiny", "--runs": "r",
}  # fmt: skip
SAFE = st.characters(exclude_characters="/\0", exclude_categories=("Cs",))
argument = (
    st.sampled_from(
        ["0", "1", "2", "3", "-1", "0.5", "nan", "1e999", "32", "32x48", "auto", "cpu", "cuda:9", "tiny", "flip,blur",
         "codes", "a.png", "b.webp", "bad.toml", "good.toml", "run", "folder", "missing/x.png", "steps=2", "stepz=2",
         "steps=", "size=32", "30s", "", "a | b:2", "a:0", "--", "-", os.fsdecode(b"\xff"), "x" * 300, "\x1b[31m"]
    )
    | st.text(SAFE, max_size=6)
)  # fmt: skip
QUICK = ["--steps", "1", "--size", "32", "--cutouts", "1", "--tries", "1", "--init", "grey", "--upscale", "0"]


@st.composite
def command_lines(choose):
    name = choose(st.sampled_from(sorted(FLAGS)))
    subject = st.sampled_from({"generate": ["a", "a | b:2"], "settings": []}.get(name, ["a.png"]) or ["--json"])
    args = [name, choose(subject | subject | argument), *(QUICK if name == "generate" else [])]
    for flag in choose(st.lists(st.sampled_from(sorted(FLAGS[name])), max_size=3)):
        good = st.just(GOOD.get(flag, "0.5"))
        args += [flag, choose(good | good | argument)] if FLAGS[name][flag] else [flag]
    return args


TARGETS = {
    "prompts": (
        use_prompt, st.text(st.characters(exclude_categories=()), max_size=60) | odd | st.lists(odd).map("|".join)
    ),
    "settings files, bytes": (
        use_config_bytes,
        st.tuples(
            st.sampled_from(["a.toml", "a.json"]),
            st.binary(max_size=60) | edits.map(lambda changes: mutated(CONFIG, changes))
            | edits.map(lambda changes: mutated(json.dumps(SETTINGS).encode(), changes)),
        ),
    ),
    "settings files, TOML": (use_toml, st.lists(st.tuples(fields | st.just("preset"), toml_values), max_size=3)),
    "settings files, JSON": (use_config, values | st.dictionaries(names, values, max_size=3)),
    "environment": (use_environment, st.dictionaries(fields | st.just("preset"), words | odd, max_size=4)),
    "pictures, records": (
        use_picture,
        st.builds(lambda place, value: png_of(json.dumps(spoilt(RECORD, place, value))), keys, values)
        | st.dictionaries(words, values, max_size=3).map(lambda record: png_of(json.dumps(record)))
        | st.dictionaries(names, values, max_size=3).map(
            lambda more: png_of(json.dumps(RECORD | {"settings": SETTINGS | more}))
        ),
    ),
    "pictures, text": (
        use_picture,
        edits.map(lambda changes: png_of(mutated(json.dumps(RECORD).encode(), changes).decode("utf-8", "replace"))),
    ),
    "pictures, bytes": (
        use_picture, edits.map(lambda changes: mutated(to_png(Image.new("RGB", (4, 4)), RECORD), changes))
    ),
    "states": (use_state, edits),
    "runs, records": (use_run, st.builds(lambda *args: json.dumps(spoilt(RUN, *args)), keys, values)),
    "runs, bytes": (
        use_run,
        edits.map(lambda changes: mutated(json.dumps(RUN, indent=2).encode(), changes).decode("utf-8", "replace")),
    ),
    "command lines": (use_command, command_lines()),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, networks):
    """Return an empty folder to be in, where the commands find some files, draw with fakes and draw nothing large."""
    from vqclip.runs.session import Session

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("VQCLIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", sys.argv)
    load = Session.load

    def load_small(taken, *more, **named):
        if not small(taken):
            raise UsageError("too large for this test", "use less")
        return load(taken, *more, **named)

    monkeypatch.setattr(Session, "load", load_small)
    Path("folder").mkdir()
    Path("a.png").write_bytes(to_png(Image.new("RGB", (8, 8)), RECORD))
    Path("good.toml").write_text("steps = 1")
    Path("bad.toml").write_text("stepz = 1")
    return tmp_path


def tried(place, target, examples):
    """Try so many inputs of a kind; return how often which outcome came."""
    act, strategy = TARGETS[target]
    if target == "states":
        data = state_bytes(place)
        strategy = strategy.map(lambda changes: mutated(data, changes))
    return fuzz(lambda value: act(place, value), strategy, examples)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on what it skips
@pytest.mark.parametrize("target", TARGETS)
def test_any_input_is_taken_or_answered(place, target):
    seen = tried(place, target, 60 if target in ("command lines", "runs, records") else 200)
    assert seen["taken"]
    assert len(seen) > 1  # or the inputs were all of one kind


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("target", TARGETS)
def test_any_of_thousands_of_inputs_is_taken_or_answered(place, target, record_property):
    seen = tried(place, target, 2000)
    record_property(target, dict(seen))
    assert sum(seen.values()) > 1000
