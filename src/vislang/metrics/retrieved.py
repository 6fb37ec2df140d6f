"""Ranked answers of a search: MRR, NDCG, MAP, recall, precision and accuracy at k.

Q: queries, k: answers that were fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


def reciprocal_rank(gains: Float[np.ndarray, " k"], k: int = 10) -> float:
    """1 / place of the first right answer among the first k; 0 without one.

    >>> reciprocal_rank(np.array([0.0, 1.0, 1.0]))
    0.5
    """
    hits = np.flatnonzero(np.asarray(gains)[:k] > 0)
    return 1 / (int(hits[0]) + 1) if len(hits) else 0.0


def ndcg(gains: Float[np.ndarray, " k"], right: Sequence[float], k: int = 10) -> float:
    """Σ gain / log2(place + 1) over the first k, divided by the best possible sum.

    The gain is the grade itself, as in trec_eval and BEIR. Järvelin and Kekäläinen 2002.

    Args:
        gains: grade of each fetched answer, 0 for a wrong one.
        right: grades of all right answers of the query.

    >>> ndcg(np.array([1.0, 0.0]), [1.0])
    1.0
    """
    gains = np.asarray(gains, np.float64)[:k]
    best = np.sort(np.asarray(right, np.float64))[::-1][:k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    whole = float(best @ discount[: len(best)])
    return float(gains @ discount[: len(gains)]) / whole if whole > 0 else 0.0


def average_precision(gains: Float[np.ndarray, " k"], right: int, k: int = 100) -> float:
    """Mean over right answers of the precision at their places, among the first k.

    Divided by min(k, number of right answers), as sentence-transformers does; trec_eval divides by
    all of them, which is the same wherever there are not more than k.

    >>> average_precision(np.array([1.0, 0.0, 1.0]), 2)
    0.8333333333333333
    """
    hit = np.asarray(gains)[:k] > 0
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(precision[hit].sum()) / min(k, right) if right else 0.0


def recall(gains: Float[np.ndarray, " k"], right: int, k: int) -> float:
    """Share of the right answers that are among the first k.

    >>> recall(np.array([1.0, 0.0, 1.0]), 4, 3)
    0.5
    """
    return float((np.asarray(gains)[:k] > 0).sum()) / right if right else 0.0


def search_measures(
    gains: Float[np.ndarray, "Q k"], right: Sequence[Sequence[float]]
) -> Mapping[str, Float[np.ndarray, " Q"]]:
    """Every measure of every query.

    Args:
        gains: grade of each fetched answer.
        right: grades (above 0) of all right answers of each query; none may be empty.
    """
    if any(not len(each) for each in right) or len(right) != len(gains):
        raise ValueError("each query needs at least one right answer")
    pairs = list(zip(gains, right))
    found = {
        "mrr@10": [reciprocal_rank(g) for g, _ in pairs],
        "ndcg@10": [ndcg(g, r) for g, r in pairs],
        "map@100": [average_precision(g, len(r)) for g, r in pairs],
    }
    for k in (1, 10, 100):
        found[f"recall@{k}"] = [recall(g, len(r), k) for g, r in pairs]
    for k in (10, 100):
        found[f"precision@{k}"] = [float((g[:k] > 0).sum()) / k for g, _ in pairs]
    for k in (1, 3, 5, 10, 100):
        found[f"accuracy@{k}"] = [float((g[:k] > 0).any()) for g, _ in pairs]
    return {name: np.array(values) for name, values in found.items()}
