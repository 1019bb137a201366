"""What a picture says of itself: it is made again to the byte, varied, shown, and never obeyed."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import QUICK
from vqclip.errors import InputError, UsageError
from vqclip.runs.memory import Need
from vqclip.runs.records import read, settings_of
from vqclip.runs.run_dir import MAX_RECORD
from vqclip.settings.schema import Settings, make_settings

ROOT = Path(__file__).parents[3]
SETTINGS = make_settings(prompt="a cat", seed=5, steps=2, size=(32, 32), cutouts=2, tries=1).model_dump(mode="json")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def final(vq):
    """Return the path of a picture, in the folder `runs/a-red-heart-7`."""
    return Path(vq("generate", "a red heart", *QUICK).out.strip())


def png(record, name="given.png", key="vqclip", **more):
    """Save a picture that says a record (or any text) of itself; return its path."""
    info = PngInfo()
    info.add_itxt(key, record if isinstance(record, str) else json.dumps(record), **more)
    Image.new("RGB", (4, 4)).save(name, pnginfo=info)
    return Path(name)


def told(**settings):
    """Return a record with settings as given."""
    return {"settings": SETTINGS | settings}


def made(run):
    """Return (settings, bytes) of what a command made."""
    assert run.code == 0, run.err
    path = Path(run.out.strip())
    return json.loads(path.with_name("run.json").read_text(encoding="utf-8"))["settings"], path.read_bytes()


def refused(run, code=4):
    """Return the one short line in which a command refused."""
    assert (run.code, run.out) == (code, "")
    first, hint = run.lines
    assert first.startswith("error: ")
    assert hint.startswith("  ")
    assert len(first) < 700
    return first


# making a picture again


def copied(path):
    Path("copy.png").write_bytes(path.read_bytes())
    return "copy.png"


@pytest.mark.parametrize(
    "source",
    [
        lambda path: path,
        lambda path: path.parent,
        lambda path: path.parent / "frames" / "000000.png",
        copied,
    ],
    ids=["final.png", "run directory", "first frame", "a copy elsewhere"],
)
def test_a_picture_is_made_again_to_the_byte(vq, final, source):
    assert made(vq("rerun", source(final)))[1] == final.read_bytes()


def test_every_frame_is_made_again_to_the_byte(vq, final):
    again = Path(vq("rerun", final).out.strip()).parent
    for frame in (final.parent / "frames").iterdir():
        assert (again / "frames" / frame.name).read_bytes() == frame.read_bytes()


def test_a_picture_of_every_setting_is_made_again_to_the_byte(vq, final):
    args = ["--init", "codes", "--coarse", "0", "--ema", "0", "--augments", "blur", "--noise", "0", "--tv", "0.5",
            "--margin", "0", "--overview", "0.2", "--smallest-cutout", "0.3", "--damping", "0"]  # fmt: skip
    first = Path(vq("generate", "a cat:2 | text:-0.5", *QUICK, *args).out.strip())
    assert made(vq("rerun", first))[1] == first.read_bytes()


def test_what_was_made_again_can_be_made_again(vq, final):
    again = Path(vq("rerun", final).out.strip())
    assert made(vq("rerun", again))[1] == final.read_bytes()


def test_making_again_leaves_the_first_alone(vq, final):
    before = {path: path.read_bytes() for path in final.parent.rglob("*") if path.is_file()}
    again = Path(vq("rerun", final).out.strip())
    assert again.parent.name == "a-red-heart-7-2"
    assert {path: path.read_bytes() for path in final.parent.rglob("*") if path.is_file()} == before


def test_making_again_on_the_same_machine_says_nothing_of_differences(vq, final):
    err = vq("rerun", final).err
    assert "differ" not in err


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"models": {"vqgan": {"name": "x", "sha256": "0"}, "clips": []}}, "models"),
        ({"models": 5}, "models"),
        ({"versions": {"torch": "0.1"}}, "torch 0.1"),
        ({"versions": "old"}, "vqclip None"),
        ({"device": "cuda:0"}, "device cuda:0"),
        ({"threads": 96}, "threads 96"),
        ({"changes": [{"after": 2, "settings": {"tv": 1}}]}, "changed during the run"),
    ],
)
def test_what_may_make_a_difference_is_said(vq, final, change, word):
    (line,) = [line for line in vq("rerun", png(read(final) | change)).lines if word in line]
    assert "differ" in line


def test_a_picture_that_was_stopped_is_made_to_its_end(vq, final, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vqclip.cli.progress.Reporter.stopped", property(lambda self: bool(self.steps)))
        stopped = Path(vq("generate", "a red heart", *QUICK).out.strip())
    assert read(stopped)["step"] == 1
    assert made(vq("rerun", stopped))[1] == final.read_bytes()


def test_settings_that_are_not_told_are_the_defaults():
    record = {"settings": {"prompt": "a cat", "seed": 3}}
    assert settings_of(png(record), record) == make_settings(prompt="a cat", seed=3)


def test_a_rerun_that_is_short_of_memory_takes_the_option_that_it_names(vq, final, monkeypatch):
    monkeypatch.setattr("vqclip.runs.memory.available", lambda device: 1500)
    monkeypatch.setattr("vqclip.runs.memory.estimate", lambda session: Need(100, 100, 1000, 1000, 0))
    assert "--fit" in vq("rerun", final).err
    done = vq("rerun", final, "--fit")
    assert (done.code, read(Path(done.out.strip()))["settings"]["chunk"]) == (0, 1)


# variations


@pytest.mark.full
@pytest.mark.parametrize(
    ("args", "changes"),
    [
        (["--seed", "8"], {"seed": 8}),
        (["-S", "0"], {"seed": 0}),
        (["--set", "steps=2"], {"steps": 2}),
        (["--set", "step-size=0.5", "--set", "tv = 0"], {"step_size": 0.5, "tv": 0.0}),
        (["--set", "size=48x64"], {"size": [48, 64]}),
        (["--set", "prompt=a = b:2"], {"prompt": "a = b:2"}),
        (["--set", "augments="], {"augments": []}),
        (["--set", "augments=flip, blur"], {"augments": ["flip", "blur"]}),
        (["--set", "seed=9", "--seed", "8"], {"seed": 8}),
        (["--set", "steps=9", "--set", "steps=2"], {"steps": 2}),
    ],
)
@pytest.mark.parametrize("folder", [False, True], ids=["picture", "run directory"])
def test_a_variation_differs_in_what_was_said_and_nothing_else(vq, final, folder, args, changes):
    before = read(final)["settings"]
    assert made(vq("rerun", final.parent if folder else final, *args))[0] == before | changes


def test_another_seed_gives_another_picture(vq, final):
    assert made(vq("rerun", final, "--seed", "8"))[1] != final.read_bytes()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--set", "stepz=2"], "steps"),
        (["--set", "steps"], "no value"),
        (["--set", "=2"], "unknown"),
        (["--set", ""], "no value"),
        (["--set", "steps=0"], "steps"),
        (["--set", "size=8by8"], "8by8"),
        (["--set", "clips="], "clips"),
        (["--set", "prompt="], "no prompt"),
        (["--seed", "-2"], "seed"),
        (["--seed", "abc"], "--seed"),
        (["--set", "__class__=x"], "unknown"),
    ],
)
def test_a_wrong_variation_has_exit_code_2_before_a_model_loads(vq, networks, args, word):
    assert word in refused(vq("rerun", png(told()), *args), 2)
    assert networks.loaded == []


def test_a_file_that_a_variation_names_is_recorded_by_its_path_from_the_run(vq, final):
    Image.new("RGB", (40, 40), "red").save("start.png")
    settings, _ = made(vq("rerun", final, "--set", "init_image=start.png", "--set", "image_prompts=start.png"))
    assert (settings["init_image"], settings["image_prompts"]) == ("../../start.png", ["../../start.png"])


def test_a_picture_that_was_made_from_a_file_is_made_again_with_that_file(vq):
    Image.new("RGB", (40, 40), "red").save("start.png")
    first = Path(vq("generate", "x", *QUICK, "--init-image", "start.png").out.strip())
    assert "'start.png'" in refused(vq("rerun", first))
    assert made(vq("rerun", first, "--set", "init_image=start.png"))[1] == first.read_bytes()
    assert made(vq("rerun", first.parent))[1] == first.read_bytes()


# no picture of ours


def test_a_picture_without_metadata_is_refused_with_the_key_that_was_looked_for(vq):
    Image.new("RGB", (4, 4)).save("bare.png")
    assert "'vqclip'" in refused(vq("rerun", "bare.png"))


def test_a_picture_of_another_program_is_refused_with_the_key_that_was_looked_for(vq):
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512"
    assert "'vqclip'" in refused(vq("rerun", png(text, key="parameters")))


def cut(share):
    def write(path):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def forged(*chunks, side=4):
    """Return a PNG of which only the header and the given chunks are there."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", b""), chunk(b"IEND", b"")])


