"""Every layout decodes as the package it comes from: compared with the outputs of the original code."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import LAYOUTS, picture, reference, tensors
from vqclip.core.quantize import lookup, nearest
from vqclip.errors import IntegrityError, ModelError
from vqclip.models import install, load_vqgan
from vqclip.models.catalogue import catalogue
from vqclip.models.vqgan import checkpoints
from vqclip.models.vqgan.architecture import infer
from vqclip.models.vqgan.checkpoints import read_checkpoint
from vqclip.models.vqgan.layouts import to_taming, unwrap
from vqclip.models.vqgan.taming import TamingVqgan, build, read

TOLERANCE = 2e-5  # largest difference of a pixel or a latent, in units of -1..1; the references have six decimals


def load(name, **changes):
    config, state = read(tensors(name), None)
    config |= {"pixels": "signed"} | changes  # which the references were computed in
    return build(name, config, state, state.items(), torch.device("cpu"))


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request):
    return load(request.param), reference(request.param)


def test_the_references_cover_every_layout_that_torch_writes():
    assert {to_taming(tensors(name))[0].name for name in LAYOUTS} == {"taming", "diffusers", "llamagen"}


@torch.no_grad()
def test_it_chooses_the_codes_that_the_original_chooses(pair):
    model, known = pair
    assert nearest(model.encode(picture(known["side"])), model.codebook).flatten().tolist() == known["codes"]


@torch.no_grad()
def test_it_decodes_to_the_picture_that_the_original_decodes_to(pair):
    model, known = pair
    side = known["side"] // model.f
    codes = torch.tensor(known["codes"]).view(1, side, side)
    decoded = model.decode(lookup(codes, model.codebook)) * 2 - 1
    assert (decoded.flatten()[::7] - torch.tensor(known["decoded_every_7th"])).abs().max() < TOLERANCE


@torch.no_grad()
def test_it_encodes_to_the_latent_that_the_original_encodes_to(pair):
    model, known = pair
    latent = model.quant_conv(model.encoder(picture(known["side"]) * 2 - 1))
    assert (latent.flatten() - torch.tensor(known["encoded"])).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_inferred_architecture_is_the_one_that_was_built(name):
    layout, state = to_taming(tensors(name))
    inferred = infer(state, cosine=layout.cosine)
    network = inferred["ddconfig"]
    assert [network[key] for key in ("ch", "ch_mult", "in_channels", "out_ch")] == [32, [1, 2], 3, 3]
    assert network["num_res_blocks"] == (2 if name == "diffusers_amused" else 1)
    assert network["attn_resolutions"] == ([] if name == "diffusers_amused" else [128])
    assert inferred["mid_attention"] == (name != "diffusers_amused")
    expected = {"llamagen": "cosine", "taming_gumbel": "gumbel"}.get(name, "nearest")
    assert (inferred["quantizer"], inferred["n_embed"], inferred["f"]) == (expected, 24, 2)


@torch.no_grad()
def test_a_gumbel_model_encodes_the_same_picture_the_same_way_twice():
    model = load("taming_gumbel")
    image = picture(16)
    assert torch.equal(model.encode(image), model.encode(image))


def test_a_cosine_codebook_has_unit_length():
    assert torch.allclose(load("llamagen").codebook.norm(dim=1), torch.ones(24))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_gradient_reaches_the_latent(name):
    model = load(name)
    z = model.codebook[:4].T.reshape(1, -1, 2, 2).detach().requires_grad_()
    model.decode(z).square().sum().backward()
    assert z.grad.abs().sum() > 0


# the range of its images

GREY = (51, 128, 204)  # what the decoder below paints, in 0..255


def painter(name):
    """Return a checkpoint whose decoder paints one colour, in the range 0..1."""
    weight = tensors(name)["decoder.conv_out.weight"]
    painted = torch.tensor(GREY) / 255
    return tensors(name) | {"decoder.conv_out.weight": torch.zeros_like(weight), "decoder.conv_out.bias": painted}


@pytest.mark.full
@pytest.mark.parametrize(
    ("layout", "stated", "pixels"),
    [
        ("diffusers_amused", "", "unit"),  # amused is trained on 0..1, and clipped to it
        ("diffusers_amused", "signed", "signed"),
        ("taming", "unit", "unit"),
        *((name, "", "signed") for name in LAYOUTS if name != "diffusers_amused"),
    ],
)
@torch.no_grad()
def test_a_model_is_shown_and_fed_the_range_that_it_was_trained_on(tmp_path, layout, stated, pixels):
    save_file(painter(layout), tmp_path / "a.safetensors")
    checkpoints.convert(tmp_path / "a.safetensors", tmp_path, pixels=stated)
    device = torch.device("cpu")
    for model in (
        checkpoints.load_folder(tmp_path, name="x", device=device),
        checkpoints.load_file(tmp_path / "a.safetensors", name="x", device=device, pixels=stated),
    ):
        fed = []
        model.encoder.register_forward_pre_hook(lambda module, given, fed=fed: fed.append(given[0]))
        model.encode(torch.tensor(GREY).view(1, 3, 1, 1).expand(1, 3, 8, 8) / 255)
        shown = model.decode(lookup(torch.zeros(1, 2, 2, dtype=torch.long), model.codebook))
        inside = torch.tensor(GREY) / 255
        assert torch.allclose(fed[0][0, :, 0, 0], inside if pixels == "unit" else inside * 2 - 1)
        assert torch.allclose(shown[0, :, 0, 0], inside if pixels == "unit" else inside / 2 + 0.5)


def test_the_catalogues_range_holds_for_a_model_that_was_installed_without_one(tmp_path):
    save_file(tensors("diffusers_amused"), tmp_path / "a.safetensors")
    config = checkpoints.convert(tmp_path / "a.safetensors", tmp_path)
    del config["pixels"]  # as vqclip 0.1 wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = checkpoints.load_folder(tmp_path, name="x", device=torch.device("cpu"), pixels="unit")
    assert (model.low, model.span) == (0, 1)
    assert catalogue().models["vqgan"]["amused_f16_8192"].pixels == "unit"


# what wraps and what is left out


@pytest.mark.parametrize("extra", ["loss.discriminator.main.0.weight", "colorize", "model_ema.decay", "quantize.used"])
def test_what_is_no_part_of_the_autoencoder_is_left_out(extra):
    plain = tensors()
    assert to_taming(plain | {extra: torch.zeros(1)})[1].keys() == plain.keys()


def test_a_transformers_first_stage_is_taken_out():
    plain = tensors()
    wrapped = {f"first_stage_model.{key}": value for key, value in plain.items()}
    wrapped |= {
        "transformer.tok_emb.weight": torch.zeros(2, 2),
        "cond_stage_model.encoder.conv_in.weight": torch.ones(1),
    }
    wrapped |= {"first_stage_model.loss.logvar": torch.zeros(1)}
    assert to_taming(unwrap(wrapped))[1].keys() == plain.keys()


def small(**dd):
    """Return the tensors of the smallest VQGAN, in half floats."""
    torch.manual_seed(0)
    base = {"double_z": False, "z_channels": 8, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    return TamingVqgan("x", {"embed_dim": 8, "n_embed": 32, "ddconfig": base | dd}).half().state_dict()


PLAIN = small()
HALF = {name: value * 0.5 for name, value in PLAIN.items()}
WRAPPED = {  # how people's checkpoints hold a network -> whether a note says that something was left
    **{f"prefix {p}": ({"state_dict": {p + name: value for name, value in PLAIN.items()}}, False) for p in (
        "", "module.", "_orig_mod.", "model.", "vqgan.", "generator.", "module.first_stage_model.", "net.g.", "ae_1.",
        "module._orig_mod.")},
    "inner wrappers": ({re.sub(r"^(encoder|decoder)\.", r"\1.module.", name): v for name, v in PLAIN.items()}, False),
    **{f"nest {n}": ({n: PLAIN, "epoch": 3}, False) for n in (
        "ema", "model_state_dict", "params_ema", "generator", "net", "g", "vae")},
    "deep nests": ({"a": {"b": {"state_dict": PLAIN}}}, False),
    "parts apart": ({p: {n.removeprefix(p + "."): v for n, v in PLAIN.items() if n.startswith(p + ".")} for p in (
        "encoder", "decoder", "quantize", "quant_conv", "post_quant_conv")}, False),
    "ema beside model": ({"model": HALF, "ema": PLAIN}, True),
    "ema before the state": ({"ema_state_dict": PLAIN, "state_dict": HALF}, True),
    "ema by prefix": ({**HALF, **{f"ema.{name}": value for name, value in PLAIN.items()}}, True),
    "averages without dots": (HALF | {f"model_ema.{name.replace('.', '')}": value for name, value in PLAIN.items()}
                              | {"model_ema.decay": torch.ones(1)}, True),
    "averages of codes": (PLAIN | {"quantize.embedding.cluster_size": torch.ones(32),
                                   "quantize.embedding.embed_avg": torch.zeros(32, 8)}, True),
    "discriminator": (PLAIN | {"discriminator.main.0.weight": torch.zeros(3)}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_a_network_is_found_in_what_people_wrap_it_in(tmp_path, name):
    wrapped, noted = WRAPPED[name]
    torch.save(wrapped, tmp_path / "x.pt")
    vqgan = checkpoints.load_file(tmp_path / "x.pt", name="x", device=torch.device("cpu"))
    assert all(torch.equal(value, PLAIN[key].float()) for key, value in vqgan.state_dict().items())
    assert bool(vqgan.notes) == noted


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_weights_of_eight_bits_are_read_as_any(tmp_path, ending):
    state = {name: value.to(torch.float8_e4m3fn) for name, value in PLAIN.items()}
    (torch.save if ending == "ckpt" else save_file)(state, tmp_path / f"x.{ending}")
    (tmp_path / "made").mkdir()
    checkpoints.convert(tmp_path / f"x.{ending}", tmp_path / "made")
    for vqgan in (load_vqgan(str(tmp_path / path), torch.device("cpu")) for path in (f"x.{ending}", "made")):
        assert all(torch.equal(value, state[key].float()) for key, value in vqgan.state_dict().items())


@pytest.mark.parametrize("channels", [{"in_channels": 1, "out_ch": 1}, {"in_channels": 4, "out_ch": 4}, {"out_ch": 1}])
def test_a_network_of_other_than_colour_images_is_refused(tmp_path, channels):
    torch.save(small(**channels), tmp_path / "x.pt")
    with pytest.raises(ModelError, match="RGB"):
        checkpoints.convert(tmp_path / "x.pt", tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_the_files_fault(tmp_path, bad):
    state = {name: value.clone() for name, value in PLAIN.items()}
    state["decoder.conv_out.weight"][0] = bad
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(infer(state)))
    for run in (
        lambda: checkpoints.load_folder(tmp_path, name="x", device=torch.device("cpu")),
        lambda: checkpoints.load_file(tmp_path / "model.safetensors", name="x", device=torch.device("cpu")),
        lambda: checkpoints.convert(tmp_path / "model.safetensors", tmp_path),
    ):
        with pytest.raises(IntegrityError, match=r"conv_out\.weight"):
            run()


@pytest.mark.parametrize(
    "path", ["checkpoints/last.ckpt", "vqvae/diffusion_pytorch_model.safetensors", "pytorch_model.bin"]
)
def test_a_trainers_folder_names_the_file_in_it(tmp_path, path):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(b"x")
    (tmp_path / path).with_name("epoch=1.ckpt").touch()
    with pytest.raises(ModelError) as refused:
        load_vqgan(str(tmp_path), torch.device("cpu"))
    assert path in refused.value.hint or path == "pytorch_model.bin"
    assert str(tmp_path) in refused.value.hint


@pytest.mark.parametrize(
    "paths",
    [["checkpoints/last.ckpt"], ["diffusion_pytorch_model.bin"],
     ["vqvae/diffusion_pytorch_model.bin", "vqvae/diffusion_pytorch_model.safetensors"]],
)  # fmt: skip
def test_a_folder_with_one_checkpoint_is_that(tmp_path, paths):
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (save_file if path.endswith("safetensors") else torch.save)(PLAIN, tmp_path / path)
        (tmp_path / path).with_name("config.json").write_text('{"_class_name": "VQModel"}')
    state = load_vqgan(str(tmp_path), torch.device("cpu")).state_dict()
    assert all(torch.equal(value, PLAIN[key].float()) for key, value in state.items())


# what is missing is named


def broken(tmp_path, state, name="x.safetensors"):
    save_file(state, tmp_path / name)
    with pytest.raises(ModelError) as refused:
        read_checkpoint(tmp_path / name)
    assert refused.value.exit_code == 5
    return f"{refused.value.what} / {refused.value.hint}"


def test_a_missing_tensor_is_named(tmp_path):
    state = tensors()
    del state["decoder.mid.block_1.conv1.weight"]
    assert "lacks decoder.mid.block_1.conv1.weight" in broken(tmp_path, state)


def test_a_missing_codebook_is_named(tmp_path):
    state = tensors()
    del state["quantize.embedding.weight"]
    message = broken(tmp_path, state)
    assert "quantize.embedding.weight" in message
    assert "continuous autoencoder" in message


def test_a_tensor_too_many_is_named(tmp_path):
    assert "has besides decoder.conv_y.weight" in broken(
        tmp_path, tensors() | {"decoder.conv_y.weight": torch.zeros(3)}
    )


def test_a_tensor_of_another_shape_is_named(tmp_path):
    state = tensors() | {"decoder.norm_out.weight": torch.zeros(7)}
    assert "other shapes decoder.norm_out.weight" in broken(tmp_path, state)


def test_a_clip_is_told_for_what_it_is(tmp_path):
    state = {"visual.conv1.weight": torch.zeros(2, 3, 8, 8), "token_embedding.weight": torch.zeros(4, 2)}
    assert "looks like a CLIP" in broken(tmp_path, state)


def test_a_decoder_alone_is_told_for_what_it_is(tmp_path):
    state = {key: value for key, value in tensors().items() if not key.startswith(("encoder", "quant"))}
    assert "decoder alone" in broken(tmp_path, state)


# byte counts of the real files, of weights.md's table: float32 tensors without losses

A = {"ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "z_channels": 256, "attn_resolutions": [16]}
GUMBEL = A | {"ch_mult": [1, 1, 2, 4], "attn_resolutions": [32]}
LDM4 = A | {"ch_mult": [1, 2, 4], "z_channels": 3, "attn_resolutions": []}


@pytest.mark.parametrize(
    ("dd", "codes", "dim", "quantizer", "size"),
    [
        (A, 1024, 256, "nearest", 288_566_796),
        (A, 16384, 256, "nearest", 304_295_436),
        (A, 8192, 256, "nearest", 295_906_828),
        (GUMBEL, 8192, 256, "gumbel", 275_983_884),
        (LDM4, 8192, 3, "nearest", 221_291_128),
    ],
)
def test_full_shape_models_have_the_published_number_of_bytes(dd, codes, dim, quantizer, size):
    fixed = {"double_z": False, "resolution": 256, "in_channels": 3, "out_ch": 3, "dropout": 0.0}
    config = {"embed_dim": dim, "n_embed": codes, "quantizer": quantizer, "ddconfig": fixed | dd}
    with torch.device("meta"):
        model = TamingVqgan("x", config)
    state = model.state_dict()
    assert sum(value.numel() * 4 for value in state.values()) == size
    inferred = infer(state)
    assert inferred == config | {"mid_attention": True, "f": model.f}


# a family of another network


class Blocks(torch.nn.Module):
    """A VQGAN without convolutions: a position of the latent is a block of 2 by 2 pixels."""

    f = 2

    def __init__(self, name, codebook):
        super().__init__()
        self.name = name
        self.register_buffer("codebook", codebook)

    def encode(self, image):
        return torch.nn.functional.pixel_unshuffle(image, 2)

    def decode(self, z_q):
        return torch.nn.functional.pixel_shuffle(z_q, 2)

    def lower(self, dtype):
        pass


@pytest.mark.parametrize("installed", [False, True])
def test_a_family_of_another_network_is_a_row_and_two_functions(monkeypatch, tmp_path, installed):
    def read(tensors, yaml, note):
        return {"f": 2, "n_embed": 5, "embed_dim": 12}, tensors

    def build(name, config, shapes, tensors, device):
        return Blocks(name, dict(tensors)["blocks.codes"].to(device))

    monkeypatch.setitem(checkpoints.FAMILIES, "blocks", checkpoints.Family(r"blocks\.", read, build))
    path = tmp_path / "blocks.safetensors"
    # names that begin like taming's too
    save_file({"blocks.codes": torch.eye(5, 12), "encoder.down.0.weight": torch.zeros(1)}, path)
    if installed:
        context = install.InstallContext(lambda done, total: None, lambda text: None)
        path = install.import_file("vqgan", "blocks", str(path), context).folder
    model = load_vqgan(str(path), torch.device("cpu"))
    image = picture(16)
    assert torch.equal(model.codebook, torch.eye(5, 12))
    assert torch.equal(model.decode(model.encode(image)), image)
