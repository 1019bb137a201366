"""CLIPs by open_clip: name:tag, a file, a folder, a repository of the hub; small ones, in the real formats."""

import contextlib
import gzip
import hashlib
import json
import os
import re

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import script
from vqclip.config.resolve import resolve
from vqclip.errors import IntegrityError, ModelError
from vqclip.models import catalogue as cards
from vqclip.models import clip as openclip
from vqclip.models import download, install, load_clip, store
from vqclip.models.clip_shapes import sizes_in, sizes_of

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SHAPE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CONTEXT = install.InstallContext(lambda done, total: None, lambda text: None)
HUB_CONFIG = "/o/r/resolve/main/open_clip_config.json"
HUB_WEIGHTS = "/o/r/resolve/main/open_clip_model.safetensors"


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """Register a small architecture with open_clip, and its twin with QuickGELU; they have weights of one tag each."""
    folder = tmp_path_factory.mktemp("configs")
    cfg = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash", "url": "", "hf_hub": "o/r/"}
    tags = open_clip.pretrained._PRETRAINED
    for name, quick in (("small", False), ("small-quickgelu", True)):
        (folder / f"{name}.json").write_text(json.dumps(SHAPE | ({"quick_gelu": True} if quick else {})))
        tags[name] = (
            {"web": cfg, "old": cfg | {"quick_gelu": True}} if not quick else {"old": cfg | {"quick_gelu": True}}
        )
    open_clip.add_model_config(folder)
    yield "small"
    for name in ("small", "small-quickgelu"):
        del tags[name], open_clip.factory._MODEL_CONFIGS[name]
        (folder / f"{name}.json").unlink()
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    open_clip.factory._rescan_model_configs()


@pytest.fixture(scope="module")
def weights(architecture):
    torch.manual_seed(0)
    return open_clip.create_model(architecture, load_weights=False).state_dict()


@pytest.fixture
def web(server, weights, tmp_path):
    save_file(weights, tmp_path / "x.safetensors")
    server.files[HUB_WEIGHTS] = (tmp_path / "x.safetensors").read_bytes()
    server.files[HUB_CONFIG] = json.dumps({"model_cfg": SHAPE, "preprocess_cfg": {"mean": MEAN, "std": STD}}).encode()
    return server


def embed(clip):
    image = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    return clip.encode_image(image)


def expected(weights, architecture="small"):
    """Embed the same picture with open_clip alone, normalised by hand."""
    model = open_clip.create_model(architecture, load_weights=False).eval()
    model.load_state_dict(weights)
    image = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    out = model.encode_image((image - mean) / std)
    return (out / out.norm(dim=-1, keepdim=True)).detach()


def test_a_tag_is_pulled_and_sees_as_open_clip_does(web, weights):
    install.pull("clip", "small:web", CONTEXT)
    clip = load_clip("small:web", CPU)
    assert torch.allclose(embed(clip), expected(weights), atol=1e-6)
    assert clip.size == 32
    assert clip.mean.flatten().tolist() == pytest.approx(MEAN)
    assert store.read_record(store.folder("clip", "small:web"))["name"] == "small:web"


@pytest.mark.parametrize("file", ["open_clip_config.json", "tokenizer.json"])
def test_what_a_stopped_download_of_its_texts_left_can_be_removed(web, monkeypatch, file):
    siglip = {"model_cfg": SHAPE | {"text_cfg": SHAPE["text_cfg"] | {"hf_tokenizer_name": "o/t"}}}
    web.files["/o/r/resolve/main/open_clip_config.json"] = json.dumps(siglip).encode()

    def stop(remote, part, *rest, **options):
        if not remote.mirrors[0].endswith(file):
            return real_download(remote, part, *rest, **options)
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    real_download = install.download
    monkeypatch.setattr(install, "download", stop)
    with pytest.raises(KeyboardInterrupt):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    entry = cards.model_entry("clip", "hf-hub:o/r")
    install.remove(entry)
    assert [path.suffix for path in (store.root() / "parts").iterdir()] == [".lock"]
    with pytest.raises(ModelError):
        install.remove(entry)


