"""What happens if a later torch lacks one of the private interfaces: the public way, with the same results."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vqclip.core import matmul, torch_private
from vqclip.core.devices import choose_precision
from vqclip.models.fast import decoder
from vqclip.runs.memory import estimate

CPU = torch.device("cpu")


@pytest.mark.parametrize(("module", "name"), [("torch.no_such_module", "x"), ("torch", "no_such_name")])
def test_what_is_missing_is_none(module, name):
    assert torch_private.optional(module, name) is None


def test_this_torch_has_all_of_them():
    assert torch_private.onednn_linear() is not None
    assert torch_private.count_memory(torch.sin, (4,), CPU) is not None
    assert all(hasattr(torch.cpu, name) for name in torch_private.BFLOAT16_UNITS)
    assert hasattr(nn.init, torch_private.TRUNCATED_NORMAL)


def test_truncated_normals_are_drawn_by_another_torch_as_it_likes(monkeypatch):
    monkeypatch.delattr(nn.init, torch_private.TRUNCATED_NORMAL)
    with torch_private.no_truncated_normals():
        pass
    assert not hasattr(nn.init, torch_private.TRUNCATED_NORMAL)


def test_memory_of_the_forward_pass_alone_is_less():
    def network(x):
        return x.sin().cos().tanh()

    both, forward = (torch_private.count_memory(network, (1000,), CPU, backward=way) for way in (True, False))
    assert forward[1] < both[1]
    assert forward[0] == 4000


def test_without_onednns_operator_products_are_torchs_own(monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert torch_private.onednn_linear() is None
    monkeypatch.setattr(matmul, "FAST", True)
    monkeypatch.setattr(matmul, "ONEDNN", None)
    x, weight, bias = torch.rand(5, 7), torch.rand(9, 7), torch.rand(9)
    assert torch.equal(matmul.product(x, weight, bias), F.linear(x, weight, bias))


def test_without_a_question_for_its_units_a_cpu_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch_private, "BFLOAT16_UNITS", ("_no_such_question",))
    assert choose_precision("auto", CPU) == "float32"


@pytest.mark.parametrize("name", ["FakeTensor", "FakeTensorMode", "TorchDispatchMode", "tree_leaves"])
def test_without_tensors_without_contents_nothing_is_estimated(monkeypatch, name):
    monkeypatch.setattr(torch_private, name, None)
    assert torch_private.count_memory(torch.sin, (4,), CPU) is None


def test_without_an_estimate_a_run_begins_all_the_same(monkeypatch, networks):
    from vqclip.runs.api import prepare
    from vqclip.settings.schema import Settings

    monkeypatch.setattr(torch_private, "FakeTensorMode", None)
    monkeypatch.setattr("vqclip.runs.memory.count_memory", torch_private.count_memory)
    assert estimate(prepare(Settings(prompt="a red heart", size=(32, 32)), "cpu")) is None


def test_without_the_class_no_tensor_counts_as_fake_and_gradients_are_the_same(monkeypatch):
    norm, conv = nn.GroupNorm(2, 4).requires_grad_(False), nn.Conv2d(4, 3, 3, padding=1).requires_grad_(False)
    monkeypatch.setattr(decoder, "CACHED", 2 * 4 * 5)  # two rows at a time
    gradients = []
    for fake_class in (torch_private.FakeTensor, None):
        monkeypatch.setattr(torch_private, "FakeTensor", fake_class)
        x = torch.linspace(-1, 1, 4 * 6 * 5).view(1, 4, 6, 5).requires_grad_()
        decoder.norm_silu_conv(x, norm, conv).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert not torch_private.is_fake(x)
