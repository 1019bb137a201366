"""The world around a run: streams, folders, links, disks, odd pictures, prompts and names."""

import errno
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.conftest import QUICK
from vqclip.cli.outcome import typed
from vqclip.errors import InputError, IntegrityError
from vqclip.files.atomic import write_atomic
from vqclip.models import load_vqgan
from vqclip.models.catalogue import find
from vqclip.runs.run_dir import RunDir

ROOT = Path(__file__).parents[2]
LINUX = sys.platform == "linux"

SCENES = """
import json, os, sys
from pathlib import Path

import torch, kornia
from tests.support.fakes import FakeClip, FakeVqgan
import vqclip.cli, vqclip.runs.networks
from vqclip.cli.progress import Reporter

vqclip.runs.networks.LOADERS['vqgan'] = lambda name, device: FakeVqgan()
vqclip.runs.networks.LOADERS['clip'] = lambda name, device: FakeClip()
GENERATE = json.loads(sys.argv[2])
report = Reporter.step

def unread(*numbers):
    inward, outward = os.pipe()
    os.close(inward)
    for number in numbers:
        os.dup2(outward, number)

def closed(*numbers):
    for number in numbers:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)

def terminal(close_at):
    master, slave = os.openpty()
    os.dup2(slave, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    assert sys.stderr.isatty()
    def step(self, step):
        if step.step == close_at:
            os.close(master)
        return report(self, step)
    Reporter.step = step
    if not close_at:
        os.close(master)

def gone():
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")

SCENES = {
    "stdout unread": lambda: unread(1),
    "stderr unread": lambda: unread(2),
    "both unread": lambda: unread(1, 2),
    "stdout closed": lambda: closed(1),
    "stderr closed": lambda: closed(2),
    "stdin closed": lambda: closed(0),
    "all closed": lambda: closed(0, 1, 2),
    "terminal closed before": lambda: terminal(0),
    "terminal closed on the way": lambda: terminal(2),
    "folder gone": gone,
    "folder gone, picture given": gone,
}
weight = torch.zeros(1, requires_grad=True)  # imports are made once, not in each child; without a backward
weight.grad = torch.zeros(1)  # pass, whose threads would not survive a fork
torch.optim.Adam([weight]).step()
codes = {}
for name, begin in SCENES.items():
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    child = os.fork()
    if not child:
        os.chdir(folder)
        sys.argv = ["vqclip", *GENERATE, *(["--init-image", "a.png"] if "given" in name else [])]
        begin()
        try:
            vqclip.cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            code = 120  # as Python ends where that fails
        os._exit(code)  # all else that it does at its end takes seconds
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
Path(sys.argv[1], "codes.json").write_text(json.dumps(codes))
"""
STREAMS = ["stdout unread", "stderr unread", "both unread", "stdout closed", "stderr closed", "stdin closed",
           "all closed", "terminal closed before", "terminal closed on the way"]  # fmt: skip


