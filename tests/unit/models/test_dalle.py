"""DalleBart against formulas written out in numpy, its two file layouts, and how codes are drawn."""

import dataclasses
import itertools
import json
import math

import msgpack
import numpy as np
import pytest
import torch

from tests.support.fakes import FakeVqgan
from vqclip.core.matmul import Linear, replace_linear
from vqclip.errors import ModelError
from vqclip.models.dalle import BATCH_SIZE, load_dalle
from vqclip.models.dalle.bart import GLU, PAD, Attention, DalleBart, DecoderLayer, EncoderLayer, Norm, Shape, mask
from vqclip.models.dalle.checkpoints import build, from_flax, shape_of
from vqclip.models.dalle.sampling import choose, sample, super_condition

SMALL = Shape(width=8, heads=2, hidden=12, encoder_layers=2, decoder_layers=2, vocabulary=20, rows=12, codes=11,
              text_length=6, image_length=9)  # fmt: skip
TEXT = torch.tensor([[0, 2, PAD, PAD], [0, 7, 9, 2]])


def randomized(module, seed=0):
    """Give every parameter other random values, norms' scales among them."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=gen) * 0.5)
    return module.eval()


@pytest.fixture(scope="module")
def model():
    return randomized(DalleBart(SMALL))


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the formulas, in numpy and double precision


def array(tensor):
    return tensor.detach().double().numpy()


def norm(x, bias, scale=1.0):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(x, at, weights, heads, allowed):
    """x [Q, d], at [T, d], allowed [Q, T]; one picture, head by head."""
    q, k, v, out = (array(weights[f"{name}_proj.weight"]) for name in ("q", "k", "v", "out"))
    part = x.shape[1] // heads
    result = np.zeros_like(x)
    for head in range(heads):
        rows = slice(head * part, (head + 1) * part)
        scores = (x @ q[rows].T) * part**-0.5 @ (at @ k[rows].T).T
        scores = np.where(allowed, scores, -np.inf)
        chances = np.exp(scores - scores.max(1, keepdims=True))
        result[:, rows] = chances / chances.sum(1, keepdims=True) @ (at @ v[rows].T)
    return result @ out.T


def gated(x, weights):
    ln0, ln1, fc0, fc1, fc2 = (array(weights[name]) for name in
                               ("ln0.bias", "ln1.bias", "fc0.weight", "fc1.weight", "fc2.weight"))  # fmt: skip
    x = norm(x, ln0)
    return norm(gelu(x @ fc0.T) * (x @ fc1.T), ln1) @ fc2.T


def below(weights, name):
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def scaled(x, weights, name):
    return norm(x, array(weights[f"{name}.bias"]), array(weights[f"{name}.weight"]))


def encoder_layer(x, weights, heads, allowed):
    at = norm(x, array(weights["pre_self_attn_layer_norm.bias"]))
    x = x + scaled(attend(at, at, below(weights, "self_attn"), heads, allowed), weights, "self_attn_layer_norm")
    return x + gated(x, below(weights, "glu"))


def decoder_layer(x, text, weights, heads, allowed):
    causal = np.tril(np.ones((len(x), len(x)), bool))
    at = norm(x, array(weights["pre_self_attn_layer_norm.bias"]))
    x = x + scaled(attend(at, at, below(weights, "self_attn"), heads, causal), weights, "self_attn_layer_norm")
    at = norm(x, array(weights["pre_encoder_attn_layer_norm.bias"]))
    seen = np.broadcast_to(allowed, (len(x), len(text)))
    result = attend(at, text, below(weights, "encoder_attn"), heads, seen)
    x = x + scaled(result, weights, "encoder_attn_layer_norm")
    return x + gated(x, below(weights, "glu"))


def start(tokens, weights):
    x = array(weights["embed_tokens.weight"])[tokens] + array(weights["embed_positions.weight"])[: len(tokens)]
    return scaled(x, weights, "layernorm_embedding")


def whole(model, tokens, before):
    """The logits of one picture, [T, rows]."""
    weights, heads = model.state_dict(), model.shape.heads
    allowed = (np.array(tokens) != PAD)[None]
    encoder, decoder = below(weights, "encoder"), below(weights, "decoder")
    x = start(tokens, encoder)
    for k in range(model.shape.encoder_layers):
        x = encoder_layer(x, below(encoder, f"layers.{k}"), heads, np.broadcast_to(allowed, (len(x), len(x))))
    text = norm(x, array(encoder["final_ln.bias"]))
    x = start(before, decoder)
    for k in range(model.shape.decoder_layers):
        x = decoder_layer(x, text, below(decoder, f"layers.{k}"), heads, allowed)
    return norm(x, array(decoder["final_ln.bias"])) @ array(decoder["lm_head.weight"]).T


# ---- each block


def test_a_norm_without_a_scale():
    block, x = randomized(Norm(8)), draw(3, 8)
    assert array(block(x)) == pytest.approx(norm(array(x), array(block.bias)), abs=1e-6)


def test_attention():
    block, x, at = randomized(Attention(8, 2)), draw(1, 3, 8), draw(1, 4, 8, seed=2)
    seen = torch.tensor([True, False, True, True])
    result = block(x, *block.keys_values(at), seen[None, None, None])
    allowed = np.broadcast_to(seen.numpy(), (3, 4))
    assert array(result[0]) == pytest.approx(
        attend(array(x[0]), array(at[0]), block.state_dict(), 2, allowed), abs=1e-6
    )


def test_a_gated_unit():
    block, x = randomized(GLU(8, 12)), draw(5, 8)
    assert array(block(x)) == pytest.approx(gated(array(x), block.state_dict()), abs=1e-5)


def test_an_encoder_layer():
    block, x = randomized(EncoderLayer(SMALL)), draw(1, 4, 8)
    result = block(x, mask(TEXT[:1]))
    allowed = np.broadcast_to([True, True, False, False], (4, 4))
    assert array(result[0]) == pytest.approx(encoder_layer(array(x[0]), block.state_dict(), 2, allowed), abs=1e-5)


def test_a_decoder_layer():
    block, x, text = randomized(DecoderLayer(SMALL)), draw(1, 5, 8), draw(1, 4, 8, seed=3)
    result = block(x, block.encoder_attn.keys_values(text), mask(TEXT[:1]), None, 0)
    allowed = np.array([[True, True, False, False]])
    wanted = decoder_layer(array(x[0]), array(text[0]), block.state_dict(), 2, allowed)
    assert array(result[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("row", [0, 1])
def test_the_whole(model, row):
    codes = torch.tensor([[3, 0, 10, 4, 4, 1, 2, 9, 5], [1, 1, 2, 3, 5, 8, 0, 10, 7]])
    before = [SMALL.codes, *codes[row, :-1].tolist()]  # the start is the number after the last code
    result = model(TEXT, codes)[row]
    assert array(result) == pytest.approx(whole(model, TEXT[row].tolist(), before), abs=1e-4)


def test_padding_changes_nothing(model):
    codes = torch.arange(9)[None]
    longer = torch.cat([TEXT[:1], torch.full((1, 2), PAD)], 1)
    assert torch.allclose(model(TEXT[:1, :2], codes), model(longer, codes), atol=1e-6)


def test_one_code_after_the_other_gives_what_all_at_once_do(model):
    codes = torch.tensor([[3, 0, 10, 4, 4, 1, 2, 9, 5]]).repeat(2, 1)
    before = torch.cat([torch.full((2, 1), SMALL.codes), codes[:, :-1]], 1)
    text, seen = model.keys_values(model.encode(TEXT)), mask(TEXT)
    past = torch.full((2, 2, 2, SMALL.heads, 9, 4), float("nan"))  # what is not yet there must not be looked at
    steps = [model.decode(before[:, k : k + 1], text, seen, past, k) for k in range(9)]
    assert torch.allclose(torch.cat(steps, 1), model(TEXT, codes), atol=1e-5)


def test_rows_that_share_a_text_see_what_rows_with_one_each_do(model):
    text, seen, codes = model.keys_values(model.encode(TEXT)), mask(TEXT), torch.arange(9).repeat(6, 1)
    own = torch.tensor([0, 0, 0, 1, 1, 1])
    each = model.decode(codes, [(keys[own], values[own]) for keys, values in text], seen[own])
    past = torch.zeros(2, 2, 6, SMALL.heads, 9, 4)
    shared = torch.cat([model.decode(codes[:, k : k + 1], text, seen, past, k) for k in range(9)], 1)
    assert torch.allclose(shared, each, atol=1e-5)


def test_frozen_products_change_no_code_and_no_name(model):
    frozen = randomized(DalleBart(SMALL))
    replace_linear(frozen)
    assert isinstance(frozen.decoder.layers[0].glu.fc0, Linear)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in frozen.state_dict().items())
    assert torch.equal(drawn(frozen, range(3))[-1], drawn(model, range(3))[-1])


# ---- drawing


def test_super_conditioning_by_hand():
    without, with_text = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert super_condition(torch.cat([without, with_text]), 10).tolist() == [[1 + 10 * 2, 2 + 10 * -3]]


def test_a_scale_of_one_is_the_text_alone():
    assert torch.equal(super_condition(torch.tensor([[5.0], [7.0]]), 1), torch.tensor([[7.0]]))


@pytest.mark.parametrize(
    ("chance", "code"), [(0.0, 2), (0.49, 2), (0.51, 0), (0.74, 0), (0.76, 3), (0.999999, 3)]
)  # fmt: skip
def test_the_chance_decides_among_the_likeliest(chance, code):
    logits = torch.tensor([[0.25, 0.05, 0.5, 0.2500001, 0.01]]).log() + 3
    logits[0, 0], logits[0, 3] = math.log(0.250001) + 3, math.log(0.25) + 3
    assert choose(logits, torch.tensor([chance], dtype=torch.float64), 3, 1.0).tolist() == [code]


def test_temperature_squares_chances_at_a_half():
    # 0.8 : 0.2 becomes 16 : 1
    logits = torch.tensor([[0.8, 0.2]]).log()
    picks = [choose(logits, torch.tensor([c], dtype=torch.float64), 2, 0.5).item() for c in (0.93, 0.95)]
    assert picks == [0, 1]


def test_one_code_is_the_likeliest():
    logits = draw(4, 30)
    assert torch.equal(choose(logits, torch.rand(4).double(), 1, 1.0), logits.argmax(1))


def test_more_codes_than_there_are_may_be_asked_for():
    assert choose(draw(2, 5), torch.rand(2).double(), 256, 1.0).shape == (2,)


def drawn(model, candidates, seed=4, **more):
    return list(sample(model, TEXT, candidates, seed=seed, **({"scale": 2.0} | more)))


def test_a_picture_comes_code_by_code(model):
    steps = drawn(model, [0, 1])
    assert [tuple(step.shape) for step in steps] == [(2, k) for k in range(1, 10)]
    assert all(torch.equal(longer[:, :-1], shorter) for shorter, longer in itertools.pairwise(steps))


def test_a_candidate_does_not_depend_on_the_others(model):
    together = drawn(model, range(BATCH_SIZE))[-1]
    assert torch.equal(drawn(model, [5])[-1][0], together[5])
    assert torch.equal(drawn(model, [6, 2])[-1], together[[6, 2]])


@pytest.mark.parametrize("neighbours_matter", [False, True])
@pytest.mark.parametrize("count", [1, 3, BATCH_SIZE])
def test_few_candidates_are_computed_among_few_only_where_that_changes_no_bit(monkeypatch, count, neighbours_matter):
    """What a product's last bits depend on; small networks seldom show it in their codes."""
    model = randomized(DalleBart(SMALL))
    replace_linear(model)
    seen, plain, layer = set(), DalleBart.decode, DecoderLayer.forward
    monkeypatch.setattr(DalleBart, "decode", lambda self, before, *rest: (
        seen.add(tuple(before.shape)), plain(self, before, *rest))[1])  # fmt: skip
    if neighbours_matter:
        monkeypatch.setattr(DecoderLayer, "forward", lambda self, x, *rest: layer(self, x, *rest) * (1 + len(x) * 1e-6))
    else:
        monkeypatch.setattr(DecoderLayer, "forward", lambda self, x, *rest: torch.round(layer(self, x, *rest)))
        model.decoder.lm_head.register_forward_hook(lambda module, given, out: torch.round(out))
    assert drawn(model, range(count))[-1].shape == (count, SMALL.image_length)
    rows = BATCH_SIZE if neighbours_matter else max(2, count)
    assert seen == {(2 * rows, 1)}


