"""What a picture's file carries: enough to make it again, what galleries read, and no date."""

import io
import json
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vqclip.errors import UsageError
from vqclip.files.metadata import WRITERS, ImageInfo, parameters, to_png, writer_for, xmp

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
A1111 = re.compile(r'\s*([\w ]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as stable-diffusion-webui reads it
PICTURE = Image.frombytes("RGB", (6, 4), bytes(range(72)))


def write(ending, about, image=None):
    return WRITERS[ending](image or PICTURE, ImageInfo.of(about))


def to_jpeg(image, about=None):
    return write(".jpg", about, image)


def to_webp(image, about=None):
    return write(".webp", about, image)


@pytest.mark.parametrize("ending", sorted(WRITERS))
def test_every_writer_keeps_the_parameters_and_says_that_a_model_made_it(ending):
    image = reopened(write(ending, record()))
    kept = image.info.get("parameters") or image.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "ignore")
    said = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
    assert "Steps: " in kept
    assert b"trainedAlgorithmicMedia" in said


def record(prompt="a red heart", **settings):
    """Return what a run records, as the pipeline hands it over."""
    return {
        "settings": {
            "prompt": prompt,
            "seed": 7,
            "steps": 100,
            "size": [6, 4],
            "cutouts": 16,
            "init_image": None,
            "image_prompts": [],
            "noise": 0.08,
            **settings,
        },
        "models": {
            "vqgan": {"name": "tiny", "sha256": "0123456789abcdef" * 4},
            "clips": [{"name": "one", "sha256": "f" * 64}],
        },
        "versions": {"vqclip": "0.1.0", "torch": "2.14.1"},
        "device": "cpu",
        "step": 100,
    }


def chunks(png):
    """Return a PNG's chunks as (type, data), read by hand; checksums are compared."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        found.append((kind.decode(), data))
        at += 12 + length
    return found


def texts(png):
    """Return a PNG's text chunks, keyword -> (type, text), read by hand."""
    found = {}
    for kind, data in chunks(png):
        if kind not in ("tEXt", "iTXt"):
            continue
        key, rest = data.split(b"\0", 1)
        if kind == "iTXt":
            assert rest[:1] == b"\0", "compressed text is harder to find"
            rest = rest[2:].split(b"\0", 2)[2]
        found[key.decode("latin-1")] = (kind, rest.decode("latin-1" if kind == "tEXt" else "utf-8"))
    return found


def facts(text):
    """Read the last line of `parameters` as galleries do."""
    return dict(A1111.findall(text.split("\n")[-1]))


def source(packet):
    """Return the DigitalSourceType of an XMP packet."""
    return ET.fromstring(packet).find(f".//{IPTC}").text


# PNG


def test_a_png_has_the_pictures_pixels():
    with Image.open(io.BytesIO(to_png(PICTURE, record()))) as image:
        assert image.convert("RGB").tobytes() == PICTURE.tobytes()


def test_a_png_is_rgb_without_alpha():
    with Image.open(io.BytesIO(to_png(PICTURE, record()))) as image:
        assert image.mode == "RGB"


def test_the_vqclip_chunk_gives_the_record_back():
    given_record = record('ein "Herz" | 赤い心:0.5 ❤️\n\\', noise=0.1 + 0.2)
    assert json.loads(texts(to_png(PICTURE, given_record))["vqclip"][1]) == given_record


def test_the_vqclip_chunk_is_international_text():
    assert texts(to_png(PICTURE, record()))["vqclip"][0] == "iTXt"


def test_the_vqclip_chunk_does_not_depend_on_the_order_of_the_record():
    given_record = record()
    backwards = dict(reversed(given_record.items()))
    backwards["settings"] = dict(reversed(given_record["settings"].items()))
    assert to_png(PICTURE, backwards) == to_png(PICTURE, given_record)


def test_pillow_finds_the_same_texts():
    with Image.open(io.BytesIO(to_png(PICTURE, record("ein Märchen")))) as image:
        found = {key: str(image.text[key]) for key in ("vqclip", "parameters", "Description", "Software")}
    assert found == {
        key: value for key, (_, value) in texts(to_png(PICTURE, record("ein Märchen"))).items() if key in found
    }