@pytest.mark.full
def test_a_tag_with_pickled_weights_alone_is_kept_as_plain_tensors(web, weights, tmp_path):
    torch.save(weights, tmp_path / "x.bin")
    web.files["/o/r/resolve/main/open_clip_pytorch_model.bin"] = (tmp_path / "x.bin").read_bytes()
    del web.files[HUB_WEIGHTS]
    install.pull("clip", "small:web", CONTEXT)
    kept = load_file(store.folder("clip", "small:web") / "open_clip_model.safetensors")
    assert kept.keys() == weights.keys()
    assert torch.allclose(embed(load_clip("small:web", CPU)), expected(weights), atol=1e-6)


def test_the_right_activation_comes_with_the_name(web, weights):
    install.pull("clip", "small-quickgelu:old", CONTEXT)
    seen = embed(load_clip("small-quickgelu:old", CPU))
    assert torch.allclose(seen, expected(weights, "small-quickgelu"), atol=1e-6)
    assert not torch.allclose(seen, expected(weights, "small"), atol=1e-5)


def test_an_activation_that_does_not_fit_the_weights_is_an_error(web):
    with pytest.raises(ModelError, match="GELU") as refused:
        install.pull("clip", "small:old", CONTEXT)
    assert "small-quickgelu:old" in refused.value.hint
    assert web.asked == []
    assert store.installed("clip") == []


@pytest.mark.parametrize(
    ("name", "right"),
    [("ViT-B-32:openai", "ViT-B-32-quickgelu:openai"), ("ViT-L-14:openai", "ViT-L-14-quickgelu:openai")],
)
def test_the_common_mistake_with_openais_weights_is_told(name, right):
    with pytest.raises(ModelError) as refused:
        openclip.describe(*name.split(":"))
    assert right in refused.value.hint


@pytest.mark.parametrize("name", [name for name in cards.catalogue().models["clip"] if name != "tiny"])
def test_every_clip_of_the_catalogue_is_open_clips_own(name):
    known = openclip.describe(*name.split(":"))
    facts = cards.catalogue().models["clip"][name]
    places = {re.sub("@[^/]*/.*", "", mirror) for mirror in known["mirrors"]}
    assert {re.sub("@[^/]*/.*", "", mirror) for mirror in facts.mirrors} >= places
    pinned = re.compile(r"hf:[^@]+@[0-9a-f]{40}/.+\.safetensors")
    assert bool(pinned.fullmatch(facts.mirrors[0])) == bool(facts.sha256)
    assert set(known["preprocess_cfg"]) == {"mean", "std", "interpolation", "resize_mode"}


def test_normalisation_and_resizing_are_those_of_the_weights():
    assert openclip.describe("ViT-L-14", "laion2b_s32b_b82k")["preprocess_cfg"]["mean"] == (0.5, 0.5, 0.5)
    assert openclip.describe("ViT-B-32", "laion2b_s34b_b79k")["preprocess_cfg"]["mean"][0] == pytest.approx(0.48145466)
    assert openclip.describe("ViT-B-16-SigLIP", "webli")["preprocess_cfg"]["resize_mode"] == "squash"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [("ViT-B-23:openai", "no architecture", "ViT-B"), ("ViT-B-32:laion2b_s34b", "no weights", "laion2b_s34b_b79k")],
)
def test_unknown_names_are_answered_with_the_nearest(name, message, hint):
    with pytest.raises(ModelError, match=message) as refused:
        install.pull("clip", name, CONTEXT)
    assert hint in refused.value.hint
    assert refused.value.exit_code == 5


def test_a_repository_of_the_hub(web, weights):
    install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert torch.allclose(embed(load_clip("hf-hub:o/r", CPU)), expected(weights), atol=1e-6)


@pytest.mark.parametrize(
    "config", [b"{}", b"not json", b'{"model_cfg": 3}', b"[" * 10**5, b'{"model_cfg": {"text_cfg": 1}}']
)
def test_a_repository_with_a_wrong_config_is_refused(web, config):
    web.files[HUB_CONFIG] = config
    with pytest.raises(ModelError):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert store.installed("clip") == []


def test_a_picture_tower_may_not_be_an_address(web):
    for name in ("hf-hub:evil/model", "local-dir:/etc", "hf_hub:evil/model", ["x"]):
        shape = SHAPE | {"vision_cfg": SHAPE["vision_cfg"] | {"timm_model_name": name}}
        web.files[HUB_CONFIG] = json.dumps({"model_cfg": shape}).encode()
        with pytest.raises(ModelError, match="timm"):
            install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert {path for path, _ in web.asked} == {HUB_CONFIG}


