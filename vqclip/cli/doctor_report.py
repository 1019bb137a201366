"""The machine as it is: versions, devices, memory, ffmpeg, models; no home and no token, fit for a report."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import psutil

from .. import __version__
from ..errors import InputError, VqclipError
from ..models import store
from ..models.catalogue import every_card
from ..video.ffmpeg import find_ffmpeg
from ..video.writer import FFMPEG_ENCODERS

PACKAGES = ("torch", "torchvision", "open_clip_torch", "taming-transformers", "kornia", "numpy", "pillow", "pydantic",
            "safetensors", "httpx2", "typer", "tqdm", "transformers", "msgpack")  # fmt: skip
VARIABLES = ("VQCLIP_", "HF_", "HTTP_PROXY", "HTTPS_PROXY", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PROXY")


def examine(*, verify: bool = True) -> dict[str, Any]:
    """Return sections of facts, name -> (fact -> text); `verify` hashes every model that is here."""
    return redact(
        {
            "versions": versions(),
            "machine": machine(),
            "devices": devices(),
            "video": encoders(),
            "places": places(),
            "models": models(verify=verify),
            "environment": environment(),
        }
    )


def versions() -> dict[str, str]:
    """Return the versions of vqclip, Python, the system, and every library that counts."""
    found = {"vqclip": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Return the number of cores and the memory."""
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
    found = {"cpu": f"{threads} thread{'s' * (threads != 1)}"}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        found[f"cuda:{number}"] = f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def encoders() -> dict[str, str]:
    """Return the ffmpeg that videos are made with, and which of the usual encoders it has."""
    try:
        ffmpeg = find_ffmpeg()
    except VqclipError as error:
        return {"ffmpeg": error.what}
    return {"ffmpeg": ffmpeg.path, "encoders": ", ".join(sorted(FFMPEG_ENCODERS & ffmpeg.encoders)) or "none of ours"}


def places() -> dict[str, str]:
    """Return where models lie, how much room is there, and where one's own catalogue would be."""
    root = store.root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    own = store.own_catalogue()
    return {
        "models": str(root),
        "room": f"{shutil.disk_usage(there).free / 1e9:.1f} GB free",
        "writable": "yes" if there.is_dir() and os.access(there, os.W_OK) else "no",
        "catalogue": str(own) if own.is_file() else f"{own} (none)",
    }


def models(*, verify: bool) -> dict[str, str]:
    """Return the models that are here, and whether they are sound."""
    try:
        here = [one for one in every_card() if one.installed() or "path" in one.entry]
    except InputError as error:
        return {"catalogue": error.what}
    found = {}
    for one in here:
        if not one.installed():
            found[f"{one.kind} {one.name}"] = f"not there: {one.weights}"
            continue
        try:
            one.verified(whole=verify)
            found[f"{one.kind} {one.name}"] = "sound" if verify else "here"
        except VqclipError as error:
            found[f"{one.kind} {one.name}"] = f"DAMAGED: {error.what}"
    return found


def environment() -> dict[str, str]:
    """Return the variables that matter here; of secret ones that they are set."""
    chosen = {name: value for name, value in sorted(os.environ.items()) if name.upper().startswith(VARIABLES)}
    return {name: "(set)" if any(word in name.upper() for word in SECRET) else value for name, value in chosen.items()}


def redact(facts: Any) -> Any:
    """Return facts with the user's home as ~, and without the user's token wherever it may stand."""
    if isinstance(facts, dict):
        return {redact(key): redact(value) for key, value in facts.items()}
    text, home = str(facts), str(Path.home())
    text = text.replace(home, "~") if len(home) > 1 else text
    for name, value in os.environ.items():
        if len(value) > 5 and any(word in name.upper() for word in SECRET):
            text = text.replace(value, "(secret)")
    return text
