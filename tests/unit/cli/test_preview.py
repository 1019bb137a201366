"""--preview: how an image is shown on each kind of terminal, where on the screen, and at what cost."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyte
import pytest
from PIL import Image

import vqclip.cli.preview
from tests.support.screen import Screen
from vqclip.cli.preview import SHARE, Preview
from vqclip.cli.terminal_image import PROTOCOLS, fit_cells, protocol_of

STEPS = ("generate", "an owl", "--seed", "7", "--steps", "4", "--cutouts", "2", "--init", "grey", "--upscale", "0")
SMALL = (*STEPS, "--size", "32")


@pytest.fixture
def picture():
    """Return 24 x 24 pixels, red above and blue below."""
    image = Image.new("RGB", (24, 24), (255, 0, 0))
    image.paste((0, 0, 255), (0, 12, 24, 24))
    return image


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/x", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "dumb"}, ""),
        ({}, ""),
        ({"WT_SESSION": "1"}, "blocks"),
    ],
)
def test_a_terminal_is_known_by_its_variables(environ, protocol):
    assert protocol_of(environ) == protocol


@pytest.mark.parametrize(
    ("size", "room", "cells"),
    [((24, 24), (80, 10), (20, 10)), ((24, 24), (10, 20), (10, 5)), ((96, 24), (40, 20), (40, 5))],
)
def test_an_image_keeps_its_aspect_within_the_room(size, room, cells):
    assert fit_cells(Image.new("RGB", size), *room) == cells


def test_half_blocks_have_two_pixels_each(picture):
    screen = pyte.Screen(40, 12)
    pyte.Stream(screen).feed(PROTOCOLS["blocks"](picture, 9, 5, (10, 20)))
    cells = [[screen.buffer[row][column] for column in range(9)] for row in range(5)]
    assert {cell.data for row in cells for cell in row} == {"\u2580"}
    assert (cells[0][0].fg, cells[0][0].bg) == ("ff0000", "ff0000")
    assert (cells[4][8].fg, cells[4][8].bg) == ("0000ff", "0000ff")
    assert screen.cursor.x == 9


def test_without_true_colours_the_nearest_of_256_are_shown(picture):
    screen = pyte.Screen(40, 12)
    pyte.Stream(screen).feed(PROTOCOLS["blocks-256"](picture, 4, 2, (10, 20)))
    assert [screen.buffer[row][0].fg for row in (0, 1)] == ["ff0000", "0000ff"]


@pytest.mark.parametrize("protocol", ["kitty", "iterm"])
def test_graphics_carry_the_image_itself(protocol, picture):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))  # several chunks
    for image in (picture, noise):
        drawn = PROTOCOLS[protocol](image, 9, 5, (10, 20))
        parts = re.findall(r";([^;\x1b]*)\x1b\\" if protocol == "kitty" else r":(.*)\x07", drawn)
        with Image.open(io.BytesIO(base64.b64decode("".join(parts)))) as seen:
            assert seen.tobytes() == image.tobytes()
    if protocol == "kitty":
        assert re.findall(r"m=(\d)", drawn) == ["1"] * (len(parts) - 1) + ["0"]
        assert max(map(len, parts)) <= 4096


def test_a_sixel_image_reads_back(picture):
    drawn = PROTOCOLS["sixel"](picture, 4, 2, (10, 20))
    width, height, body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', drawn).groups()
    assert (int(width), int(height)) == (40, 36)
    palette = {
        int(k): [int(v) * 255 // 100 for v in rgb.split(";")] for k, rgb in re.findall(r"#(\d+);2;([\d;]+)", body)
    }
    bands = re.sub(r"#\d+;2;[\d;]+", "", body).removesuffix("-").split("-")
    seen = np.zeros((36, 40, 3), int) - 1
    for top, band in enumerate(bands):
        for colour, runs in re.findall(r"#(\d+)([^#]*)", band):
            signs = re.sub(r"!(\d+)(.)", lambda run: run[2] * int(run[1]), runs.rstrip("$"))
            for x, sign in enumerate(signs):
                for bit in range(6):
                    if ord(sign) - 63 >> bit & 1:
                        seen[6 * top + bit, x] = palette[int(colour)]
    expected = np.asarray(picture.resize((40, 36), Image.Resampling.LANCZOS)).astype(int)
    assert seen.min() >= 0  # every pixel was set
    assert np.abs(seen - expected).mean() < 4


@pytest.mark.full
def test_the_image_stands_below_the_bar_and_nothing_is_left_in_pieces(tmp_path):
    shown = Screen((*SMALL, "--preview"), tmp_path, COLORTERM="truecolor")
    assert shown.code == 0, shown.raw
    assert shown.out.strip().endswith("final.png")
    assert "\x1b" not in shown.out
    lines = [line.rstrip() for line in shown.screen.display]
    bar = next(k for k, line in enumerate(lines) if "4/4" in line)
    picture = [k for k, line in enumerate(lines) if "\u2580" in line]
    assert picture == list(range(bar + 1, bar + 1 + len(picture)))
    assert len(picture) >= 10
    assert {len(lines[k]) for k in picture} == {len(lines[picture[0]])}
    assert any("4 steps" in line for line in lines[picture[-1] + 1 :])
    with Image.open(tmp_path / shown.out.strip()) as final:
        small = final.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    cells = [shown.screen.buffer[k][x] for k in picture for x in range(len(lines[picture[0]]))]
    colours = np.array([[int(each[i : i + 2], 16) for i in (0, 2, 4)] for c in cells for each in (c.fg, c.bg)])
    assert np.abs(colours.mean(0) - small).max() < 3


@pytest.mark.full
def test_the_frames_of_a_story_stand_below_the_bar_and_the_last_stays(tmp_path):
    words = ("story", "an owl", *SMALL[2:], "--frames", "5", "--frame-steps", "1", "--preview")
    shown = Screen(words, tmp_path, COLORTERM="truecolor")
    assert shown.code == 0, shown.raw
    assert shown.out.strip().endswith("video.mp4")
    lines = [line.rstrip() for line in shown.screen.display]
    picture = [k for k, line in enumerate(lines) if "\u2580" in line]
    assert picture == list(range(picture[0], picture[0] + len(picture)))
    assert len(picture) >= 10
    assert "5 frames" in lines[picture[-1] + 1]


@pytest.mark.full
@pytest.mark.parametrize(("environ", "sign"), [({"TERM": "xterm-kitty"}, b"\x1b_Ga=T"), ({"TERM": "foot"}, b"\x1bPq")])
def test_a_terminal_that_can_gets_graphics(tmp_path, environ, sign):
    shown = Screen((*SMALL, "--preview"), tmp_path, **environ)
    assert (shown.code, sign in shown.raw) == (0, True)


@pytest.mark.full
def test_a_small_terminal_gets_a_small_image_or_none(tmp_path):
    for lines, some in ((10, True), (5, False)):
        shown = Screen((*SMALL, "--preview"), tmp_path, lines=lines)
        assert (shown.code, "\u2580".encode() in shown.raw) == (0, some)


def test_a_pipe_gets_no_image(vq, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-kitty")
    done = vq("generate", "an owl", "--steps", "2", "--size", "32", "--set", "cutouts=2", "--preview")
    assert (done.code, "\x1b" in done.err + done.out) == (0, False)


@pytest.mark.parametrize("text", ["preview = true", 'preview = "kitty"', "preview = false", "preview = 1"])
def test_a_folders_file_may_ask_for_it(vq, text):
    Path("vqclip.toml").write_text(f"{text}\nsteps = 2\n")
    done = vq("generate", "an owl", "--size", "32", "--set", "cutouts=2")
    assert done.code == 0, done.err
    assert not any(line.startswith("preview") for line in vq("settings").out.splitlines())


def test_a_preview_of_an_unknown_kind_is_refused(vq, monkeypatch):
    monkeypatch.setenv("VQCLIP_PREVIEW", "nope")
    refused = vq("generate", "an owl", "--steps", "2", "--size", "32")
    assert (refused.code, "kitty" in refused.err) == (2, True)


def test_it_takes_no_more_than_its_share_of_the_time(monkeypatch, picture):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(vqclip.cli.preview, "time", clock)
    preview, drawn = Preview("blocks"), []

    def write(image, **how):
        clock.now += 0.03
        drawn.append(clock.now)

    monkeypatch.setattr(preview, "_write", write)
    preview.start(SimpleNamespace(picture=lambda latent, step: picture), None)
    for _ in range(1000):
        clock.now += 0.05
        preview.step(SimpleNamespace(latent=None, step=1))
    assert SHARE * clock.now / 0.03 - 2 < len(drawn) <= SHARE * clock.now / 0.03 - 1  # there is time for one in the end
