"""Blockwise = whole: losses and every gradient, for any block size."""

import pytest
import torch
import torch.nn.functional as F

from objectives_cases import gradients, make, rows
from vislang.objectives import blockwise
from vislang.objectives.infonce import contrast
from vislang.objectives.siglip import pairwise_sigmoid


def _inputs(count):
    generator = torch.Generator().manual_seed(count)
    first, second = torch.randn(2, count, 5, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([30.0, -3.0], dtype=torch.float64)
    made = [F.normalize(first), F.normalize(second), numbers[0], numbers[1]]
    return [value.clone().requires_grad_() for value in made]


def _contrast(first, second, scale, bias, block):
    forth, back = contrast(first, second, scale, block)
    return 0.3 * forth + 0.9 * back + 0 * bias  # unequal weights: both ways are told apart


@pytest.mark.parametrize("loss", [_contrast, pairwise_sigmoid])
@pytest.mark.parametrize("count", [1, 7, 12])
@pytest.mark.parametrize("block", [1, 3, 5, 12])
def test_any_block_gives_the_whole_matrix_result(loss, count, block):
    inputs = _inputs(count)
    whole = loss(*inputs, count)
    expected = torch.autograd.grad(whole, inputs)
    found = loss(*inputs, block)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, inputs), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("loss", [_contrast, pairwise_sigmoid])
def test_blockwise_gradient_agrees_with_finite_differences(loss):
    torch.autograd.gradcheck(lambda *values: loss(*values, 3), _inputs(7))


@pytest.mark.parametrize("loss", [_contrast, pairwise_sigmoid])
def test_large_scales_in_single_precision(loss):
    """Shares that underflow are cut off, which must not be seen."""
    first, second, _, bias = _inputs(12)
    for other in (second, -first):
        inputs = [x.detach().float().requires_grad_() for x in (first, other, bias)]
        inputs.insert(2, torch.tensor(100.0, requires_grad=True))
        whole, found = loss(*inputs, 12), loss(*inputs, 5)
        torch.testing.assert_close(found, whole)
        expected = torch.autograd.grad(whole, inputs)
        for gradient, right in zip(torch.autograd.grad(found, inputs), expected):
            assert (gradient - right).norm() <= 1e-6 * right.norm()


@pytest.mark.parametrize("loss", [_contrast, pairwise_sigmoid])
def test_without_gradient_there_is_none(loss):
    with torch.no_grad():
        assert not loss(*_inputs(7), 3).requires_grad


@pytest.mark.parametrize("name", ["infonce", "siglip"])
def test_the_option_changes_no_number(name):
    whole, blocks = make(name), make(name, block=4)
    batch = rows(whole, 10)
    expected, found = gradients(whole, batch), gradients(blocks, batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["infonce", "siglip"])
def test_large_batches_never_make_the_matrix(name, monkeypatch):
    """No tensor of B x B numbers is allocated, in either direction."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(blockwise, "WHOLE", 64)
    monkeypatch.setattr(blockwise, "BLOCK", 16)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(value, torch.Tensor):
                    largest = max(largest, value.numel())
            return out

    objective = make(name, dtype=torch.float32)
    batch = rows(objective, 256, dtype=torch.float32)
    with Watch():
        objective(**batch).backward()
    assert largest <= 2 * 16 * 256
