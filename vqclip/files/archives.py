"""Archives, known by their first bytes: they are never unpacked here, so that who gives one hears what it is."""

import re
from pathlib import Path

from .paths import open_regular

HEAD = 512  # bytes that decide: a tar says so behind its first name
UNPACK = "unpack it first, and give what is inside"
KINDS = {
    rb"PK(\x03\x04|\x05\x06)": "a zip archive", rb"7z\xbc\xaf\x27\x1c": "a 7z archive",
    rb"Rar!\x1a\x07": "a RAR archive", rb".{257}ustar": "a tar archive",
    rb"\x1f\x8b": "compressed (gzip)", rb"BZh[1-9]": "compressed (bzip2)",
    rb"\xfd7zXZ\0": "compressed (xz)", rb"\x28\xb5\x2f\xfd": "compressed (zstd)",
}  # fmt: skip


def kind_of_archive(head: bytes) -> str:
    """Say what archive begins with these HEAD bytes; "" for none."""
    return next((kind for pattern, kind in KINDS.items() if re.match(pattern, head, re.DOTALL)), "")


def archive_at(path: Path) -> str:
    """Say what archive a file is; "" for any other, and for what can't be read: who reads it says more."""
    try:
        with open_regular(path) as file:
            return kind_of_archive(file.read(HEAD))
    except (OSError, ValueError):
        return ""
