"""The .yaml beside a checkpoint: it is compared, and never obeyed."""

import pytest
import torch
import yaml

from tests.support.checkpoints import reference, tensors
from vqclip.errors import InputError, ModelError
from vqclip.models.vqgan.architecture import infer
from vqclip.models.vqgan.checkpoints import convert
from vqclip.models.vqgan.config import check_config, read_config

PLAIN = reference("taming")["config"]


def document(target="taming.models.vqgan.VQModel", **changes):
    params = {**PLAIN, "lossconfig": {"target": "os.system", "params": {"command": "touch it-ran"}}, **changes}
    return {
        "model": {"base_learning_rate": 4.5e-06, "target": target, "params": params},
        "data": {"target": "main.Data"},
    }


@pytest.fixture
def check(tmp_path):
    """Return a function that writes a config, and compares it with the architecture of a checkpoint."""

    def run(text, layout="taming"):
        path, notes = tmp_path / "x.yaml", []
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        check_config(path, infer(tensors(layout)), notes.append)
        return notes

    return run


def refused(check, text, layout="taming"):
    with pytest.raises(ModelError) as error:
        check(text, layout)
    assert error.value.exit_code == 5
    return error.value.what


@pytest.mark.parametrize("target", ["taming.models.vqgan.VQModel", "ldm.models.autoencoder.VQModelInterface"])
def test_a_config_that_fits_is_accepted(check, target):
    assert check(document(target)) == []


@pytest.mark.parametrize(
    "target", ["taming.models.cond_transformer.Net2NetTransformer", "ldm.models.diffusion.ddpm.LatentDiffusion"]
)
def test_a_larger_models_config_is_read_for_its_first_stage(check, target):
    outer = {"target": target, "params": {"first_stage_config": document()["model"]}}
    assert check({"model": outer}) == []
    outer["params"]["first_stage_config"] = document(n_embed=1024)["model"]
    assert "n_embed" in refused(check, {"model": outer})


def test_a_gumbel_config_fits_a_gumbel_checkpoint_alone(check):
    gumbel = document("taming.models.vqgan.GumbelVQ", embed_dim=32)
    check(gumbel, "taming_gumbel")
    assert "target" in refused(check, gumbel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embed": 1024}, "n_embed is 1024 there and 24 here"),
        ({"embed_dim": 4}, "embed_dim is 4 there and 8 here"),
        ({"ddconfig": PLAIN["ddconfig"] | {"ch_mult": [1, 1, 2]}}, "ch_mult"),
        ({"ddconfig": PLAIN["ddconfig"] | {"ch": 128}}, "ch is 128 there and 32 here"),
    ],
)
def test_a_config_that_does_not_fit_is_told_by_what_differs(check, changes, message):
    assert message in refused(check, document(**changes))


@pytest.mark.parametrize(
    "text",
    [
        '!!python/object/apply:os.system ["touch it-ran"]',
        'model: !!python/object/apply:subprocess.check_output [["touch", "it-ran"]]',
        yaml.safe_dump(document("os.system")),
        yaml.safe_dump(document("builtins.eval")),
    ],
)
def test_a_malicious_config_is_noted_and_nothing_of_it_runs(check, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(check(text)) == 1
    assert not (tmp_path / "it-ran").exists()


def test_what_else_a_config_names_is_not_looked_at(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(document(ckpt_path="/etc/passwd"))
    assert not (tmp_path / "it-ran").exists()


def test_the_environment_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(document(n_embed="${oc.env:SECRET}")))
    assert "hunter2" not in str(read_config(path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just words",
        "a: [b",
        "model: 3",
        "model: {target: x}",
        "a: &x [1]\nb: *x",
        "[" * 5000,
        "x: " + "y" * 10**6,
        "<!DOCTYPE html>\n<html><title>a: b</title><body>moved: here</body></html>\n",
    ],
    ids=["empty", "list", "words", "broken", "number", "unknown", "aliases", "deep", "large", "web page"],
)
def test_what_is_no_config_of_a_vqgan_is_noted(check, text):
    (note,) = check(text)
    assert "x.yaml" in note


def test_a_config_that_is_asked_for_must_be_there(tmp_path):
    torch.save(tensors(), tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="nowhere"):
        convert(tmp_path / "x.ckpt", tmp_path, tmp_path / "nowhere.yaml")


def test_an_unknown_target_is_noted_and_its_sizes_are_compared(check):
    (note,) = check(document("embedder.src.model.VQModel"))
    assert "embedder" in note
    assert "n_embed" in refused(check, document("embedder.src.model.VQModel", n_embed=3))


def test_an_interpolation_is_not_compared(check):
    assert check(document(n_embed="${model.params.codes}")) == []
