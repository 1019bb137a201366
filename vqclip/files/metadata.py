"""Images to bytes, with the metadata that lets anybody make them again.

The PNG key `vqclip` is the one that counts; `parameters` is what other galleries read; the XMP packet
says that a model made the image. There is no date, so that the same settings give the same bytes.
"""

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import __version__
from ..errors import OutputExists, UsageError
from .atomic import check_free
from .paths import expand

MAX_TITLE, MAX_COMMENT = 200, 16_000  # characters of a video's tags
RECORD, PARAMETERS, SOFTWARE, XMP_KEY = "vqclip", "parameters", "Software", "XML:com.adobe.xmp"  # keys of a PNG's texts
EXIF_SOFTWARE, EXIF_DETAILS, EXIF_COMMENT = 0x0131, 0x8769, 0x9286  # a tag, the part with more tags, UserComment in it
SAMPLERS = {"adamw": "AdamW", "adamax": "AdaMax", "radam": "RAdam", "adamp": "AdamP", "diffgrad": "DiffGrad",
            "adagrad": "Adagrad", "rmsprop": "RMSprop"}  # fmt: skip
UNICODE = b"UNICODE\0"  # what a comment of EXIF begins with
MAX_SEGMENT = 65_000  # bytes that JPEG has for EXIF, and for XMP
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


Writer = Callable[[Image.Image, "ImageInfo"], bytes]