def environment(**more):
    """Return what a process needs to find this code and nothing else."""
    quick = {"VQCLIP_INIT": "grey", "VQCLIP_UPSCALE": "0", "OMP_NUM_THREADS": "1"}
    return {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **quick, **more}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Run the command, with fakes, in one process for each of the scenes: (folder, scene -> exit code)."""
    folder = tmp_path_factory.mktemp("scenes")
    args = ["generate", "x", *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", SCENES, str(folder), json.dumps(args)],
        env=environment(HOME=str(folder)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "codes.json").read_text()), done


@pytest.mark.skipif(not LINUX, reason="forks")
@pytest.mark.parametrize("scene", STREAMS)
def test_a_stream_that_fails_ends_no_run(scenes, scene):
    folder, codes, _ = scenes
    assert codes[scene] == 0
    run = folder / scene / "runs" / "x-7"
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    for path in run.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


@pytest.mark.skipif(not LINUX, reason="forks")
@pytest.mark.parametrize(("scene", "code"), [("folder gone", 8), ("folder gone, picture given", 4)])
def test_a_folder_that_is_gone_is_told(scenes, scene, code):
    _, codes, done = scenes
    assert codes[scene] == code
    assert "fault" not in done.stderr
    assert "not there any more" in done.stderr


@pytest.mark.skipif(not LINUX, reason="uses a shell")
def test_talk_does_not_go_to_stdout_where_stderr_is_closed():
    command = f'exec {sys.executable} -m vqclip generate "" 2>&-'
    done = subprocess.run(["/bin/sh", "-c", command], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


BARE = """
import sys
from tests.support.fakes import FakeClip, FakeVqgan
import vqclip.cli, vqclip.runs.networks
vqclip.runs.networks.LOADERS['vqgan'] = lambda name, device: FakeVqgan()
vqclip.runs.networks.LOADERS['clip'] = lambda name, device: FakeClip()
sys.argv = ["vqclip", *sys.argv[1:]]
vqclip.cli.main()
"""


@pytest.mark.skipif(not LINUX, reason="locales have other names there")
def test_a_bare_environment_is_enough(tmp_path):
    """No HOME, no TMPDIR, the locale C, a stdout that knows ASCII alone."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, "generate", "赤い心", *QUICK], cwd=tmp_path, capture_output=True, check=False,
        env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"),
    )  # fmt: skip
    assert (done.returncode, done.stdout.decode()) == (0, "runs/赤い心-7/final.png\n"), done.stderr
    assert (tmp_path / "runs/赤い心-7/final.png").is_file()


def test_a_clock_that_runs_backwards_changes_nothing(vq, monkeypatch):
    first = Path(vq("generate", "x", *QUICK).out.strip())
    clock = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    second = Path(vq("generate", "x", *QUICK).out.strip())
    assert (first.parent.name, second.parent.name) == ("x-7", "x-7-2")
    assert first.read_bytes() == second.read_bytes()
    rows = [json.loads(line) for line in (second.parent / "metrics.jsonl").read_text().splitlines()]
    assert all(row["seconds"] >= 0 for row in rows)
    assert json.loads((second.parent / "run.json").read_text())["seconds"] >= 0


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_long_run_takes_no_more_memory_and_files_at_its_end(tmp_path, networks):
    from vqclip.runs.api import generate

    def used():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(os.listdir("/proc/self/fd")), pages  # noqa: PTH208

    seen = {}
    generate(
        "x", seed=7, steps=300, size=(32, 32), cutouts=1, coarse=0, runs=tmp_path, frames_every=1,
        checkpoint_every="10", on_step=lambda step: seen.__setitem__(step.step, used()),
    )  # fmt: skip
    assert len(list((tmp_path / "x-7" / "frames").iterdir())) == 301
    files = [files for files, _ in seen.values()]
    assert max(files) - min(files) <= 1  # that of a frame on its way
    assert seen[300][1] < seen[100][1] * 1.05


# links and disks


def target(kind):
    """Make a link called out.png, or runs, as asked; return what it points to."""
    there = Path("elsewhere")
    if kind == "to a file":
        there.write_text("mine")
    elif kind == "to a folder":
        there.mkdir()
    elif kind == "in a circle":
        there = Path("out.png")
    Path("out.png").symlink_to(there)
    Path("runs").symlink_to(Path("runs") if kind == "in a circle" else there)
    return there


@pytest.mark.parametrize("kind", ["to nothing", "in a circle", "to a file"])
@pytest.mark.parametrize(
    ("args", "codes"), [(["-o", "out.png", "--runs", "r"], {8, 10}), ([], {8})], ids=["-o", "--runs"]
)
def test_a_link_to_nowhere_is_no_output(vq, networks, kind, args, codes):
    target(kind)
    before = sorted(Path().iterdir())
    done = vq("generate", "x", *QUICK, *args)
    assert done.code in codes
    assert networks.loaded == []
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("kind", ["to nothing", "to a file"])
def test_a_link_that_may_be_replaced_is_replaced_and_not_followed(vq, kind):
    Path("out.png").symlink_to("elsewhere")
    if kind == "to a file":
        Path("elsewhere").write_text("mine")
    done = vq("generate", "x", *QUICK, "-o", "out.png", "--overwrite")
    assert done.code == 0
    assert not Path("out.png").is_symlink()
    assert Path("elsewhere").exists() == (kind == "to a file")
    assert kind == "to nothing" or Path("elsewhere").read_text() == "mine"


