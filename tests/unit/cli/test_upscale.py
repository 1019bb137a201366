"""`vqclip upscale`: what goes in, what comes out and where, what is kept, and how it fails."""

import json
import shutil
from pathlib import Path

import av
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from tests.support.clips import facts, make_clip
from vqclip.files.images import load_image
from vqclip.runs import upscale as upscaling

RECORD = {"settings": {"prompt": "a red heart", "seed": 7}, "versions": {"vqclip": "0.1.0"}}


def drawing(path, size=(16, 12), mode="RGB", **more):
    image = Image.new(mode, size, "white" if mode != "RGBA" else (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((2, 2, size[0] - 4, size[1] - 3), fill="red")
    image.save(path, **more)
    return Path(path)


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def texts(**given):
    info = PngInfo()
    for key, value in given.items():
        info.add_itxt(key, value)
    return info


# where things go


def test_an_image_becomes_one_four_times_as_large_beside_us(run_here):
    drawing("a.png")
    done = run_here("upscale", "a.png")
    assert (done.code, done.out) == (0, "a-x4.png\n")
    assert opened("a-x4.png").size == (64, 48)


def test_a_telephones_picture_with_a_second_view_is_no_clip(run_here):
    image = Image.new("RGB", (16, 12), "red")
    image.save("a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6), "blue")])
    assert run_here("upscale", "a.jpg", "--by", 2).out == "a-x2.jpg\n"
    assert opened("a-x2.jpg").size == (32, 24)


@pytest.mark.parametrize("flag", ["--by", "--factor"])
def test_the_factor(run_here, flag):
    drawing("a.png")
    assert run_here("upscale", "a.png", flag, 3).out == "a-x3.png\n"
    assert opened("a-x3.png").size == (48, 36)


@pytest.mark.parametrize(("name", "out"), [("a.jpg", "a-x2.jpg"), ("a.webp", "a-x2.webp"), ("a.bmp", "a-x2.png")])
def test_the_format_stays_where_it_can(run_here, name, out):
    drawing(name)
    assert run_here("upscale", name, "--by", 2).out == f"{out}\n"
    assert opened(out).size == (32, 24)


def test_out_is_a_file_or_a_folder(run_here):
    drawing("a.png")
    drawing("b.png")
    assert run_here("upscale", "a.png", "-o", "large.jpg", "-q").out == "large.jpg\n"
    assert opened("large.jpg").format == "JPEG"
    assert run_here("upscale", "a.png", "-o", "new/folder", "-q").out == "new/folder/a-x4.png\n"
    assert run_here("upscale", "a.png", "b.png", "-o", "both", "-q").out == "both/a-x4.png\nboth/b-x4.png\n"


def test_images_of_one_name_get_a_file_each(run_here):
    drawing("a.png")
    Path("more").mkdir()
    drawing("more/a.png")
    assert run_here("upscale", "a.png", "more/a.png", "--by", 2).out == "a-x2.png\na-x2-2.png\n"


def test_json(run_here):
    drawing("a.png")
    told = json.loads(run_here("upscale", "a.png", "--json").out)
    assert told["took"] >= 0
    assert {key: told[key] for key in ("path", "source", "size", "factor", "upscaler")} == {
        "path": "a-x4.png", "source": "a.png", "size": [64, 48], "factor": 4, "upscaler": "realesr-animevideov3",
    }  # fmt: skip


def test_the_same_again_gives_the_same_bytes(run_here):
    drawing("a.png", size=(40, 30))
    run_here("upscale", "a.png", "-o", "one.png", "--tile", 16)
    run_here("upscale", "a.png", "-o", "two.png", "--tile", 16)
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_run_gives_its_result(run_here):
    Path("runs/owl-7").mkdir(parents=True)
    Path("runs/owl-7/run.json").write_text(json.dumps({"schema": "vqclip-run/1", **RECORD}))
    assert run_here("upscale", "runs/owl-7").code == 4  # it has none yet
    drawing("runs/owl-7/final.png")
    assert run_here("upscale", "runs/owl-7", "--by", 2).out == "owl-7-x2.png\n"


def test_a_moving_pictures_run_gives_its_video(run_here):
    Path("runs/owl-7").mkdir(parents=True)
    Path("runs/owl-7/run.json").write_text(json.dumps({"schema": "vqclip-motion/1", **RECORD}))
    make_clip("runs/owl-7/video.mp4", 3, size=(16, 12), sound=False)
    assert run_here("upscale", "runs/owl-7", "--by", 2).out == "owl-7-x2.mp4\n"
    with av.open("owl-7-x2.mp4") as film:
        assert film.metadata["title"] == "a red heart"
        assert "realesr-animevideov3" in film.metadata["comment"]


def test_a_folder_is_done_image_by_image_and_what_is_none_is_left_out(run_here):
    Path("many/inside").mkdir(parents=True)
    drawing("many/a.png")
    drawing("many/b.jpg")
    drawing("many/inside/c.png")
    Path("many/notes.txt").write_text("hello")
    Path("many/broken.png").write_bytes(Path("many/a.png").read_bytes()[:60])
    done = run_here("upscale", "many", "--by", 2)
    assert (done.code, done.out) == (0, "many-x2/a.png\nmany-x2/b.jpg\n")
    assert "notes.txt" in done.err
    assert "broken.png" in done.err
    assert sorted(path.name for path in Path("many-x2").iterdir()) == ["a.png", "b.jpg"]
    assert run_here("upscale", "many", "--by", 2, "-o", "large").out == "large/a.png\nlarge/b.jpg\n"


@pytest.mark.parametrize("content", [[], ["notes.txt"]])
def test_a_folder_without_images(run_here, content):
    Path("empty").mkdir()
    for name in content:
        Path("empty", name).write_text("hello")
    assert run_here("upscale", "empty").code == 4


def test_a_folder_of_broken_images(run_here):
    Path("many").mkdir()
    drawing("a.png")
    Path("many/a.png").write_bytes(Path("a.png").read_bytes()[:60])
    assert run_here("upscale", "many").code == 4


# what is kept


def test_texts_of_a_png_are_kept_and_the_upscaler_is_named(run_here):
    written = texts(vqclip=json.dumps(RECORD), parameters="a red heart\nSteps: 20", Comment="mine")
    drawing("a.png", pnginfo=written)
    run_here("upscale", "a.png")
    told = opened("a-x4.png").text
    record = json.loads(told["vqclip"])
    assert {key: record[key] for key in RECORD} == RECORD
    assert record["upscale"]["factor"] == 4
    assert record["upscale"]["upscaler"]["name"] == "realesr-animevideov3"
    assert len(record["upscale"]["upscaler"]["sha256"]) == 64
    assert told["Comment"] == "mine"
    assert told["parameters"].startswith("a red heart\nSteps: 20, Postprocess upscale by: 4")
    assert "realesr-animevideov3" in told["Upscaler"]
    assert "algorithmicallyEnhanced" in told["XML:com.adobe.xmp"]


@pytest.mark.parametrize("record", ["{", "[1, 2]", "[" * 100_000, '{"settings": 7}', ""])
def test_a_record_that_is_none_of_ours_does_no_harm(run_here, record):
    drawing("a.png", pnginfo=texts(vqclip=record))
    assert run_here("upscale", "a.png").code == 0
    assert opened("a-x4.png").size == (64, 48)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_exif_and_colour_profile_are_kept(run_here, suffix):
    from PIL import ImageCms

    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x0112] = 6  # turned
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    drawing("a.jpg", exif=exif, icc_profile=profile)
    run_here("upscale", "a.jpg", "-o", f"b{suffix}")
    made = opened(f"b{suffix}")
    assert made.size == (48, 64)
    assert made.info["icc_profile"] == profile
    told = made.getexif()
    assert told[0x010F] == "Camera"
    assert told.get(0x0112, 1) == 1
    assert "realesr-animevideov3" in told[0x000B]


def test_what_galleries_read_goes_into_a_jpegs_comment(run_here):
    drawing("a.png", pnginfo=texts(parameters="ein Käuzchen\nSteps: 20"))
    run_here("upscale", "a.png", "-o", "b.jpg")
    comment = opened("b.jpg").getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be").startswith("ein Käuzchen\nSteps: 20, Postprocess upscale by: 4")


def test_nothing_is_told_where_that_is_asked_for(run_here):
    drawing("a.png", pnginfo=texts(vqclip=json.dumps(RECORD), Comment="mine"))
    run_here("upscale", "a.png", "--no-metadata")
    made = opened("a-x4.png")
    assert made.text == {}
    assert len(made.getexif()) == 0


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_kept(run_here, suffix):
    drawing("a.png", mode="RGBA", size=(24, 24))
    run_here("upscale", "a.png", "-o", f"b{suffix}")
    made = opened(f"b{suffix}")
    assert made.mode == "RGBA"
    assert made.getpixel((0, 0))[3] == 0
    assert made.getpixel((44, 44))[3] == 255
    red, green, blue, _ = made.getpixel((44, 44))
    assert red > 220
    assert max(green, blue) < 60


def test_a_jpeg_has_white_where_the_original_is_clear(run_here):
    drawing("a.png", mode="RGBA", size=(24, 24))
    run_here("upscale", "a.png", "-o", "b.jpg")
    assert min(opened("b.jpg").getpixel((1, 1))) > 245


def test_the_original_stays_as_it_was(run_here):
    before = drawing("a.png").read_bytes()
    run_here("upscale", "a.png")
    assert Path("a.png").read_bytes() == before
    done = run_here("upscale", "a.png", "-o", "a.png", "--overwrite")
    assert done.code == 2
    assert Path("a.png").read_bytes() == before


# clips


def test_a_clip_is_enlarged_with_its_sound(run_here):
    make_clip("a.mp4", 6, size=(16, 12), fps="12")
    done = run_here("upscale", "a.mp4", "--by", 2, "-q")
    assert (done.code, done.out) == (0, "a-x2.mp4\n")
    count, size, seconds, rate, sound = facts("a-x2.mp4")
    assert (count, size, rate) == (6, (32, 24), 12)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert sound[0] == "aac"


def test_a_moving_gif_stays_one(run_here):
    make_clip("a.gif", 4, size=(16, 12), fps="10", sound=False)
    assert run_here("upscale", "a.gif", "--by", 2).out == "a-x2.gif\n"
    with Image.open("a-x2.gif") as made:
        assert (made.size, made.n_frames) == ((32, 24), 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_moving_avif_is_read_as_it_moves(run_here, mode):
    """Its still image, and perhaps that one's alpha, are tracks of their own."""
    frames = [Image.new(mode, (16, 12), (*colour, 100)[: len(mode)]) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save("a.avif", save_all=True, append_images=[frames[1]] * 2, duration=100)
    assert run_here("upscale", "a.avif", "--by", 2, "-q").out == "a-x2.mp4\n"
    assert facts("a-x2.mp4")[:4] == (3, (32, 24), pytest.approx(0.3, abs=0.01), 10)


@pytest.mark.parametrize(("delay", "code"), [(0, 0), (11, 4)])  # of no delay players, and ffmpeg, make 100 ms
def test_a_clip_may_be_given_another_pace_where_its_own_can_not_be_kept(run_here, delay, code):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "green", "blue") * 4]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:], duration=delay)
    done = run_here("upscale", "a.webp", "--by", 2, "-o", "a.gif")
    assert done.code == code
    assert code == 0 or "--fps" in done.err
    assert run_here("upscale", "a.webp", "--by", 2, "-o", "b.gif", "--fps", 20).code == 0
    with Image.open("b.gif") as made:
        made.seek(made.n_frames - 1)
        assert made.info["duration"] == 50