def test_the_description_is_the_prompt():
    assert texts(to_png(PICTURE, record("赤い心 ❤️")))["Description"][1] == "赤い心 ❤️"


def test_the_software_is_named_with_its_version():
    assert texts(to_png(PICTURE, record()))["Software"][1] == "vqclip 0.1.0"


def test_a_png_carries_the_parameters_of_its_record():
    assert texts(to_png(PICTURE, record()))["parameters"][1] == parameters(record())


def test_a_png_carries_the_xmp_packet_under_adobes_key():
    assert texts(to_png(PICTURE, record()))["XML:com.adobe.xmp"][1] == xmp(record())


def test_no_other_text_is_in_a_png():
    assert set(texts(to_png(PICTURE, record()))) == {
        "vqclip",
        "parameters",
        "XML:com.adobe.xmp",
        "Description",
        "Software",
    }


def test_a_png_has_no_date():
    png = to_png(PICTURE, record())
    words = re.sub(r"http://\S+", "", " ".join(text for _, text in texts(png).values()))  # namespaces bear a year
    assert "tIME" not in [kind for kind, _ in chunks(png)]
    assert not re.search(r"\b20\d\d-\d\d|\b20\d\d:\d\d|Creation|CreateDate", words)


def test_texts_stand_before_the_pixels():
    kinds = [kind for kind, _ in chunks(to_png(PICTURE, record()))]
    assert max(i for i, kind in enumerate(kinds) if kind in ("tEXt", "iTXt")) < kinds.index("IDAT")


def test_a_png_without_a_record_has_no_text():
    assert {kind for kind, _ in chunks(to_png(PICTURE, None))} == {"IHDR", "IDAT", "IEND"}


def test_a_png_without_a_record_has_the_same_pixels():
    with Image.open(io.BytesIO(to_png(PICTURE, None))) as image:
        assert image.tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("write", [to_png, to_jpeg, to_webp])
def test_the_same_record_gives_the_same_bytes(write):
    assert write(PICTURE, record()) == write(PICTURE.copy(), record())


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\n\r\x85"), max_size=80))
def test_any_prompt_comes_back_from_the_vqclip_chunk(prompt):
    assert json.loads(texts(to_png(PICTURE, record(prompt)))["vqclip"][1])["settings"]["prompt"] == prompt


# parameters, for galleries


def test_parameters_are_the_prompt_and_a_line_of_facts():
    assert parameters(record()).split("\n")[0] == "a red heart"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Steps", "100"),
        ("Seed", "7"),
        ("Size", "6x4"),
        ("Model", "tiny"),
        ("Model hash", "0123456789"),
        ("CLIP", "one"),
        ("Cuts", "16"),
        ("Version", "vqclip 0.1.0"),
    ],
)
def test_a_gallery_reads_the_fact(key, value):
    assert facts(parameters(record()))[key] == value


def test_the_facts_begin_with_the_steps_by_which_galleries_know_them():
    assert parameters(record()).split("\n")[-1].startswith("Steps: ")


def test_more_than_one_clip_is_named():
    given_record = record()
    given_record["models"]["clips"].append({"name": "two", "sha256": "e" * 64})
    assert facts(parameters(given_record))["CLIP"] == "one + two"


@pytest.mark.parametrize(
    "prompt", ["a\nb", "a\r\nb", "a\n\n\nSteps: 5, Seed: 1", "a\nNegative prompt: b", "a\vb", "a\x85b", "a\u2028b"]
)
def test_a_prompt_of_several_lines_is_one_line_of_parameters(prompt):
    assert len(parameters(record(prompt)).splitlines()) == 2


def test_a_prompt_cannot_forge_the_facts():
    assert facts(parameters(record("a\nSteps: 5, Seed: 1")))["Seed"] == "7"


def test_an_empty_prompt_leaves_the_facts_on_the_second_line():
    assert parameters(record("")).split("\n")[0] == ""


def test_a_models_name_cannot_forge_the_facts():
    given_record = record()
    given_record["models"]["vqgan"]["name"] = "mine, Seed: 1"
    assert facts(parameters(given_record))["Seed"] == "7"


