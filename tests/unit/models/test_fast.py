"""The lean layers against torch's, taming's and open_clip's own, in float64 and float32, values and gradients."""

import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F
from taming.modules.diffusionmodules.model import Decoder
from torch import nn

from tests.support.fakes import draw
from vqclip.core import matmul as product
from vqclip.models.fast import clip as fast_clip
from vqclip.models.fast import decoder as fast_decoder

SHAPE = {"ch": 32, "out_ch": 3, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "attn_resolutions": [8], "in_channels": 3,
         "resolution": 32, "z_channels": 16}  # fmt: skip
QUICK, BLOCK = open_clip.transformer.QuickGELU, open_clip.transformer.ResidualAttentionBlock


def both(function, other, x, *, dtype=torch.float64):
    """Return the two functions' values and input gradients, of one random direction."""
    results = []
    for one in (function, other):
        given = x.to(dtype).clone().requires_grad_()
        out = one(given)
        out.backward(draw(*out.shape, seed=9).to(out))
        results.append((out.detach(), given.grad))
    return results


def assert_alike(results, tolerance):
    """Compare values and gradients relative to their norms."""
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()
        assert theirs.norm() > 0


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def memory(request):
    """Return one layout after the other."""
    return request.param


def frozen_norm():
    """Return a group norm with uneven gains and offsets."""
    norm = nn.GroupNorm(4, 12, eps=1e-6).requires_grad_(False).double()
    norm.weight.copy_(draw(12, seed=1) + 2)
    norm.bias.copy_(draw(12, seed=2))
    return norm


@pytest.fixture
def rows(monkeypatch):
    """Let the way back be made two rows at a time, and an odd one at the end."""
    monkeypatch.setattr(fast_decoder, "CACHED", 2 * 12 * 7)


def test_norm_silu_and_convolution(memory, rows):
    """In float64 they are torch's to the last digits, in either layout."""
    x, norm = draw(2, 12, 5, 7, seed=3).contiguous(memory_format=memory), frozen_norm()
    conv = nn.Conv2d(12, 8, 3, padding=1).requires_grad_(False).double()
    assert_alike(both(lambda x: fast_decoder.norm_silu_conv(x, norm, conv), lambda x: conv(F.silu(norm(x))), x), 1e-12)


def test_norm_silu_and_convolution_numerically(memory):
    """The gradient is that of finite differences."""
    x = draw(1, 4, 3, 2, seed=4).double().contiguous(memory_format=memory).requires_grad_()
    norm = nn.GroupNorm(2, 4).requires_grad_(False).double()
    conv = nn.Conv2d(4, 3, 3, padding=1).requires_grad_(False).double()
    assert torch.autograd.gradcheck(lambda x: fast_decoder.norm_silu_conv(x, norm, conv), (x,), atol=1e-5)


def test_the_gradient_that_comes_in_is_left_as_it_was(rows):
    """It may be another branch's too: that of a residual block is."""
    norm, conv = frozen_norm(), nn.Conv2d(12, 12, 1, bias=False).requires_grad_(False).double()
    x, grad = draw(1, 12, 5, 7, seed=3).double().requires_grad_(), draw(1, 12, 5, 7, seed=4).double()
    before = grad.clone()
    fast_decoder.norm_silu_conv(x, norm, conv).backward(grad)
    assert torch.equal(grad, before)


