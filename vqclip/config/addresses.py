"""Addresses where images are to be given: fetched where that is allowed, and otherwise said to be none."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.install import offline
from ..settings.prompts import split_weight
from ..settings.schema import Settings, as_list, facts, from_text

ADDRESS = re.compile(r"(https?):/+(.+)", re.IGNORECASE)  # a Path has made one slash of two
FOLDER = "downloads"  # where what was fetched lies, beside the runs


def fetch_addresses(values: Mapping[str, Any], folder: Path, *, allowed: bool) -> dict[str, Any]:
    """Return values of settings, with files in a folder in place of the addresses of images.

    An image prompt's weight stays behind its file, a region's text before it. allowed: whether addresses may be
    fetched. Raises InputError.
    """
    files = {}
    for name, value in values.items():
        if name not in Settings.model_fields or facts(name).names != "file":
            continue
        given = from_text(name, value) if isinstance(value, str) else value
        texts = [str(text) for text in as_list(given)] if not isinstance(given, dict) else []
        fetched = tuple(_fetched(name, text, folder, allowed=allowed) for text in texts)
        if fetched != tuple(texts):
            files[name] = fetched if isinstance(Settings.model_fields[name].default, tuple) else fetched[0]
    return {**values, **files}


def _fetched(name: str, text: str, folder: Path, *, allowed: bool) -> str:
    before, sign, named = text.rpartition(facts(name).behind) if facts(name).behind else ("", "", text)
    address, weight = split_weight(named) if name == "image_prompts" else (named, None)
    match = ADDRESS.fullmatch(address)
    if not match:
        return text
    url = f"{match[1].lower()}://{match[2]}"
    if not allowed:
        hint = "download it first, and give the file; or let it be fetched: --allow-url"
        raise InputError(f"{url[:200]} is an address, not a file", hint)
    if offline():
        raise InputError(f"{url[:200]} is an address, and this is offline", "give a file")
    from ..models.fetch_image import fetch_image  # what speaks with servers is seldom needed

    return f"{before}{sign}{fetch_image(url, folder)}" + (f":{weight}" if weight else "")