def crushed(size, kind=b"zTXt"):
    """Return a small text chunk that says it is the record and unpacks to `size` bytes."""
    head = b"vqclip\0\0" if kind == b"zTXt" else b"vqclip\0\1\0\0\0"
    return chunk(kind, head + zlib.compress(b"[" * size, 9))


NONE = {
    "empty": b"",
    "text": b"a cat",
    "HTML": b"<html>404</html>",
    "only a signature": b"\x89PNG\r\n\x1a\n",
    "zeros": bytes(1000),
    "a header of 400 megapixels": forged(side=20_000),
    "a header of the largest size": forged(side=2**31 - 1),
    "2 MiB of text in 2 kB": forged(crushed(2**21)),
    "2 MiB of international text in 2 kB": forged(crushed(2**21, b"iTXt")),
    "100 MiB of text in 100 kB": forged(*[crushed(2**20 - 1)] * 100),
    "a text chunk without an end": forged(chunk(b"zTXt", b"vqclip")),
    "compressed text that is none": forged(chunk(b"zTXt", b"vqclip\0\0junk")),
    "international text that is none": forged(chunk(b"iTXt", b"vqclip\0")),
    "text that is not UTF-8": forged(chunk(b"iTXt", b"vqclip\0\0\0\0\0\xff\xfe")),
    "a chunk that says it is longer": forged()[:33] + struct.pack(">I", 2**31 - 1) + b"iTXtvqclip",
    "an unknown critical chunk": forged(chunk(b"ABCD", b"")),
    "a wrong checksum": forged(chunk(b"tEXt", b"vqclip\0{}")[:-1] + b"?"),
}