@pytest.mark.parametrize("tower", ["text_cfg", "vision_cfg"])
def test_a_config_of_layers_without_end_is_refused(web, tower):
    shape = SHAPE | {tower: SHAPE[tower] | {"layers": 10**9}}
    web.files[HUB_CONFIG] = json.dumps({"model_cfg": shape}).encode()
    with pytest.raises(ModelError, match="layers"):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert {path for path, _ in web.asked} == {HUB_CONFIG}


def test_weights_of_another_shape_are_refused_and_not_installed(web, weights, tmp_path):
    save_file({key: value for key, value in weights.items() if key != "text_projection"}, tmp_path / "y.safetensors")
    web.files[HUB_WEIGHTS] = (tmp_path / "y.safetensors").read_bytes()
    with pytest.raises(ModelError, match="text_projection"):
        install.pull("clip", "small:web", CONTEXT)
    assert store.installed("clip") == []


# files


@pytest.mark.parametrize("kind", ["safetensors", "pt", "state_dict"])
def test_a_file_with_its_architecture(architecture, weights, tmp_path, kind):
    path = tmp_path / f"mine.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights} if kind == "state_dict" else weights, path)
    clip = load_clip(f"{path}@small-quickgelu", CPU)
    assert torch.allclose(embed(clip), expected(weights, "small-quickgelu"), atol=1e-6)


@pytest.fixture
def openais(architecture, weights, tmp_path):
    """Return weights as OpenAI published theirs: a program in TorchScript, in half floats."""
    model = open_clip.create_model("small-quickgelu", load_weights=False).eval()
    model.load_state_dict(weights)
    script(model, tmp_path / "ViT-B-32.pt")
    return tmp_path / "ViT-B-32.pt"


def test_openais_own_file(openais, weights):
    halved = {name: value.half().float() for name, value in weights.items()}
    clip = load_clip(f"{openais}@small-quickgelu", CPU)
    assert torch.allclose(embed(clip), expected(halved, "small-quickgelu"), atol=1e-6)
    install.import_file("clip", "mine", f"{openais}@small-quickgelu", CONTEXT)
    assert torch.equal(embed(load_clip("mine", CPU)), embed(clip))


@pytest.mark.full
def test_openais_own_file_is_pulled_where_the_hub_fails_and_held_to_its_hash(openais, web, tmp_path):
    data = openais.read_bytes()
    path = f"/clip/models/{hashlib.sha256(data).hexdigest()}/ViT-B-32.pt"
    web.files[path] = data
    (tmp_path / "catalogue.toml").write_text(
        f'[clip."small-quickgelu:old"]\nsha256 = "{"0" * 64}"\n'
        f'mirrors = ["hf:o/r@main/open_clip_model.safetensors", "{web.url}{path}"]\n'
    )
    cards.catalogue.cache_clear()
    install.pull("clip", "small-quickgelu:old", CONTEXT)
    assert store.read_record(store.folder("clip", "small-quickgelu:old"))["source"]["url"].endswith(path)
    install.remove(cards.model_entry("clip", "small-quickgelu:old"))
    install.import_file("clip", "small-quickgelu:old", str(openais), CONTEXT)
    install.remove(cards.model_entry("clip", "small-quickgelu:old"))
    openais.write_bytes(data + b" ")
    with pytest.raises(IntegrityError, match="not the catalogue's"):
        install.import_file("clip", "small-quickgelu:old", str(openais), CONTEXT)


def test_openais_own_file_says_its_shape_and_has_quickgelu(openais, weights):
    halved = {name: value.half().float() for name, value in weights.items()}
    assert torch.allclose(embed(load_clip(str(openais), CPU)), expected(halved, "small-quickgelu"), atol=1e-6)
    install.import_file("clip", "mine", str(openais), CONTEXT)
    assert torch.allclose(embed(load_clip("mine", CPU)), expected(halved, "small-quickgelu"), atol=1e-6)
    with pytest.raises(ModelError, match="QuickGELU") as refused:
        load_clip(f"{openais}@small", CPU)
    assert "@small-quickgelu" in refused.value.hint


