"""Videos, read back by other decoders: PyAV, and pillow for WebP, which PyAV's libraries can't all read."""

import errno
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import tqdm
from PIL import Image, ImageDraw

import vqclip.cli
from vqclip.cli import progress
from vqclip.errors import InputError, OutputError, OutputExists, UsageError
from vqclip.files import metadata as outputs
from vqclip.files.images import load_image
from vqclip.video import ffmpeg as programs
from vqclip.video import interpolate as between
from vqclip.video.captions import CaptionStyle
from vqclip.video.ffmpeg import Ffmpeg, find_ffmpeg
from vqclip.video.interpolate import follow_motion, interpolate
from vqclip.video.make import VideoOptions, make_video
from vqclip.video.timing import Timing
from vqclip.video.writer import ENCODERS, VideoWriter, check_codec, choose

FORMATS = {name: next(iter(row.containers)) for name, row in ENCODERS.items()}
LOSSLESS = ("apng",)
POSIX = pytest.mark.skipif(os.name != "posix", reason="the stand-ins for ffmpeg are shell scripts")
BARE = Timing(fps=10, hold_last=0)


def film_of(names, out=None, *, on_frame=None, **options):
    return make_video(names, out, VideoOptions(**options), on_frame=on_frame)


@pytest.fixture(scope="session")
def program():
    return find_ffmpeg()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQCLIP_FFMPEG", raising=False)
    return tmp_path


def shade(k):
    """Return the colour of frame k: far from its neighbours', and not grey."""
    return (20 + 40 * (k % 6), 200 - 30 * (k % 5), 60 + 25 * k % 190)


def fill(folder, count, size=(64, 48)):
    """Write `count` flat frames."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.new("RGB", size, shade(k)).save(Path(folder, f"{k:03d}.png"))


def decoded(path):
    """Return ([(picture, seconds at which it appears)], seconds in all), by a decoder that is not the program's."""
    path = Path(path)
    if path.suffix == ".webp":
        frames, now = [], 0.0
        with Image.open(path) as film:
            for k in range(film.n_frames):
                film.seek(k)
                frames.append((film.convert("RGB"), now))
                now += film.info["duration"] / 1000
        return frames, now
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        frames, ends = [], 0.0
        for packet in film.demux(stream):
            if packet.pts is not None:
                ends = max(ends, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            frames += [(frame.to_image(), frame.time) for frame in packet.decode()]
    return frames, ends


def colour(picture):
    """Return the mean colour of a picture's middle."""
    middle = picture.crop((8, 8, picture.width - 8, picture.height - 8)).resize((1, 1), Image.Resampling.BOX)
    return middle.getpixel((0, 0))


def near(found, wanted, within):
    return all(abs(a - b) <= within for a, b in zip(found, wanted, strict=True))


# -- formats ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FORMATS)
def film(request, tmp_path_factory, program):
    """Return (codec, file, what was said): 12 frames at 10 a second, the last held for half a second more."""
    place = tmp_path_factory.mktemp("film")
    fill(place / "frames", 12)
    out = place / f"out{FORMATS[request.param]}"
    made = film_of(
        [str(place / "frames")], out, codec=request.param, timing=Timing(fps=10, hold_last=0.5), ffmpeg=program.path
    )
    return request.param, out, made


def test_the_frames_are_as_many_as_went_in(film):
    codec, out, made = film
    assert made.frames == 17
    frames, _ = decoded(out)
    assert len(frames) == (12 if codec == "webp" else 17)  # WebP keeps equal frames as one that lasts


def test_the_size_is_the_frames(film):
    _, out, made = film
    assert made.size == decoded(out)[0][0][0].size == (64, 48)


def test_the_seconds_are_those_of_the_timing(film):
    _, out, made = film
    assert made.seconds == pytest.approx(1.7, abs=0.011)
    assert decoded(out)[1] == pytest.approx(1.7, abs=0.011)


def test_the_frames_come_in_their_order_and_colours(film):
    codec, out, _ = film
    for k, (picture, _) in enumerate(decoded(out)[0][:12]):
        assert near(colour(picture), shade(k), 0 if codec in LOSSLESS else 5), k


def test_the_frames_come_at_their_times(film):
    frames, _ = decoded(film[1])
    assert [when for _, when in frames[:12]] == pytest.approx([k / 10 for k in range(12)], abs=0.011)


def test_nothing_else_is_left(film):
    assert sorted(path.name for path in film[1].parent.iterdir()) == ["frames", film[1].name]


def test_a_video_is_as_browsers_want_it(here, program):
    fill("frames", 3)
    film_of(["frames"], "a.mp4", timing=BARE)
    data = Path("a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it begins to play before it has all come
    with av.open("a.mp4") as film:
        assert film.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert film.streams.video[0].codec_context.colorspace == 1  # BT.709, which is said


@pytest.mark.parametrize("codec", ["gif", "webp", "apng"])
def test_pictures_that_move_go_on_for_ever(here, codec):
    fill("frames", 3)
    film_of(["frames"], out := f"a{FORMATS[codec]}", timing=BARE)
    with Image.open(out) as picture:
        assert picture.info["loop"] == 0


@pytest.mark.parametrize("codec", FORMATS)
def test_equal_frames_give_equal_bytes(here, codec):
    fill("frames", 4)
    for name in "ab":
        film_of(["frames"], f"{name}{FORMATS[codec]}", codec=codec, timing=BARE)
    assert Path(f"a{FORMATS[codec]}").read_bytes() == Path(f"b{FORMATS[codec]}").read_bytes()


@pytest.mark.full
@pytest.mark.parametrize("codec", FORMATS)
@pytest.mark.parametrize("count", [1, 17])
def test_frames_that_are_all_equal_are_no_fault(here, program, codec, count):
    with VideoWriter(Path(f"a{FORMATS[codec]}"), 10, program, codec=codec) as writer:
        writer.add(Image.new("RGB", (32, 32), "red"), times=count)
    assert writer.info.seconds == pytest.approx(count / 10, abs=0.02)


@pytest.mark.parametrize(
    "fps", [23.976, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 7.5, 24, 29.97, 30, 50, 60, 120, 240))]
)
@pytest.mark.parametrize("codec", FORMATS)
def test_any_pace(here, codec, fps):
    fill("frames", 7, (16, 16))
    if codec == "gif" and fps > 50:
        with pytest.raises(UsageError, match="at most 50"):
            film_of(["frames"], "a.gif", timing=Timing(fps=fps, hold_last=0))
        return
    made = film_of(["frames"], f"a{FORMATS[codec]}", codec=codec, timing=Timing(fps=fps, hold_last=0))
    assert made.seconds == pytest.approx(7 / fps, abs=0.02)


