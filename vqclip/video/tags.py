"""What a video of vqclip says of itself: read back from its tags by ffmpeg."""

import re
import subprocess
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.metadata import MAX_COMMENT
from ..files.reading import parse_json
from .ffmpeg import Ffmpeg

ENDINGS = (".mp4", ".webm")  # those that have tags
CONTAINERS = "mov,matroska"  # others could make ffmpeg read further files
LINE = re.compile(r"^((?:[^\\=\n]|\\.)+)=((?:[^\\\n]|\\.)*)$", re.MULTILINE | re.DOTALL)  # of ffmpeg's ffmetadata
HINT = "give a video that vqclip made, with its metadata"


def read_record(ffmpeg: Ffmpeg, path: Path) -> dict[str, Any]:
    """Return the record in a video's comment. Raises InputError."""
    safe = ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path.absolute()}"]
    process = ffmpeg.start([*safe, "-f", "ffmetadata", "-"], stdout=subprocess.PIPE)
    try:
        process.close_input()
        text = process.read(4 * MAX_COMMENT).decode(errors="replace")
    finally:
        process.kill()
    tags = {key.lower(): re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for key, value in LINE.findall(text)}
    if "comment" not in tags:
        raise InputError(f"{path} says nothing of how it was made", HINT)
    record = parse_json(tags["comment"], f"the comment of {path}", HINT)
    if not isinstance(record, dict):
        raise InputError(f"the comment of {path} is no record", HINT)
    return record