def test_what_openai_keeps_among_its_tensors_says_that_they_are_openais(weights, tmp_path):
    """As torch.jit.load(...).state_dict() gives them, in a file of another kind."""
    numbers = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(1))
    torch.save(weights | numbers, tmp_path / "mine.pt")
    assert torch.allclose(
        embed(load_clip(str(tmp_path / "mine.pt"), CPU)), expected(weights, "small-quickgelu"), atol=1e-6
    )
    with pytest.raises(ModelError, match="QuickGELU"):
        load_clip(f"{tmp_path / 'mine.pt'}@small", CPU)


def test_weights_of_transformers_are_told_for_what_they_are(tmp_path):
    save_file({"vision_model.post_layernorm.bias": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="no CLIP") as refused:
        load_clip(str(tmp_path / "x.safetensors"), CPU)
    assert "transformers" in refused.value.hint


def test_a_file_whose_activation_is_open_asks_for_it(weights, tmp_path):
    save_file(weights, tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match="shape") as refused:
        load_clip(str(tmp_path / "mine.safetensors"), CPU)
    assert all(f"@{name}" in refused.value.hint for name in ("small", "small-quickgelu"))


def test_a_file_of_the_catalogues_is_known_by_its_hash(weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = f'[clip."small-quickgelu:old"]\nmirrors = ["https://example.com/x"]\nsha256 = "{digest}"\n'
    (tmp_path / "catalogue.toml").write_text(entry)
    cards.catalogue.cache_clear()
    assert torch.allclose(embed(load_clip(str(path), CPU)), expected(weights, "small-quickgelu"), atol=1e-6)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14-336", "RN50x4", "ViT-M-32-alt"])
def test_the_sizes_of_a_clip_show_in_its_tensors(name):
    with torch.device("meta"):
        tensors = open_clip.create_model(name, load_weights=False, device="meta").state_dict()
    config = open_clip.get_model_config(name)
    assert sizes_of(tensors) == sizes_in(config) != {}
    assert sizes_in(config | {"multimodal_cfg": {}}) == {}


def test_another_shape_than_the_named_one_is_refused_with_the_right_one(weights, tmp_path):
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="shape of small, not of ViT-B-32") as refused:
        load_clip(f"{tmp_path / 'x.safetensors'}@ViT-B-32", CPU)
    assert "@small" in refused.value.hint


def test_a_file_that_holds_no_clip_is_told_in_a_line(tmp_path):
    save_file({f"encoder.conv.{k}": torch.zeros(1) for k in range(50)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"no CLIP.*encoder\.conv") as refused:
        load_clip(f"{tmp_path / 'x.safetensors'}@ViT-B-32", CPU)
    assert len(refused.value.what) < 300


def test_an_architecture_whose_weights_differ_in_mean_and_std_asks_for_the_tag(tmp_path):
    with pytest.raises(ModelError, match="mean and std") as refused:
        openclip.describe("ViT-L-14")
    assert "@ViT-L-14:" in refused.value.hint
    entry = cards.model_entry("clip", f"{save_empty(tmp_path)}@ViT-L-14:laion2b_s32b_b82k")
    assert entry.architecture == "ViT-L-14:laion2b_s32b_b82k"


def save_empty(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_a_files_place_stays_a_path_in_the_settings(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    assert resolve("x", clips=("mine.safetensors@small",)).clips == (f"{tmp_path}/mine.safetensors@small",)


def test_a_malicious_file_is_named_and_its_payload_does_not_run(architecture, weights, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'it-ran'}",)

    torch.save({**weights, "x": Payload()}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="system"):
        load_clip(f"{tmp_path / 'x.pt'}@small", CPU)
    assert not (tmp_path / "it-ran").exists()


def test_a_cut_file_is_damaged(architecture, weights, tmp_path):
    save_file(weights, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-9])
    with pytest.raises(IntegrityError):
        load_clip(f"{tmp_path / 'x.safetensors'}@small", CPU)


def test_a_file_is_imported_under_open_clips_name_or_ones_own(architecture, weights, tmp_path):
    save_file(weights, tmp_path / "x.safetensors")
    install.import_file("clip", "small:web", str(tmp_path / "x.safetensors"), CONTEXT)
    assert torch.allclose(embed(load_clip("small:web", CPU)), expected(weights), atol=1e-6)
    install.import_file("clip", "mine", f"{tmp_path / 'x.safetensors'}@small-quickgelu", CONTEXT)
    assert torch.allclose(embed(load_clip("mine", CPU)), expected(weights, "small-quickgelu"), atol=1e-6)
    assert resolve("x", clips=("mine",)).clips == ("mine",)
    with pytest.raises(ModelError, match="shape"):
        install.import_file("clip", "other", str(tmp_path / "x.safetensors"), CONTEXT)


def test_a_folder(web):
    install.pull("clip", "small:web", CONTEXT)
    folder = store.folder("clip", "small:web")
    assert torch.equal(embed(load_clip(str(folder), CPU)), embed(load_clip("small:web", CPU)))


NO_NUMBER = {"visual.proj": torch.full((32, 16), torch.nan)}
WHOLE = {"text_projection": torch.ones(16, 16, dtype=torch.int8)}


@pytest.mark.full
@pytest.mark.parametrize(
    ("config", "changed", "message"),
    [
        ({"vision_cfg": {"width": 0}}, {}, "width"),
        ({"vision_cfg": {"patch_size": 0}}, {}, "patch_size"),
        ({"vision_cfg": {"patch_size": 16}}, {}, "patch_size"),
        ({"vision_cfg": {"image_size": 10**9}}, {}, "image_size"),
        ({"text_cfg": {"vocab_size": 1000}}, {}, "1,?000"),
        ({"text_cfg": {"layers": -1}}, {}, "layers"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "empty.gz"}}}, {}, "tokens"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "bomb.gz"}}}, {}, "bytes"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "missing.gz"}}}, {}, "missing.gz"),
        ({"text_cfg": {"tokenizer_kwargs": {"bpe_path": "pipe.gz"}}}, {}, "regular"),
        ({"text_cfg": {"hf_tokenizer_name": "x"}}, {}, "regular"),
        ({"preprocess_cfg": {"std": [0, 0, 0]}}, {}, "std"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5]}}, {}, "mean"),
        ({"preprocess_cfg": {"std": ["x", 1, 1]}}, {}, "std"),
        ({"vision_cfg": {"pool_type": "none of these"}}, {}, "does not load"),
        ({"vision_cfg": {"mlp_ratio": 0}}, {}, "mlp_ratio"),
        ({"vision_cfg": {"output_tokens": True}}, {}, "does not load"),
        ({}, {"text_projection": None, "visual.proj": None}, "shape|lacks|no CLIP"),
        ({}, {"visual.ln_pre.bias": None, "ln_final.bias": None}, "lacks"),
        ({}, {"surplus": torch.zeros(1)}, "surplus"),
        ({}, NO_NUMBER, "not all of visual.proj"),
        ({}, WHOLE, "whole numbers"),
    ],
)
def test_a_folder_whose_parts_do_not_fit_is_refused_and_says_why(weights, tmp_path, config, changed, message):
    made = {"embed_dim": 16} | {key: SHAPE[key] | config.get(key, {}) for key in ("vision_cfg", "text_cfg")}
    preprocess = {"preprocess_cfg": config["preprocess_cfg"]} if "preprocess_cfg" in config else {}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": made} | preprocess))
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(20_000_000)))
    os.mkfifo(tmp_path / "pipe.gz"), os.mkfifo(tmp_path / "tokenizer.json")
    kept = {name: value for name, value in (weights | changed).items() if value is not None}
    save_file(kept, tmp_path / "open_clip_model.safetensors")
    with pytest.raises((ModelError, IntegrityError), match=message) as refused:
        load_clip(str(tmp_path), CPU)
    assert "Error(s)" not in refused.value.what


