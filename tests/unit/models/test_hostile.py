"""Files and folders that lie about what they hold: one line, no code run, and no network built of their claims."""

import json
import re
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import tensors
from vqclip.errors import IntegrityError, ModelError, OutOfMemory, VqclipError
from vqclip.models import load_vqgan
from vqclip.models.formats import pickles
from vqclip.models.formats.read import read_tensors
from vqclip.models.vqgan.architecture import infer
from vqclip.models.vqgan.checkpoints import convert, read_checkpoint
from vqclip.models.vqgan.taming import TamingVqgan

CPU = torch.device("cpu")
CASES = Path(__file__).parents[2] / "data" / "cases"  # from public reports, and from breaking in
BOOK = "quantize.embedding.weight"
FAR = "9" * 5000
DEEP = b"\x80\x02" + b"]" * 10**5


@pytest.fixture(scope="module")
def state():
    return tensors()


@pytest.fixture(autouse=True)
def _small_networks_alone(monkeypatch):
    """Refuse to build what no small file can hold."""
    built = TamingVqgan.__init__

    def watched(self, name, config):
        assert config["ddconfig"]["num_res_blocks"] < 100
        built(self, name, config)

    monkeypatch.setattr(TamingVqgan, "__init__", watched)


LIES = {
    "a number told to be a billion": ({BOOK: torch.zeros(1).expand(10**9, 8)}, "fewer numbers than it says"),
    "a level far out": ({"encoder.down.999999999.block.0.conv1.weight": torch.zeros(1)}, "has besides"),
    "a block far out": ({"encoder.down.0.block.999999999.conv1.weight": torch.zeros(1)}, "has besides"),
    "a block beyond numbers": ({f"encoder.down.0.block.{FAR}.conv1.weight": torch.zeros(1)}, "has besides"),
    "attention far out": ({"encoder.down.700.attn.0.norm.weight": torch.zeros(1)}, "has besides"),
    "no dimensions": ({"encoder.conv_in.weight": torch.zeros(())}, "has 0 dimensions"),
    "a flat codebook": ({BOOK: torch.zeros(5)}, "has 1 dimensions"),
    "an empty codebook": ({BOOK: torch.zeros(0, 8)}, "is empty"),
    "no channels": ({"encoder.conv_in.weight": torch.zeros(0, 3, 3, 3)}, "no multiples of 0"),
    "complex numbers": ({BOOK: torch.zeros(24, 8, dtype=torch.complex64)}, "whole numbers"),
    "whole numbers": ({BOOK: torch.zeros(24, 8, dtype=torch.int64)}, "whole numbers"),
    "shapes without contents": ({BOOK: torch.empty(24, 8, device="meta")}, "has no quantize.embedding.weight"),
    "a name without end": ({"encoder." + "x" * 100_000: torch.zeros(1)}, "has besides"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_checkpoint_that_lies_is_told_in_a_line(tmp_path, state, kind):
    change, message = LIES[kind]
    torch.save(state | change, tmp_path / "x.ckpt")
    with pytest.raises(VqclipError, match=message) as refused:
        read_checkpoint(tmp_path / "x.ckpt")
    assert refused.value.exit_code in (5, 6)
    assert len(refused.value.what) < 600


def rezipped(source, target, how=zipfile.ZIP_STORED, change=lambda name, data: data):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)


@pytest.mark.parametrize(
    ("how", "change", "error"),
    [
        (zipfile.ZIP_DEFLATED, lambda name, data: data, ModelError),
        (zipfile.ZIP_STORED, lambda name, data: data[:10] if "/data/" in name else data, IntegrityError),
        (zipfile.ZIP_STORED, lambda name, data: None if "/data/" in name else data, IntegrityError),
        (zipfile.ZIP_STORED, lambda name, data: DEEP if name.endswith("pkl") else data, VqclipError),
    ],
    ids=["compressed", "short", "without data", "deep"],
)  # fmt: skip
def test_a_zip_that_torch_has_not_written(tmp_path, state, how, change, error):
    torch.save(state, tmp_path / "good.ckpt")
    rezipped(tmp_path / "good.ckpt", tmp_path / "x.ckpt", how, change)
    with pytest.raises(error):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["bytearray-7GB.ckpt", "torchscript-redos.pt"])
