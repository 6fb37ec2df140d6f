"""Balanced assignments by Sinkhorn and Knopp.  B: samples, K: prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

RANGE = 60.0  # e^-60 = 9e-27; divided by B K it is still far from float32's smallest, 1e-38


@torch.no_grad()
def assign(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Share every sample among prototypes so that all prototypes are used about equally.

        Q = diag(v) exp(S / ε) diag(u);   in turn each column's sum becomes B / K, each row's 1

    SwAV, Caron et al. 2020, arXiv:2006.09882, section 3.1 and appendix A. exp(S / ε - max) is
    made once and only the vectors u and v iterate; where S / ε spreads over more than 60, so
    that it would underflow, the same is done with logarithms. It never overflows.

    Args:
        scores: [B, K], cosines with the prototypes (or any logits).
        epsilon: how soft; small values approach one prototype a sample.
        iterations: rounds of (prototypes, samples), at least 1.

    Returns:
        [B, K], rows sum to 1. Without gradient, as in the paper.
    """
    logits = scores.detach() / epsilon
    logits -= logits.amax()
    if float(logits.amin()) > -RANGE:
        return _by_vectors(logits.exp_(), iterations)
    return _by_logarithms(logits, iterations)


def _by_vectors(weights: Tensor, iterations: int) -> Tensor:
    by_prototype, by_sample = weights[0], weights.new_ones(len(weights))
    share = weights.shape[0] / weights.shape[1]  # without it the vectors would drift apart
    for _ in range(iterations):
        by_prototype = share / (by_sample @ weights)
        by_sample = 1 / (weights @ by_prototype)
    return weights.mul_(by_sample[:, None]).mul_(by_prototype)


def _by_logarithms(logits: Tensor, iterations: int) -> Tensor:
    for _ in range(iterations):
        logits = logits - logits.logsumexp(0, keepdim=True)
        logits = logits - logits.logsumexp(1, keepdim=True)
    return logits.exp_()
