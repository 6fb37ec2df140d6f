"""How well a domain classifier tells domains apart, against the known truth.

n: rows, C: domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.cluster import ami, contingency

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

BINS = 15


@dataclass(frozen=True)
class Judged:
    """Scores of a domain classifier.

    Args:
        accuracy: share of rows whose most probable domain is the true one.
        confusion: [C, C], rows true, columns predicted, each row sums to 1; a domain without rows
            has zeros and keeps its place.
        ami: adjusted mutual information of truth and prediction.
        makeup: K -> [C, C]: of the K rows with the highest log-probability of the row's domain,
            the share that truly is of the column's; the diagonal is the purity at K.
        counts: [C], rows of each domain.
    """

    accuracy: float
    confusion: Float[np.ndarray, "C C"]
    ami: float
    makeup: dict[int, Float[np.ndarray, "C C"]]
    counts: Int64[np.ndarray, " C"]

    def purity(self, k: int) -> Float[np.ndarray, " C"]:
        """Of each domain, at one K."""
        return np.diag(self.makeup[k])


def judge_classifier(
    log_probs: Float[np.ndarray, "n C"],
    truth: Int64[np.ndarray, " n"],
    ks: Sequence[int] = (100, 1000, 10_000),
) -> Judged:
    """Accuracy, confusion, AMI and make-up of the top K (stable: of equal rows the earlier).

    A K beyond n is left out.
    """
    n, c = log_probs.shape
    predicted = log_probs.argmax(axis=1)
    counts = np.zeros((c, c))
    np.add.at(counts, (truth, predicted), 1)
    of_class = counts.sum(axis=1)
    makeup = {}
    for k in (k for k in ks if k <= n):
        table = np.zeros((c, c))
        for domain in range(c):
            best = np.argsort(-log_probs[:, domain], kind="stable")[:k]
            table[domain] = np.bincount(truth[best], minlength=c) / k
        makeup[k] = table
    return Judged(
        accuracy=float((predicted == truth).mean()),
        confusion=counts / np.maximum(of_class, 1)[:, None],
        ami=ami(contingency(truth, predicted)),
        makeup=makeup,
        counts=of_class.astype(np.int64),
    )


def calibration_error(logits: Float[np.ndarray, "n C"], labels: Int64[np.ndarray, " n"]) -> float:
    """Mean gap of confidence and accuracy over 15 equal bins of confidence, weighted by rows.

    Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.special import softmax

    p = softmax(logits, axis=1)
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    gap = np.abs(np.bincount(place, sure, BINS) - np.bincount(place, right, BINS))
    return float(gap.sum() / max(rows.sum(), 1))


def choose_temperature(logits: Float[np.ndarray, "n C"], labels: Int64[np.ndarray, " n"]) -> float:
    """The T > 0 that makes the cross-entropy of logits / T least; from 0.05 to 20."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_t: float) -> float:
        p = log_softmax(logits / np.exp(log_t), axis=1)
        return -float(p[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))  # type: ignore[attr-defined]
