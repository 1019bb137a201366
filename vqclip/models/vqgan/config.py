"""The .yaml beside a checkpoint: read as data, to check the architecture against. It never decides what is built.

taming's own loader imports and calls whatever `target` names; here it is a name to be compared, and nothing more.
"""

from pathlib import Path
from typing import Any

import yaml

from ...errors import ModelError
from .architecture import Architecture

LIMIT = 1_000_000  # bytes
HINT = "give the .yaml that belongs to the checkpoint, or none: the shapes of the tensors suffice"
# Target -> the quantizers it may have.
TARGETS = {
    "taming.models.vqgan.VQModel": ("nearest",),
    "taming.models.vqgan.GumbelVQ": ("gumbel",),
    "ldm.models.autoencoder.VQModel": ("nearest",),
    "ldm.models.autoencoder.VQModelInterface": ("nearest",),
}
WRAPS = ("taming.models.cond_transformer.Net2NetTransformer",)  # hold a first_stage_config
SIZES = ("ch", "num_res_blocks", "z_channels", "in_channels", "out_ch")


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases, by which a small file can grow without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)


def read_config(path: Path) -> dict[str, Any]:
    """Return what a taming config says of the first stage: target, embed_dim, n_embed, ddconfig. Raises ModelError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise ValueError("it is over 1 MB")
        read = yaml.load(data, Loader=_Loader)
    except Exception as error:  # a broken tag (!!int "", !!bool x) makes PyYAML raise whatever it stumbles on
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise ModelError(f"{path} can't be read: {reason}", HINT) from None
    model = _part(path, read, "model")
    if model.get("target") in WRAPS:
        model = _part(path, _part(path, model, "params"), "first_stage_config")
    if model.get("target") not in tuple(TARGETS):
        raise ModelError(f"{path} is of a {str(model.get('target'))[:80]!r}, which is no VQGAN", HINT)
    params = _part(path, model, "params")
    return {"target": model["target"], "ddconfig": _part(path, params, "ddconfig")} | {
        key: params.get(key) for key in ("embed_dim", "n_embed")
    }


def check_config(path: Path, found: Architecture) -> None:
    """Compare a config file with the architecture that the tensors have. Raises ModelError naming what differs."""
    told = read_config(path)
    ddconfig = told["ddconfig"]
    pairs: list[tuple[str, Any, Any]] = [
        ("embed_dim", told["embed_dim"], found.embed_dim),
        ("n_embed", told["n_embed"], found.n_embed),
    ]
    pairs += [(key, ddconfig.get(key), getattr(found, key)) for key in SIZES]
    pairs.append(("ch_mult", ddconfig.get("ch_mult"), list(found.ch_mult)))
    if found.quantizer not in TARGETS[told["target"]]:
        pairs.append(("target", told["target"], f"a VQGAN with {found.quantizer} codes"))
    differ = [f"{key} is {str(said)[:40]} there and {has} here" for key, said, has in pairs if said not in (has, None)]
    if differ:
        raise ModelError(f"{path} does not fit the checkpoint: {'; '.join(differ)}", HINT)


def _part(path: Path, node: Any, key: str) -> dict[str, Any]:
    part = node.get(key) if isinstance(node, dict) else None
    if not isinstance(part, dict):
        raise ModelError(f"{path} is no VQGAN's config: it has no {key!r}", HINT)
    return part