def test_a_small_file_takes_little_time_and_memory(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ModelError, IntegrityError)):
        read_tensors(CASES / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "call",
    [b"c__builtin__\nbytearray\nK\x01\x85R", b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n",
     b"ctorch._utils\n_rebuild_sparse_tensor\n"],
)  # fmt: skip
def test_what_makes_much_of_little_is_refused_by_its_name(tmp_path, state, zipped, call):
    torch.save({"a": state["quant_conv.bias"]}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    bad = tmp_path / "bad.pt"
    if zipped:
        rezipped(tmp_path / "x.pt", bad, change=lambda name, data: (
            b"\x80\x02" + call + b"0" + data[2:] if name.endswith("data.pkl") else data))  # fmt: skip
    else:
        parts = (tmp_path / "x.pt").read_bytes().split(b"}q\x00X", 1)
        bad.write_bytes(parts[0] + call + b"0}q\x00X" + parts[1])
    with pytest.raises(ModelError, match="fill the memory") as error:
        read_tensors(bad)
    assert ("safetensors" in error.value.hint) == (b"torch" in call)  # what torch itself saves is no attack


def test_a_flax_file_of_empty_maps_does_not_fill_the_memory(tmp_path):
    """An empty map is a byte of the file and 64 of memory: 400 kB here, 26 MB; of a GB it would be 64 of them."""
    full = b"\xdc\x00\x40"  # a list of 64
    nested = b"\x80" * 64
    for _ in range(2):
        nested = (full + nested) * 64
    tree = b"\x81\xa6params" + full + nested
    (tmp_path / "flax_model.msgpack").write_bytes(tree)
    with pytest.raises(IntegrityError, match="parts"):
        read_tensors(tmp_path / "flax_model.msgpack")


def test_a_tensor_that_says_more_numbers_than_its_file_is_damaged(tmp_path):
    torch.save({"a": torch.zeros(100, 100)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pt").read_bytes()
    assert b"KdKd\x86" in data
    (tmp_path / "x.pt").write_bytes(data.replace(b"KdKd\x86", b"J\x00\x00\x01\x00Kd\x86", 1))
    with pytest.raises(IntegrityError):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.timeout(20)
def test_a_pickle_without_end_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    torch.save({str(k): torch.zeros(1) for k in range(100)}, tmp_path / "x.pt")
    with pytest.raises(IntegrityError, match="no end"):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.timeout(20)
def test_a_pickle_that_copies_a_text_without_end_is_damaged(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00X\x06\x00\x00\x00latin1q\x01c_codecs\nencode\nq\x02"
    copies = b"h\x02h\x00h\x01\x86R" * 20_000
    rezipped(tmp_path / "x.pt", tmp_path / "y.pt", change=lambda name, data: (
        data[:2] + text + copies + data[2:] if name.endswith("data.pkl") else data))  # fmt: skip
    with pytest.raises(IntegrityError, match="no end"):
        read_tensors(tmp_path / "y.pt")


def test_parts_of_a_zip_that_lie_over_each_other_are_damaged(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    for at in [match.start() for match in re.finditer(b"PK\x01\x02", data)]:  # the sizes in the list of contents
        data[at + 20 : at + 28] = struct.pack("<II", 10**8, 10**8)
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(IntegrityError):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.full
@pytest.mark.timeout(20)
def test_a_header_of_tensors_without_end_is_damaged(tmp_path):
    names = ",".join(f'"k{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for k in range(300_000))
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(names) + 2) + f"{{{names}}}".encode())
    with pytest.raises(IntegrityError, match="300,000"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_weights_that_share_memory_are_written_each(tmp_path, state):
    whole = torch.cat([state["encoder.norm_out.weight"]] * 2)
    half = len(whole) // 2
    tied = state | {"encoder.norm_out.weight": whole[:half], "encoder.norm_out.bias": whole[:half]}
    torch.save(tied, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    (tmp_path / "made").mkdir()
    convert(tmp_path / "x.ckpt", tmp_path / "made")
    read = load_vqgan(str(tmp_path / "made"), CPU).state_dict()
    assert torch.equal(read["encoder.norm_out.bias"], whole[:half])
    assert torch.equal(read["encoder.norm_out.weight"], whole[:half])


# a folder's config.json


@pytest.fixture
def folder(tmp_path, state):
    """Return a function that writes a folder of plain tensors with a config, and loads it."""
    save_file(state, tmp_path / "model.safetensors")
    good = infer(state)

    def load(text="", **dd):
        text = text or json.dumps(good | {"ddconfig": good["ddconfig"] | dd})
        (tmp_path / "config.json").write_text(text)
        return load_vqgan(str(tmp_path), CPU)

    return load


def test_a_good_folder_loads(folder):
    assert folder().codebook.shape == (24, 8)


@pytest.mark.parametrize(
    "dd",
    [{"num_res_blocks": 10**9}, {"ch": 10**12}, {"ch": -32}, {"ch": "32"}, {"ch_mult": [1] * 500}, {"ch_mult": 3},
     {"resolution": 10**30}, {"attn_resolutions": 7}, {"z_channels": None}],
    ids=str,
)  # fmt: skip
def test_a_config_that_lies_is_told_in_a_line(folder, dd):
    with pytest.raises(ModelError):
        folder(**dd)


@pytest.mark.parametrize("text", ["[1]", "[" * 10**5, "\0", '{"ddconfig": NaN}', "{}", '"x"', "null", "\ufeff{}"])
def test_a_config_that_is_none_is_told_in_a_line(folder, text):
    with pytest.raises(ModelError, match="config"):
        folder(text)


def test_an_unknown_quantizer_is_not_taken_for_another(folder, state):
    with pytest.raises(ModelError, match="quantizer"):
        folder(json.dumps(infer(state) | {"quantizer": "lookup-free"}))


def test_memory_that_runs_out_is_no_damaged_file(folder, monkeypatch):
    def full(path):
        raise MemoryError

    monkeypatch.setattr("vqclip.models.formats.read.load_file", full)
    with pytest.raises(MemoryError):
        folder()


def test_memory_that_runs_out_while_it_is_built_reaches_who_knows_about_it(monkeypatch, tmp_path):
    from vqclip.runs.api import generate

    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("vqclip.models.lite_clip.LiteClip.__init__", full)
    with pytest.raises(OutOfMemory):
        generate("x", steps=1, size=(32, 32))
