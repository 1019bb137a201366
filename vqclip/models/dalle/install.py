"""A published Mini DALL-E into the store: its files fetched or copied, its two halves joined, kept as plain tensors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import IntegrityError, ModelError, OutputError
from ...files.paths import sha256
from .. import store
from ..catalogue import Card
from ..download import Fetched, Wanted
from ..vqgan.convert import save_plain
from . import PARTNER, find_one, load_dalle
from .checkpoints import build, read_config, read_published


def pull(wanted: Card, fetch: Callable[[Wanted, Path], Fetched]) -> None:
    """Download all files of a catalogue's entry and install them. Raises ModelError, IntegrityError, OutputError.

    fetch: brings a file to a path, or says where it lay already.
    """
    parts = store.part_path(wanted.kind, wanted.name).with_suffix(".files")
    with store.writing(parts):
        parts.mkdir(exist_ok=True)
    origin = {}
    for file in wanted.entry.get("files", []):
        name, mirror = file["name"], file["mirror"]
        text = not name.endswith((".pt", ".msgpack"))
        got = fetch(Wanted(name, (mirror,), file.get("size", 0), file.get("sha256", ""), text=text), parts / name)
        if got.path != parts / name:
            (parts / name).unlink(missing_ok=True)
            (parts / name).symlink_to(got.path)
        origin[name] = {"url": got.url, "sha256": got.sha256, "size": got.size}
    if not origin:
        raise ModelError(f"no place is known to get {wanted.name} from", "vqclip models import FOLDER --name NAME")
    try:
        install(wanted, parts, origin)
    except (ModelError, IntegrityError):  # whole, but not what it should be: another download would be the same
        drop(parts)
        raise
    drop(parts)


def install(wanted: Card, folder: Path, origin: dict[str, Any] | None = None) -> None:
    """Install what lies in a folder as its makers publish it, or as vqclip keeps one. Raises ModelError."""
    config = read_config(folder / "config.json")
    plain = folder / "model.safetensors"
    tensors = None if plain.is_file() else read_published(folder)
    with store.new_folder(wanted.kind, wanted.name) as draft:
        if tensors is None:
            shutil.copyfile(plain, draft / plain.name)
        else:
            build(tensors, config)
            save_plain(tensors, draft / "model.safetensors")
        heads = config.get("heads") or config.get("decoder_attention_heads")
        codes = wanted.entry.get("codes") or config.get("codes") or config.get("decoder_start_token_id")
        about = {
            "heads": heads,
            "codes": codes,
            "vqgan": config.get("vqgan", PARTNER),
            "pixels": config.get("pixels", "unit"),
        }
        told = {key: value for key, value in about.items() if value}
        (draft / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        for name, pattern in (("vocab.json", "vocab*.json"), ("merges.txt", "merges*.txt")):
            shutil.copyfile(find_one(folder, pattern), draft / name)
        _check(wanted.name, draft)
        weights = draft / store.WEIGHTS[wanted.kind]
        store.write_record(draft, kind=wanted.kind, name=wanted.name, sha256=sha256(weights),
                           size=weights.stat().st_size, source=origin or {"folder": folder.name})  # fmt: skip


def _check(name: str, draft: Path) -> None:
    """Load what is to be installed. Raises ModelError, IntegrityError."""
    import torch

    load_dalle(draft, name=name, device=torch.device("cpu"))


def drop(parts: Path) -> None:
    """Delete the files that were downloaded. Raises OutputError."""
    try:
        shutil.rmtree(parts)
    except OSError as error:
        raise OutputError(f"{parts} cannot be deleted: {error.strerror}", "delete it yourself") from error
