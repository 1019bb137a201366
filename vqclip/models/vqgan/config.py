"""The .yaml beside a checkpoint: data that the architecture is checked against. It never decides what is built.

taming's own loader imports and calls whatever `target` names; here that is a name to compare, and nothing more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import InputError, ModelError
from ...files.reading import decode, parse_yaml, read_bytes

LIMIT = 1_000_000  # bytes
# Target -> the quantizer that it stands for; other targets say nothing.
TARGETS = {
    "taming.models.vqgan.VQModel": "nearest",
    "taming.models.vqgan.GumbelVQ": "gumbel",
    "ldm.models.autoencoder.VQModel": "nearest",
    "ldm.models.autoencoder.VQModelInterface": "nearest",
}
SIZES = ("embed_dim", "n_embed", "ch", "num_res_blocks", "z_channels", "in_channels", "out_ch", "ch_mult")


def read_config(path: Path) -> dict[str, Any]:
    """Return what a config says about a VQGAN, or the first stage in another model: its target, and SIZES.

    Raises InputError for what can't be read, or is no such config.
    """
    document = parse_yaml(decode(read_bytes(path, LIMIT), str(path)), str(path))
    model = _part(path, document, "model")
    params = _part(path, model, "params")
    if "first_stage_config" in params:
        model = _part(path, params, "first_stage_config")
        params = _part(path, model, "params")
    sizes = params | _part(path, params, "ddconfig")
    return {"target": str(model.get("target"))} | {key: sizes[key] for key in SIZES if key in sizes}


def check_config(path: Path, inferred: dict[str, Any], note: Callable[[str], None] = lambda text: None) -> None:
    """Compare a config file with the config that the tensors have. Raises ModelError naming what differs.

    note: called if there is nothing to compare. The tensors decide: a file that is no config of a VQGAN, has aliases,
    or names an unknown target, is none of their faults.
    """
    try:
        stated = read_config(path)
    except InputError as error:
        note(f"not compared with its .yaml: {error.what}")
        return
    known = inferred | inferred["ddconfig"]
    # text is an interpolation, ${...}, whose value is elsewhere
    actual = {key: known[key] for key in SIZES if isinstance(stated.get(key), int | list)}
    if stated["target"] not in TARGETS:
        note(f"{path} is of a {stated['target'][:80]!r}, which vqclip does not know; the tensors say what it is")
    elif (TARGETS[stated["target"]] == "gumbel") != (known["quantizer"] == "gumbel"):
        actual["target"] = f"a VQGAN with {known['quantizer']} codes"
    differ = [
        f"{key} is {str(stated[key])[:40]} there and {value} here"
        for key, value in actual.items()
        if stated[key] != value
    ]
    if differ:
        hint = "give the .yaml that belongs to it, or move this one away; models convert and import take --no-config"
        raise ModelError(f"{path} does not fit the checkpoint: {'; '.join(differ)}", hint)


def _part(path: Path, node: Any, key: str) -> dict[str, Any]:
    part = node.get(key) if isinstance(node, dict) else None
    if not isinstance(part, dict):
        raise InputError(f"{path} is no VQGAN's config: it has no {key!r}")
    return part