def test_runs_may_be_a_link_to_a_folder(vq):
    target("to a folder")
    assert vq("generate", "x", *QUICK).code == 0
    assert Path("elsewhere/x-7/final.png").is_file()


@pytest.mark.parametrize("kind", ["to a folder", "to nothing"])
def test_a_link_by_the_name_of_a_run_is_not_followed(vq, kind):
    Path("runs").mkdir()
    Path("elsewhere").mkdir()
    Path("runs/x-7").symlink_to(Path.cwd() / ("elsewhere" if kind == "to a folder" else "nowhere"))
    assert vq("generate", "x", *QUICK).out == "runs/x-7-2/final.png\n"
    assert list(Path("elsewhere").iterdir()) == []
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("name", ["frames", "metrics.jsonl", "final.png", "latest.png", "run.json", ".lock",
                                  "state.safetensors", "state.safetensors.prev"])  # fmt: skip
def test_a_link_inside_a_strangers_run_leads_nowhere(vq, name):
    final = Path(vq("generate", "x", *QUICK).out.strip())
    run = final.parent
    (run / "run.json").write_text((run / "run.json").read_text().replace('"done"', '"stopped"'))
    mine = Path("mine")
    if name == "frames":
        mine.mkdir()
        (mine / "000999.png").write_text("mine")
        shutil.rmtree(run / name)
    else:
        mine.write_bytes((run / name).read_bytes() if (run / name).exists() else b"mine")
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine.absolute())

    def look():
        return {path: path.read_bytes() for path in (mine, *mine.rglob("*")) if path.is_file()}

    before = look()
    done = vq("resume", run, "--steps", "5")
    assert done.code in (0, 4, 6, 8)
    assert "fault" not in done.err
    assert look() == before


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_that_cannot_sync_is_written_to(tmp_path, monkeypatch, number):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    write_atomic(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"


@pytest.mark.skipif(not LINUX, reason="locks otherwise")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_disk_without_locks_is_written_to(tmp_path, monkeypatch):
    import fcntl

    def fail(*_args):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", fail)
    run = RunDir.create(tmp_path, "x")
    assert run.write_final(b"png").is_file()
    run.close()


def pickled(tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        b"",
        pickled({"encoder.conv_in.weight": torch.zeros(1)}),
    ],
    ids=["HTML", "LFS pointer", "empty", "a pickle"],
)
def test_what_is_no_weights_is_an_integrity_error(tmp_path, content):
    shutil.copy(find("vqgan", "tiny").folder / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        load_vqgan(str(tmp_path), torch.device("cpu"))
    assert "\n" not in caught.value.what
    assert caught.value.hint


# pictures


def animation(path):
    Image.new("RGB", (9, 9), "red").save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9), "blue")])


def palette(path):
    picture = Image.new("P", (9, 9), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.save(path, "PNG", transparency=bytes([0, 255]))


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 9)).save(path, "JPEG", exif=exif)


ODD = {
    "animated GIF": animation,
    "palette with transparency": palette,
    "turned by EXIF": rotated,
    "CMYK": lambda path: Image.new("CMYK", (9, 9)).save(path, "JPEG"),
    "16 bits": lambda path: Image.new("I;16", (9, 9), 40_000).save(path, "PNG"),
    "32 bits": lambda path: Image.new("F", (9, 9), 0.5).save(path, "TIFF"),
    "1 bit": lambda path: Image.new("1", (9, 9)).save(path, "PNG"),
    "grey with alpha": lambda path: Image.new("LA", (9, 9)).save(path, "PNG"),
    "1x1": lambda path: Image.new("RGB", (1, 1)).save(path, "PNG"),
    "1x3000": lambda path: Image.new("RGB", (1, 3000)).save(path, "PNG"),
    "3000x1": lambda path: Image.new("RGB", (3000, 1)).save(path, "PNG"),
    "a picture by another ending": lambda path: Image.new("RGB", (9, 9)).save(path, "WEBP"),
}


