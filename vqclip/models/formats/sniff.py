"""What a file is, by its first bytes, never by its name. Loads no torch."""

import zipfile
from pathlib import Path

from ...errors import IntegrityError, ModelError
from ...files.archives import HEAD, UNPACK, kind_of_archive
from ...files.paths import open_regular

MOST_PARTS = 100_000  # of a zip: a checkpoint has one a tensor, and a few
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that torch pickled first, before 1.6
ELSEWHERE = "get it from another source, or see: vqclip models show NAME"
# Format -> what is wrong with it, and what to do. The formats that are not here are checkpoints.
REFUSED = {
    "empty": ("is empty", ELSEWHERE),
    "html": ("is a web page, not a checkpoint: the server sent one in its place", ELSEWHERE),
    "lfs": ("is a Git LFS pointer, not the checkpoint itself", "fetch it with: git lfs pull"),
    "text": ("is text, not a checkpoint", "give a .ckpt, .pth, .bin or .safetensors file"),
    "archive": ("is an archive, or compressed, not a checkpoint", UNPACK),
    "unknown": ("is no checkpoint: its first bytes are of no known format", ELSEWHERE),
}


class NotACheckpoint(ModelError):
    """A file's first bytes are those of no checkpoint."""


def format_of(head: bytes) -> str:
    """Name the format of a file by its first bytes: zip, pickle, safetensors, flax, or one of REFUSED."""
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(LEGACY_TORCH):
        return "pickle"
    if kind_of_archive(head):
        return "archive"
    if len(head) > 8 and head[8:9] == b"{" and head[6:8] == b"\0\0":  # the length of a header below 2**48 bytes
        return "safetensors"
    if head.startswith(b"version https://git-lfs"):
        return "lfs"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "html"
    if len(head) < 2 or all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return "text"
    if 0x81 <= head[0] <= 0x8F and 0xA1 <= head[1] <= 0xBF:  # a small msgpack map whose first key is short text
        return "flax"
    return "unknown"


def check_format(path: Path) -> str:
    """Return a checkpoint's format; torchscript for a zip with a program.

    Raises ModelError for what is not a checkpoint, IntegrityError for one that is cut off.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a checkpoint", "give the file")
        with open_regular(path) as file:
            kind = format_of(file.read(HEAD))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}", "check the path") from None
    if kind in REFUSED:
        what, hint = REFUSED[kind]
        raise NotACheckpoint(f"{path} {what}", hint)
    return _kind_of_zip(path) if kind == "zip" else kind


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names, entries = archive.namelist(), archive.infolist()
            packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if sum(entry.compress_size for entry in entries) > path.stat().st_size:
                raise ValueError("its parts lie over each other")
            if len(set(names)) < len(names) or len(names) > MOST_PARTS:
                raise ValueError(f"it has {len(names):,} parts, of {len(set(names)):,} names")
    # a zip's list of contents is at its end
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise IntegrityError(f"{path} is cut off or damaged: {error}", "get the file again") from None
    if not any(name.endswith("data.pkl") for name in names):
        inside = next((name for name in names if name.endswith((".ckpt", ".pth", ".pt", ".bin"))), "")
        hint = f"unpack it, and give {inside}" if inside else UNPACK
        raise ModelError(f"{path} is a zip that is no checkpoint", hint)
    script = any(name.endswith("constants.pkl") for name in names)
    # torch compresses only a program's text: tensors are stored, so that they can be mapped into memory
    if any(not (script and "/code/" in name) for name in packed):
        raise ModelError(f"{path} is a compressed zip, which torch does not write", ELSEWHERE)
    return "torchscript" if script else "zip"
