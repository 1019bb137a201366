"""The .yaml beside a checkpoint: data that the architecture is checked against. It never decides what is built.

taming's own loader imports and calls whatever `target` names; here that is a name to compare, and nothing more.
"""

from pathlib import Path
from typing import Any

from ...errors import InputError, ModelError
from ...files.reading import decode, parse_yaml, read_bytes

LIMIT = 1_000_000  # bytes
HINT = "give the .yaml that belongs to the checkpoint, or none: the shapes of its tensors are enough"
# Target -> its possible quantizers.
TARGETS = {
    "taming.models.vqgan.VQModel": ("nearest",),
    "taming.models.vqgan.GumbelVQ": ("gumbel",),
    "ldm.models.autoencoder.VQModel": ("nearest",),
    "ldm.models.autoencoder.VQModelInterface": ("nearest",),
}
WRAPPERS = ("taming.models.cond_transformer.Net2NetTransformer",)  # that hold a first_stage_config
SIZES = ("embed_dim", "n_embed", "ch", "num_res_blocks", "z_channels", "in_channels", "out_ch", "ch_mult")


def read_config(path: Path) -> dict[str, Any]:
    """Return what a taming config says about the first stage: target, embed_dim, n_embed, ddconfig.

    Raises ModelError.
    """
    try:
        document = parse_yaml(decode(read_bytes(path, LIMIT, HINT), str(path)), str(path), HINT)
    except InputError as error:
        raise ModelError(error.what, error.hint) from None
    model = _part(path, document, "model")
    if model.get("target") in WRAPPERS:
        model = _part(path, _part(path, model, "params"), "first_stage_config")
    if model.get("target") not in tuple(TARGETS):
        raise ModelError(f"{path} is of a {str(model.get('target'))[:80]!r}, which is no VQGAN", HINT)
    params = _part(path, model, "params")
    return {"target": model["target"], "ddconfig": _part(path, params, "ddconfig")} | {
        key: params.get(key) for key in ("embed_dim", "n_embed")
    }


def check_config(path: Path, inferred: dict[str, Any]) -> None:
    """Compare a config file with the config that the tensors have. Raises ModelError naming what differs."""
    config = read_config(path)
    stated, known = config | config["ddconfig"], inferred | inferred["ddconfig"]
    actual = {key: known[key] for key in SIZES}
    if known["quantizer"] not in TARGETS[config["target"]]:
        actual["target"] = f"a VQGAN with {known['quantizer']} codes"
    differ = [
        f"{key} is {str(stated[key])[:40]} there and {value} here"
        for key, value in actual.items()
        if stated.get(key) not in (value, None)
    ]
    if differ:
        raise ModelError(f"{path} does not fit the checkpoint: {'; '.join(differ)}", HINT)


def _part(path: Path, node: Any, key: str) -> dict[str, Any]:
    part = node.get(key) if isinstance(node, dict) else None
    if not isinstance(part, dict):
        raise ModelError(f"{path} is no VQGAN's config: it has no {key!r}", HINT)
    return part