def test_a_models_name_cannot_break_the_line_of_facts():
    given_record = record()
    given_record["models"]["clips"][0]["name"] = "mine\nSteps: 5"
    assert facts(parameters(given_record))["Steps"] == "100"


# XMP


def test_a_picture_from_words_alone_was_made_by_a_model():
    assert source(xmp(record())) == SOURCES + "trainedAlgorithmicMedia"


@pytest.mark.parametrize(
    "given_picture", [{"init_image": "/a.png"}, {"image_prompts": ["/a.png"]}], ids=lambda d: next(iter(d))
)
def test_a_picture_that_began_with_one_is_a_composite(given_picture):
    assert source(xmp(record(**given_picture))) == SOURCES + "compositeWithTrainedAlgorithmicMedia"


def test_the_xmp_packet_is_wrapped_as_readers_look_for_it():
    packet = xmp(record())
    assert packet.startswith("<?xpacket begin=")
    assert packet.endswith('<?xpacket end="r"?>')


# JPEG and WebP


@pytest.fixture(params=[to_jpeg, to_webp], ids=["jpeg", "webp"])
def lossy(request):
    return request.param


def reopened(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def comment(image):
    """Return the EXIF UserComment, whose first eight bytes name its encoding."""
    data = image.getexif().get_ifd(0x8769)[0x9286]
    assert data[:8] == b"UNICODE\0"
    return data[8:].decode("utf-16-be")


@pytest.mark.parametrize(("write", "kind"), [(to_jpeg, "JPEG"), (to_webp, "WEBP"), (to_png, "PNG")])
def test_a_writer_writes_its_format(write, kind):
    assert reopened(write(PICTURE, record())).format == kind


def test_a_webp_has_the_pictures_pixels():
    assert reopened(to_webp(PICTURE, record())).convert("RGB").tobytes() == PICTURE.tobytes()


def test_a_jpeg_is_near_the_pictures_pixels():
    smooth = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    pairs = zip(reopened(to_jpeg(smooth, record())).tobytes(), smooth.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 4


def test_a_jpeg_keeps_its_colours_at_full_resolution():
    assert [layer[1:3] for layer in reopened(to_jpeg(PICTURE, record())).layer] == [(1, 1)] * 3


def test_the_user_comment_is_the_parameters(lossy):
    assert comment(reopened(lossy(PICTURE, record("赤い心 ❤️")))) == parameters(record("赤い心 ❤️"))


def test_exif_names_the_software(lossy):
    assert reopened(lossy(PICTURE, record())).getexif()[0x0131] == "vqclip 0.1.0"


def test_the_xmp_packet_is_in_the_file(lossy):
    assert source(reopened(lossy(PICTURE, record())).info["xmp"].rstrip(b"\0")) == SOURCES + "trainedAlgorithmicMedia"


def test_without_a_record_there_is_neither_exif_nor_xmp(lossy):
    assert not {"exif", "xmp", "comment"} & set(reopened(lossy(PICTURE, None)).info)


# which writer


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("A.PNG", "PNG"), ("a.b.jpg", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_ending_chooses_the_format(name, kind):
    assert reopened(writer_for(PurePath(name))(PICTURE, ImageInfo())).format == kind


@pytest.mark.parametrize("ending", sorted(WRITERS))
def test_every_writer_in_the_table_writes_a_picture_with_and_without_a_record(ending):
    assert reopened(WRITERS[ending](PICTURE, ImageInfo())).size == reopened(write(ending, record())).size == (6, 4)


@pytest.mark.parametrize("name", ["a.gif", "a.png.txt", "a", "a.", ".png"])
def test_an_unknown_ending_is_a_usage_error(name):
    with pytest.raises(UsageError):
        writer_for(PurePath(name))


def test_an_unknown_ending_is_named_with_those_that_are_known():
    with pytest.raises(UsageError) as caught:
        writer_for(PurePath("a.gif"))
    assert ".gif" in caught.value.what
    assert all(ending in caught.value.hint for ending in WRITERS)
