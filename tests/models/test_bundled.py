"""The bundled models: small, sound, and loaded the ordinary way."""

import json

import pytest
import torch
from PIL import Image, ImageDraw

from tests.benchmarks.judging import JUDGE
from vqclip.config.resolve import resolve
from vqclip.core.quantize import nearest, quantize
from vqclip.errors import IntegrityError
from vqclip.files import paths
from vqclip.files.images import to_tensor
from vqclip.models import load_clip, load_vqgan
from vqclip.models.catalogue import PACKAGE, ModelEntry, find
from vqclip.runs.api import generate, prepare, resume
from vqclip.runs.session import Session

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vqgan():
    return load_vqgan("tiny", CPU)


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny", CPU)


def disc(colour, ground, side=128):
    picture = Image.new("RGB", (side, side), ground)
    ImageDraw.Draw(picture).ellipse((24, 24, side - 24, side - 24), fill=colour)
    return to_tensor(picture)


def test_all_weights_in_the_repository_are_at_most_60_mb():
    files = [*PACKAGE.rglob("*.safetensors"), *JUDGE.rglob("*.safetensors")]
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) <= 60_000_000


def test_the_vqgan_has_the_public_checkpoints_keys_and_config_fields(vqgan):
    keys = set(vqgan.state_dict())
    assert {"quantize.embedding.weight", "quant_conv.weight", "post_quant_conv.bias", "encoder.conv_in.weight"} <= keys
    assert {"decoder.conv_out.weight", "decoder.up.0.block.0.norm1.weight"} <= keys
    config = json.loads((find("vqgan", "tiny").folder / "config.json").read_text())
    assert {"embed_dim", "n_embed", "ddconfig"} <= set(config)


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (64, 96)])
def test_the_vqgan_works_at_any_size(vqgan, size):
    width, height = size
    with torch.no_grad():
        z = vqgan.encode(torch.rand(1, 3, height, width))
        assert vqgan.decode(quantize(z, vqgan.codebook)).shape == (1, 3, height, width)
    assert z.shape[-2:] == (height // vqgan.f, width // vqgan.f)


def test_the_vqgan_rebuilds_a_plain_drawing_closely(vqgan):
    image = disc("red", "white")
    with torch.no_grad():
        back = vqgan.decode(quantize(vqgan.encode(image), vqgan.codebook)).clamp(0, 1)
    psnr = -10 * float((back - image).square().mean().log10())
    assert psnr > 20


def test_different_pictures_get_different_codes(vqgan):
    with torch.no_grad():
        red, blue = (nearest(vqgan.encode(disc(colour, "white")), vqgan.codebook) for colour in ("red", "blue"))
    assert (red != blue).float().mean() > 0.1


@pytest.mark.parametrize(
    ("colour", "ground", "right", "wrong"),
    [
        ("red", "white", "a red circle", "a blue circle"),
        ("blue", "white", "a blue circle", "a red circle"),
        ("yellow", "black", "a yellow circle on a black background", "a black circle on a yellow background"),
        ("green", "white", "a green circle", "a cat face"),
    ],
)
def test_clip_prefers_the_right_caption(clip, colour, ground, right, wrong):
    view = torch.nn.functional.interpolate(disc(colour, ground), (clip.size,) * 2, mode="bilinear", antialias=True)
    with torch.no_grad():
        scores = (clip.encode_image(view) @ clip.encode_text([right, wrong]).T)[0]
    assert scores[0] > scores[1]


def test_a_prompt_longer_than_the_context_is_cut_not_refused(clip):
    assert torch.isfinite(clip.encode_text(["a red heart " * 60])).all()


def test_nothing_of_the_models_is_left_trainable_or_in_training_mode(vqgan, clip):
    for model in (vqgan, clip):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["vqgan", "clip"])
def test_the_bundled_weights_have_the_catalogues_hash(kind):
    assert find(kind, "tiny").verified() == find(kind, "tiny").folder


def test_one_wrong_byte_in_the_weights_is_refused(tmp_path):
    entry = find("vqgan", "tiny")
    data = bytearray(entry.weights.read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError) as refused:
        ModelEntry("vqgan", "tiny", tmp_path, entry.facts).verified()
    assert refused.value.exit_code == 6


@pytest.mark.parametrize(("words", "fits"), [(29, True), (30, False)])  # and an article
def test_the_clip_knows_how_much_of_a_text_it_reads(clip, words, fits):
    assert clip.fits(" ".join(["heart"] * words)) is fits


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="one thread adds in one order")
def test_a_run_on_several_threads_is_the_same_to_the_last_bit():
    states = []
    for _ in range(2):
        session = prepare(resolve("a red heart", seed=3, size=(64, 64), steps=3, cutouts=4, coarse=0.0), "cpu")
        *_, last = session.steps()
        states.append(last.state.z)
    assert torch.equal(*states)


def test_each_model_is_hashed_once(tmp_path, monkeypatch):
    hashed, sha256 = [], paths.sha256
    monkeypatch.setattr(paths, "sha256", lambda path: (hashed.append(path), sha256(path))[1])
    paths._hash_again.cache_clear()
    few = {"size": (32, 32), "steps": 2, "cutouts": 1, "tries": 1, "coarse": 0.0}
    run = generate("a red heart", seed=3, runs=tmp_path, on_step=lambda step: True, **few).run
    weights = [find(kind, "tiny").weights for kind in ("vqgan", "clip")]
    assert sorted(hashed) == sorted(weights)
    hashed.clear()
    paths._hash_again.cache_clear()
    resume(run)
    assert sorted(hashed) == sorted(weights)


def test_dead_codes_change_a_run_little(monkeypatch):
    """As most of the codes of ImageNet's 16,384 are: drawn from -1/K..1/K, and never used."""
    settings = resolve("a red heart", "tiny", 1, precision="float32", init="smooth", size=(64, 64), steps=10, cutouts=4)
    session = Session.load(settings, "cpu")
    start = session.start()
    codebook = session.vqgan.codebook
    spread = 2 * torch.rand(15 * len(codebook), codebook.shape[1], generator=torch.Generator().manual_seed(0)) - 1
    crowded = torch.cat([codebook, spread / (16 * len(codebook))])
    without = [step.changed for step in session.steps(start)]
    monkeypatch.setattr(type(session.vqgan), "codebook", property(lambda vqgan: crowded))
    assert crowded.std(0).mean() < 0.3 * codebook.std(0).mean()
    changed = [step.changed for step in session.steps(start)]
    assert sum(changed) == pytest.approx(sum(without), rel=0.1)