def test_an_odd_size_is_made_even_and_told(run_here):
    make_clip("a.mkv", 3, size=(15, 13), sound=False, fps="10")
    done = run_here("upscale", "a.mkv", "--by", 3)
    assert done.out == "a-x3.mp4\n"
    assert "45x39" in done.err
    assert facts("a-x3.mp4")[1] == (46, 40)


def test_frames_are_those_that_single_images_give(run_here):
    make_clip("a.apng", 3, size=(16, 12), sound=False, fps="10")
    run_here("upscale", "a.apng", "--by", 2, "-o", "b.apng")
    with Image.open("a.apng") as clip:
        clip.seek(2)
        clip.convert("RGB").save("third.png")
    run_here("upscale", "third.png", "--by", 2)
    with Image.open("b.apng") as clip:
        clip.seek(2)
        assert clip.convert("RGB").tobytes() == load_image("third-x2.png").tobytes()


def test_a_clip_goes_to_no_image(run_here):
    make_clip("a.mp4", 3, size=(16, 12), sound=False)
    assert run_here("upscale", "a.mp4", "-o", "b.jpg").code == 2
    assert not Path("b.jpg").exists()


# failures


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ([], 2),
        (["missing.png"], 4),
        (["a.png", "--by", "1"], 2),
        (["a.png", "--by", "9"], 2),
        (["a.png", "--tile", "3"], 2),
        (["a.png", "--device", "toaster"], 2),
        (["a.png", "-o", "b.tiff"], 2),
        (["a.png", "--upscaler", "realesr-animevideo3"], 5),
        (["a.png", "--upscaler", "realesrgan-x4plus"], 5),
        (["a.png", "--upscaler", "a.png"], 5),
        (["notes.txt"], 4),
        (["broken.png"], 4),
        (["a.png", "-o", "a.png/b.png"], 8),
        (["there.png", "a.png", "-o", "there.png/x"], 8),
    ],
)
def test_failures_have_their_codes_and_write_nothing(run_here, args, code):
    drawing("a.png")
    shutil.copy("a.png", "there.png")
    Path("notes.txt").write_text("hello")
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:60])
    before = sorted(path.name for path in Path().iterdir())
    done = run_here("upscale", *args)
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    assert sorted(path.name for path in Path().iterdir()) == before