@pytest.mark.full
@pytest.mark.parametrize("size", [(1, 1), (17, 34)], ids=str)
@pytest.mark.parametrize("codec", ["h264", "vp9", "gif", "webp", "apng"])
def test_any_size(here, codec, size):
    fill("frames", 3, size)
    made = film_of(["frames"], f"a{FORMATS[codec]}", codec=codec, timing=BARE)
    even = codec in ("h264", "vp9")
    assert made.size == (tuple(side + side % 2 for side in size) if even else size)
    assert any("made even" in note for note in made.notes) == (made.size != size)


@pytest.mark.full
def test_quality_is_paid_in_bytes(here):
    Path("frames").mkdir()
    for k in range(4):
        Image.effect_noise((64, 64), 90 + k).convert("RGB").save(f"frames/{k}.png")
    sizes = {}
    for codec, ending in FORMATS.items():
        for quality in (10, 95):
            film_of(["frames"], out := f"{codec}{quality}{ending}", codec=codec, quality=quality, timing=BARE)
            sizes[codec, quality] = Path(out).stat().st_size
    assert [codec for codec in FORMATS if sizes[codec, 95] > 1.2 * sizes[codec, 10]] == ["h264", "vp9", "av1", "webp"]


def test_a_gifs_palette_is_its_own(here):
    """A ramp of 256 greens and a ramp of 256 reds need two palettes."""
    Path("frames").mkdir()
    ramp = Image.linear_gradient("L")
    for k in range(2):
        bands = [ramp if band == k else Image.new("L", ramp.size) for band in range(3)]
        Image.merge("RGB", bands).save(f"frames/{k}.png")
    film_of(["frames"], "a.gif", timing=BARE)
    for k, (picture, _) in enumerate(decoded("a.gif")[0]):
        found, wanted = picture.getchannel(k), ramp
        assert max(abs(a - b) for a, b in zip(found.tobytes(), wanted.tobytes(), strict=True)) <= 4


@pytest.mark.full
def test_a_large_gif_is_said_beforehand(here, monkeypatch):
    noise = np.random.default_rng(0)
    Path("frames").mkdir()
    for k in range(6):
        Image.fromarray(noise.integers(0, 255, (64, 64, 3), np.uint8)).save(f"frames/{k}.png")
    said = []

    def film(out):
        make_video(
            ["frames"], out, VideoOptions(timing=BARE), on_note=lambda note: said.append((Path(out).exists(), note))
        )

    film("small.gif")
    assert said == []
    monkeypatch.setattr("vqclip.video.make.LARGE_GIF", 10_000)
    monkeypatch.setattr("vqclip.video.make.MB", 1)
    film("large.gif")
    ((written, note),) = said
    assert not written
    assert int(re.search(r"about (\d+)", note)[1]) == pytest.approx(Path("large.gif").stat().st_size, rel=0.5)
    film("none.webp")
    assert len(said) == 1


# -- what is made of them --------------------------------------------------------------------------------------------


def test_ping_pong_and_holds_in_a_film(here):
    fill("frames", 3)
    film_of(["frames"], "a.apng", timing=Timing(fps=10, hold_first=0.2, hold_last=0.1, ping_pong=True))
    assert [colour(picture) for picture, _ in decoded("a.apng")[0]] == [shade(k) for k in (0, 0, 0, 1, 2, 2, 1)]


def test_a_fade_blends(here):
    Path("frames").mkdir()
    for k, level in enumerate((0, 100, 200)):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(f"frames/{k}.png")
    film_of(["frames"], "a.apng", timing=Timing(fps=10, length=0.5, hold_last=0, between="fade"))
    assert [colour(picture)[0] for picture, _ in decoded("a.apng")[0]] == [0, 50, 100, 150, 200]


def test_resampling_reads_a_series_once_and_no_further_than_needed():
    levels = iter(Image.new("L", (1, 1), level) for level in (0, 100, 200, 250))
    found = [picture.getpixel((0, 0)) for picture in interpolate(levels, [0, 0, 0.25, 1, 2, 2], Image.blend)]
    assert found == [0, 0, 25, 100, 200, 200]
    assert next(levels).getpixel((0, 0)) == 250


def box(left):
    picture = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(picture).rectangle([left, 50, left + 30, 80], fill="red")
    return picture


def left_of(picture):
    return picture.getchannel("G").point(lambda level: 255 if level < 128 else 0).getbbox()[0]


def test_motion_moves_what_moves(program):
    found = [left_of(picture) for picture in follow_motion(iter(box(20 + 8 * k) for k in range(6)), 4, program)]
    assert found == pytest.approx([20 + 2 * k for k in range(21)], abs=1)  # a fade would jump by 8