# words


def test_how_much_of_a_text_is_read(web):
    install.pull("clip", "small:web", CONTEXT)
    clip = load_clip("small:web", CPU)
    assert clip.fits("heart " * 10)  # and a start and an end: 12
    assert not clip.fits("heart " * 11)


def siglip(folder):
    """Make the tokenizer files of a SigLIP: words that a real tokenizer library reads."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "red": 3, "heart": 4}, "<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


@pytest.fixture
def worded(web, tmp_path):
    """Return a hub whose CLIP has a tokenizer of transformers."""
    siglip(tmp_path)
    text = SHAPE["text_cfg"] | {"hf_tokenizer_name": "o/r", "tokenizer_kwargs": {"clean": "canonicalize"}}
    web.files[HUB_CONFIG] = json.dumps({"model_cfg": SHAPE | {"text_cfg": text}}).encode()
    for file in install.TOKENIZER:
        web.files[f"/o/r/resolve/main/{file}"] = (tmp_path / file).read_bytes()
    return web


def test_a_tokenizer_of_transformers_is_kept_with_the_weights(worded):
    pytest.importorskip("transformers")
    install.pull("clip", "hf-hub:o/r", CONTEXT)
    worded.asked.clear()
    clip = load_clip("hf-hub:o/r", CPU)
    assert clip.tokenizer(["a Red heart!"])[0, :4].tolist() == [2, 3, 4, 1]  # canonicalised: small, without marks
    assert clip.fits("heart " * 11)
    assert not clip.fits("heart " * 12)
    assert clip.encode_text(["red heart"]).shape == (1, 16)
    assert worded.asked == []


def test_a_tokenizer_may_not_bring_code(worded, monkeypatch):
    """The repository asks to be trusted, and names a class in a file of another one's: nobody asks for that file."""
    pytest.importorskip("transformers")
    config = json.loads(worded.files[HUB_CONFIG])
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] |= {"trust_remote_code": True, "code_revision": "main"}
    worded.files[HUB_CONFIG] = json.dumps(config).encode()
    words = json.loads(worded.files["/o/r/resolve/main/tokenizer_config.json"])
    words |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil/repo--tok.Evil", "evil/repo--tok.Evil"]}}
    worded.files["/o/r/resolve/main/tokenizer_config.json"] = json.dumps(words).encode()
    asked = []
    monkeypatch.setattr(
        "transformers.models.auto.tokenization_auto.get_class_from_dynamic_module", lambda *a, **k: asked.append(a)
    )
    with contextlib.suppress(ModelError, IntegrityError):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert asked == []
    assert not [path for path, _ in worded.asked if path.endswith(".py") or "evil" in path]