@pytest.mark.full
@pytest.mark.parametrize("command", ["rerun", "show"])
@pytest.mark.parametrize("name", NONE)
def test_a_file_that_is_no_picture_of_ours_has_exit_code_4(vq, networks, recwarn, command, name):
    Path("given.png").write_bytes(NONE[name])
    assert "given.png" in refused(vq(command, "given.png"))
    assert networks.loaded == []
    assert not recwarn.list


@pytest.mark.parametrize("command", ["rerun", "show", "resume"])
@pytest.mark.parametrize(
    "name", ["missing.png", "folder", "folder/a.png", "a" * 300, "a.png/b", "loop", "~no-such-user"]
)
def test_a_path_that_leads_nowhere_has_exit_code_4(vq, command, name):
    Path("folder").mkdir()
    Path("a.png").touch()
    Path("loop").symlink_to("loop")
    refused(vq(command, name))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_a_picture_of_another_format_is_refused(vq, kind):
    Image.new("RGB", (4, 4)).save("given.png", kind)
    assert "no PNG" in refused(vq("rerun", "given.png"))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_picture_that_was_cut_is_read_or_refused(vq, final, share):
    cut(share)(final)
    run = vq("show", final)
    assert run.code in (0, 4)
    assert run.code == 0 or len(run.lines) == 2


