"""Files as people have them, mutated: prompt files, checkpoints, pickles, programs, configs, catalogues, images.

Each is taken, or answered by a VqclipError, within limits of time and memory; VQCLIP_FUZZ=N tries N of each kind.
"""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from tests.support.checkpoints import flax, script, tensors
from tests.support.fuzzing import edits, fuzz, mutated, odd, scalars, values, words
from vqclip.batch.manifest import read_manifest
from vqclip.batch.prompt_files import READERS, read_rows
from vqclip.batch.rows import cross_rows, make_rows
from vqclip.files.carry_metadata import enlarged
from vqclip.files.images import load_with_alpha, shown_size
from vqclip.files.reading import parse_json, parse_toml, parse_yaml
from vqclip.models import load_vqgan
from vqclip.models.catalogue import catalogue
from vqclip.models.dalle.checkpoints import memory_needed
from vqclip.models.dalle.tokenizer import read_tokenizer
from vqclip.models.formats.read import read_tensors
from vqclip.models.vqgan.architecture import infer
from vqclip.models.vqgan.checkpoints import load_folder, read_checkpoint
from vqclip.models.vqgan.config import check_config
from vqclip.runs.run_dir import read_losses
from vqclip.settings.curves import Curve
from vqclip.settings.schema import Settings

CPU = torch.device("cpu")
CASES = Path(__file__).parents[1] / "data" / "cases"
STATE = {name: value.half() for name, value in tensors().items()}
INFERRED = infer(STATE)

# texts with structure

pieces = st.sampled_from(
    ["[", "]", "{", "}", "- ", "? ", ": ", ", ", "\n", "  ", "\t", "&a ", "*a", "!!int ", "!x ", "<<: ", "|\n", ">-\n",
     '"', "'", '"""', "#", "a", "b.", ".", "=", "1", "-1", "9" * 500, "0x" + "f" * 500, "1e999", "nan", ".inf", "null",
     "true", "2001-99-99", "1:30:30", "{a: ", "[[a]]\n", "[a.b]\n", "a = ", "[" * 70, "{" * 70, "a." * 70, "- " * 70,
     "\\u0000",
     "\x00", "\ud800", "\ufeff", "rows", "prompts", "cross", "defaults", "seed", "1-99999999", "1-90000," * 9, "{a}"]
)  # fmt: skip
texts = st.lists(pieces | words, max_size=30).map("".join)
PARSERS = (parse_json, parse_toml, parse_yaml)


def use_text(folder, content):
    parse, text, unique = content
    parse(text, "f", "correct it", **({} if parse is parse_toml else {"unique": unique}))


# prompt files

ROWS = {
    "csv": "prompt,seed,size,style\na red heart,7,64x32,oil\n\nan owl,8,,\n",
    "tsv": "Prompt\tCategory\na red heart\tObjects\n",
    "txt": 'a red heart\n# a comment\n"an owl" -n4\n',
    "jsonl": '{"prompt": "a red heart", "seed": 7, "size": [64, 32]}\n"an owl"\n',
    "json": '{"rows": ["a"], "defaults": {"steps": 3}}',
    "yaml": "rows: ['a {colour} heart', {prompt: b}]\ncross: {colour: 'red,blue', seed: 1-3}\ndefaults: {steps: 5}\n",
    "toml": '[[rows]]\nprompt = "a red heart"\nseed = 7\n[defaults]\nsteps = 3\n[cross]\nseed = "1-3"\n',
}
names = st.sampled_from([*Settings.model_fields, "preset", "stepz", "style", ""]) | words
tables = st.dictionaries(names, values, max_size=4)
documents = st.one_of(
    st.lists(tables | values, max_size=4),
    st.fixed_dictionaries(
        {"rows": st.lists(tables | words, max_size=4)},
        optional={"cross": tables, "defaults": tables, "prompts": values},
    ),
    values,
)
row_files = st.one_of(
    st.tuples(st.sampled_from(sorted(ROWS)), edits).map(lambda it: (it[0], mutated(ROWS[it[0]].encode(), it[1]))),
    st.tuples(st.sampled_from(["json", "yaml"]), documents.map(lambda value: json.dumps(value).encode())),
    tables.map(lambda row: ("jsonl", json.dumps({"prompt": "a"} | row).encode())),
    st.tuples(st.sampled_from(sorted(READERS)), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))),
    st.tuples(st.sampled_from(sorted(READERS)), st.binary(max_size=60)),
)


