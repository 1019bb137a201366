"""Where frames come from: order, gaps, what is no frame."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vqclip.errors import InputError
from vqclip.video.frames import find_gap, find_sources, measure_changes, natural_key, select_frames


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a function that fills a folder with pictures, in an empty place."""
    monkeypatch.chdir(tmp_path)

    def fill(*names, where="frames", size=(8, 6)):
        Path(where).mkdir(exist_ok=True, parents=True)
        for name in names:
            Image.new("RGB", size, "red").save(Path(where, name))
        return Path(where)

    return fill


def names(sources):
    return [[path.name for path in source.frames] for source in sources]


def test_names_are_sorted_as_people_count():
    given = ["b1.png", "frame10.png", "frame2.png", "Frame1.png", "9.png", "10.png"]
    assert sorted(given, key=lambda name: natural_key(Path(name))) == [
        "9.png", "10.png", "b1.png", "Frame1.png", "frame2.png", "frame10.png",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", "frame", "1", "a1b2c3", "٣.png", "²", "1" * 255])
def test_any_name_can_be_sorted(name):
    assert len(sorted([Path(name), Path("x1"), Path("2")], key=natural_key)) == 3


def test_a_folder(folder):
    folder("f1.png", "f10.png", "f2.png", "f3.png", "f4.png", "f5.png", "f6.png", "f7.png", "f8.png", "f9.png")
    assert names(find_sources(["frames"])) == [[f"f{k}.png" for k in range(1, 11)]]


def test_a_pattern(folder):
    folder("a1.png", "a2.png", "b1.png", "a10.png")
    assert names(find_sources(["frames/a*.png"])) == [["a1.png", "a2.png", "a10.png"]]


def test_a_folder_whose_name_looks_like_a_pattern(folder):
    folder("1.png", "2.png", where="[x]*")
    assert names(find_sources(["[x]*"])) == [["1.png", "2.png"]]


def test_a_pattern_that_the_shell_has_sorted_by_letters(folder):
    folder("1.png", "10.png", "2.png")
    given = ["frames/1.png", "frames/10.png", "frames/2.png"]
    assert names(find_sources(given)) == [["1.png", "2.png", "10.png"]]


def test_pictures_in_an_order_of_ones_own_stay_in_it(folder):
    folder("1.png", "10.png", "2.png")
    assert names(find_sources(["frames/2.png", "frames/10.png", "frames/1.png"])) == [["2.png", "10.png", "1.png"]]


def test_several(folder):
    folder("1.png", where="a"), folder("2.png", where="b")
    assert names(find_sources(["b", "a/1.png", "a"])) == [["2.png"], ["1.png"], ["1.png"]]


def test_a_run(folder):
    folder("000000.png", "000010.png", where="run/frames")
    Path("run/run.json").write_text(json.dumps({"schema": "vqclip-run/1", "settings": {"prompt": "an owl"}}))
    [source] = find_sources(["run"])
    assert (names([source]), source.run, source.prompt) == ([["000000.png", "000010.png"]], Path("run"), "an owl")


def test_a_runs_last_step_may_be_short():
    assert find_gap([Path(f"{k:06d}.png") for k in (0, 10, 20, 30, 33)]) is None


@pytest.mark.parametrize("gap", [10, 20, 30])
def test_a_gap_is_found(gap):
    numbers = [k for k in (0, 10, 20, 30, 40, 43) if k != gap]
    assert find_gap([Path(f"x/{k:06d}.png") for k in numbers]) == Path(f"x/{gap:06d}.png")


@pytest.mark.parametrize("numbers", [(1, 5, 7, 20, 21, 40), (2041, 2050, 2051, 2090), (1, 2)], ids=str)
def test_numbers_that_are_no_series_have_no_gaps(numbers):
    assert find_gap([Path(f"IMG_{k}.png") for k in numbers]) is None


def test_a_gap_is_refused_by_name(folder):
    folder("1.png", "2.png", "4.png", "5.png", "6.png")
    with pytest.raises(InputError, match=r"3\.png is missing"):
        find_sources(["frames"])
    assert len(find_sources(["frames"], skip_bad=True)[0].frames) == 5


@pytest.mark.parametrize("name", ["notes.txt", "sound.wav", "deeper"])
def test_what_is_no_frame_is_refused_by_name(folder, name):
    place = folder("1.png", "2.png")
    (place / name).mkdir() if name == "deeper" else (place / name).touch()
    with pytest.raises(InputError, match=name):
        find_sources(["frames"])
    assert names(find_sources(["frames"], skip_bad=True)) == [["1.png", "2.png"]]


@pytest.mark.parametrize("name", ["video.mp4", "a.WEBM", "a.gif", "a.apng"])
def test_a_video_that_was_made_beside_its_frames_is_no_matter(folder, name):
    (folder("1.png") / name).touch()
    assert names(find_sources(["frames"])) == [["1.png"]]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", ".0123.part", "desktop.ini"])
def test_what_systems_leave_behind_is_no_matter(folder, name):
    (folder("1.png") / name).touch()
    assert names(find_sources(["frames"])) == [["1.png"]]


@pytest.mark.parametrize("name", ["nowhere", "nowhere/*.png", "empty"])
def test_nothing_is_refused(folder, name):
    Path("empty").mkdir() if name == "empty" else folder()
    with pytest.raises(InputError, match=r"empty|nowhere"):
        find_sources([name])


def test_a_run_without_frames_says_how_to_get_them(folder):
    folder(where="run/frames")
    Path("run/run.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        find_sources(["run"])
    assert "--frames-every" in caught.value.hint


def sifted(**asked):
    return names(select_frames(find_sources(["frames"], skip_bad=True), asked.pop("size", None), **asked))


def test_a_frame_of_another_size_is_refused_by_name(folder):
    folder("1.png", "3.png"), folder("2.png", size=(9, 6))
    with pytest.raises(InputError, match=r"2.png has 9x6 pixels"):
        sifted()
    assert sifted(skip_bad=True) == [["1.png", "3.png"]]


def test_any_size_will_do_where_they_are_scaled(folder):
    folder("1.png"), folder("2.png", size=(9, 6))
    assert sifted(size=(4, 4)) == [["1.png", "2.png"]]


def test_sources_of_different_sizes_are_refused(folder):
    folder("1.png", where="a"), folder("2.png", where="b", size=(9, 6))
    with pytest.raises(InputError, match=r"b/2\.png"):
        select_frames(find_sources(["a", "b"]), None)


@pytest.mark.parametrize("bad", ["text", "cut", "empty"])
def test_a_damaged_frame_is_left_out(folder, bad):
    place = folder("1.png", "2.png", "3.png")
    whole = (place / "2.png").read_bytes()
    (place / "2.png").write_bytes({"text": b"no picture", "cut": whole[:-30], "empty": b""}[bad])
    assert sifted(skip_bad=True) == [["1.png", "3.png"]]


@pytest.mark.parametrize("bad", [b"no picture", b""])
def test_a_file_that_is_no_picture_is_refused_by_name(folder, bad):
    (folder("1.png") / "2.png").write_bytes(bad)
    with pytest.raises(InputError, match=r"2.png"):
        sifted()


def test_change_is_the_mean_difference():
    shades = [Image.new("RGB", (64, 64), colour) for colour in ((0, 0, 0), (30, 0, 0), (30, 60, 0), (30, 60, 0))]
    assert measure_changes(iter(shades)) == pytest.approx([10, 20, 0])


def test_a_frame_that_is_a_link_out_of_its_run_is_refused(tmp_path):
    run, private = tmp_path / "run", tmp_path / "private.png"
    (run / "frames").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for k in range(3):
        Image.new("RGB", (8, 8)).save(run / "frames" / f"{k:06d}.png")
    assert find_sources([str(run)])
    Image.new("RGB", (8, 8)).save(private)
    (run / "frames" / "000001.png").unlink()
    (run / "frames" / "000001.png").symlink_to(private)
    with pytest.raises(InputError):
        find_sources([str(run)])
