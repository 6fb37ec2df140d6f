"""Contrastive losses without the B x B matrix: a few rows of it at a time, forward and backward.

B: pairs, D: width, b: rows of a block.  Memory O(b B + B D) instead of O(B²).

Let Z = s·X·Yᵀ be the logits, r and c the log-sum-exps of its rows and columns.  The two
cross-entropies are  mean(r - diag Z)  and  mean(c - diag Z);  with g, h their incoming gradients

    dL/dZ = [g (exp(Z - r) - 1) + h (exp(Z - c) - 1)] / B     (the -1 on the diagonal only)

so the forward pass keeps r and c (2B numbers), and the backward pass makes each block of Z
again: four matrix products instead of three, every other operation inside the cache.
SigLIP's pairs do not see each other, so its gradient is made in the forward pass: three products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WHOLE = 2048  # up to so many rows the matrix (16 MB) is cheaper kept than made twice
BLOCK = 256


def rows_at_a_time(count: int, block: int) -> int:
    """The block size to use: `block`, or a choice by the batch size where it is 0."""
    return block or (count if count <= WHOLE else BLOCK)


def contrast_in_blocks(
    first: Tensor, second: Tensor, scale: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropies of own pairs both ways, exact, with gradients for all three tensors.

    Args:
        first, second: [B, D]; rows of the same number belong together.
        scale: scalar that multiplies their products.
        block: rows of logits held at a time; need not divide B.
    """
    return _Contrast.apply(first, second, scale, block)


def sigmoid_in_blocks(
    first: Tensor, second: Tensor, scale: Tensor, bias: Tensor, block: int
) -> Tensor:
    """SigLIP's loss, exact, with gradients for all four tensors."""
    return _PairwiseSigmoid.apply(first, second, scale, bias, block)


def softplus(values: Tensor) -> Tensor:
    """ln(1 + exp x), exact in float64 too (torch's own turns linear at 20, an error of 2e-9)."""
    return F.softplus(values, threshold=50)


def _least_exponent(scale: Tensor) -> float | None:
    """Where to cut exponents off, if at all. On a CPU exp takes ten times its usual time where the
    result underflows, and products with such numbers are as slow. Cosines in [-1, 1] reach it only
    at scales above 25; what is cut off is below 1e-24 of a row's sum."""
    if scale.device.type != "cpu" or float(scale) < 25:
        return None
    return math.log(torch.finfo(scale.dtype).tiny) + 30


def _exp(exponents: Tensor, least: float | None) -> Tensor:
    """exp in place, none of it underflowing."""
    return (exponents if least is None else exponents.clamp_(min=least)).exp_()


def _blocks(count: int, block: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, block):
        yield start, min(start + block, count)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, scale: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        count = len(first)
        scaled = first * scale
        row_lse = first.new_empty(count)
        column_max = first.new_full((count,), -torch.inf)
        column_sum = first.new_zeros(count)
        buffer, least = first.new_empty(min(block, count), count), _least_exponent(scale)
        for start, end in _blocks(count, block):
            logits = torch.mm(scaled[start:end], second.T, out=buffer[: end - start])
            row_lse[start:end] = logits.logsumexp(1)
            new_max = torch.maximum(column_max, logits.amax(0))
            column_sum.mul_((column_max - new_max).exp_())
            column_sum.add_(_exp(logits.sub_(new_max), least).sum(0))
            column_max = new_max
        column_lse = column_max + column_sum.log()
        own = (scaled * second).sum(1)
        ctx.save_for_backward(first, second, scale, row_lse, column_lse)
        ctx.block = block
        return (row_lse - own).mean(), (column_lse - own).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, forth: Tensor, back: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        first, second, scale, row_lse, column_lse = ctx.saved_tensors
        count, block = len(first), ctx.block
        scaled = first * scale
        d_first, d_second = torch.empty_like(first), torch.zeros_like(second)
        buffers, least = first.new_empty(2, min(block, count), count), _least_exponent(scale)
        for start, end in _blocks(count, block):
            size = end - start
            logits = torch.mm(scaled[start:end], second.T, out=buffers[0, :size])
            by_column = _exp(torch.sub(logits, column_lse, out=buffers[1, :size]), least)
            by_row = _exp(logits.sub_(row_lse[start:end, None]), least)
            slope = by_row.mul_(forth).add_(by_column.mul_(back))
            slope[:, start:end].diagonal().sub_(forth + back)
            slope.div_(count)
            torch.mm(slope, second, out=d_first[start:end])
            d_second.addmm_(slope.T, first[start:end])
        d_scale = (first * d_first).sum(dtype=torch.float64).to(scale.dtype)
        return d_first.mul_(scale), d_second.mul_(scale), d_scale, None


class _PairwiseSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, scale: Tensor, bias: Tensor, block: int
    ) -> Tensor:
        count = len(first)
        wanted = any(ctx.needs_input_grad)
        scaled = first * scale
        d_first, d_second = torch.empty_like(first), torch.zeros_like(second)
        d_bias = torch.zeros((), dtype=torch.float64, device=first.device)
        total = torch.zeros_like(d_bias)
        buffer = first.new_empty(min(block, count), count)
        for start, end in _blocks(count, block):
            logits = torch.mm(scaled[start:end], second.T, out=buffer[: end - start]).add_(bias)
            own = logits[:, start:end].diagonal()
            own.neg_()  # -ln σ(x) of the own pair is softplus(-x)
            total += softplus(logits).sum(dtype=torch.float64)
            if not wanted:
                continue
            slope = logits.sigmoid_()
            own.neg_()
            d_bias += slope.sum(dtype=torch.float64)
            torch.mm(slope, second, out=d_first[start:end])
            d_second.addmm_(slope.T, first[start:end])
        if wanted:
            d_scale = (first * d_first).sum(dtype=torch.float64) / count
            d_first.mul_(scale / count)
            d_second.mul_(scale / count)
            ctx.save_for_backward(
                d_first, d_second, d_scale.to(scale.dtype), (d_bias / count).to(bias.dtype)
            )
        return (total / count).to(first.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return (*(incoming * saved for saved in ctx.saved_tensors), None)