TEXTS = {
    "nothing": "",
    "no JSON": "a cat",
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "a string": '"a cat"',
    "half": '{"settings": {"prompt": "a cat"',
    "lists in lists": "[" * 500_000,
    "closed lists in lists": "[" * 400_000 + "]" * 400_000,
    "objects in objects": '{"settings":' * 80_000,
    "too long": " " * (MAX_RECORD + 1),
    "too many digits": '{"settings": {"prompt": "x", "seed": 1' + "0" * 5000 + "}}",
    "a byte-order mark": "\ufeff{}",
    "400 digits": json.dumps(told(steps=10**400)),
    "NaN": json.dumps(told(noise=float("nan"))),
    "infinity": json.dumps(told(tv=float("inf"))),
    "deep lists": json.dumps(told(steps=json.loads("[" * 400 + "]" * 400))),
}
WRONG = {
    "no settings": {"prompt": "a cat"},
    "settings that are a list": {"settings": [SETTINGS]},
    "settings that are text": {"settings": "prompt"},
    "settings that are null": {"settings": None},
    "no prompt": told(prompt=""),
    "a prompt that is a number": told(prompt=5),
    "a prompt that is too long": told(prompt="a" * 2001),
    "a prompt of surrogates": told(prompt="\ud800"),
    "a prompt of control characters": told(prompt="a\x1b]0;pwn\x07"),
    "a setting of the future": told(dream_depth=3),
    "a setting with a name from hell": told(**{"\x1b[31m" * 50_000: 1}),
    "a setting by the name of a method": told(model_config={}, __class__="x"),
    "steps that are text": told(steps="many"),
    "steps beyond all": told(steps=10**9),
    "steps that are null": told(steps=None),
    "a size of one": told(size=[8]),
    "a size beyond all": told(size=[10**6, 10**6]),
    "a negative size": told(size=[-8, -8]),
    "an unknown start": told(init="eval"),
    "an unknown augmentation": told(augments=["x" * 100_000]),
    "clips that are a number": told(clips=5),
    "no clips": told(clips=[]),
    "a vqgan that is a list": told(vqgan=["tiny"]),
    "a large value": told(steps="9" * 900_000),
    "a large list": told(size=[8] * 300_000),
}


@pytest.mark.full
@pytest.mark.parametrize("name", [*TEXTS, *WRONG])
def test_a_record_that_is_none_of_ours_has_exit_code_4(vq, networks, name):
    path = png(TEXTS.get(name) or WRONG.get(name) or "")
    assert "given.png" in refused(vq("rerun", path))
    assert networks.loaded == []
    assert list(Path().iterdir()) == [path]


@pytest.mark.parametrize("name", TEXTS)
def test_a_record_that_is_no_object_is_not_shown(vq, name):
    refused(vq("show", png(TEXTS[name])))


@pytest.mark.full
@pytest.mark.parametrize("args", [[], ["--json"]], ids=["lines", "JSON"])
@pytest.mark.parametrize("name", WRONG)
def test_a_record_of_anything_is_shown(vq, name, args):
    assert vq("show", png(WRONG[name]), *args).code == 0


def test_of_a_setting_that_is_told_twice_what_is_shown_is_what_counts(vq):
    inner = json.dumps(SETTINGS)
    path = png('{"settings": ' + inner + ', "settings": ' + inner[:-1] + ', "prompt": "a dog"}}')
    assert settings_of(path, read(path)).prompt == "a dog"
    (line,) = [line for line in vq("show", path).out.splitlines() if line.startswith("prompt")]
    assert line.split(maxsplit=1)[1] == "a dog"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"schema": "vqclip-run/2"}', '{"schema": 1}', '{"schema": ["vqclip-run/1"]}',
     "[" * 100_000, '{"schema": "vqclip-run/1"}' + " " * MAX_RECORD, '{"schema": "vqclip-run/1"}'],
    ids=lambda text: text[:28],
)  # fmt: skip
@pytest.mark.parametrize("command", ["rerun", "resume"])
def test_a_run_directory_with_a_record_that_is_none_has_exit_code_4(vq, networks, command, text):
    Path("run").mkdir()
    Path("run/run.json").write_text(text)
    assert "run" in refused(vq(command, "run"))
    assert networks.loaded == []


def test_a_run_of_a_later_vqclip_is_refused_with_the_schema_that_is_read(vq):
    Path("run").mkdir()
    Path("run/run.json").write_text('{"schema": "vqclip-run/2"}')
    assert "'vqclip-run/1'" in refused(vq("rerun", "run"))


@pytest.mark.full
@pytest.mark.parametrize("key", ["models", "pictures", "versions", "changes", "steps_done", "plan", "settings"])
@pytest.mark.parametrize("value", [None, "x", 5.5, {}, []], ids=repr)
@pytest.mark.parametrize("command", ["rerun", "resume", "show"])
def test_a_run_json_of_wrong_types_is_no_fault_of_the_program(vq, final, command, key, value):
    path = final.parent / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value, "status": "stopped"}))
    run = vq(command, final.parent)
    assert run.code in (0, 4)
    assert run.code == 0 or refused(run)


