"""Reading checkpoints: every container, and everything that is none; nothing of theirs ever runs."""

import collections
import os
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import flax, lightning, lightning_class, tensors
from vqclip.errors import IntegrityError, ModelError
from vqclip.models.formats.read import read_tensors
from vqclip.models.vqgan.checkpoints import read_checkpoint

CHECKPOINT = "pytorch_lightning.callbacks.model_checkpoint"


@pytest.fixture(scope="module")
def state():
    return tensors()


def callbacks():
    """Return Lightning 1.0's callbacks: a class is the key."""
    return {
        lightning_class(CHECKPOINT, "ModelCheckpoint"): {"best_model_score": torch.tensor(0.5), "best_model_path": ""}
    }


class Payload:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(autouse=True)
def _modules(monkeypatch):
    """Forget stand-ins for libraries after each test."""
    import sys

    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("pytorch_lightning", "lightning")):
            del sys.modules[name]


def same(read, state):
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


# what is read


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: collections.OrderedDict(state),
        lambda state: {"model": state},
        lambda state: lightning(state),
        lambda state: lightning(state, callbacks=callbacks()),
    ],
    ids=["plain", "ordered", "model", "lightning", "callbacks"],
)
def test_torchs_containers(tmp_path, state, wrap, legacy):
    torch.save(wrap(state), tmp_path / "x.bin", _use_new_zipfile_serialization=not legacy)
    same(read_tensors(tmp_path / "x.bin"), state)


def test_lightning_with_numbers_of_numpy(tmp_path, state):
    torch.save(lightning(state, callbacks={"score": numpy.float64(0.5)}), tmp_path / "x.ckpt")
    same(read_tensors(tmp_path / "x.ckpt"), state)


def test_lightning_with_an_attribute_dict(tmp_path, state):
    made = lightning_class("pytorch_lightning.utilities.parsing", "AttributeDict", (dict,))
    torch.save(lightning(state, hyper_parameters=made(a=1)), tmp_path / "x.ckpt")
    same(read_tensors(tmp_path / "x.ckpt"), state)


def test_lightning_with_an_omegaconf_config(tmp_path, state):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"model": {"params": {"embed_dim": 8, "list": [1, 2]}}})
    torch.save(lightning(state, hyper_parameters=config), tmp_path / "x.ckpt")
    same(read_tensors(tmp_path / "x.ckpt"), state)


def test_safetensors(tmp_path, state):
    save_file(state, tmp_path / "x.ckpt")  # the name says nothing
    same(read_tensors(tmp_path / "x.ckpt"), state)


def test_flax(tmp_path, state):
    (tmp_path / "flax_model.msgpack").write_bytes(flax(state))
    _, config, read = read_checkpoint(tmp_path / "flax_model.msgpack")
    same(read, state)
    assert config["n_embed"] == 24


def test_flax_without_its_library_says_what_to_install(tmp_path, state, monkeypatch):
    (tmp_path / "x").write_bytes(flax(state))
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(ModelError, match="Flax") as refused:
        read_tensors(tmp_path / "x")
    assert "vqclip[flax]" in refused.value.hint


def test_parameters_and_half_floats(tmp_path):
    torch.save({"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(2).half(), "c": "text"}, tmp_path / "x")
    read = read_tensors(tmp_path / "x")
    assert read.keys() == {"a", "b"}
    assert not read["a"].requires_grad


# what would run code is refused, named, and has not run


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["beside", "in callbacks", "alone"])
def test_a_malicious_checkpoint_is_refused_and_its_payload_does_not_run(tmp_path, state, where, legacy):
    payload = Payload(tmp_path / "it-ran")
    wrap = {
        "beside": {**state, "x": payload},
        "in callbacks": lightning(state, callbacks={**callbacks(), "y": payload}),
        "alone": payload,
    }[where]
    torch.save(wrap, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError) as refused:
        read_tensors(tmp_path / "x.ckpt")
    assert f"{os.system.__module__}.system" in refused.value.what
    assert refused.value.exit_code == 5
    assert not (tmp_path / "it-ran").exists()
    torch.load(tmp_path / "x.ckpt", weights_only=False)  # the payload is real: a reader that trusts runs it
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "subprocess.Popen", "torch.hub.load", "numpy_of_mine.f"])
def test_any_other_name_is_refused_and_told(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    head = b"\x80\x02" + f"c{module}\n{attribute}\n".encode() + b"X\x01\x00\x00\x00a\x85R."
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", head)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(ModelError, match=attribute):
        read_tensors(tmp_path / "x.ckpt")


def test_a_class_of_lightning_that_hides_a_call_is_never_called(tmp_path, state):
    made = lightning_class(CHECKPOINT, "ModelCheckpoint")
    made.__reduce__ = lambda self: (made, (f"touch {tmp_path / 'it-ran'}",), {"x": 1})
    torch.save(lightning(state, callbacks=made()), tmp_path / "x.ckpt")
    same(read_tensors(tmp_path / "x.ckpt"), state)


def test_no_source_of_ours_trusts_a_pickle():
    import vqclip

    sources = [path.read_text() for path in Path(vqclip.__file__).parent.rglob("*.py")]
    assert not [text for text in sources if "weights_only=False" in text or "unsafe_load" in text]


# what is no checkpoint


def write_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")


NONE = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "web page": (lambda path: path.write_bytes(b"\n <!DOCTYPE html><html>not found</html>"), "web page"),
    "LFS pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "LFS",
    ),
    "text": (lambda path: path.write_text("my notes\n" * 20), "is text"),
    "json": (lambda path: path.write_text('{"embed_dim": 4}'), "is text"),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "no checkpoint"),
    "archive": (lambda path: path.write_bytes(b"\x1f\x8b\x08\0\0"), "compressed"),
    "other zip": (lambda path: write_zip(path, ["readme.txt"]), "zip that is no checkpoint"),
    "zip around one": (lambda path: write_zip(path, ["model.ckpt"]), "zip that is no checkpoint"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "nothing": (lambda path: None, "cannot be read"),
    "no names": (lambda path: torch.save([torch.zeros(2)], path), "no tensors with names"),
}


@pytest.mark.parametrize("kind", NONE)
def test_what_is_no_checkpoint_is_told_for_what_it_is(tmp_path, kind):
    make, message = NONE[kind]
    make(tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match=message) as refused:
        read_tensors(tmp_path / "x.ckpt")
    assert refused.value.exit_code == 5
    assert refused.value.hint


@pytest.mark.parametrize("container", ["zip", "legacy", "safetensors", "flax"])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_file_that_is_cut_off_is_damaged(tmp_path, state, container, keep):
    path = tmp_path / "x"
    if container == "safetensors":
        save_file(state, path)
    elif container == "flax":
        path.write_bytes(flax(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=container == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(IntegrityError) as refused:
        read_tensors(path)
    assert refused.value.exit_code == 6


@pytest.mark.parametrize("seed", range(6))
def test_noise_in_the_pickle_is_an_error_of_ours(tmp_path, state, seed):
    torch.save(state, tmp_path / "x", _use_new_zipfile_serialization=seed % 2 == 0)
    data = bytearray((tmp_path / "x").read_bytes())
    for place in numpy.random.RandomState(seed).randint(64, 3000, 40):
        data[place] ^= 0x55
    (tmp_path / "x").write_bytes(data)
    with pytest.raises((ModelError, IntegrityError)):
        read_checkpoint(tmp_path / "x")
