"""Cross-entropy with soft targets over many candidates.  B: rows, K: candidates.

With p the target and z the logits,  -Σ_k p_k ln softmax(z)_k = ln Σ exp z - Σ p z,  since Σ p = 1:
two numbers a row. Written so, nothing of [B, K] is made but softmax(z), which the backward pass
needs; with 65,536 candidates the passes over such matrices are the time that a loss takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def softmax_with_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(z) and ln Σ exp z of each row, [B, K] and [B].

    Without gradient the sum is read off the largest share, ln Σ exp z = max z - ln max p, instead
    of another pass of exponentials. (exp(z - sum) would be the wrong order: where most shares
    underflow, as with a temperature of 0.01, torch's exp takes ten times its usual time.)
    """
    share = logits.softmax(1)
    if logits.requires_grad and torch.is_grad_enabled():
        return share, logits.logsumexp(1)
    return share, logits.amax(1) - share.amax(1).log()


def row_products(left: Tensor, right: Tensor) -> Tensor:
    """Σ_k left_bk right_bk as [B], without a [B, K] of products."""
    return torch.bmm(left[:, None, :], right[:, :, None]).flatten()


def sum_and_product(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """ln Σ_k exp z_bk and Σ_k p_bk z_bk as [B] each, with gradient for both arguments.

    Args:
        logits: z, [B, K].
        target: p, [B, K], any weights.
    """
    return _SumAndProduct.apply(logits, target)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-Σ_k p_k ln softmax(z)_k for each row, [B].

    Args:
        logits: z, [B, K].
        target: p, [B, K], rows sum to 1.
    """
    log_sum, product = sum_and_product(logits, target)
    return log_sum - product


class _SumAndProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        share, log_sum = softmax_with_sum(logits)
        product = row_products(target, logits)
        ctx.save_for_backward(share, target, logits if ctx.needs_input_grad[1] else None)
        return log_sum, product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sum: Tensor, by_product: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        share, target, logits = ctx.saved_tensors
        by_product = by_product[:, None]
        d_logits = d_target = None
        if ctx.needs_input_grad[0]:
            d_logits = (share * by_sum[:, None]).addcmul_(target, by_product)
        if ctx.needs_input_grad[1]:
            d_target = logits * by_product
        return d_logits, d_target