def test_without_transformers_it_is_said_what_to_install(worded, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs transformers") as refused:
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert "vqclip[siglip]" in refused.value.hint
    assert store.installed("clip") == []
    assert {path for path, _ in worded.asked} == {HUB_CONFIG}  # said before the weights, which are large, are fetched


# text towers that are transformers'

SMALL = {"pad_token_id": 0, "vocab_size": 8, "is_encoder_decoder": False}
BERT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "max_position_embeddings": 20, "hidden_act": "gelu"}  # fmt: skip
M2M = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16,
       "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_position_embeddings": 20,
       "is_encoder_decoder": True}  # fmt: skip
TEXT_TOWERS = {
    "roberta": (BERT, {"hf_pooler_type": "mean_pooler"}),
    "xlm-roberta": (BERT, {"hf_pooler_type": "mean_pooler"}),
    "m2m_100": (M2M, {"hf_pooler_type": "cls_pooler", "hf_proj_type": "linear"}),  # NLLB's
}
NAMED = {"hf_model_name": "words-base", "hf_tokenizer_name": "words-base", "context_length": 12}


@pytest.fixture(params=TEXT_TOWERS)
def translated(request, web, tmp_path):
    """Return a hub whose CLIP has a text tower of transformers, the CLIP by open_clip alone, and its folder."""
    pytest.importorskip("transformers")
    numbers, text = TEXT_TOWERS[request.param]
    here = tmp_path / "words-base"
    here.mkdir()
    siglip(here)
    (here / "config.json").write_text(json.dumps(SMALL | numbers | {"model_type": request.param}))
    for file in (*install.TOKENIZER, "config.json"):  # at an address without an owner, as xlm-roberta-base has
        web.files[f"/words-base/resolve/main/{file}"] = (here / file).read_bytes()
    shape = SHAPE | {"text_cfg": NAMED | text}
    web.files[HUB_CONFIG] = json.dumps({"model_cfg": shape}).encode()
    torch.manual_seed(1)
    local = {"hf_model_name": str(here), "hf_model_pretrained": False}
    model = open_clip.model.CustomTextCLIP(
        embed_dim=16, vision_cfg=SHAPE["vision_cfg"], text_cfg=NAMED | text | local
    ).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, here / "x.safetensors")
    web.files[HUB_WEIGHTS] = (here / "x.safetensors").read_bytes()
    return web, model, here