def use_rows(folder, content):
    kind, data = content
    file = read_rows("p", data, kind)
    rows, faults = make_rows(cross_rows(file, {}, 100), {"preset": "tiny"})
    assert all(len(fault.splitlines()) == 1 for fault in faults)
    for row in rows:
        row.notes()


# checkpoints


def saved(state, *, legacy=False):
    data = io.BytesIO()
    torch.save(state, data, _use_new_zipfile_serialization=not legacy)
    return data.getvalue()


def scripted():
    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.scale = torch.nn.Linear(3, 4), torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.linear(x) * self.scale

    path = Path("script.pt")
    script(Small(), path)
    return path.read_bytes()


FILES = {
    "zip": lambda: saved({"state_dict": STATE, "epoch": 3}),
    "legacy": lambda: saved(STATE, legacy=True),
    "safetensors": lambda: save(STATE),
    "flax": lambda: flax({name: value.float() for name, value in STATE.items()}),
    "torchscript": scripted,
    "bytearray": (CASES / "bytearray-7GB.ckpt").read_bytes,
    "program": (CASES / "torchscript-redos.pt").read_bytes,
}
made: dict[str, bytes] = {}


def use_checkpoint(folder, content):
    """Read a checkpoint of which bytes are changed, at its beginning or end, where its structure is, or anywhere."""
    kind, changes, part = content
    data = made.setdefault(kind, FILES[kind]())
    edge = min(len(data), 4000)
    if part == "head":
        data = mutated(data[:edge], changes) + data[edge:]
    elif part == "tail":
        data = data[:-edge] + mutated(data[-edge:], changes)
    else:
        data = mutated(data, changes)
    path = folder / "x.ckpt"
    path.write_bytes(data)
    (read_tensors if kind in ("torchscript", "program") else read_checkpoint)(path)


shapes = st.lists(st.sampled_from([0, 1, 2, 3, 8, 33]), max_size=5).map(tuple)
changes_of_state = st.lists(
    st.tuples(
        st.sampled_from(["drop", "rename", "reshape", "expand", "add", "nan", "whole", "eight", "prefix", "nest"]),
        st.integers(0, len(STATE) - 1), shapes, words),
    max_size=3,
)  # fmt: skip


def changed(state, changes):
    """Return a state dict with some tensors missing, called otherwise, of other shapes or kinds, or in a wrapper."""
    state = dict(state)
    for kind, number, shape, word in changes:
        if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
            break
        name = sorted(state)[number % len(state)]
        if state[name].numel() > 10**6 and kind in ("nan", "whole", "eight"):  # an expanded one
            continue
        if kind == "drop":
            del state[name]
        elif kind == "rename":
            state[word] = state.pop(name)
        elif kind == "reshape":
            state[name] = torch.zeros(shape)
        elif kind == "expand":
            state[name] = torch.zeros(1).expand(10**9, 4)
        elif kind == "add":
            state[f"encoder.{word}" if number % 2 else word] = torch.zeros(shape)
        elif kind == "nan":
            state[name] = torch.full(state[name].shape, float("nan"))
        elif kind == "whole":
            state[name] = torch.zeros(state[name].shape, dtype=torch.int64)
        elif kind == "eight":
            state[name] = state[name].to(torch.float8_e4m3fn)
        elif kind == "prefix":
            state = {f"{word}.{key}": value for key, value in state.items()}
        elif kind == "nest":
            state = {word: state, "epoch": number}
    return state


def use_state(folder, content):
    changes, legacy = content
    path = folder / "x.ckpt"
    path.write_bytes(saved(changed(STATE, changes), legacy=legacy))
    load_vqgan(str(path), CPU)


# pickles, step by step