def test_another_seed_draws_another(model):
    assert not torch.equal(drawn(model, range(4), seed=4)[-1], drawn(model, range(4), seed=5)[-1])


def test_candidates_differ(model):
    assert len(drawn(model, range(BATCH_SIZE))[-1].unique(dim=0)) == BATCH_SIZE


def test_only_codes_are_drawn_never_the_start():
    model = randomized(DalleBart(dataclasses.replace(SMALL, rows=20)))
    model.decoder.lm_head.weight.data[11:] = 100  # rows of no code
    model.decoder.final_ln.bias.data.fill_(5)
    assert int(drawn(model, range(BATCH_SIZE))[-1].max()) < 11


def test_drawing_takes_the_likeliest_code_of_the_joined_logits(model):
    """Without a cache, and one picture at a time."""
    codes = []
    for _ in range(9):
        before = [SMALL.codes, *codes]
        without, with_text = (whole(model, row.tolist(), before)[-1, :11] for row in TEXT)
        codes.append(int((without + 3 * (with_text - without)).argmax()))
    assert drawn(model, [0], top_k=1, scale=3.0)[-1][0].tolist() == codes


# ---- files


def flax_names(model, *, scanned):
    """The same weights as dalle-mini keeps them: names, stacked layers, kernels turned over."""
    norms = {
        "encoder": ["pre_self_attn", "self_attn"],
        "decoder": ["pre_self_attn", "self_attn", "pre_encoder_attn", "encoder_attn"],
    }
    parts = {}
    for name, value in model.state_dict().items():
        half, *rest = name.split(".")
        data = value.numpy()
        if rest[0] == "lm_head":
            parts[("lm_head", "kernel")] = data.T
        elif rest[0] != "layers":
            leaf = "embedding" if "embed_" in rest[0] else {"weight": "scale"}.get(rest[1], rest[1])
            parts[("model", half, rest[0], leaf)] = data
        else:
            number, block, *inner = rest[1:]
            if block.endswith("layer_norm"):
                place = norms[half].index(block.removesuffix("_layer_norm"))
                names = (f"LayerNorm_{place}", {"weight": "scale"}.get(inner[0], inner[0]))
            elif block == "glu":
                names = (
                    {"fc": "Dense_", "ln": "LayerNorm_"}[inner[0][:2]] + inner[0][2],
                    "kernel" if inner[1] == "weight" else "bias",
                )
                names = ("GLU_0", *names)
            else:
                names = (f"FlaxBartAttention_{['self_attn', 'encoder_attn'].index(block)}", inner[0], "kernel")
            data = data.T if names[-1] == "kernel" else data
            stem = f"FlaxBart{half.capitalize()}Layer"
            key = ("model", half, "layers", f"{stem}s" if scanned else f"{stem}_{number}", *names)
            parts.setdefault(key, []).append(data) if scanned else parts.update({key: data})
    return {key: np.stack(value) if isinstance(value, list) else value for key, value in parts.items()}


