"""Addresses where images are to be given: fetched where that is allowed, and otherwise said to be none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.install import offline
from ..settings.prompts import split_weight
from ..settings.schema import Settings, as_list, facts, from_text

ADDRESS = re.compile(r"(https?):/+(.+)", re.IGNORECASE)  # a Path has made one slash of two
FOLDER = "downloads"  # where what was fetched lies, beside the runs


@dataclass(frozen=True)
class Downloads:
    """Where images are fetched to, and whether they may be: a dry run takes only what was fetched before."""

    folder: Path
    allowed: bool
    dry: bool = False

    def file(self, url: str) -> Path:
        """Return the file of the image at an address. Raises InputError, OutputError."""
        if not self.allowed:
            hint = "download it first, and give the file; or let it be fetched: --allow-url"
            raise InputError(f"{url[:200]} is an address, not a file", hint)
        from ..models.fetch_image import fetch_image, fetched_before  # what speaks with servers is seldom needed

        if before := fetched_before(url, self.folder):
            return before
        if self.dry or offline():
            why = "a dry run fetches nothing" if self.dry else "this is offline"
            raise InputError(f"{url[:200]} is an address, and {why}", "give a file")
        return fetch_image(url, self.folder)


def fetch_addresses(values: Mapping[str, Any], downloads: Downloads) -> dict[str, Any]:
    """Return values of settings with files in place of the addresses of images. Raises InputError, OutputError.

    An image prompt's weight stays behind its file, a region's text before it.
    """
    files = {}
    for name, value in values.items():
        if name not in Settings.model_fields or facts(name).names != "file":
            continue
        given = from_text(name, value) if isinstance(value, str) else value
        texts = [str(text) for text in as_list(given)] if not isinstance(given, dict) else []
        fetched = tuple(_fetched(name, text, downloads) for text in texts)
        if fetched != tuple(texts):
            files[name] = fetched if isinstance(Settings.model_fields[name].default, tuple) else fetched[0]
    return {**values, **files}


def _fetched(name: str, text: str, downloads: Downloads) -> str:
    before, sign, named = text.rpartition(facts(name).behind) if facts(name).behind else ("", "", text)
    address, weight = split_weight(named) if name == "image_prompts" else (named, None)
    match = ADDRESS.fullmatch(address)
    if not match:
        return text
    return f"{before}{sign}{downloads.file(f'{match[1].lower()}://{match[2]}')}" + (f":{weight}" if weight else "")