@pytest.mark.parametrize("option", ["--init-image", "--image-prompt"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_picture_is_drawn_from(vq, kind, option):
    ODD[kind]("given.png")
    done = vq("generate", "x", *QUICK, option, "given.png")
    assert done.code == 0, done.err
    with Image.open(done.out.strip()) as picture:
        assert (picture.size, picture.mode) == ((32, 32), "RGB")


def text_bomb(path):
    info = PngInfo()
    info.add_text("Comment", "a" * 2**21, zip=True)
    Image.new("RGB", (9, 9)).save(path, "PNG", pnginfo=info)
    assert Path(path).stat().st_size < 4000


def truncated(path):
    Image.effect_noise((60, 60), 50).save(path, "PNG")
    Path(path).write_bytes(Path(path).read_bytes()[:900])


NONE = {
    "truncated": truncated,
    "2 MiB of text in 2 kB": text_bomb,
    "empty": lambda path: Path(path).touch(),
    "text": lambda path: Path(path).write_text("a cat"),
    "SVG": lambda path: Path(path).write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    "a folder": lambda path: Path(path).mkdir(),
    "a link in a circle": lambda path: Path(path).symlink_to(path),
    "a device": lambda path: Path(path).symlink_to("/dev/null"),
}


@pytest.mark.parametrize("option", ["--init-image", "--image-prompt"])
@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_picture_is_refused_by_name(vq, networks, kind, option):
    NONE[kind]("given.png")
    done = vq("generate", "x", *QUICK, option, "given.png")
    assert done.code == 4
    assert len(done.lines) == 2
    assert "given.png" in done.lines[0] or "null" in done.lines[0]
    assert networks.loaded == []


# prompts, sizes, seeds, devices


@pytest.mark.parametrize("prompt", ["é" * 2000, "赤" * 700, "🔥" * 80, "a " * 1000, "a" * 2000, "../" * 600 + "x"])
def test_a_prompt_of_any_length_makes_a_name(vq, prompt):
    done = vq("generate", prompt, *QUICK)
    assert done.code == 0
    assert Path(done.out.strip()).is_file()
    assert len(os.fsencode(Path(done.out.strip()).parent.name)) < 80


@pytest.mark.parametrize(
    "prompt",
    [
        "a\u202etac",
        "a\ncat\nSteps: 1, Seed: 2, Size: 3x3",
        "a\tcat\r\n",
        "\u200ba\ufeff",
        "a \x9b31mcat",
        "a\x7f",
        "\ue000",
        "<script>alert(1)</script>",
        "]]></x:xmpmeta>",
        "-o",
        "$(touch x)",
        "%s%(prompt)s",
        "a\u0301\u0327",
        "\U0010ffff",
    ],
    ids=repr,
)
def test_an_odd_prompt_is_kept_as_it_is_and_shown_without_harm(vq, prompt):
    done = vq("generate", *QUICK, "--", prompt)
    assert done.code == 0, done.err
    assert json.loads(vq("show", done.out.strip(), "--json").out)["settings"]["prompt"] == prompt
    shown = vq("show", done.out.strip()).out
    assert not set(shown) & set("\u202e\x9b\x7f\r\u200b\ufeff")
    assert len(shown.splitlines()) == len(vq("show", Path(vq("generate", "x", *QUICK).out.strip())).out.splitlines())
    assert done.out.startswith("runs" + os.sep)
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("a:1e999", 2),
        ("a:-1e999", 2),
        ("a:1001", 2),
        ("a:nan", 0),
        ("a:inf", 0),
        ("a:b:c", 0),
        (r"a\|b", 0),
        (r"a\:2", 0),
        ("a:2|b:-2", 0),
        ("a:2|b:-1001", 2),
        ("a:0", 2),
        ("a::2", 0),
        ("a:2:", 0),
    ],
)
def test_an_odd_weight_has_its_exit_code(vq, prompt, code):
    assert vq("generate", prompt, *QUICK).code == code