def published(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record fit to be given away: of files their names, not where they lie on the maker's disk."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {bare(key): bare(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [bare(item) for item in value]
        if not isinstance(value, str) or not ("/" in value or "\\" in value):  # most are no paths
            return value
        before, sign, last = ("", "", value) if PurePath(value).is_absolute() else value.rpartition("@")
        return before + sign + (PurePath(last).name if PurePath(last).is_absolute() else last)  # of a region, its file

    kept = {key: record["settings"][key] for key in ("prompt",) if key in record["settings"]}
    return {key: bare(value) for key, value in record.items()} | {"settings": bare(record["settings"]) | kept}


def xmp(record: dict[str, Any]) -> str:
    """Return the XMP packet: made by a model, or composed with one if an image was given."""
    settings = record["settings"]
    given = settings.get("init_image") or settings.get("image_prompts") or record.get("pictures")
    return XMP.format(source=SOURCE + ("compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"))


def parameters(record: dict[str, Any]) -> str:
    """Return the text that Stable-Diffusion galleries read: the prompt, then `Steps: ..., Seed: ...`."""
    settings, models = record["settings"], record["models"]
    prompt = " ".join(str(settings["prompt"]).split())
    facts = _of_sample(record) if "sample" in record else _of_run(settings, models)
    if "enlarge" in record:  # its settings' size is a window's
        facts["Size"] = "{}x{}".format(*record["enlarge"]["size"])
    facts |= postprocessed(record.get("upscale"))
    facts["Version"] = f"vqclip {record['versions']['vqclip']}"
    return f"{prompt}\n" + ", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items())


def postprocessed(upscale: Any) -> dict[str, Any]:
    """Return what galleries read of an enlargement, by the `upscale` of a record; nothing of what is none."""
    if not isinstance(upscale, dict) or not isinstance(upscale.get("upscaler"), dict):
        return {}
    return {"Postprocess upscale by": upscale.get("factor"), "Postprocess upscaler": upscale["upscaler"].get("name")}


def _of_sample(record: dict[str, Any]) -> dict[str, Any]:
    settings, models = record["settings"], record["models"]
    return {
        "Sampler": f"top-{settings['top_k']}, temperature {settings['temperature']:g}",
        "CFG scale": settings["guidance"],
        "Seed": settings["seed"],
        **({"Candidate": record["sample"]["candidate"]} if "candidate" in record["sample"] else {}),  # else all of them
        "Model hash": models["dalle"]["sha256"][:10],
        "Model": models["dalle"]["name"],
        "CLIP": " + ".join(clip["name"] for clip in models["clips"]),
    }


def _of_run(settings: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    width, height = settings["size"]
    return {
        "Steps": settings["steps"],
        "Sampler": SAMPLERS.get(settings.get("optimizer", "adam"), "Adam"),
        "Seed": settings["seed"],
        "Size": f"{width}x{height}",
        "Model hash": models["vqgan"]["sha256"][:10],
        "Model": models["vqgan"]["name"],
        "CLIP": " + ".join(clip["name"] for clip in models["clips"]),
        "Cuts": settings["cutouts"],
    }


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(",:\n") & set(text) else text


def tags(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a video's tags: title (the prompt, cleaned and cut), comment (the record, as JSON in ASCII).

    The record may be anybody's. One that is too long is left out: half a record is none.
    """
    texts = {"encoded_by": f"vqclip {__version__}"}
    if record and isinstance(record.get("settings"), dict):
        prompt = str(record["settings"].get("prompt") or "")
        texts["title"] = " ".join("".join(c if c.isprintable() else " " for c in prompt).split())[:MAX_TITLE]
        kept = {key: value for key, value in record.items() if key not in ("schema", "plan", "status")}
        texts["comment"] = json.dumps(published(kept), sort_keys=True, separators=(",", ":"))
    return {key: value for key, value in texts.items() if 0 < len(value) <= MAX_COMMENT}


@dataclass(frozen=True)
class ImageInfo:
    """What an image file says beside its pixels.

    texts: by the keys of PNG's text chunks; other formats have EXIF and XMP for some of them. exif: what is kept of an
    original's. profile: an ICC colour profile.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    exif: Image.Exif | None = None
    profile: bytes | None = None

    @classmethod
    def of(cls, record: dict[str, Any] | None) -> "ImageInfo":
        """Return what an image of ours says: its record (settings, models, versions, step); None leaves it bare."""
        if record is None:
            return cls()
        return cls(
            {
                RECORD: json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")),
                PARAMETERS: parameters(record),
                XMP_KEY: xmp(record),
                "Description": str(record["settings"]["prompt"]),
                SOFTWARE: f"vqclip {record['versions']['vqclip']}",
            }
        )

    def exif_and_xmp(self) -> dict[str, bytes]:
        """Return the texts that formats without text chunks have room for, as Pillow's writers take them."""
        exif, options = self.exif or Image.Exif(), {}
        if SOFTWARE in self.texts:
            exif[EXIF_SOFTWARE] = self.texts[SOFTWARE]
        if PARAMETERS in self.texts:
            exif.get_ifd(EXIF_DETAILS)[EXIF_COMMENT] = UNICODE + self.texts[PARAMETERS].encode("utf-16-be", "replace")
        if self.exif is not None or self.texts:
            options["exif"] = exif.tobytes()
        if XMP_KEY in self.texts:
            options["xmp"] = self.texts[XMP_KEY].encode()
        return options

    def icc(self) -> dict[str, bytes]:
        """Return the colour profile as Pillow's writers take it."""
        return {"icc_profile": self.profile} if self.profile else {}


def to_png(image: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """Encode an RGB image of ours as PNG, with all of its record."""
    return write_png(image, ImageInfo.of(record))


def write_png(image: Image.Image, info: ImageInfo) -> bytes:
    """Encode as PNG, with all texts."""
    chunks = PngInfo()
    for key, text in info.texts.items():
        if 0 < len(key) < 80 and key.isascii():
            (chunks.add_text if key == SOFTWARE else chunks.add_itxt)(key, text)
    buffer = io.BytesIO()
    image.save(
        buffer, "PNG", pnginfo=chunks, compress_level=6, **({"exif": info.exif} if info.exif else {}), **info.icc()
    )
    return buffer.getvalue()


def write_jpeg(image: Image.Image, info: ImageInfo) -> bytes:
    """Encode as JPEG of quality 95, transparency on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    options = {key: data for key, data in info.exif_and_xmp().items() if len(data) < MAX_SEGMENT}
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=95, subsampling=0, **options, **info.icc())
    return buffer.getvalue()


def write_webp(image: Image.Image, info: ImageInfo) -> bytes:
    """Encode as lossless WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, exact=True, **info.exif_and_xmp(), **info.icc())
    return buffer.getvalue()


def writer_for(path: PurePath) -> Writer:
    """Return the writer for a file name's ending. Raises UsageError for one that is unknown."""
    try:
        return WRITERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(WRITERS)
        what = f"{path.name or path}: unknown image format {path.suffix or '(no ending)'!r}"
        raise UsageError(what, f"use {known}") from None


def check_target(out: str | Path | None, overwrite: bool) -> Path | None:
    """Refuse an output image that can't be written, before any work is done; return its path.

    Raises UsageError (unknown ending), OutputExists, OutputError.
    """
    if out is None:
        return None
    path = expand(out)
    writer_for(path)
    check_free(path, overwrite)
    return path


def check_no_file(folder: Path) -> None:
    """Refuse a file where a folder is to be made, and a name that is an image's. Raises OutputExists, UsageError."""
    with contextlib.suppress(OSError, ValueError):  # who makes it says more
        if folder.exists() and not folder.is_dir():
            raise OutputExists(f"{folder} is a file, no folder", "give another name")
        if folder.suffix.lower() in (*WRITERS, *MOVING) and not folder.exists():
            raise UsageError(f"{folder} is the name of a file, and a folder is needed", "give a folder: -o NAME")


# -o takes these, and gives no folder one of them, nor of MOVING.
WRITERS: dict[str, Writer] = {".jpeg": write_jpeg, ".jpg": write_jpeg, ".png": write_png, ".webp": write_webp}
MOVING = (".mp4", ".webm", ".gif", ".webp", ".apng")  # the endings of clips that video/writer.py encodes