def test_motion_in_a_film(here):
    Path("frames").mkdir()
    for k in range(4):
        box(20 + 8 * k).save(f"frames/{k}.png")
    timing = Timing(fps=10, length=0.7, hold_last=0, between="motion", ping_pong=False)
    film_of(["frames"], "a.apng", timing=timing)
    assert [left_of(p) for p, _ in decoded("a.apng")[0]] == pytest.approx([20, 24, 28, 32, 36, 40, 44], abs=1)


def test_a_damaged_frame_is_told_through_motion_too(here):
    fill("frames", 6)
    cut("frames/004.png")
    with pytest.raises(InputError, match=r"004\.png"):
        film_of(["frames"], "a.mp4", timing=Timing(between="motion"))
    assert not Path("a.mp4").exists()


def test_runs_are_joined(here):
    fill("a", 2), fill("b", 3)
    made = film_of(["a", "b"], "a.apng", timing=BARE)
    assert made.frames == 5
    assert [colour(picture) for picture, _ in decoded("a.apng")[0]] == [shade(k) for k in (0, 1, 0, 1, 2)]


def test_runs_stand_in_a_grid_and_the_short_wait(here):
    for name, count in (("a", 2), ("b", 3), ("c", 4)):
        fill(name, count, (32, 24))
    film_of(["a", "b", "c"], "a.apng", timing=BARE, grid=True)
    pictures = [picture for picture, _ in decoded("a.apng")[0]]
    assert [picture.size for picture in pictures] == [(64, 48)] * 4
    cells = [(16, 12), (48, 12), (16, 36), (48, 36)]  # the fourth is empty
    found = [[picture.getpixel(cell) for cell in cells] for picture in pictures]
    black = (0, 0, 0)
    assert found == [[shade(min(k, 1)), shade(min(k, 2)), shade(k), black] for k in range(4)]


def test_frames_are_scaled_and_cropped_to_a_size(here):
    fill("a", 2, (64, 48)), fill("b", 2, (20, 90))
    assert film_of(["a", "b"], "a.apng", size=(40, 40), timing=BARE).size == (40, 40)


def test_easing_reads_the_change_from_the_frames(here):
    Path("frames").mkdir()
    for k, level in enumerate((0, 0, 90, 120)):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(f"frames/{k}.png")
    film_of(["frames"], "a.apng", timing=Timing(fps=10, length=0.5, hold_last=0, between="fade", ease="change"))
    assert [colour(p)[0] for p, _ in decoded("a.apng")[0]] == pytest.approx([0, 30, 60, 90, 120], abs=1)


def test_a_caption_is_at_the_foot(here):
    fill("frames", 2, (128, 128))
    film_of(["frames"], "a.apng", caption="a red heart", timing=BARE)
    picture = decoded("a.apng")[0][0][0]
    assert {colour for _, colour in picture.crop((0, 0, 128, 100)).getcolors()} == {shade(0)}
    foot = picture.crop((0, 110, 128, 128)).convert("L")
    assert foot.getextrema()[1] > 200  # white letters
    assert foot.getextrema()[0] < 100  # on a dark band


def run_with(prompt, name="run", plan=None, count=3):
    """Make what looks like a run."""
    fill(f"{name}/frames", count)
    record = {"schema": "vqclip-run/1", "settings": {"prompt": prompt, "steps": 3}, "plan": plan or {}}
    Path(name, "run.json").write_text(json.dumps(record))
    return name


def tags(path):
    with av.open(str(path)) as film:
        return {key.lower(): value for key, value in film.metadata.items()}


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_video_says_what_it_was_made_of(here, ending):
    film_of([run_with("a red  heart\n♥")], f"a{ending}")
    found = tags(f"a{ending}")
    assert found["title"] == "a red heart ♥"
    assert json.loads(found["comment"])["settings"] == {"prompt": "a red  heart\n♥", "steps": 3}


@pytest.mark.parametrize("how", ["option", "plan"])
def test_a_video_can_be_bare(here, how):
    run = run_with("a red heart", plan={"metadata": how != "plan"})
    film_of([run], "a.mp4", metadata=how != "option")
    assert "heart" not in str(tags("a.mp4"))


HOSTILE = {
    "-i /etc/passwd": "-i /etc/passwd",
    "$(touch pwned) `touch pwned`; touch pwned": "$(touch pwned) `touch pwned`; touch pwned",
    "two\nlines\r\n\ttab": "two lines tab",
    "\"quoted\" 'twice' \\ back=slash;#": "\"quoted\" 'twice' \\ back=slash;#",
    "\x1b]0;pwn\x07\x00nul": "]0;pwn nul",
    "lone \udce9 surrogate": "lone surrogate",
    "%(x)s {0} {crf} %d": "%(x)s {0} {crf} %d",
    "x" * 50_000: "x" * 200,
    "草莓 🍓": "草莓 🍓",
}


@pytest.mark.full
@pytest.mark.parametrize("prompt", HOSTILE, ids=lambda prompt: repr(prompt[:12]))
def test_a_hostile_prompt_is_text(here, prompt):
    made = film_of([run_with(prompt)], "a.mp4", show_prompt=True)
    assert tags("a.mp4")["title"] == HOSTILE[prompt]
    assert made.frames > 2
    assert sorted(path.name for path in here.iterdir()) == ["a.mp4", "run"]


@pytest.mark.parametrize("settings", [None, 7, [], "x", {"prompt": None}, {"prompt": {"a": [1]}}, {}], ids=str)
def test_a_record_that_is_none_is_no_fault(settings):
    assert outputs.tags({"settings": settings})["encoded_by"].startswith("vqclip")


@pytest.mark.full
@pytest.mark.parametrize("text", ["", " ", "x" * 400, "a " * 300, "\x00\n", "x"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (128, 128), (300, 20)], ids=str)
def test_any_caption_fits_any_picture(text, size):
    picture = Image.new("RGB", size, "red")
    assert CaptionStyle().draw_on(picture, text).size == size