def test_nothing_is_overwritten_unasked_and_all_is_checked_first(run_here):
    drawing("a.png")
    drawing("b.png")
    Path("b-x4.png").write_text("mine")
    done = run_here("upscale", "a.png", "b.png")
    assert (done.code, done.out) == (10, "")
    assert not Path("a-x4.png").exists()
    assert Path("b-x4.png").read_text() == "mine"
    assert run_here("upscale", "a.png", "b.png", "--overwrite").code == 0
    assert opened("b-x4.png").size == (64, 48)


def test_too_little_memory_is_told_before_the_work(run_here, monkeypatch):
    drawing("a.png", size=(300, 300))
    monkeypatch.setattr(upscaling, "available", lambda device: 20_000_000)
    done = run_here("upscale", "a.png")
    assert done.code == 7
    assert "--tile" in done.err
    assert not Path("a-x4.png").exists()


def test_a_format_that_holds_no_such_size(run_here):
    Image.new("RGB", (2100, 2)).save("a.png")
    assert run_here("upscale", "a.png", "--by", 8, "-o", "a.webp").code == 2
    assert not Path("a.webp").exists()


@pytest.mark.parametrize("quality", [-7, 101, 1000])
def test_a_quality_out_of_range_is_refused(run_here, quality):
    make_clip("a.mp4", 3, size=(16, 12), sound=False)
    done = run_here("upscale", "a.mp4", "--quality", quality)
    assert done.code == 2
    assert "0 to 100" in done.err
    assert not Path("a-x4.mp4").exists()