@pytest.mark.full
def test_a_text_tower_of_transformers_reads_as_open_clip_does(translated):
    web, model, _ = translated
    install.pull("clip", "hf-hub:o/r", CONTEXT)
    web.asked.clear()
    clip = load_clip("hf-hub:o/r", CPU)
    tokens = torch.tensor([[3, 4, 1] + [0] * 9])  # red heart, the end, nothing
    with torch.no_grad():
        said = model.encode_text(tokens)
    assert torch.allclose(clip.encode_text(["red heart"]), said / said.norm(dim=-1, keepdim=True), atol=1e-6)
    assert not torch.allclose(clip.encode_text(["red heart"]), clip.encode_text(["heart"]), atol=1e-3)
    assert web.asked == []


@pytest.mark.full
def test_a_text_tower_of_transformers_in_a_folder_of_ones_own(translated, tmp_path):
    web, _, here = translated
    (here / "x.safetensors").rename(here / "open_clip_model.safetensors")
    (here / "open_clip_config.json").write_bytes(web.files[HUB_CONFIG])
    assert load_clip(str(here), CPU).encode_text(["red heart"]).shape == (1, 16)
    assert web.asked == []


@pytest.mark.parametrize("translated", ["xlm-roberta"], indirect=True)
def test_a_text_towers_config_may_not_bring_code(translated, monkeypatch):
    """It names a class in a repository, and a kernel: transformers would fetch and run either."""
    web, _, here = translated
    evil = {"auto_map": {"AutoConfig": "evil/repo--c.Evil", "AutoModel": "evil/repo--c.Evil"},
            "attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}  # fmt: skip
    config = json.loads((here / "config.json").read_text()) | evil
    web.files["/words-base/resolve/main/config.json"] = json.dumps(config).encode()
    asked = []
    for place in ("configuration_auto", "auto_factory", "tokenization_auto"):
        monkeypatch.setattr(
            f"transformers.models.auto.{place}.get_class_from_dynamic_module", lambda *a, **k: asked.append(a)
        )
    with contextlib.suppress(ModelError, IntegrityError):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
        load_clip("hf-hub:o/r", CPU).encode_text(["red heart"])
    assert asked == []
    assert not [path for path, _ in web.asked if "evil" in path]


@pytest.mark.full
@pytest.mark.parametrize("translated", ["xlm-roberta"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"hidden_size": 26}, "does not load as this CLIP|does not load"),
    ],
)
def test_a_text_tower_of_another_kind_is_refused(translated, changes, message):
    web, _, here = translated
    config = json.loads((here / "config.json").read_text()) | changes
    web.files["/words-base/resolve/main/config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=message):
        install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert store.installed("clip") == []


def test_a_tokenizer_that_does_not_say_what_it_is_is_kept_with_what_does(worded):
    """As of CLIPA: bert-base-uncased, whose kind is in its config.json, at an address without an owner."""
    pytest.importorskip("transformers")
    config = json.loads(worded.files[HUB_CONFIG])
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "words-base"
    worded.files[HUB_CONFIG] = json.dumps(config).encode()
    worded.files["/words-base/resolve/main/tokenizer.json"] = worded.files["/o/r/resolve/main/tokenizer.json"]
    worded.files["/words-base/resolve/main/tokenizer_config.json"] = b'{"model_max_length": 512}'
    worded.files["/words-base/resolve/main/config.json"] = b'{"model_type": "bert"}'
    install.pull("clip", "hf-hub:o/r", CONTEXT)
    assert type(load_clip("hf-hub:o/r", CPU).tokenizer.tokenizer).__name__ == "BertTokenizer"


def test_every_tag_of_open_clips_has_a_place_to_come_from(monkeypatch):
    """But for those whose QuickGELU the architecture of that name has not, which `describe` refuses."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "transformers, as if installed")
    for architecture, tag in open_clip.list_pretrained():
        quick = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
        if quick == open_clip.get_model_config(architecture).get("quick_gelu", False):
            known = openclip.describe(architecture, tag)
            openclip.check_config(f"{architecture}:{tag}", known)
            assert known["mirrors"], (architecture, tag)
            assert all(download.resolve(file).startswith("https://") for file in known["mirrors"]), (architecture, tag)
