"""A checkpoint that is here into the store: as plain tensors, checked, with its record."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from ..files.paths import Progress, copy, sha256
from . import store
from .catalogue import TAGGED, Card
from .formats.sniff import check_format

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
TOWER = "config.json"  # of a text tower of transformers', and for some tokenizers what they are
CONFIG = "open_clip_config.json"


def adopt_vqgan(
    target: Card, path: Path, config: Path | None, origin: dict[str, Any], progress: Progress | None = None
) -> None:
    """Install a VQGAN's checkpoint of any layout. Raises ModelError, IntegrityError, OutputError."""
    from .vqgan.convert import convert

    with store.new_folder("vqgan", target.name) as draft:
        found = convert(path, draft, config, {"source_sha256": str(origin["sha256"])})
        told = {"f": found.f, "codes": found.n_embed, "dim": found.embed_dim}
        wrong = [
            f"{key} is {has}, not {target.entry[key]}" for key, has in told.items() if target.entry.get(key, has) != has
        ]
        if wrong:
            raise ModelError(
                f"{path} is another model than {target.name}: {', '.join(wrong)}", "import it under a name of your own"
            )
        record("vqgan", target.name, draft, origin, progress)


def adopt_clip(
    name: str, path: Path, architecture: str, origin: dict[str, Any], progress: Progress | None = None
) -> None:
    """Install a CLIP's weights, of the shape that open_clip knows by a name. Raises as above, and UsageError."""
    from .clip import describe

    if not architecture:
        raise UsageError(
            f"of what shape is the CLIP in {path}?", f"write {path}@ViT-B-32, or another name of open_clip"
        )
    tag = name.partition(":")[2] if TAGGED.fullmatch(name) and name.startswith(f"{architecture}:") else ""
    with store.new_folder("clip", name) as draft:
        known = describe(architecture, tag)
        fill_clip(draft, path, known, move=False, progress=progress)
        worded = known["model_cfg"].get("text_cfg", {}).get("hf_tokenizer_name")
        for file in (*TOKENIZER, TOWER) if worded else ():  # of a SigLIP, which lie beside its weights
            if (path.parent / file).is_file():
                shutil.copyfile(path.parent / file, draft / file)
        check_clip(name, draft)
        record("clip", name, draft, origin, progress)


def fill_clip(
    draft: Path, source: Path, known: dict[str, Any], *, move: bool, progress: Progress | None = None
) -> None:
    """Write a CLIP's config and weights into a folder; move: the source need not stay where it is."""
    kept = {key: known[key] for key in ("model_cfg", "preprocess_cfg") if key in known}
    (draft / CONFIG).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    weights = draft / store.WEIGHTS["clip"]
    if check_format(source) == "safetensors":
        source.replace(weights) if move else copy(source, weights, progress)
    else:
        from .formats.read import read_tensors
        from .vqgan.convert import save_plain

        save_plain(read_tensors(source), weights)


def check_clip(name: str, draft: Path) -> None:
    """Load what is to be installed. Raises ModelError, IntegrityError."""
    import torch

    from .clip import load_clip

    load_clip(draft, name=name, device=torch.device("cpu"))


def record(kind: str, name: str, draft: Path, origin: dict[str, Any], progress: Progress | None = None) -> None:
    """Write down what a folder holds, by its hash, and where that came from."""
    weights = draft / store.WEIGHTS[kind]
    found = sha256(weights, progress)
    store.write_record(draft, kind=kind, name=name, sha256=found, size=weights.stat().st_size, source=origin)
