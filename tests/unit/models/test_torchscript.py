"""OpenAI's own CLIP files: TorchScript archives, read without running the programs in them."""

import io
import os
import pickle
import re
import struct
import tracemalloc
import warnings
import zipfile

import numpy
import pytest
import torch
from torch import nn

from tests.support.checkpoints import script
from vqclip.errors import IntegrityError, ModelError
from vqclip.models.formats import sniff as formats
from vqclip.models.formats import torchscript
from vqclip.models.formats.read import read_tensors


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.attn_mask, self.heads, self.sides, self.tag = torch.ones(2, 2), 3, [1, 2], "x"

    def forward(self, x):
        return self.norm(self.linear(x))


class Tower(nn.Module):
    """What OpenAI's have: blocks, a parameter, a view that shares its numbers, numbers of no network, a mask."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.logit_scale = nn.Parameter(torch.tensor(0.5))
        self.turned = nn.Parameter(torch.arange(6.0).view(2, 3).t())
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x):
        return self.blocks(x) * self.logit_scale + self.turned.sum()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return such a file, in half floats as OpenAI's."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("script") / "ViT-B-32.pt"
    script(Tower(), path)
    return path


def rewritten(published, path, change):
    """Write the archive anew; change: (name, bytes) -> (bytes, how it is packed), or nothing to leave one out."""
    with zipfile.ZipFile(published) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            if made := change(entry.filename.partition("/")[2], old.read(entry)):
                new.writestr(entry.filename, made[0], made[1])
    return path


def with_pickle(published, path, data):
    return rewritten(published, path, lambda name, old: (data if name == "data.pkl" else old, zipfile.ZIP_STORED))


def test_its_weights_are_those_that_torch_finds_by_running_it(published):
    tensors = read_tensors(published)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        state = torch.jit.load(str(published)).state_dict()
    del state["input_resolution"]
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) and tensors[name].dtype == state[name].dtype for name in state)
    assert tensors["turned"].stride() == (1, 3)


def test_the_program_is_not_loaded(published, monkeypatch):
    for name in ("torch.jit.load", "torch._C.import_ir_module", "torch._C.import_ir_module_from_buffer"):
        monkeypatch.setattr(name, None)
    assert "blocks.1.norm.running_var" in read_tensors(published)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_one_is_refused_and_its_payload_does_not_run(published, tmp_path):
    data = pickle.dumps({"x": Payload(tmp_path / "it-ran")}, 2)
    with pytest.raises(ModelError, match="system"):
        read_tensors(with_pickle(published, tmp_path / "x.pt", data))
    assert not (tmp_path / "it-ran").exists()
    pickle.loads(data)  # the payload is real
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch load", "torch.jit._pickle os", "torch._utils x", "__torch__x y"]
)
def test_any_name_that_is_not_in_the_table_is_refused_and_told(published, tmp_path, name):
    module, attribute = name.split()
    data = b"\x80\x02" + f"c{module}\n{attribute}\n".encode() + b"X\x01\x00\x00\x00a\x85R."
    with pytest.raises(ModelError, match=attribute):
        read_tensors(with_pickle(published, tmp_path / "x.pt", data))


def endless(depth):
    """Return a pickle of `depth` modules of which each holds the next one twice; of 0: one that holds itself."""
    made = io.BytesIO()
    part = b"c__torch__\nPart\n)\x81"
    if not depth:
        made.write(b"\x80\x02" + part + b"q\x00}X\x01\x00\x00\x00ah\x00sb.")
        return made.getvalue()
    made.write(b"\x80\x02" + part + b"}b")
    for number in range(depth):
        memo = bytes([number])
        made.write(b"q" + memo + part + b"}(X\x01\x00\x00\x00ah" + memo + b"X\x01\x00\x00\x00bh" + memo + b"ub")
    return made.getvalue() + b"."


@pytest.mark.timeout(20)
@pytest.mark.parametrize("depth", [0, 60])
def test_modules_without_end_are_damaged(published, tmp_path, depth):
    with pytest.raises(IntegrityError, match="no end"):
        read_tensors(with_pickle(published, tmp_path / "x.pt", endless(depth)))


def test_numbers_that_are_not_there_are_damaged(published, tmp_path):
    short = rewritten(published, tmp_path / "x.pt", lambda name, old: (
        old[:-2] if name.startswith("data/") and len(old) > 2 else old, zipfile.ZIP_STORED
    ))  # fmt: skip
    with pytest.raises(IntegrityError, match="size"):
        read_tensors(short)


def test_only_the_text_of_the_program_may_be_packed(published, tmp_path):
    """As torch does it; a packed tensor could unpack to more than the disk has."""
    packed = rewritten(published, tmp_path / "x.pt", lambda name, old: (
        old, zipfile.ZIP_DEFLATED if name.startswith("code/") else zipfile.ZIP_STORED
    ))  # fmt: skip
    assert read_tensors(packed).keys() == read_tensors(published).keys()
    bomb = rewritten(published, tmp_path / "y.pt", lambda name, old: (old, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match="compressed"):
        read_tensors(bomb)


def test_a_text_that_unpacks_to_more_than_a_program_is_damaged(published, tmp_path, monkeypatch):
    monkeypatch.setattr(torchscript, "LONGEST_SOURCE", 100)
    with pytest.raises(IntegrityError, match="too long"):
        read_tensors(published)


def test_a_text_that_unpacks_to_more_than_it_says_takes_no_memory(published, tmp_path):
    text = b" " * 30_000_000
    one = re.compile(r"code/__torch__/torch/nn/modules/linear(/___torch_mangle_\d+)?\.py")  # if not the first
    path = rewritten(published, tmp_path / "x.pt", lambda name, old: (
        (text, zipfile.ZIP_DEFLATED) if one.fullmatch(name) else (old, zipfile.ZIP_STORED)))  # fmt: skip
    data = bytearray(path.read_bytes())
    for listed in list(re.finditer(b"PK\x01\x02", data)):
        if struct.unpack_from("<I", data, listed.start() + 24)[0] == len(text):
            struct.pack_into("<I", data, listed.start() + 24, 1000)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(IntegrityError):
        read_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.timeout(20)
def test_parts_of_one_name_are_damaged(published, tmp_path):
    path = rewritten(published, tmp_path / "x.pt", lambda name, old: (old, zipfile.ZIP_STORED))
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicates
        for data in [b""] * 2000 + [bytes(10**6)]:  # each of which would be read as the last of them
            archive.writestr("x/data/0", data)
    with pytest.raises(IntegrityError, match="parts"):
        read_tensors(path)


@pytest.mark.parametrize(
    "line", ["class A(Module):\n", "class A(Module):\n  __parameters__ = [\n", "class ", "class A(Module):" + " " * 99]
)
def test_a_program_is_looked_through_in_linear_time(published, tmp_path, line):
    slow = (line * (1_000_000 // len(line))).encode()
    path = rewritten(published, tmp_path / "x.pt", lambda name, old: (
        slow if name.endswith(".py") else old, zipfile.ZIP_DEFLATED if name.startswith("code/") else zipfile.ZIP_STORED
    ))  # fmt: skip
    with pytest.raises((ModelError, IntegrityError)):
        read_tensors(path)


@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_one_that_is_cut_off_is_damaged(published, tmp_path, keep):
    data = published.read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(IntegrityError):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("seed", range(8))
def test_noise_in_its_pickle_is_an_error_of_ours_or_changes_nothing(published, tmp_path, seed):
    def noisy(name, old):
        data = bytearray(old)
        if name == "data.pkl":
            for place in numpy.random.RandomState(seed).randint(0, len(data), 12):
                data[place] ^= 0x55
        return bytes(data), zipfile.ZIP_STORED

    with pytest.raises((ModelError, IntegrityError)):
        read_tensors(rewritten(published, tmp_path / "x.pt", noisy))


def test_it_is_known_by_what_is_in_it(published):
    assert formats.check_format(published) == "torchscript"