def test_what_is_enlarged_twice_says_how_much_larger_it_is_than_what_was_drawn(run_here):
    drawing("a.png", pnginfo=texts(vqclip=json.dumps(RECORD), parameters="a red heart\nSteps: 20"))
    run_here("upscale", "a.png", "--by", 2, "-o", "b.png")
    run_here("upscale", "b.png", "--by", 3, "-o", "c.png")
    once, twice = (opened(name).text for name in ("b.png", "c.png"))
    upscale = json.loads(twice["vqclip"])["upscale"]
    assert (upscale["factor"], upscale["before"]) == (6, json.loads(once["vqclip"])["upscale"])
    assert twice["parameters"].count("Postprocess upscale by: 6") == twice["parameters"].count("Postprocess") / 2 == 1


@pytest.mark.parametrize(
    ("mark", "names"),
    [("batch.json", ["results.csv", "sheet.png", "index.html"]), ("sample.json", ["candidates.json", "grid.png"])],
)
def test_of_a_batch_and_a_sample_the_images_are_enlarged_and_nothing_beside_them(run_here, mark, names):
    Path("many").mkdir()
    drawing("many/one.png")
    Path("many", mark).write_text("{}")
    for name in names:
        drawing("many/" + name, format="PNG")
    done = run_here("upscale", "many", "--by", 2)
    assert done.out == "many-x2/one.png\n"
    assert not any(name in done.err for name in [mark, *names])


def test_what_is_no_picture_at_all_is_called_so(run_here):
    Path("p.txt").write_text("a red heart")
    done = run_here("upscale", "p.txt")
    assert (done.code, "neither an image nor a video" in done.err) == (4, True)


def test_several_images_go_into_a_folder_and_not_into_a_file(run_here):
    drawing("a.png")
    drawing("b.png")
    assert run_here("upscale", "a.png", "b.png", "-o", "q.png").code == 2
    assert run_here("reconstruct", "a.png", "b.png", "-o", "q.png").code == 2
    assert not Path("q.png").exists()


def test_what_was_done_before_a_signal_is_said(run_here, monkeypatch):
    drawing("a.png")
    drawing("b.png")
    write = upscaling.write_atomic

    def stop_at_the_second(path, data, **more):
        if path.name.startswith("b"):
            raise KeyboardInterrupt
        write(path, data, **more)

    monkeypatch.setattr(upscaling, "write_atomic", stop_at_the_second)
    done = run_here("upscale", "a.png", "b.png")
    assert (done.code, done.out) == (130, "a-x4.png\n")
    assert "1 of 2 images" in done.err