@pytest.mark.full
@pytest.mark.parametrize(
    "plan",
    [
        {"frames_every": -1}, {"frames_every": float("inf")}, {"frames_every": "x"}, {"frames_every": None},
        {"checkpoint_every": 5}, {"checkpoint_every": {"steps": -1, "seconds": 0}}, {"checkpoint_every": {}},
        {"checkpoint_every": {"steps": "x", "seconds": 0}}, {"checkpoint_every": {"steps": 1, "seconds": 1, "x": 1}},
        {"checkpoint_every": {"steps": float("inf"), "seconds": 0}}, {"checkpoint_every": {"steps": 0, "seconds": [1]}},
    ],
)  # fmt: skip
def test_a_plan_that_is_none_is_answered_before_the_run_goes_on(vq, final, plan):
    path = final.parent / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"plan": record["plan"] | plan, "status": "stopped"}))
    run = vq("resume", final.parent)
    assert run.code == 4 or (run.code == 0 and "x" in plan["checkpoint_every"])


# hostile pictures: the files that they name

OUTSIDE = "outside/secret.png"
NAMES = [
    "{outside}",
    "/etc/passwd",
    "../outside/secret.png",
    "outside/secret.png",
    "~/secret.png",
    "//host/share/a.png",
    "http://localhost/a.png",
    "file:///etc/passwd",
    "-o",
    "|id",
    "$(id)",
    "${oc.env:HOME}",
    "a\x00b",
    "\ud800",
    "x" * 5000,
    ".",
    "hf-hub:someone/model",
    "tiny/../tiny",
]


@pytest.mark.full
@pytest.mark.parametrize("field", ["init_image", "image_prompts", "vqgan", "clips"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:24]))
def test_a_file_that_a_picture_names_is_neither_read_nor_loaded(vq, networks, monkeypatch, field, name):
    opened = []
    monkeypatch.setattr("vqclip.runs.session.load_image", lambda path: opened.append(path))
    monkeypatch.setattr("vqclip.models.catalogue.expand", lambda path: opened.append(path))
    name = name.format(outside=Path.cwd() / OUTSIDE) if "{outside}" in name else name
    path = png(told(**{field: [name] if field in ("image_prompts", "clips") else name}))
    kind = {"vqgan": "vqgan", "clips": "clip"}.get(field, field.replace("_", " "))
    what = refused(vq("rerun", path))
    assert f"was made with {'the ' if field in ('vqgan', 'clips') else ''}{kind} " in what
    assert (opened, networks.loaded) == ([], [])


def test_a_clip_that_a_picture_names_beside_a_known_one_is_not_loaded(vq, networks):
    assert "'/mine'" in refused(vq("rerun", png(told(clips=["tiny", "/mine"]))))
    assert networks.loaded == []


def test_of_a_thousand_names_a_few_are_said(vq):
    refused(vq("rerun", png(told(image_prompts=["x" * 400] * 1000))))


def test_other_files_that_a_record_names_are_of_no_account(vq, networks):
    elsewhere = str(Path.cwd().parent / "elsewhere")
    extra = dict.fromkeys(
        ("runs", "out", "path", "run", "device", "config", "preset", "plan", "save_config"), elsewhere
    )
    settings, _ = made(vq("rerun", png(told() | extra)))
    assert settings.pop("precision") in ("float32", "bfloat16")
    assert settings == {name: value for name, value in SETTINGS.items() if name != "precision"}
    assert not Path(elsewhere).exists()
    assert set(networks.loaded) == {"tiny"}


def test_a_prompt_that_is_a_path_stays_in_the_folder_of_runs(vq):
    run = vq("rerun", png(told(prompt="../../../etc/passwd")))
    assert run.out == str(Path("runs/etc-passwd-5/final.png")) + "\n"