def write_flax(path, parts):
    tree = {}
    for key, value in parts.items():
        node = tree
        for name in key[:-1]:
            node = node.setdefault(name, {})
        packed = msgpack.packb((list(value.shape), value.dtype.name, value.tobytes()))
        node[key[-1]] = msgpack.ExtType(1, packed)
    path.write_bytes(msgpack.packb(tree))


def write_words(folder, suffix=""):
    numbers = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "\u0120": 4, "a": 5, "b": 6, "\u0120a": 7}
    (folder / f"vocab{suffix}.json").write_text(json.dumps(numbers))
    (folder / f"merges{suffix}.txt").write_text("#version: 0.2\n\u0120 a\n")


def write_torch(folder, model):
    for half in ("encoder", "decoder"):
        tensors = {name.removeprefix(f"{half}."): value.half() for name, value in model.state_dict().items()
                   if name.startswith(half)}  # fmt: skip
        torch.save(tensors, folder / f"{half}_mini.pt")
    write_words(folder, "_mini")


CONFIG = json.dumps({"decoder_attention_heads": 2, "decoder_start_token_id": 11})
CPU = torch.device("cpu")


@pytest.mark.parametrize("scanned", [True, False])
def test_both_layouts_load_to_the_same(tmp_path, model, scanned):
    halved = {name: value.half().float() for name, value in model.state_dict().items()}
    twin = DalleBart(SMALL)
    twin.load_state_dict(halved)
    for name in ("torch", "flax"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(CONFIG)
    write_torch(tmp_path / "torch", twin)
    write_flax(tmp_path / "flax" / "flax_model.msgpack", flax_names(twin, scanned=scanned))
    write_words(tmp_path / "flax")
    for name in ("torch", "flax"):
        loaded = load_dalle(tmp_path / name, name=name, device=CPU)
        assert loaded.model.shape == SMALL
        assert isinstance(loaded.model.decoder.lm_head, Linear)  # what makes it fast
        result = loaded.model.state_dict()
        assert result.keys() == halved.keys()
        assert all(torch.equal(result[key], halved[key]) for key in halved)


def test_what_is_published_has_pixels_in_0_to_1_and_the_imagenet_vqgan(tmp_path, model):
    write_torch(tmp_path, model)
    (tmp_path / "config.json").write_text(CONFIG)
    loaded = load_dalle(tmp_path, name="mini", device=CPU)
    assert (loaded.pixels, loaded.vqgan) == ("unit", "imagenet_f16_16384")


def test_pixels_in_0_to_1_are_not_moved_there_once_more(tmp_path, model):
    """dalle-mini decodes by clip(raw, 0, 1); our VQGANs return raw / 2 + 0.5."""
    write_torch(tmp_path, model)
    (tmp_path / "config.json").write_text(CONFIG)
    loaded, vqgan = load_dalle(tmp_path, name="mini", device=CPU), FakeVqgan(n_embed=11)
    codes = torch.arange(9)[None]
    z = vqgan.codebook[codes].view(1, 3, 3, -1).permute(0, 3, 1, 2)
    raw = (vqgan.decode(z) - 0.5) * 2
    assert torch.allclose(loaded.decode(codes, vqgan), raw.clamp(0, 1), atol=1e-6)


def test_the_start_is_told_by_the_config_not_by_the_rows():
    """Mega has 16,416 rows and starts with 16,384."""
    model = DalleBart(dataclasses.replace(SMALL, rows=14))
    assert shape_of(model.state_dict(), {"decoder_start_token_id": 11, "heads": 2}).codes == 11


def test_the_start_of_megas_files_without_a_config_is_the_published_one():
    """Its rows after the start mean nothing; min-dalle's folder has no config.json."""
    with torch.device("meta"):
        model = DalleBart(dataclasses.replace(SMALL, rows=16416))
    assert shape_of(model.state_dict(), {}).codes == 16384


@pytest.mark.parametrize("codes", [12, 40, -1])
def test_a_start_that_is_no_row_is_refused(model, codes):
    with pytest.raises(ModelError, match="12 rows"):
        build(dict(model.state_dict()), {"heads": 2, "codes": codes})


def test_pictures_are_squares(tmp_path):
    write_torch(tmp_path, randomized(DalleBart(dataclasses.replace(SMALL, image_length=10))))
    (tmp_path / "config.json").write_text(CONFIG)
    with pytest.raises(ModelError, match="10 codes"):
        load_dalle(tmp_path, name="odd", device=CPU)


def test_a_vqgan_of_fewer_codes_is_refused(tmp_path, model):
    write_torch(tmp_path, model)
    (tmp_path / "config.json").write_text(CONFIG)
    with pytest.raises(ModelError, match="11 codes"):
        load_dalle(tmp_path, name="mini", device=CPU).decode(torch.arange(9)[None], FakeVqgan(n_embed=10))


@pytest.mark.parametrize(
    ("layers", "width", "heads", "hidden", "words", "rows", "millions"),
    [(12, 1024, 16, 2730, 50264, 16385, (202.7, 235.3)), (24, 2048, 32, 4096, 50272, 16416, (1110, 1478))],
)
def test_the_published_shapes_have_the_published_sizes(layers, width, heads, hidden, words, rows, millions):
    with torch.device("meta"):
        model = DalleBart(Shape(width, heads, hidden, layers, layers, words, rows, 16384))
    counted = [sum(p.numel() for p in half.parameters()) / 1e6 for half in (model.encoder, model.decoder)]
    assert counted == pytest.approx(millions, rel=1e-3)


def test_a_missing_tensor_is_named_though_scales_may_be_absent(model):
    tensors = dict(model.state_dict())
    del tensors["decoder.layers.1.self_attn_layer_norm.weight"]
    with pytest.raises(ModelError, match=r"lacks decoder\.layers\.1\.self_attn_layer_norm\.weight"):
        build(tensors, {"heads": 2})


def test_a_tensor_too_many_is_named(model):
    with pytest.raises(ModelError, match=r"has besides encoder\.extra"):
        build({**model.state_dict(), "encoder.extra": torch.zeros(1)}, {"heads": 2})


def test_half_a_model_is_refused(tmp_path, model):
    write_torch(tmp_path, model)
    (tmp_path / "decoder_mini.pt").unlink()
    with pytest.raises(ModelError, match=r"decoder\*\.pt"):
        load_dalle(tmp_path, name="half", device=CPU)


def test_heads_must_divide_the_width(model):
    with pytest.raises(ModelError, match="3 heads"):
        build(dict(model.state_dict()), {"heads": 3})


def test_words_of_another_model_are_refused(tmp_path, model):
    write_torch(tmp_path, model)
    (tmp_path / "config.json").write_text(CONFIG)
    (tmp_path / "vocab_mini.json").write_text(json.dumps({"<s>": 0, "</s>": 2, "<unk>": 3, "x": 20}))
    with pytest.raises(ModelError, match="another model's"):
        load_dalle(tmp_path, name="odd", device=CPU)


def test_an_unknown_flax_name_is_named(model):
    unknown = from_flax({"model.encoder.layers.FlaxBartEncoderLayers.Dense_7.weight": torch.zeros(2, 2, 2)})
    with pytest.raises(ModelError, match=r"encoder\.layers\.1\.Dense_7"):
        build(model.state_dict() | unknown, {"heads": 2})


@pytest.mark.parametrize("at", [1, 4, 9])
def test_the_benchmarks_other_samplers_see_the_same_logits(model, monkeypatch, at):
    """Their last codes' logits are those of the whole, at the codes that they drew."""
    from tests.benchmarks import dalle as benchmark

    for name in ("published", "uncached"):
        seen, codes = [], []

        def likeliest(logits, seen=seen, codes=codes):
            seen.append(logits)
            codes.append(logits.argmax(1, keepdim=True))
            return codes[-1]

        monkeypatch.setattr(benchmark, "drawn", likeliest)
        with torch.no_grad():
            benchmark.SAMPLERS[name](model, TEXT, 1, at)
        before = [SMALL.codes, *(int(code) for code in codes[:-1])]
        without, with_text = (whole(model, row.tolist(), before)[-1, :11] for row in TEXT)
        assert array(seen[-1][0]) == pytest.approx(without + 4 * (with_text - without), abs=1e-3)
