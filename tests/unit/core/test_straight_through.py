"""The two functions with a backward pass of their own, against Crowson's autograd.Functions."""

import torch

from tests.support.fakes import draw
from vqclip.core.straight_through import clamp_with_grad, replace_grad


class ReplaceGrad(torch.autograd.Function):
    """Crowson's, as published (without its sum_to_size: ours takes equal shapes)."""

    @staticmethod
    def forward(ctx, x_forward, x_backward):
        return x_forward.clone()

    @staticmethod
    def backward(ctx, grad_in):
        return None, grad_in


class ClampWithGrad(torch.autograd.Function):
    """Crowson's, as published."""

    @staticmethod
    def forward(ctx, x, low, high):
        ctx.low, ctx.high = low, high
        ctx.save_for_backward(x)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, grad_in):
        (x,) = ctx.saved_tensors
        return grad_in * (grad_in * (x - x.clamp(ctx.low, ctx.high)) >= 0), None, None


def gradient(function, x, upstream):
    """Return the gradient of `function` at x for a given gradient of its result."""
    x = x.clone().requires_grad_()
    function(x).backward(upstream)
    return x.grad


def test_replace_grad_returns_the_value_to_the_last_bit():
    value, other = draw(50, seed=1), draw(50, seed=2) * 1e20
    assert torch.equal(replace_grad(value, other), value)


def test_replace_grad_gives_the_value_no_gradient():
    value, other = draw(5, seed=1).requires_grad_(), draw(5, seed=2).requires_grad_()
    replace_grad(value, other).sum().backward()
    assert value.grad is None


def test_replace_grad_sends_the_gradient_where_crowsons_does():
    value, upstream = draw(5, seed=1), draw(5, seed=3)
    ours = gradient(lambda x: replace_grad(value, x), draw(5, seed=2), upstream)
    assert torch.equal(ours, gradient(lambda x: ReplaceGrad.apply(value, x), draw(5, seed=2), upstream))


def test_clamp_returns_what_clamp_returns():
    x = (draw(200, seed=4) * 2).requires_grad_()
    assert torch.equal(clamp_with_grad(x, 0, 1), x.clamp(0, 1))


def test_clamp_passes_the_gradients_that_crowsons_passes():
    x = torch.cat([draw(500, seed=5) * 2, torch.tensor([0.0, 1.0, 0.0, 1.0])])
    upstream = torch.cat([draw(500, seed=6), torch.tensor([1.0, 1.0, -1.0, -1.0])])
    ours = gradient(lambda x: clamp_with_grad(x, 0, 1), x, upstream)
    assert torch.equal(ours, gradient(lambda x: ClampWithGrad.apply(x, 0, 1), x, upstream))


def test_a_value_above_the_range_can_come_back():
    assert gradient(lambda x: clamp_with_grad(x, 0, 1), torch.tensor([1.5]), torch.tensor([2.0])).item() == 2


def test_a_value_above_the_range_is_not_pushed_further():
    assert gradient(lambda x: clamp_with_grad(x, 0, 1), torch.tensor([1.5]), torch.tensor([-2.0])).item() == 0


def test_a_value_below_the_range_can_come_back():
    assert gradient(lambda x: clamp_with_grad(x, 0, 1), torch.tensor([-0.5]), torch.tensor([-2.0])).item() == -2


def test_a_value_below_the_range_is_not_pushed_further():
    assert gradient(lambda x: clamp_with_grad(x, 0, 1), torch.tensor([-0.5]), torch.tensor([2.0])).item() == 0


def test_clamp_works_on_the_result_of_other_operations():
    x = torch.tensor([0.75], requires_grad=True)
    clamp_with_grad(x * 2, 0, 1).backward(torch.tensor([1.0]))  # 1.5 with a gradient that leads back
    assert x.grad.item() == 2


def test_clamp_works_on_a_tensor_without_gradient():
    assert torch.equal(clamp_with_grad(torch.tensor([-1.0, 0.5, 2.0]), 0, 1), torch.tensor([0.0, 0.5, 1.0]))


def test_clamp_works_where_gradients_are_off():
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    with torch.no_grad():
        assert torch.equal(clamp_with_grad(x, 0, 1), torch.tensor([0.0, 0.5, 1.0]))


def test_clamp_leaves_its_argument_as_it_was():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    clamp_with_grad(x, 0, 1).sum().backward()
    assert x.tolist() == [-1.0, 2.0]