@pytest.mark.parametrize(
    "size", ["0", "-1", "100000", "512x", "x512", "512x512x512", "1e3", "0x0", "8193x8", "３２x", " ", "a"]
)
def test_an_odd_size_is_refused(vq, networks, size):
    done = vq("generate", "x", "--size", size)
    assert (done.code, networks.loaded) == (2, [])


@pytest.mark.parametrize(("size", "made"), [("17", (16, 16)), ("17x30", (16, 32)), ("8", (8, 8)), ("33x8", (32, 8))])
def test_a_size_between_is_rounded(vq, size, made):
    done = vq("generate", "x", *QUICK, "--size", size)
    with Image.open(done.out.strip()) as picture:
        assert picture.size == made


@pytest.mark.parametrize("seed", ["-2", str(2**63), str(2**64), "9" * 400])
def test_a_seed_out_of_range_is_told_the_range(vq, seed):
    done = vq("generate", "x", "--seed", seed)
    assert done.code == 2
    assert str(2**63) in done.lines[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_cuda_that_is_not_there_is_refused(vq, networks, device):
    done = vq("generate", "x", "--device", device)
    assert (done.code, networks.loaded) == (2, [])
    assert device in done.lines[0]
    assert "cpu" in done.lines[1]


def test_a_run_that_is_gone_is_told(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        RunDir.open(tmp_path / "gone")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
@pytest.mark.parametrize(
    "args", [["show", "pipe.png"], ["rerun", "pipe.png"], ["generate", "x", "--init-image", "pipe.png"]]
)
def test_a_pipe_in_a_pictures_place_is_not_waited_for(vq, args):
    os.mkfifo("pipe.png")
    done = vq(*args)
    assert (done.code, len(done.lines)) == (4, 2)
    assert "pipe" in done.lines[0]


# names that must come through a shell


NAMES = ["runs", "a b", "it's", "a\u00a0b", "tab\there", "two\nlines", "\x1b[31m", "\u3000", "\u202e", "-x",
         "back\\slash\t'", "\udcff", "$(touch x)", "~root", "é赤🔥"]  # fmt: skip


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_path_can_be_pasted_into_a_shell(tmp_path, name):
    script = f"printf '%s\\0' {typed(Path(name))}"
    assert script.isprintable()
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == os.fsencode(f"./{name}" if name.startswith("-") else name) + b"\0"


@pytest.mark.skipif(not LINUX, reason="locales have other names there")
def test_a_terminal_that_knows_ascii_alone_is_told_all_the_same(tmp_path):
    command = [sys.executable, "-c", BARE, "generate", "ünï", *QUICK]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    run = next((tmp_path / "runs").iterdir())
    env = environment(PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    shown = subprocess.run(
        [sys.executable, "-m", "vqclip", "show", str(run)], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert (shown.returncode, b"\\xfcn\\xef" in shown.stdout) == (0, True), shown.stderr


@pytest.mark.skipif(not LINUX, reason="limits otherwise")
def test_a_shell_that_allows_little_memory_is_told_so(tmp_path):
    command = f"ulimit -v 600000; exec {sys.executable} -m vqclip generate x --steps 1 --size 16"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (7, False), done.stderr


def test_the_settings_are_written_only_where_the_picture_can_be(vq):
    assert vq("generate", "x", *QUICK, "--save-config", "e.toml", "-o", "/proc/x.png").code == 8
    assert vq("generate", "x", *QUICK, "--save-config", "s.png", "-o", "s.png").code == 2
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("name", "meant"), [("VQCLIP_STEP", "VQCLIP_STEPS"), ("VQCLIP_SEEDS", "VQCLIP_SEED")])
def test_a_misspelt_variable_is_named(vq, networks, monkeypatch, name, meant):
    monkeypatch.setenv(name, "3")
    done = vq("generate", "x", *QUICK)
    assert (done.code, networks.loaded) == (2, [])
    assert name in done.lines[0]
    assert meant in done.lines[0]


def test_a_variable_that_is_like_no_setting_is_not_ours(vq, monkeypatch):
    monkeypatch.setenv("VQCLIP_ELSEWHERE", "3")
    assert vq("generate", "x", *QUICK).code == 0