def test_a_caption_below_leaves_the_image_as_it_is():
    image = Image.effect_noise((128, 64), 90).convert("RGB")
    captioned = CaptionStyle().draw_below(image, "a red heart")
    assert captioned.crop((0, 0, 128, 64)).tobytes() == image.tobytes()
    strip = captioned.crop((0, 64, 128, captioned.height)).convert("L")
    assert strip.getextrema()[0] < 100  # dark letters
    assert strip.getpixel((0, 0)) == 255  # on white


def test_letters_that_a_font_lacks_are_told(here):
    assert CaptionStyle().missing_characters("A plain text, with 'quotes': 100% \u201cfine\u201d \u2026 \n") == ""
    assert CaptionStyle().missing_characters("caf\u00e9 \u0436\u03b2\u0151") == ""
    assert CaptionStyle().missing_characters("caf\u00e9 \u8349 \u8349\u8393") == "\u8349\u8393"
    fill("frames", 2)
    assert any("no \u8349: give" in note for note in film_of(["frames"], "a.gif", caption="\u00e9\u8349").notes)


NAMES = [
    "-x.mp4",
    "a%03d.mp4",
    "http:x.mp4",
    "pipe:1.mp4",
    "quote'\".mp4",
    "new\nline.mp4",
    "[a]*?.mp4",
    "concat:a|b.mp4",
]


def test_brackets_of_a_folder_are_none_of_a_patterns(here):
    fill("take [v1]", 3)
    assert film_of(["take [v1]/*.png"], "a.mp4", timing=BARE).frames == 3


@pytest.mark.full
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_show_reads_a_videos_record(vq, name):
    run = run_with("an owl; = # \\ \u00e9")
    assert vq("video", run, "-o", name)[0] == 0
    shown, of_run = json.loads(vq("show", name, "--json")[1]), json.loads(vq("show", run, "--json")[1])
    assert shown["settings"] == of_run["settings"]
    assert vq("video", run, "-o", f"bare-{name}", "--no-metadata")[0] == 0
    assert vq("show", f"bare-{name}")[0] == 4


def test_a_rate_may_be_a_fraction(vq):
    fill("frames", 4)
    assert json.loads(vq("video", "frames", "--fps", "30000/1001", "--json")[1])["fps"] == pytest.approx(30000 / 1001)
    assert vq("video", "frames", "--fps", "1/0", "-o", "b.mp4")[0] == 2


@pytest.mark.full
@POSIX
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_a_file(here, name):
    fill("frames/-%d [x]", 3)
    film_of(["frames/-%d [x]"], name, timing=BARE)
    assert sorted(path.name for path in here.iterdir()) == sorted(["frames", name])


# -- what goes wrong -------------------------------------------------------------------------------------------------


def cut(name):
    """Cut a file in its middle."""
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: len(data) // 2])


def script(name, text):
    """Write a program that stands in for ffmpeg; REAL in its text is the true one."""
    path = Path(name).absolute()
    path.write_text("#!/bin/sh\n" + text.replace("REAL", find_ffmpeg().path))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


LISTS = 'case "$*" in *-encoders*|*-filters*) exec REAL "$@";; esac\n'


