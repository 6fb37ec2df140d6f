"""Correlation of a model's similarities with people's scores, with intervals.

n: pairs.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


def pearson(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], independent: int | None = None
) -> Interval:
    """Product-moment correlation; where one side is constant it is 0.

    Fisher's interval: tanh(atanh r ± z √(1 / (n - 3))).

    Args:
        x, y: paired numbers.
        independent: pairs that are independent, where rows are repeated; n of the interval.

    >>> round(pearson(np.arange(5.0), np.arange(5.0)).value, 9)
    1.0
    """
    x, y = _checked(x, y)
    r = _product_moment(x, y)
    return _fisher(r, independent or len(x), 1.0, "fisher 95%")


def spearman(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], independent: int | None = None
) -> Interval:
    """Correlation of ranks; equal numbers share the mean of their ranks. Constant: 0.

    Interval: Fisher's with variance (1 + r²/2) / (n - 3), Bonett and Wright 2000, Psychometrika
    65, 23-28.

    >>> round(spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 8, 27, 20])).value, 3)
    0.8
    """
    from scipy.stats import rankdata

    x, y = _checked(x, y)
    r = _product_moment(rankdata(x), rankdata(y))
    return _fisher(r, independent or len(x), 1 + r * r / 2, "bonett-wright 95%")


def mean_of_sets(values: Sequence[Interval], weights: Sequence[float] | None = None) -> Interval:
    """(Weighted) mean over sets whose errors are independent.

    half-width = √(Σ (w half-width)²), w summing to 1; n is the number of pairs in all sets.

    >>> mean_of_sets([Interval(0.0, -1, 1, 5, ""), Interval(1.0, 0, 2, 15, "")], [5, 15]).value
    0.75
    """
    w = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    value = float(sum(share * v.value for share, v in zip(w, values)))
    below = math.sqrt(sum((s * (v.value - v.low)) ** 2 for s, v in zip(w, values)))
    above = math.sqrt(sum((s * (v.high - v.value)) ** 2 for s, v in zip(w, values)))
    total = sum(v.n for v in values)
    return Interval(value, value - below, value + above, total, "mean of sets, 95%")


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"a correlation needs two rows of n >= 2 numbers: {x.shape}, {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a correlation needs finite numbers")
    return x, y


def _product_moment(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return 0.0 if scale < 1e-300 else float(np.clip(x @ y / scale, -1, 1))


def _fisher(r: float, n: int, inflation: float, method: str) -> Interval:
    if n <= 3:
        return Interval(r, -1.0, 1.0, n, method)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(inflation / (n - 3))
    centre = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    return Interval(r, min(low, r), max(high, r), n, method)
