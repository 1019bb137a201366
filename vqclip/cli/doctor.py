"""vqclip doctor: the machine as it is, to paste into a report; without the user's home and tokens."""

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import InputError, IntegrityError, VqclipError
from ..models import store
from ..models.catalogue import all_entries
from ..text import SECRET, plural, without_secrets
from .columns import print_rows
from .commands import MACHINE, command
from .options import AsJson
from .progress import put, say

PACKAGES = ("torch", "torchvision", "open_clip_torch", "taming-transformers", "kornia", "numpy", "pillow", "pydantic",
            "safetensors", "httpx2", "typer", "tqdm", "transformers", "msgpack")  # fmt: skip
VARIABLES = ("VQCLIP_", "HF_", "HTTP_PROXY", "HTTPS_PROXY", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
NOT_SHOWN = (*SECRET, "PROXY")


@command(MACHINE)
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Don't hash the models.")] = False, as_json: AsJson = False
) -> None:
    """Print versions, devices, memory, video encoders, and whether the models are sound; no home, no token."""
    report = redact(
        {
            "versions": versions(),
            "machine": machine(),
            "devices": devices(),
            "video": encoders(),
            "places": places(),
            "models": models(verify=not quick),
            "environment": environment(),
        }
    )
    if as_json:
        put(json.dumps(report, indent=2))
    else:
        for section, facts in report.items():
            say(section, to="stdout")
            print_rows([(f"{name:<24}", value) for name, value in facts.items()], margin=2)
    damaged = [name for name, state in report["models"].items() if state.startswith("DAMAGED")]
    if damaged:
        raise IntegrityError(f"damaged: {', '.join(damaged)}", "vqclip models verify NAME says what to do")


def versions() -> dict[str, str]:
    """Return the versions of vqclip, Python, the system, and every library that counts."""
    versions_by_name = {"vqclip": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            versions_by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions_by_name[name] = "not installed"
    return versions_by_name


def machine() -> dict[str, str]:
    """Return the number of cores and the memory."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cores": str(os.cpu_count()),
        "processor": platform.processor() or platform.machine(),
        "memory": f"{memory.total / 1e9:.1f} GB",
        "memory free": f"{memory.available / 1e9:.1f} GB",
    }


def devices() -> dict[str, str]:
    """Return what torch can compute on."""
    import torch

    threads = torch.get_num_threads()
    descriptions = {"cpu": plural(threads, "thread")}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        descriptions[f"cuda:{number}"] = f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if torch.backends.mps.is_available():
        descriptions["mps"] = "available"
    return descriptions


def encoders() -> dict[str, str]:
    """Return the ffmpeg that videos are made with, and which of the usual encoders it has."""
    from ..video.ffmpeg import find_ffmpeg
    from ..video.writer import FFMPEG_ENCODERS

    try:
        ffmpeg = find_ffmpeg()
    except VqclipError as error:
        return {"ffmpeg": error.what}
    return {"ffmpeg": ffmpeg.path, "encoders": ", ".join(sorted(FFMPEG_ENCODERS & ffmpeg.encoders)) or "none of ours"}


def places() -> dict[str, str]:
    """Return where models are, the room there, and where the user's own catalogue would be."""
    root, own = store.root(), store.own_catalogue()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return {
        "models": str(root),
        "room": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB free",
        "writable": "yes" if existing.is_dir() and os.access(existing, os.W_OK) else "no",
        "catalogue": str(own) if own.is_file() else f"{own} (none)",
    }


def models(*, verify: bool) -> dict[str, str]:
    """Return the models on this machine, and whether they are sound."""
    try:
        entries = [entry for entry in all_entries() if entry.installed() or entry.facts.path]
    except InputError as error:
        return {"catalogue": error.what}
    states = {}
    for entry in entries:
        try:
            entry.verified(whole=verify)
            state = "sound" if verify else "here"
        except VqclipError as error:
            state = f"DAMAGED: {error.what}" if entry.installed() else f"not there: {entry.weights}"
        states[f"{entry.kind} {entry.name}"] = state
    return states


def environment() -> dict[str, str]:
    """Return the variables that matter; of secret ones only that they are set."""
    chosen = {name: value for name, value in sorted(os.environ.items()) if name.upper().startswith(VARIABLES)}
    return {
        name: "(set)" if any(word in name.upper() for word in NOT_SHOWN) else value for name, value in chosen.items()
    }


def redact(facts: Any) -> Any:
    """Return facts with the user's home as ~, and without the user's tokens wherever they are."""
    if isinstance(facts, dict):
        return {redact(key): redact(value) for key, value in facts.items()}
    text, home = str(facts), str(Path.home())
    text = text.replace(home, "~") if len(home) > 1 else text
    for name, value in os.environ.items():
        if len(value) > 5 and "PROXY" in name.upper():
            text = text.replace(value, "(secret)")
    return without_secrets(text)
