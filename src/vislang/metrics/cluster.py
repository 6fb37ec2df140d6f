"""Clustering against known classes: AMI, NMI, ARI from the contingency table, and k-means.

R: classes, K: clusters, n: samples; table[r, k] counts the samples of class r in cluster k.
All three are 1 for a perfect match, whatever the clusters are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.intervals import RESAMPLES, Interval, from_draws

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int


def contingency(label: Int[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]) -> np.ndarray:
    """Counts [R, K]; row: class, column: cluster, both in order of value.

    >>> contingency([0, 0, 1], [5, 7, 7])
    array([[1, 1], [0, 1]])
    """
    _, row = np.unique(label, return_inverse=True)
    _, column = np.unique(cluster, return_inverse=True)
    if row.shape != column.shape or not len(row):
        raise ValueError(f"label and cluster must be alike and not empty, got {row.shape}")
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    return np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _mutual_information(table: np.ndarray) -> float:
    joint = table / table.sum()
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / outer[there])).sum())


def _expected_information(table: np.ndarray) -> float:
    """Mutual information of a random table with these margins (hypergeometric), in nats.

    Vinh, Epps & Bailey 2010, J. Mach. Learn. Res. 11, eq. 24a. Cells with equal margins share
    their term, so that a thousand classes cost what their distinct sizes cost.
    """
    from scipy.special import gammaln

    n = int(table.sum())
    a, a_times = np.unique(table.sum(1), return_counts=True)
    b, b_times = np.unique(table.sum(0), return_counts=True)
    factorial = gammaln(np.arange(n + 2, dtype=np.float64) + 1)  # log i!
    total = 0.0
    for row, times in zip(a.astype(np.int64), a_times):
        if row == 0:
            continue
        low = np.maximum(1, row + b - n).astype(np.int64)
        high = np.minimum(row, b).astype(np.int64)
        length = np.maximum(high - low + 1, 0)
        column = np.repeat(np.arange(len(b)), length)
        step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        cell, of = low[column] + step, b.astype(np.int64)[column]
        log_p = (
            factorial[row] + factorial[of] + factorial[n - row] + factorial[n - of] - factorial[n]
            - factorial[cell] - factorial[row - cell] - factorial[of - cell]
            - factorial[n - row - of + cell]
        )  # fmt: skip
        term = cell / n * np.log(n * cell / (row * of)) * np.exp(log_p)
        total += times * float((term * b_times[column]).sum())
    return total


def ami(table: Int[np.ndarray, "R K"]) -> float:
    """Adjusted mutual information: (MI - E[MI]) / (mean of both entropies - E[MI])."""
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    if table.shape[0] == table.shape[1] == 1 or table.shape[0] == table.shape[1] == table.sum():
        return 1.0
    expected = _expected_information(table)
    mean = (_entropy(table.sum(1)) + _entropy(table.sum(0))) / 2
    below = mean - expected
    # Away from zero, keeping the sign, as scikit-learn does.
    below = min(below, -np.finfo(float).eps) if below < 0 else max(below, np.finfo(float).eps)
    return (_mutual_information(table) - expected) / below


def nmi(table: Int[np.ndarray, "R K"]) -> float:
    """Normalised mutual information: MI / mean of both entropies."""
    mean = (_entropy(table.sum(1)) + _entropy(table.sum(0))) / 2
    return 1.0 if mean == 0 else _mutual_information(table) / mean


def ari(table: Int[np.ndarray, "R K"]) -> float:
    """Adjusted Rand index: agreement on pairs of samples, 0 in expectation for chance.

    Hubert & Arabie 1985, J. Classif. 2.
    """
    pairs = lambda counts: float((counts * (counts - 1.0) / 2).sum())  # noqa: E731
    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    every = pairs(np.array([table.sum()]))
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


AGREEMENTS: dict[str, Callable[[np.ndarray], float]] = {"ami": ami, "nmi": nmi, "ari": ari}


def agreements(
    label: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """AMI, NMI and ARI with bootstrap intervals over samples, the clustering held fixed.

    A resample of labelled points is a multinomial draw of the table's cells. Resampling a plug-in
    information is biased upwards, so the draws are moved to be centred on the estimate.
    """
    table = contingency(label, cluster)
    n = int(table.sum())
    rng = np.random.default_rng(seed)
    share = (table / n).ravel()
    values = {name: measure(table) for name, measure in AGREEMENTS.items()}
    draws: dict[str, list[float]] = {name: [] for name in AGREEMENTS}
    for _ in range(min(resamples, RESAMPLES)):
        again = rng.multinomial(n, share).reshape(table.shape)
        again = again[again.sum(1) > 0][:, again.sum(0) > 0]
        for name, measure in AGREEMENTS.items():
            draws[name].append(measure(again))
    return {
        name: from_draws(value, np.array(draws[name]).clip(max=1), n, centred=True, level=level)
        for name, value in values.items()
    }


def k_means(
    points: Float[np.ndarray, "n D"], k: int, *, starts: int = 5, steps: int = 100, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Cluster of each point: Lloyd's algorithm from the best of several k-means++ starts.

    One BLAS thread, so that the same seed gives the same clusters on any machine size.
    """
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if not 1 <= k <= len(points):
        raise ValueError(f"k must be 1..{len(points)} (the number of points), got {k}")
    # pyright takes n_init for a string because its default is one.
    solver = KMeans(k, n_init=starts, max_iter=steps, random_state=seed)  # type: ignore[arg-type]
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer distinct points than clusters (a collapsed model) is a result, not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solver.fit_predict(np.asarray(points, np.float32)).astype(np.int64)
