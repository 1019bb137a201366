"""Clips that are read: what they are, and their frames."""

import json
import os
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from tests.support.clips import apart, disk, make_clip
from vqclip.animate.clip import SourceClip, fit_shape, probe_clip, read_frames
from vqclip.errors import InputError, UsageError
from vqclip.video import ffmpeg
from vqclip.video.ffmpeg import find_ffmpeg


@pytest.fixture(scope="module")
def program():
    return find_ffmpeg()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "fps", "sound"),
    [
        ("a.mp4", "12", "aac"),
        ("a.mp4", "30000/1001", "aac"),
        ("a.mp4", "24000/1001", ""),
        ("a.webm", "30", "opus"),
        ("a.mkv", "25", "vorbis"),
        ("a.mov", "10", "aac"),
        ("a.gif", "10", ""),
    ],
)
def test_a_clip_is_surveyed(here, program, name, fps, sound):
    found = probe_clip(program, make_clip(name, 13, fps=fps, sound=bool(sound)))
    assert (found.frames, found.size, found.fps, found.sound) == (13, (64, 48), Fraction(fps), sound)
    assert found.seconds == pytest.approx(13 / float(Fraction(fps)))


def test_a_part_at_another_pace(here, program):
    clip = make_clip("a.mp4", 24, fps="12")
    found = probe_clip(program, clip, fps=4, length=1.5)
    assert (found.frames, found.fps, found.seconds) == (6, 4, 1.5)
    assert len(list(read_frames(program, found, (64, 48)))) == 6


def test_a_part_that_is_too_short_is_not_blamed_on_the_file(here, program):
    with pytest.raises(InputError) as error:
        probe_clip(program, make_clip("a.mp4", 12, fps="12"), length=0.05)
    assert "--length" in error.value.hint


def test_what_is_no_video_is_said_in_our_words(here, program):
    Path("a.txt").write_text("no film\n" * 100)
    with pytest.raises(InputError, match=r"is no video$"):
        probe_clip(program, Path("a.txt"))


def test_a_survey_says_how_far_it_is(here, program):
    heard = []
    probe_clip(program, make_clip("a.mp4", 3), on_frame=lambda *told: heard.append(told))
    assert heard == [(1, 0), (2, 0), (3, 0)]


def test_the_frames_are_the_clips(here, program):
    found = probe_clip(program, make_clip("a.mp4", 6))
    pictures = list(read_frames(program, found, (64, 48)))
    assert len(pictures) == 6
    assert max(apart(picture, disk(k, (64, 48))) for k, picture in enumerate(pictures)) < 0.02
    late = list(read_frames(program, found, (64, 48), first=4))
    assert [picture.tobytes() for picture in late] == [picture.tobytes() for picture in pictures[4:]]


def test_frames_cover_another_size_and_are_cropped(here, program):
    found = probe_clip(program, make_clip("a.mp4", 2, size=(80, 40)))
    picture = next(read_frames(program, found, (32, 32)))
    assert picture.size == (32, 32)
    assert apart(picture, disk(0, (80, 40)).resize((64, 32), Image.Resampling.LANCZOS).crop((16, 0, 48, 32))) < 0.03


def test_what_a_survey_found_can_be_written_down(here, program):
    found = probe_clip(program, make_clip("a.mp4", 3).absolute(), length=0.2)
    assert SourceClip.model_validate(json.loads(found.model_dump_json())) == found


def test_pixels_that_are_not_square_are_made_so(here, program):
    """As of DVDs: 64x48 pixels that are each twice as wide as high are a picture of 128x48."""
    make_clip("a.mp4", 3, sound=False)
    subprocess.run([program.path, "-v", "error", "-i", "a.mp4", "-vf", "setsar=2", "wide.mp4"], check=True)
    found = probe_clip(program, Path("wide.mp4"))
    assert found.size == (128, 48)
    picture = next(read_frames(program, found, (128, 48)))
    assert apart(picture, disk(0, (64, 48)).resize((128, 48))) < 0.02


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for ffmpeg is a shell script")
@pytest.mark.timeout(60)
def test_an_ffmpeg_that_stands_still_is_ended(here, program, monkeypatch):
    found = probe_clip(program, make_clip("a.mp4", 6))
    monkeypatch.setattr(ffmpeg, "FRAME_S", 0.3)
    Path("still").write_text("#!/bin/sh\nhead -c 9216 /dev/zero; sleep 300\n")  # one frame
    Path("still").chmod(0o700)
    series = read_frames(replace(program, path=str(here / "still")), found, (64, 48))
    assert next(series).size == (64, 48)
    with pytest.raises(InputError, match="stood still"):
        next(series)


def text(path):
    path.write_text("no film\n" * 100)


def cut(path):
    data = make_clip(path, 40).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def still(path):
    Image.new("RGB", (8, 8)).save(path, "PNG")


def sound_alone(path):
    make_clip("with.mp4", 6)
    os.system(f"{find_ffmpeg().path} -v error -i with.mp4 -vn -c copy {path}")


def playlist(path):
    make_clip("inside.mp4", 6)
    path.write_text("#EXTM3U\n#EXTINF:1,\ninside.mp4\n#EXT-X-ENDLIST\n")


BAD = {"nothing": lambda path: None, "an empty file": lambda path: path.touch(), "a folder": lambda path: path.mkdir(),
       "text": text, "half of one": cut, "a picture": still, "sound": sound_alone, "a playlist": playlist,
       "one frame": lambda path: make_clip(path, 1, sound=False)}  # fmt: skip


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_what_is_no_clip_is_refused_by_its_name(here, program, make):
    make(path := Path("clip.mp4"))
    with pytest.raises(InputError, match=r"clip\.mp4"):
        probe_clip(program, path)


@pytest.mark.parametrize("wish", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": 1000}, {"length": 0}])
def test_numbers_out_of_range_are_refused(here, program, wish):
    with pytest.raises(UsageError, match=r"fps|length"):
        probe_clip(program, Path("clip.mp4"), **wish)


def test_a_clip_that_was_cut_meanwhile_is_told(here, program):
    found = probe_clip(program, make_clip("a.mp4", 6))
    make_clip("a.mp4", 4)
    with pytest.raises(InputError, match=r"4.*6"):
        list(read_frames(program, found, (64, 48)))


@pytest.mark.parametrize(
    ("aspect", "area", "size"),
    [((100, 100), (128, 128), (128, 128)), ((1920, 1080), (128, 128), (171, 96)), ((90, 160), (96, 96), (72, 128))],
)
def test_a_size_of_one_shape_and_another_area(aspect, area, size):
    assert fit_shape(aspect, area) == size