@pytest.fixture
def vq(here, monkeypatch, capsys):
    """Return `vqclip video` as a function that gives (code, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vqclip", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            vqclip.cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def prepare_bad():
    """Fill a folder with things that go wrong."""
    fill("good", 5), fill("one", 1), fill("torn", 5), fill("gap", 6)
    cut("torn/003.png"), Path("gap/002.png").unlink()
    fill("mixed", 4), Image.new("RGB", (5, 5)).save("mixed/002.png")
    fill("foreign", 3), Path("foreign/notes.txt").write_text("x")
    Path("empty").mkdir(), Path("old.mp4").write_text("old"), Path("no.ttf").write_text("x"), os.mkfifo("pipe.ttf")
    run_with("an owl", "bare", count=0), run_with("an owl", "owl")


BAD = {
    "no frames": (["empty"], 4, "empty"),
    "a run without frames": (["bare"], 4, "bare"),
    "one frame": (["one"], 4, "one frame"),
    "a pattern that finds nothing": (["no*.png"], 4, "no*.png"),
    "nothing there": (["nowhere"], 4, "nowhere"),
    "a torn frame": (["torn"], 4, "003.png"),
    "different sizes": (["mixed"], 4, "002.png"),
    "a gap": (["gap"], 4, "002.png"),
    "a foreign file": (["foreign"], 4, "notes.txt"),
    "a video as a frame": (["old.mp4"], 4, "old.mp4"),
    "different runs": (["good", "mixed/002.png", "--grid"], 4, "002.png"),
    "existing": (["good", "-o", "old.mp4"], 10, "old.mp4"),
    "a folder as output": (["good", "-o", "good.mp4/"], 8, "good.mp4"),
    "below a file": (["good", "-o", "/dev/null/a.mp4"], 8, "/dev/null"),
    "a picture between its frames": (["good", "-o", "good/a.webp"], 2, "between"),
    "a picture between a run's frames": (["owl", "-o", "owl/frames/a.png"], 2, "between"),
    "unknown ending": (["good", "-o", "a.avi"], 2, ".avi"),
    "no ending": (["good", "-o", "a"], 2, "no ending"),
    "unknown codec": (["good", "--codec", "mpeg1"], 2, "mpeg1"),
    "codec and ending differ": (["good", "--codec", "vp9", "-o", "a.mp4"], 2, "vp9"),
    "fps 0": (["good", "--fps", "0"], 2, "fps"),
    "fps -1": (["good", "--fps", "-1"], 2, "fps"),
    "fps nan": (["good", "--fps", "nan"], 2, "fps"),
    "fps text": (["good", "--fps", "fast"], 2, "--fps"),
    "gif too fast": (["good", "--fps", "60", "-o", "a.gif"], 2, "at most 50"),
    "length 0": (["good", "--length", "0"], 2, "length"),
    "length too short": (["good", "--length", "0.5"], 2, "no time"),
    "quality": (["good", "--quality", "101"], 2, "quality"),
    "size": (["good", "--size", "0x5"], 2, "0x5"),
    "ease": (["good", "--ease", "x"], 2, "ease"),
    "between": (["good", "--between", "x"], 2, "between"),
    "no font": (["good", "--caption", "x", "--font", "no.ttf"], 4, "no.ttf"),
    "font a pipe": (["good", "--caption", "x", "--font", "pipe.ttf"], 4, "pipe.ttf"),
    "font missing": (["good", "--caption", "x", "--font", "nowhere.ttf"], 4, "nowhere.ttf"),
    "no ffmpeg": (["good", "--ffmpeg", "nowhere/ffmpeg"], 4, "nowhere"),
    "another program": (["good", "--ffmpeg", sys.executable], 4, Path(sys.executable).name),
    "nothing named": ([], 2, "RUN"),
}


@pytest.mark.full
@pytest.mark.parametrize("args", BAD.values(), ids=BAD)
def test_bad_input_is_answered_in_one_line_and_a_hint(vq, args):
    prepare_bad()
    Path("good.mp4").mkdir()
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    given, code, word = args
    found, out, err = vq("video", *given)
    lines = err.splitlines()
    assert (found, out) == (code, "")
    assert [line[:7] for line in lines] == ["error: ", "  " + lines[1][2:7]]
    assert word in lines[0]
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_video_beside_its_frames_does_not_keep_the_next_one_from_being_made(vq, monkeypatch):
    fill("frames", 3), monkeypatch.chdir("frames")
    for name in ("video.mp4", "b.gif"):
        assert vq("video", ".", "-o", name)[0] == 0
    assert vq("video", "*.png", "-o", "c.webp")[0] == 0  # a pattern says what is a frame


def test_every_time_that_the_frames_are_gone_through_is_counted(here):
    heard = []
    fill("frames", 5)
    timing = Timing(fps=10, hold_last=0.2, ease="change")
    film_of(["frames"], "a.mp4", timing=timing, skip_bad=True, on_frame=lambda *told: heard.append(told))
    assert heard == [(k, total) for total in (5, 5, 7) for k in range(1, total + 1)]  # checked, compared, shown


def test_a_bar_begins_anew_with_what_is_counted_next(monkeypatch):
    bars, terminal = [], io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "MOMENT_S", 0)
    real = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: bars.append(real(**options)) or bars[-1])
    with progress.progress_bar("frame") as bar:
        [bar.at(k, total) for total in (3, 5) for k in range(1, total + 1)]
    assert [(bar.n, bar.total) for bar in bars] == [(3, 3), (5, 5)]


@pytest.mark.full
def test_what_is_bad_can_be_left_out(vq):
    prepare_bad()
    for name, count in (("torn", 4), ("mixed", 3), ("gap", 5), ("foreign", 3)):
        code, out, err = vq("video", name, "--skip-bad", "--json", "--hold-last", 0, "-o", f"{name}.mp4")
        assert (code, json.loads(out)["frames"]) == (0, count), name
    code, _, err = vq("video", "torn", "--skip-bad", "-o", "again.mp4")
    assert "1 of 5" in err


@pytest.mark.full
def test_stdout_has_the_path_alone(vq):
    run = run_with("an owl")
    assert vq("video", run)[:2] == (0, f"{Path(run, 'video.mp4')}\n")
    assert vq("video", run, "--codec", "gif", "-q") == (0, f"{Path(run, 'video.gif')}\n", "")
    assert vq("video", f"{run}/frames")[:2] == (0, "video.mp4\n")


def test_json_has_frames_size_and_seconds(vq):
    fill("frames", 4)
    found = json.loads(vq("video", "frames", "--fps", 8, "--hold-last", 0.25, "--json")[1])
    assert found == {"path": "video.mp4", "frames": 6, "size": [64, 48], "seconds": 0.75, "fps": 8}


def test_a_video_is_replaced_when_that_is_asked_for(vq):
    prepare_bad()
    assert vq("video", "good", "-o", "old.mp4", "--overwrite")[0] == 0
    assert len(decoded("old.mp4")[0]) == 15


@POSIX
def test_a_missing_encoder_is_found_before_any_work(vq, monkeypatch):
    monkeypatch.setenv("VQCLIP_FFMPEG", str(script("lean", 'case "$*" in *-encoders*) echo " V....D gif  GIF";; esac')))
    code, out, err = vq("video", "nowhere", "-o", "a.mp4")
    assert (code, out) == (4, "")
    assert "libx264" in err
    assert "gif" in err  # what it has
    assert "pip install imageio-ffmpeg" in err


def test_no_ffmpeg_at_all_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_bundled_ffmpeg", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VQCLIP_FFMPEG", raising=False)
    with pytest.raises(InputError) as caught:
        find_ffmpeg()
    assert "pip install imageio-ffmpeg" in caught.value.hint


@POSIX
def test_the_ffmpeg_on_the_path_is_the_last_resort(here, monkeypatch):
    script("ffmpeg", 'exec REAL "$@"')
    monkeypatch.setattr(programs, "_bundled_ffmpeg", lambda: None)
    monkeypatch.setenv("PATH", str(here), prepend=os.pathsep)
    assert find_ffmpeg().path == str(here / "ffmpeg")


@pytest.mark.full
@POSIX
@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_ffmpeg_that_lies_here_is_the_one_meant(vq, here, monkeypatch, how):
    """One of that name on PATH is another; a name alone is looked for there."""
    fill("frames", 2)
    for folder, text in ((here, 'touch here; exec REAL "$@"'), (here / "bin", 'touch there; exec REAL "$@"')):
        folder.mkdir(exist_ok=True)
        script(folder / "mine", text)
    monkeypatch.setenv("PATH", str(here / "bin"), prepend=os.pathsep)
    for name, touched in (("./mine", "here"), ("mine", "there")):
        given = ["--ffmpeg", name] if how == "option" else []
        if how == "variable":
            monkeypatch.setenv("VQCLIP_FFMPEG", name)
        assert vq("video", "frames", "-o", f"{touched}.mp4", *given)[0] == 0
        assert Path(touched).exists()
        Path(touched).unlink()
        assert not Path("here").exists()


FAULTS = {
    "it ends at once": ("exit 3", InputError, "exit code 3"),
    "it complains": ("echo 'bad thing' >&2; exit 1", InputError, "bad thing"),
    "it ends in the middle": ("head -c 9000 >/dev/null; echo 'lost it' >&2; exit 1", InputError, "lost it"),
    "the disk is full": ("echo 'x: No space left on device' >&2; exit 1", OutputError, "disk is full"),
    "it writes nothing": ("cat >/dev/null", InputError, "damaged|does not exist|failed|No such file"),
}


@POSIX
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_ffmpeg_that_fails_leaves_the_old_file(here, fault):
    text, kind, word = fault
    fill("frames", 9)
    Path("a.mp4").write_text("old")
    broken = script("broken", LISTS + 'case "$*" in *framecrc*) exec REAL "$@";; esac\n' + text)
    with pytest.raises(kind, match=word):
        film_of(["frames"], "a.mp4", ffmpeg=broken, overwrite=True)
    assert Path("a.mp4").read_text() == "old"
    assert sorted(path.name for path in here.iterdir()) == ["a.mp4", "broken", "frames"]


@POSIX
def test_a_file_with_too_few_frames_never_appears(here):
    fill("frames", 9)
    three = "{ head -c 27648; cat >/dev/null; }"  # frames
    lossy = script("lossy", f'case "$*" in *pipe:0*) {three} | REAL "$@";; *) exec REAL "$@";; esac')
    with pytest.raises(InputError, match=r"\b3\b.*\b9\b"):
        film_of(["frames"], "a.mp4", ffmpeg=lossy, timing=BARE)
    assert sorted(path.name for path in here.iterdir()) == ["frames", "lossy"]


@POSIX
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rest", ["sleep 300", "cat >/dev/null; sleep 300"], ids=["reads nothing", "never ends"])
def test_an_ffmpeg_that_stands_still_is_ended(here, monkeypatch, rest):
    monkeypatch.setattr(programs, "FRAME_S", 0.5)
    monkeypatch.setattr(programs, "FINISH_S", 0.5)
    still = script("still", f"echo $$ > pid; {rest}")
    running = Ffmpeg(str(still), frozenset(), frozenset()).start([])
    with pytest.raises(InputError, match="stood still"):
        _ = running.write(b"0" * 1_000_000), running.finish()
    running.kill()
    assert not alive(int(Path("pid").read_text()))


STILL = {
    "gives nothing": "cat >/dev/null; sleep 300",
    "takes and gives nothing": "sleep 300",
    "gives one and no more": "head -c 27648; sleep 300",
    "closes its output": "exec >&-; sleep 300",
}


@pytest.mark.full
@POSIX
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rest", STILL.values(), ids=STILL)
def test_an_ffmpeg_that_stands_still_between_frames_is_ended(here, monkeypatch, rest):
    for module in (programs, between):
        monkeypatch.setattr(module, "FRAME_S", 0.3)
    monkeypatch.setattr(programs, "FINISH_S", 0.3)
    still = script("still", f"echo $$ > pid; {rest}")
    pictures = (Image.new("RGB", (96, 96)) for _ in range(50))
    with pytest.raises(InputError, match="stood still"):
        list(follow_motion(pictures, 4, Ffmpeg(str(still), frozenset(), frozenset())))
    assert not alive(int(Path("pid").read_text()))


@pytest.mark.full
@POSIX
def test_whoever_takes_frames_between_frames_may_be_slow(here, monkeypatch):
    """It does not take what it is given while nobody takes what it gives: that is no standing still."""
    monkeypatch.setattr(programs, "FRAME_S", 1.0)
    mirror = Ffmpeg(str(script("mirror", "exec cat")), frozenset(), frozenset())
    found = follow_motion((Image.new("RGB", (128, 128), shade(k)) for k in range(9)), 1, mirror)
    assert colour(next(found)) == shade(0)
    time.sleep(1.5)
    assert [colour(picture) for picture in found] == [shade(k) for k in (*range(1, 9), 8)]


STOPPED = """
from vqclip.video import ffmpeg
ffmpeg.FRAME_S = 1.0
running = ffmpeg.Ffmpeg("./late", frozenset(), frozenset()).start([], stdout=-1)
print("reading", flush=True)
print(running.read(5).decode())
"""


@pytest.mark.full
@POSIX
def test_the_time_in_which_one_is_stopped_does_not_count(here):
    """As by Ctrl-Z: the program goes on meanwhile, but nobody can take what it gives."""
    script("late", "sleep 0.5; printf frame")
    env = os.environ | {"PYTHONPATH": str(Path(vqclip.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", STOPPED], env=env, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "reading\n"
        reader.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        reader.send_signal(signal.SIGCONT)
        assert reader.stdout.read() == "frame\n"


def test_an_output_that_appears_meanwhile_is_kept(here, program):
    writer = VideoWriter(Path("a.mp4"), 10, program)
    writer.add(Image.new("RGB", (16, 16)))
    Path("a.mp4").write_text("another's")
    with pytest.raises(OutputExists):
        writer.finish()
    assert Path("a.mp4").read_text() == "another's"


def test_a_frame_of_another_size_ends_the_video(here, program):
    sizes = [(16, 16), (18, 16)]
    with pytest.raises(InputError, match="18"), VideoWriter(Path("a.mp4"), 10, program) as writer:
        [writer.add(Image.new("RGB", size)) for size in sizes]
    assert list(here.iterdir()) == []


def test_no_frames_are_no_video(here, program):
    with pytest.raises(InputError, match="no frames"), VideoWriter(Path("a.mp4"), 10, program):
        pass


def alive(pid, wait=5.0):
    """Say whether a process is still there; one that is killed may take a moment on a busy machine."""
    give_up = time.monotonic() + wait
    while time.monotonic() < give_up:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if Path("/proc").exists() and "zombie" in Path(f"/proc/{pid}/status").read_text():
            return False
        time.sleep(0.05)
    return True


@pytest.mark.full
@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_kill_in_the_middle_leaves_the_old_file(here, number):
    fill("frames", 30, (256, 256))
    Path("a.mp4").write_text("old")
    slow = script("slow", LISTS + "echo $$ > pid.new; mv pid.new pid; read x; sleep 1; exec cat >/dev/null")
    process = subprocess.Popen(
        [sys.executable, "-m", "vqclip", "video", "frames", "-o", "a.mp4", "--overwrite", "--ffmpeg", str(slow)],
        env=os.environ | {"PYTHONPATH": str(Path(vqclip.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = time.monotonic() + 30
    while not Path("pid").exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    child = int(Path("pid").read_text())
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert Path("a.mp4").read_text() == "old"
    assert "Traceback" not in err
    if number != signal.SIGKILL:  # then there is no one left to tidy up
        assert sorted(path.name for path in here.iterdir()) == ["a.mp4", "frames", "pid", "slow"]
        assert not alive(child)
    while alive(child) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not alive(child)


# -- enlarged --------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_runs_frames_are_enlarged_as_its_image_is(here, vq):
    vq("generate", "an owl", *QUICK, "--upscale", "2", "--frames-every", "1", "--video", "live.apng", "--json")
    (run,) = Path("runs").iterdir()
    for words, size in (((), 64), (("--upscale", 0), 32), (("--upscale", 3), 96), (("--size", "40x40"), 40)):
        _, out, _ = vq("video", run, "-o", "a.apng", "--overwrite", "--json", *words)
        assert json.loads(out)["size"] == [size, size]
    vq("video", run, "-o", "b.apng")
    with Image.open("b.apng") as made, Image.open("live.apng") as live, Image.open(run / "final.png") as final:
        assert live.size == made.size
        made.seek(made.n_frames - 1)
        assert made.convert("RGB").tobytes() == final.convert("RGB").tobytes()


def test_any_frames_are_enlarged_where_that_is_asked_for(here):
    fill("frames", 3, size=(16, 12))
    assert film_of(["frames"], "a.apng", timing=BARE).size == (16, 12)
    assert film_of(["frames"], "b.apng", timing=BARE, upscale=3).size == (48, 36)
    for factor in (-1, 1, 9):
        with pytest.raises(UsageError):
            film_of(["frames"], "c.apng", timing=BARE, upscale=factor)
    assert not Path("c.apng").exists()


# -- generate --video ------------------------------------------------------------------------------------------------

QUICK = ("--steps", "5", "--size", "32x32", "--tries", "1", "--cutouts", "2", "--seed", "7", "--frames-every", "2")


def test_generate_films_its_frames(vq, networks):
    code, out, _ = vq("generate", "an owl", *QUICK, "--video", "a.apng", "--json")
    found = json.loads(out)
    assert (code, found["video"]) == (0, "a.apng")
    pictures = [picture for picture, _ in decoded("a.apng")[0]]
    frames = sorted(Path(found["run"], "frames").iterdir())
    assert [path.stem for path in frames] == ["000000", "000002", "000004", "000005"]
    wanted = [load_image(path).tobytes() for path in frames]
    assert [picture.tobytes() for picture in pictures] == wanted + [wanted[-1]] * 10  # held for a second


def test_generate_says_in_the_video_what_it_was_made_of(vq, networks):
    vq("generate", "an owl", *QUICK, "--video", "a.mp4")
    assert tags("a.mp4")["title"] == "an owl"
    vq("generate", "an owl", *QUICK, "--video", "b.mp4", "--no-metadata")
    assert "owl" not in str(tags("b.mp4"))


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--video", "a.avi"], 2),
        (["--video", "a.mp4", "--frames-every", "0"], 2),
        (["--video", "old.mp4/a.mp4"], 8),
        (["--video", "old.mp4"], 10),
    ],
    ids=str,
)
def test_generate_refuses_a_video_before_a_model_loads(vq, networks, more, code):
    Path("old.mp4").touch()
    assert vq("generate", "an owl", *QUICK, *more)[:2] == (code, "")
    assert networks.loaded == []


@POSIX
def test_generate_finds_a_missing_codec_before_a_model_loads(vq, networks, monkeypatch):
    monkeypatch.setenv("VQCLIP_FFMPEG", str(script("lean", "exit 0")))
    code, _, err = vq("generate", "an owl", *QUICK, "--video", "a.mp4")
    assert (code, networks.loaded) == (4, [])
    assert "VQCLIP_FFMPEG=" in err  # the hint names what this command has: it has no --ffmpeg
    assert "--ffmpeg" not in err


@POSIX
@pytest.mark.parametrize("text", ["exit 1", "head -c 5000 >/dev/null; exit 1", "cat >/dev/null"])
def test_a_fault_of_the_encoder_never_costs_the_picture(vq, networks, monkeypatch, text):
    monkeypatch.setenv("VQCLIP_FFMPEG", str(script("broken", LISTS + text)))
    code, out, err = vq("generate", "an owl", *QUICK, "--video", "a.mp4")
    picture = Path(out.strip())
    assert code == 4
    with Image.open(picture) as found:
        assert found.size == (32, 32)
    assert json.loads((picture.parent / "run.json").read_text())["status"] == "done"
    assert "error: " in err
    assert f"vqclip video {picture.parent}" in err
    assert not Path("a.mp4").exists()


def test_a_run_that_is_stopped_has_its_video(vq, networks, monkeypatch):
    monkeypatch.setattr("vqclip.cli.progress.Reporter.stopped", property(lambda self: bool(self.steps)))
    code, out, _ = vq("generate", "an owl", *QUICK, "--video", "a.apng")
    assert code == 0
    frames = sorted(Path(out.strip()).parent.glob("frames/*.png"))
    assert [path.stem for path in frames] == ["000000", "000001"]
    found = [picture.tobytes() for picture, _ in decoded("a.apng")[0]]
    assert found == [load_image(frames[k]).tobytes() for k in (0, *[1] * 11)]


def test_a_run_that_fails_leaves_the_old_video(vq, networks, monkeypatch):
    Path("a.mp4").write_text("old")

    def fail(self, step):
        raise MemoryError

    monkeypatch.setattr("vqclip.cli.progress.Reporter.step", fail)
    assert vq("generate", "an owl", *QUICK, "--video", "a.mp4", "--overwrite")[0] == 7
    assert Path("a.mp4").read_text() == "old"
    assert sorted(path.name for path in Path().iterdir()) == ["a.mp4", "runs"]


# -- the rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "codec", "found"),
    [
        ("a.mp4", None, ("h264", ".mp4")),
        ("a.MP4", None, ("h264", ".mp4")),
        ("a.webm", None, ("vp9", ".webm")),
        ("a.webm", "av1", ("av1", ".webm")),
        ("a.png", None, ("apng", ".png")),
        (None, None, ("h264", ".mp4")),
        (None, "vp9", ("vp9", ".webm")),
        (None, "apng", ("apng", ".apng")),
    ],
)
def test_the_ending_and_the_codec_choose(out, codec, found):
    assert choose(Path(out) if out else None, codec) == found


def test_an_ffmpeg_says_what_it_has(program):
    assert {"libx264", "gif", "apng"} <= program.encoders
    assert "minterpolate" in program.filters
    assert "=" not in program.encoders


def test_the_first_encoder_that_is_there_is_used():
    both = frozenset({"libsvtav1", "libaom-av1"})
    assert check_codec(Ffmpeg("x", both, frozenset()), "av1") == "libsvtav1"
    assert check_codec(Ffmpeg("x", both - {"libsvtav1"}, frozenset()), "av1") == "libaom-av1"


@POSIX
def test_an_ffmpeg_without_motion_is_found_before_any_work(vq):
    still = script("still", 'case "$*" in *-filters*) exit 0;; esac\nexec REAL "$@"')
    code, _, err = vq("video", "nowhere", "--between", "motion", "--ffmpeg", still)
    assert (code, "minterpolate" in err) == (4, True)


MEASURE = """
import resource, sys
from PIL import Image
from vqclip.video.make import VideoOptions, make_video
from vqclip.video.timing import Timing
timing = Timing(fps=25, length=int(sys.argv[2]) / 25, between=sys.argv[3], hold_last=0)
options = VideoOptions(codec="av1" if "av1" in sys.argv[1] else None, timing=timing)
make_video(["frames"], sys.argv[1], options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "av1.mp4", "a.gif", "a.apng", "motion.mp4"])
def test_memory_does_not_grow_with_the_frames(here, name):
    Path("frames").mkdir()
    for k in range(40):
        Image.effect_noise((256, 256), 20 + k).convert("RGB").save(f"frames/{k:02d}.png")
    peaks = []
    for count in (500, 2000):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, f"{count}-{name}", str(count), "motion" if "motion" in name else "fade"],
            env=os.environ | {"PYTHONPATH": str(Path(vqclip.__file__).parents[1])},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append([int(word) / 1024 for word in done.stdout.split()])
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05, abs=6), peaks  # MB, of us and of ffmpeg