@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 0.02), (30.0, 0.02)])
def test_half_as_many_bits_hold_where_the_mean_is_far_from_0(rows, offset, tolerance):
    """Numbers a channel are float32: rounded, they would lose what the mean takes away."""
    x, norm = (draw(1, 12, 16, 16, seed=3) + offset).bfloat16(), frozen_norm()
    conv = nn.Conv2d(12, 8, 3, padding=1).requires_grad_(False).double()
    lower = copy.deepcopy(norm).bfloat16(), copy.deepcopy(conv).bfloat16()
    (_, ours), (_, theirs) = both(
        lambda x: fast_decoder.norm_silu_conv(x.bfloat16(), *lower).double(), lambda x: conv(F.silu(norm(x))), x
    )
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 8, 3, stride=2, padding=1)]
)
def test_convolution(conv, memory):
    """Values and gradients are torch's own."""
    conv = conv.double().requires_grad_(False)
    x = draw(2, 6, 9, 8, seed=5).contiguous(memory_format=memory)
    assert_alike(both(lambda x: fast_decoder.conv(x, conv), conv, x), 1e-12)


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(6, 4, 3, padding=1, stride=2), nn.Conv2d(6, 4, 2, padding=1), nn.Conv2d(6, 4, (3, 2), stride=(2, 3))],
)
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
def test_the_way_back_has_the_inputs_size_whatever_the_stride(conv, size):
    conv = conv.double().requires_grad_(False)
    assert_alike(both(lambda x: fast_decoder.conv(x, conv), conv, draw(1, 6, *size, seed=6)), 1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_enlarging_by_its_four_pixels_is_enlarging_and_convolving(bias, size, memory):
    """Values and gradients are those of the enlarged picture's convolution, at its borders too."""
    conv = nn.Conv2d(6, 5, 3, padding=1, bias=bias).double().requires_grad_(False)
    x = draw(2, 6, *size, seed=7).contiguous(memory_format=memory)
    plain = lambda x: conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # noqa: E731
    assert_alike(both(fast_decoder.Upsample(conv), plain, x), 1e-12)


def test_enlarging_numerically():
    """The gradient is that of finite differences."""
    layer = fast_decoder.Upsample(nn.Conv2d(2, 3, 3, padding=1).double().requires_grad_(False))
    assert torch.autograd.gradcheck(layer, (draw(1, 2, 3, 2, seed=8).double().requires_grad_(),))


@pytest.mark.parametrize("places", [0, fast_decoder.MANY_POSITIONS])
@pytest.mark.parametrize("lowered", [False, True])
def test_decoder_is_tamings(monkeypatch, lowered, places):
    """The walk through the decoder is its forward, to rounding; in bfloat16 within four parts in a hundred."""
    monkeypatch.setattr(fast_decoder, "MANY_POSITIONS", places)
    torch.manual_seed(0)
    theirs = Decoder(**SHAPE).requires_grad_(False).eval().to(memory_format=torch.channels_last)
    ours = copy.deepcopy(theirs).to(torch.bfloat16 if lowered else torch.float32)
    fast_decoder.make_fast(ours)
    first = (
        (lambda z: fast_decoder.decode(ours, z.bfloat16()).float())
        if lowered
        else (lambda z: fast_decoder.decode(ours, z))
    )
    assert_alike(both(first, theirs, draw(2, 16, 8, 6, seed=6), dtype=torch.float32), 4e-2 if lowered else 1e-5)


def test_decoder_keeps_a_third():
    """What waits for the way back is at most 0.4 of what taming's forward keeps."""
    decoder = Decoder(**SHAPE).requires_grad_(False)
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}

    def kept(function):
        held = {}

        def keep(tensor):
            if tensor.untyped_storage().data_ptr() not in own:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            function(draw(1, 16, 16, 16, seed=7).requires_grad_())
        return sum(storage.nbytes() for storage in held.values())

    assert kept(lambda z: fast_decoder.decode(decoder, z)) < 0.4 * kept(decoder)


def vision(kind):
    """Return a small frozen picture tower of open_clip's with running statistics that are no defaults, and its size."""
    torch.manual_seed(1)
    if kind == "resnet":
        layers = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 32, 8, image_size=64, width=16)
    elif kind == "timm":
        layers = open_clip.timm_model.TimmModel("tf_efficientnet_lite0", 32, image_size=64)
    else:
        kinds = {"quick": {"act_layer": QUICK}, "mean": {"pool_type": "avg"}, "early": {"final_ln_after_pool": True},
                 "scaled": {"ls_init_value": 0.3}, "seen": {"attentional_pool": True, "attn_pooler_queries": 5,
                                                            "attn_pooler_heads": 4},
                 "normed": {"act_layer": QUICK, "block_type": "custom", "scale_fc": True}}  # fmt: skip
        kinds["seen as wide"] = kinds["seen"] | {"output_dim": 64}
        shape = {"output_dim": 32, "act_layer": nn.GELU} | kinds.get(kind, {})
        layers = open_clip.transformer.VisionTransformer(32, 8, 64, 2, 4, 2.0, **shape)
    for name, parameter in layers.named_parameters():
        if name.endswith("bias"):  # many begin as zeros, which hide where they are left out
            nn.init.normal_(parameter, 0, 0.1)
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return layers.requires_grad_(False).eval()


@pytest.mark.parametrize("kind", ["resnet", "timm", "vit", "quick", "mean", "early", "scaled", "seen"])
def test_lean_towers(kind):
    """A tower made lean is the same function in float64, and has no norm of batches left."""
    theirs = vision(kind).double()
    ours = copy.deepcopy(theirs).float()
    fast_clip.make_fast(ours, 64 if kind in ("resnet", "timm") else 32, QUICK, BLOCK)
    assert not [layer for layer in ours.modules() if isinstance(layer, nn.BatchNorm2d | QUICK)]
    side = 64 if kind in ("resnet", "timm") else 32
    assert_alike(both(ours.double(), theirs, draw(2, 3, side, side, seed=8)), 1e-6)


@pytest.mark.parametrize("kind", ["seen as wide", "normed"])
def test_what_only_looks_like_a_known_block_stays_as_it_is(kind):
    """A pooler attends from its queries to the picture; a norm undoes what its layers are scaled by."""
    theirs = vision(kind).double()
    ours = copy.deepcopy(theirs)
    fast_clip.make_fast(ours, 32, QUICK, BLOCK)
    assert_alike(both(ours, theirs, draw(2, 3, 32, 32, seed=8)), 1e-6)