steps = st.sampled_from(
    [b"]", b"}", b")", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"R", b"b", b"\x81", b"0", b"N",
     b"Q", b"K\x05", b"J\xff\xff\xff\x7f", b"\x8a\x05\x00\x86;\xa1\x01", b"X\x01\x00\x00\x00a", b"X\xff\xff\xff\x7fa", 
     b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"cbuiltins\nbytearray\n", b"ccollections\nOrderedDict\n", 
     b"ctorch\nFloatStorage\n",
     b"ctorch\nTensor\n", b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\neval\n",
     b"cos\nsystem\n",
     b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n", b"c__torch__\nPart\n", b"c_codecs\nencode\n",
     b"cargparse\nNamespace\n", b"X\x07\x00\x00\x00storage", b"X\x03\x00\x00\x00cpu", b"\x8c\x01a",
     b"\x93", b"\x94", b"."]
)  # fmt: skip
with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(2), "b": torch.ones(2, 1)}))) as archive:
    REAL = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))[2:-1]
programs = st.tuples(
    st.lists(steps, max_size=40).map(b"".join) | edits.map(lambda changes: mutated(REAL, changes)),
    st.sampled_from(["zip", "legacy", "script"]),
)
LEGACY = saved({}, legacy=True).split(b"}q\x00.")  # its contents, after number, version and machine


def use_pickle(folder, content):
    code, kind = content
    path = folder / "x.ckpt"
    if kind == "legacy":
        path.write_bytes(LEGACY[0] + code + b"." + LEGACY[1])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + code + b".")
            archive.writestr("a/version", b"3\n")
            for number in range(2):
                archive.writestr(f"a/data/{number}", bytes(8))
            if kind == "script":
                archive.writestr("a/constants.pkl", pickle.dumps((), 2))
                archive.writestr("a/code/__torch__.py", 'class Part(Module):\n  __parameters__ = ["a", ]\n')
    read_tensors(path)


# what lies beside weights

YAML = """model:
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 8
    n_embed: 24
    ddconfig:
      ch: 32
"""


def use_yaml(folder, text):
    (folder / "x.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    check_config(folder / "x.yaml", INFERRED)


def use_vqgan_folder(folder, changes):
    if not (folder / "model.safetensors").exists():
        (folder / "model.safetensors").write_bytes(save(STATE))
    top, inner = changes
    (folder / "config.json").write_text(json.dumps(INFERRED | top | {"ddconfig": INFERRED["ddconfig"] | inner}))
    load_folder(folder, name="x", device=CPU)


def use_tokenizer(folder, content):
    (folder / "vocab.json").write_bytes(mutated(b'{"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "ab": 4}', content[0]))
    (folder / "merges.txt").write_bytes(mutated(b"#version: 0.2\na b\nab c\n", content[1]))
    read_tokenizer(folder / "vocab.json", folder / "merges.txt").encode("ab abc", 9)


HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}      12345678'


def use_header(folder, content):
    length, text = content
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", length) + text)
    memory_needed(folder / "x.safetensors", 1)
    read_tensors(folder / "x.safetensors")


OWN = '[vqgan.mine]\npath = "x.ckpt"\n[clip.other]\nmirrors = ["https://example.org/x"]\n[preset.p]\nvqgan = "mine"\n'