def test_without_room_for_a_temporary_file_a_run_goes_on_without_a_video(vq, networks, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(programs.tempfile, "TemporaryFile", full)
    code, out, err = vq("generate", "an owl", *QUICK, "--video", "a.mp4")
    assert (code, Path(out.strip()).is_file(), Path("a.mp4").exists()) == (8, True, False)
    assert "temporary file" in err


KILLED = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from vqclip.video.ffmpeg import find_ffmpeg
from vqclip.video.writer import VideoWriter
writer = VideoWriter(Path(sys.argv[1]), 10, find_ffmpeg())
for _ in range(3):
    writer.add(Image.new("RGB", (32, 32)))
print("begun", flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_endings_of_clips_are_those_that_are_encoded():
    assert {*outputs.MOVING, ".png"} == {ending for row in ENCODERS.values() for ending in row.containers}


@pytest.mark.full
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="has no SIGKILL")
def test_what_a_killed_process_left_of_a_video_is_swept_and_what_another_is_making_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("vqclip.files.atomic.CLAIM_S", 0.0)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "v.mp4")]
    assert subprocess.run([*command, "kill"], check=False, stdout=subprocess.DEVNULL).returncode == -9
    [left] = tmp_path.glob(".*")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "wait"], **pipes) as other:
        other.stdout.readline()
        [there] = set(tmp_path.glob(".*")) - {left}
        with VideoWriter(tmp_path / "w.mp4", 10, find_ffmpeg()) as writer:
            for _ in range(2):
                writer.add(Image.new("RGB", (32, 32)))
        assert (left.exists(), there.exists()) == (False, True)
        other.kill()
    assert (tmp_path / "w.mp4").exists()