@pytest.mark.parametrize("kind", ["timm", "vit"])
def test_lowered_towers(kind):
    """In bfloat16 the result points where float32's does, within a few degrees."""
    theirs = vision(kind)
    ours = copy.deepcopy(theirs)
    side = 64 if kind == "timm" else 32
    fast_clip.make_fast(ours, side, QUICK, BLOCK)
    fast_clip.lower(ours, torch.bfloat16)
    x = draw(4, 3, side, side, seed=8)
    seen = ours(x.bfloat16()).float()
    assert torch.cosine_similarity(seen, theirs(x)).min() > 0.995


@pytest.mark.parametrize(("kind", "left_out"), [("vit", True), ("mean", False), ("seen", False)])
def test_only_what_is_looked_at_is_computed_of_the_last_block(kind, left_out):
    """Where it is the first place alone, the last layer of the block sees no other."""
    ours, shapes = vision(kind), []
    fast_clip.make_fast(ours, 32, QUICK, BLOCK)
    last = [layer for layer in ours.transformer.modules() if isinstance(layer, product.Linear)][-1]
    last.register_forward_hook(lambda layer, given, out: shapes.append(tuple(out.shape)))
    ours(draw(2, 3, 32, 32, seed=8))
    assert shapes == [(2, 1 if left_out else 17, 64)]


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def fast(request, monkeypatch):
    """Multiply in one way after the other, where the machine has both."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(product, "FAST", request.param)
    return request.param


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 5, 7), (2, 2, 3, 7)])
def test_products_with_frozen_matrices(fast, bias, shape):
    """Values and gradients are those of float64 to float32's rounding, whatever the axes and the layout."""
    layer = nn.Linear(7, 9, bias=bias).requires_grad_(False)
    exact = copy.deepcopy(layer).double()
    ours = product.Linear(layer)
    plain = lambda x: exact(x.double()).float()  # noqa: E731
    assert_alike(both(ours, plain, draw(*shape, seed=4), dtype=torch.float32), 1e-6)
    turned = lambda x: ours(x.transpose(0, -1).contiguous().transpose(0, -1))  # noqa: E731
    assert_alike(both(turned, plain, draw(*shape, seed=4), dtype=torch.float32), 1e-6)
    x = draw(*shape, seed=5).requires_grad_()
    ours(x).sum().backward()  # a gradient that is one number, read again and again
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(shape), atol=1e-6)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in layer.named_parameters()]


@pytest.mark.parametrize("bias", [torch.arange(18.0)[::2], torch.ones(1).expand(9)], ids=["strided", "expanded"])
def test_products_with_a_bias_that_is_a_view(fast, bias):
    """Its strides count."""
    x, weight = draw(5, 7, seed=1), draw(9, 7, seed=2)
    assert torch.allclose(product.product(x, weight, bias), F.linear(x, weight, bias), atol=1e-5)


def test_products_of_two_that_both_have_gradients(fast):
    """Values and gradients are those of float64 to float32's rounding."""
    a, b = draw(5, 7, seed=1).requires_grad_(), draw(3, 7, seed=2).requires_grad_()
    ours, (exact_a, exact_b) = product.times(a, b), (x.detach().double().requires_grad_() for x in (a, b))
    grad = draw(5, 3, seed=3)
    ours.backward(grad)
    (exact := exact_a @ exact_b.T).backward(grad.double())
    for got, wanted in ((ours, exact), (a.grad, exact_a.grad), (b.grad, exact_b.grad)):
        assert torch.allclose(got.double(), wanted, rtol=0, atol=1e-5)


def test_oneDNN_makes_the_products_of_float32_alone(monkeypatch):
    """Of other types, and on other devices, torch's own serve."""
    asked = []
    monkeypatch.setattr(product, "FAST", True)
    monkeypatch.setattr(product, "ONEDNN", lambda x, *rest: asked.append(x.dtype) or x)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        product.product(torch.ones(2, 3, dtype=dtype), torch.ones(3, 3, dtype=dtype))
    product.product(torch.ones(2, 3, device="meta"), torch.ones(3, 3, device="meta"))
    assert asked == [torch.float32]


def test_patches():
    """Windows side by side are one product; what does not fill a window is left out, as by the convolution."""
    conv = nn.Conv2d(3, 5, 4, stride=4).double().requires_grad_(False)
    assert_alike(both(fast_clip.Patches(conv), conv, draw(2, 3, 13, 9, seed=2)), 1e-12)


def test_attention_with_a_mask():
    """Attention is nn.MultiheadAttention's, with a mask too."""
    whole = nn.MultiheadAttention(16, 4, batch_first=True).double().requires_grad_(False).eval()
    mask = torch.zeros(6, 6, dtype=torch.float64).masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    lean = fast_clip.Attention(whole)
    assert_alike(
        both(
            lambda x: lean(x, x, x, attn_mask=mask)[0],
            lambda x: whole(x, x, x, need_weights=False, attn_mask=mask)[0],
            draw(2, 6, 16, seed=3),
        ),
        1e-12,
    )
