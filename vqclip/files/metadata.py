"""Pictures to bytes, with the metadata that lets anybody make them again.

The PNG key `vqclip` is the one that counts; `parameters` is what other galleries read; the XMP packet
says that a model made the picture. There is no date, so that the same settings give the same bytes.
"""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .. import __version__
from ..errors import UsageError
from .atomic import check_free
from .paths import expand

MAX_TITLE, MAX_COMMENT = 200, 16_000  # characters of a video's tags
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def published(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record fit to be given away: of files their names, not where they lie on the maker's disk."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {bare(key): bare(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [bare(item) for item in value]
        return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value

    kept = {key: record["settings"][key] for key in ("prompt",) if key in record["settings"]}
    return {key: bare(value) for key, value in record.items()} | {"settings": bare(record["settings"]) | kept}


def xmp(record: dict[str, Any]) -> str:
    """Return the XMP packet: made by a model, or composed with one where a picture was given."""
    settings = record["settings"]
    given = settings.get("init_image") or settings.get("image_prompts") or record.get("pictures")
    return XMP.format(source=SOURCE + ("compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"))


def parameters(record: dict[str, Any]) -> str:
    """Return the text that Stable-Diffusion galleries read: the prompt, then `Steps: ..., Seed: ...`."""
    settings, models = record["settings"], record["models"]
    prompt = " ".join(str(settings["prompt"]).split())
    facts = _of_sample(record) if "sample" in record else _of_run(settings, models)
    facts["Version"] = f"vqclip {record['versions']['vqclip']}"
    return f"{prompt}\n" + ", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items())


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
        "Sampler": "Adam",
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
    told = {"encoded_by": f"vqclip {__version__}"}
    if record and isinstance(record.get("settings"), dict):
        prompt = str(record["settings"].get("prompt") or "")
        told["title"] = " ".join("".join(c if c.isprintable() else " " for c in prompt).split())[:MAX_TITLE]
        kept = {key: value for key, value in record.items() if key not in ("schema", "plan", "status")}
        told["comment"] = json.dumps(published(kept), sort_keys=True, separators=(",", ":"))
    return {key: value for key, value in told.items() if 0 < len(value) <= MAX_COMMENT}


def to_png(picture: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """Encode an RGB picture as PNG; `record` (settings, models, versions, step) goes into it, None leaves it bare."""
    info = PngInfo()
    if record is not None:
        info.add_itxt("vqclip", json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")))
        info.add_itxt("parameters", parameters(record))
        info.add_itxt("XML:com.adobe.xmp", xmp(record))
        info.add_itxt("Description", str(record["settings"]["prompt"]))
        info.add_text("Software", f"vqclip {record['versions']['vqclip']}")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def to_jpeg(picture: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """Encode as JPEG of quality 95; of `record` the `parameters` text goes into EXIF, not all of it."""
    return _lossy(picture, record, "JPEG", quality=95, subsampling=0)


def to_webp(picture: Image.Image, record: dict[str, Any] | None = None) -> bytes:
    """Encode as lossless WebP; of `record` the `parameters` text goes into EXIF, not all of it."""
    return _lossy(picture, record, "WEBP", lossless=True)


def _lossy(picture: Image.Image, record: dict[str, Any] | None, kind: str, **options: Any) -> bytes:
    if record is not None:
        exif = Image.Exif()
        exif[0x0131] = f"vqclip {record['versions']['vqclip']}"  # Software
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + parameters(record).encode("utf-16-be")  # UserComment
        options |= {"exif": exif, "xmp": xmp(record).encode()}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def writer_for(path: PurePath) -> Callable[[Image.Image, dict[str, Any] | None], bytes]:
    """Return the writer for a file name's ending. Raises UsageError for one that is unknown."""
    try:
        return WRITERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(WRITERS)
        raise UsageError(
            f"{path.name}: unknown picture format {path.suffix or '(no ending)'!r}", f"use {known}"
        ) from None


def check_target(out: str | Path | None, overwrite: bool) -> Path | None:
    """Refuse an output picture that can't be written, before any work is done; return its path.

    Raises UsageError (unknown ending), OutputExists, OutputError.
    """
    if out is None:
        return None
    path = expand(out)
    writer_for(path)
    check_free(path, overwrite)
    return path


WRITERS: dict[str, Callable[[Image.Image, dict[str, Any] | None], bytes]] = {
    ".jpeg": to_jpeg,
    ".jpg": to_jpeg,
    ".png": to_png,
    ".webp": to_webp,
}