WATCH = """
import json, os, sys
from pathlib import Path

sys.dont_write_bytecode = True
log = []
import vqclip.cli
if sys.argv[1] == "draws":
    import torch, kornia, open_clip, PIL.PngImagePlugin, tqdm, filelock
    from tests.support.fakes import FakeClip, FakeVqgan
    import vqclip.runs.networks

    vqclip.runs.networks.LOADERS['vqgan'] = lambda name, device: FakeVqgan()
    vqclip.runs.networks.LOADERS['clip'] = lambda name, device: FakeClip()
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")

def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        flags = args[2] if isinstance(args[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        log.append(["write" if writes else "read", os.path.realpath(os.fsdecode(args[0]))])
    elif event in WRITES:
        log.extend(["write", os.path.realpath(os.fsdecode(arg))] for arg in args[:2] if isinstance(arg, (str, bytes)))
    elif event in STARTS:
        log.append(["start", event + " " + repr(args)[:200]])

sys.argv = ["vqclip", *sys.argv[2:]]
sys.addaudithook(watch)
try:
    vqclip.cli.main()
finally:
    with os.fdopen(os.dup(1), "w") as out:
        out.write("\\n" + json.dumps(log))
"""


def watched(*args, draws):
    """Run the command in a process where every file that is opened is noted: (exit code, [(what, path)])."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    mode = "draws" if draws else "reads"
    done = subprocess.run(
        [sys.executable, "-c", WATCH, mode, *args], capture_output=True, text=True, env=environ, check=False
    )
    return done.returncode, [tuple(entry) for entry in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.full
def test_making_a_strangers_picture_writes_in_the_output_folder_alone():
    Path("here").mkdir()
    secret = Path(OUTSIDE)
    secret.parent.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    extra = {"runs": str(secret.parent), "pictures": {str(secret): "0"}, "models": {"vqgan": {"name": str(secret)}}}
    path = png(told(prompt="../../outside/secret.png | $(touch outside/x)") | extra, "here/given.png")
    os.chdir("here")
    code, log = watched("rerun", path.name, draws=True)
    assert code == 0
    inside = Path.cwd() / "runs"
    wrote = {path for what, path in log if what == "write"} - {os.devnull}
    assert len(wrote) > 5
    assert [path for path in wrote if not Path(path).is_relative_to(inside) and Path(path).parent != Path.cwd()] == []
    assert [path for path in Path().iterdir() if path.name not in ("given.png", "runs")] == []  # the probe has gone
    assert str((Path("..") / OUTSIDE).resolve()) not in {path for _, path in log}
    assert [entry for entry in log if entry[0] == "start"] == []


@pytest.mark.full
@pytest.mark.parametrize("command", ["rerun", "show"])
def test_a_strangers_picture_that_names_files_has_none_of_them_opened(command):
    secret = Path(OUTSIDE).absolute()
    secret.parent.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    folder = str(secret.parent)
    path = png(told(init_image=str(secret), image_prompts=[str(secret)], vqgan=folder, clips=[folder, "hf-hub:a/b"]))
    code, log = watched(command, str(path), draws=False)
    assert code == (4 if command == "rerun" else 0)
    assert [entry for entry in log if entry[0] != "read" or folder in entry[1]] == []
    assert ("read", str(path.absolute())) in log  # the hook sees what is opened


# hostile pictures: what they say

TRICKS = [
    "\x1b]0;pwn\x07",
    "\x1b[2J",
    "\x9b31m",
    "\u202egnp.",
    "\u2066x\u2069",
    "\r\nerror: forged",
    "\x08" * 9,
    "\x00",
    "\u2028",
]
OBEYED = set("\x1b\x07\x9b\x08\x00\r\u202e\u2066\u2069\u2028")


@pytest.mark.full
@pytest.mark.parametrize("trick", TRICKS, ids=repr)
@pytest.mark.parametrize("args", [[], ["--json"]], ids=["lines", "JSON"])
def test_what_is_shown_of_a_picture_cannot_speak_to_the_terminal(vq, trick, args):
    hostile = {"settings": SETTINGS | {"prompt": trick, "vqgan": trick}, trick: trick, "versions": {trick: [trick]}}
    run = vq("show", png(hostile), *args)
    assert run.code == 0
    assert not OBEYED & set(run.out + run.err)
    assert args or len(run.out.splitlines()) == sum(value not in (None, [], "") for value in SETTINGS.values()) + 2


@pytest.mark.full
@pytest.mark.parametrize("trick", TRICKS, ids=repr)
@pytest.mark.parametrize(
    "field", ["prompt", "vqgan", "clips", "init_image", "image_prompts", "init", "augments", "name"]
)
def test_what_is_refused_of_a_picture_cannot_speak_to_the_terminal(vq, trick, field):
    hostile = (
        {trick: 1}
        if field == "name"
        else {field: [trick] if field in ("clips", "image_prompts", "augments") else trick}
    )
    run = vq("rerun", png(told(**hostile)))
    assert not OBEYED & set(run.err)
    assert len([line for line in run.lines if line.startswith("error: ")]) <= 1


@pytest.mark.full
@pytest.mark.parametrize("trick", TRICKS, ids=repr)
def test_what_is_noted_of_a_picture_cannot_speak_to_the_terminal(vq, trick):
    run = vq("rerun", png(told() | {"versions": {"torch": trick * 1000}, "device": trick, "models": trick}))
    assert run.code == 0
    assert not OBEYED & set(run.err)
    assert max(map(len, run.lines)) < 300


# showing


def test_what_is_shown_begins_with_the_prompt_and_has_every_setting_that_is_not_empty(vq, final):
    lines = vq("show", final).out.splitlines()
    assert lines[0].split(maxsplit=1) == ["prompt", "a red heart"]
    told = [name for name in Settings.model_fields if read(final)["settings"].get(name) not in (None, [], "")]
    assert [line.split()[0] for line in lines[: len(told)]] == told
    assert {"steps", "size", "clips"} < set(told)
    assert "size                 32x32" in lines
    assert {"models vqgan", "models clips"} <= {line[:20].strip() for line in lines}


@pytest.mark.parametrize("word", ["models", "versions", "device", "threads", "step"])
def test_what_is_shown_has_models_and_machine(vq, final, word):
    assert any(line.split()[0] == word for line in vq("show", final).out.splitlines())


def test_what_is_shown_as_json_is_the_record(vq, final):
    assert json.loads(vq("show", final, "--json").out) == read(final)


def test_of_a_run_directory_its_run_json_is_shown(vq, final):
    shown = json.loads(vq("show", final.parent, "--json").out)
    assert shown == json.loads((final.parent / "run.json").read_text())


def test_showing_says_nothing_on_stderr(vq, final):
    assert vq("show", final).err == ""


@pytest.mark.full
def test_showing_loads_no_torch():
    path = png(told())
    code = (
        "import sys, vqclip.cli\n"
        f"sys.argv = ['vqclip', 'show', {str(path)!r}]\n"
        "try: vqclip.cli.main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines()[-1] == "False"


# as functions


def test_a_record_is_what_the_picture_says():
    assert read(png({"settings": {}, "more": [1, "ä"]})) == {"settings": {}, "more": [1, "ä"]}


@pytest.mark.parametrize("more", [{}, {"zip": True}], ids=["plain", "compressed"])
def test_a_record_may_be_compressed(more):
    assert read(png(told(), **more)) == told()


def test_changes_are_laid_over_the_settings_of_a_record():
    assert settings_of(png(told()), told(), {"steps": 9}) == make_settings(**SETTINGS | {"steps": 9})


def test_a_wrong_change_is_the_users_mistake():
    with pytest.raises(UsageError, match="steps"):
        settings_of(png(told()), told(), {"steps": 0})


def test_a_wrong_setting_is_the_pictures():
    with pytest.raises(InputError, match="steps"):
        settings_of(png(told()), told(steps=0))


@pytest.mark.parametrize(
    "values", [{"init": "sample", "candidates": 4096}, {"steps": 100_000}, {"size": [4096, 4096]}, {"tries": 10_000},
               {"cutouts": 4096}], ids=str,
)  # fmt: skip
def test_work_beyond_reason_that_a_picture_asks_for_must_be_typed(vq, values):
    name, value = list(values.items())[-1]
    path = png(told(**values))
    assert name.replace("size", "4096x4096") in refused(vq("rerun", path))
    typed = {name: tuple(value) if name == "size" else value}
    assert getattr(settings_of(path, read(path), typed), name) == typed[name]