def use_catalogue(folder, text):
    (folder / "catalogue.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
    catalogue.cache_clear()
    catalogue()


# images and records


def image_files():
    """Yield images of all formats with EXIF, and those of public reports."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    image = Image.new("RGB", (20, 10), "red")
    for ending in ("JPEG", "WEBP", "PNG", "TIFF", "GIF", "BMP"):
        data = io.BytesIO()
        image.save(data, ending, **({"exif": exif} if ending in ("JPEG", "WEBP", "PNG") else {}))
        yield data.getvalue()
    for mode in ("F", "I", "I;16", "LA", "CMYK", "1"):
        data = io.BytesIO()
        Image.new(mode, (5, 4)).save(data, "PNG" if mode == "LA" else "TIFF")
        yield data.getvalue()
    for path in CASES.glob("*exif*"):
        yield path.read_bytes()


IMAGES = list(image_files())


def use_image(folder, content):
    number, changes = content
    path = folder / "a.png"
    path.write_bytes(mutated(IMAGES[number % len(IMAGES)], changes))
    image = load_with_alpha(path)
    assert image.mode in ("RGB", "RGBA")
    with Image.open(path) as file:
        shown_size(file)
    enlarged(image, image.info, Path("a.jpg"), {"name": "x", "sha256": "0" * 64}, 2)


def use_records(folder, content):
    name, text = content
    (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    read_manifest(folder)
    read_losses(folder)


MANIFEST = {"schema": "vqclip-batch/1", "rows": [{"name": "a", "index": 1, "source": 0, "place": "p:1", "key": "k",
            "settings": {"prompt": "a"}}]}  # fmt: skip
record_texts = st.one_of(
    st.tuples(
        st.just("batch.json"), edits.map(lambda it: mutated(json.dumps(MANIFEST).encode(), it).decode("latin-1"))
    ),
    st.tuples(
        st.just("batch.json"), tables.map(lambda row: json.dumps(MANIFEST | {"rows": [MANIFEST["rows"][0] | row]}))
    ),
    st.tuples(st.just("metrics.jsonl"), values.map(lambda value: json.dumps({"prompt": value}) + "\n[[\n")),
    st.tuples(st.sampled_from(["batch.json", "metrics.jsonl"]), texts),
)
curves = st.lists(
    st.sampled_from(["0", "1", "30", ":", ",", "t", "pi", "+", "-", "*", "/", "%", "sin(", "max(", "sqrt(", ")", "(",
                     "9" * 400, "1e308", "**", "__import__", "lambda", ".", " ", "if", "0: 1, 30: 2"]) | words,
    max_size=14,
).map("".join)  # fmt: skip


def use_curve(folder, text):
    Curve.parse("zoom", text).values(range(60), -1e9, 1e9)


TARGETS = {
    "texts": (use_text, st.tuples(st.sampled_from(PARSERS), texts, st.booleans())),
    "prompt files": (use_rows, row_files),
    "checkpoints, bytes": (use_checkpoint, st.tuples(
        st.sampled_from(sorted(FILES)), edits, st.sampled_from(["head", "tail", "any"]))),
    "checkpoints, tensors": (use_state, st.tuples(changes_of_state, st.booleans())),
    "pickles": (use_pickle, programs),
    "safetensors headers": (use_header, st.tuples(
        st.sampled_from([0, 2, 60, 10**6, 2**47, 2**63]),
        edits.map(lambda changes: mutated(HEADER, changes)))),
    "configs of VQGANs": (use_yaml, st.one_of(
        edits.map(lambda changes: mutated(YAML.encode(), changes).decode("utf-8", "replace")), texts,
        st.integers(1, 64).map(lambda width: YAML.replace("ch: 32", f"ch: {width}")),
        documents.map(lambda value: json.dumps({"model": value})))),
    "folders of VQGANs": (use_vqgan_folder, st.tuples(
        st.dictionaries(st.sampled_from(sorted(INFERRED)), scalars, max_size=2),
        st.dictionaries(st.sampled_from(sorted(INFERRED["ddconfig"])), values, max_size=2))),
    "tokenizers": (use_tokenizer, st.tuples(edits, edits)),
    "catalogues": (use_catalogue, st.one_of(
        edits.map(lambda changes: mutated(OWN.encode(), changes).decode("utf-8", "replace")),
        st.tuples(odd, values).map(lambda it: f"[vqgan.{json.dumps(it[0])}]\npath = {json.dumps(it[1])}\n"), texts)),
    "images": (use_image, st.tuples(st.integers(0, 99), edits)),
    "records": (use_records, record_texts),
    "curves": (use_curve, curves),
}  # fmt: skip
FEW = {"checkpoints, tensors": 60, "folders of VQGANs": 60, "checkpoints, bytes": 100}  # that take longer


@pytest.mark.timeout(100_000)
@pytest.mark.filterwarnings("ignore")  # of torch, on what it reads
@pytest.mark.parametrize("target", TARGETS)
def test_any_file_is_taken_or_answered(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    act, strategy = TARGETS[target]
    seen = fuzz(lambda value: act(tmp_path, value), strategy, FEW.get(target, 200))
    assert seen["taken"]
    assert len(seen) > 1, seen  # or the inputs were all of one kind
