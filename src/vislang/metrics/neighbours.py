"""Exact nearest neighbours and votes by them, a block of queries and a block of rows at a time.

Q: queries, N: rows searched, D: width, k: neighbours, C: classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_SPARE = 8  # float32 candidates beyond k that float64 puts in order


def nearest(
    query: Float[np.ndarray, "Q D"],
    rows: Float[np.ndarray, "N D"],
    k: int,
    *,
    query_block: int = 1024,
    row_block: int = 8192,
) -> tuple[Int[np.ndarray, "Q k"], Float[np.ndarray, "Q k"]]:
    """Rows with the largest inner product, best first; equals by lower row number.

    Float32 BLAS finds k + 8 candidates, float64 orders them, so that neither the block sizes nor
    the number of threads show in the answer.

    Returns:
        row numbers and float64 similarities. With fewer than k rows: all of them.
    """
    query, rows = np.asarray(query), np.asarray(rows)
    if query.ndim != 2 or rows.ndim != 2 or query.shape[1] != rows.shape[1] or not len(rows):
        raise ValueError(f"query must be [Q, D], rows [N, D], got {query.shape} and {rows.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    k = min(k, len(rows))
    index = np.empty((len(query), k), np.int64)
    similarity = np.empty((len(query), k))
    for first in range(0, len(query), query_block):
        part = slice(first, first + query_block)
        found = _candidates(query[part], rows, min(k + _SPARE, len(rows)), row_block)
        index[part], similarity[part] = _ordered(query[part], rows, found, k)
    return index, similarity


def _candidates(query, rows, count: int, row_block: int) -> Int[np.ndarray, "q count"]:
    query = query.astype(np.float32, copy=False)
    best = np.empty((len(query), 0), np.float32)
    index = np.empty((len(query), 0), np.int64)
    for first in range(0, len(rows), row_block):
        score = query @ rows[first : first + row_block].astype(np.float32, copy=False).T
        take = min(count, score.shape[1])
        top = np.argpartition(-score, take - 1, axis=1)[:, :take]
        best = np.concatenate([best, np.take_along_axis(score, top, 1)], axis=1)
        index = np.concatenate([index, top + first], axis=1)
        if best.shape[1] > count:
            keep = np.argpartition(-best, count - 1, axis=1)[:, :count]
            best = np.take_along_axis(best, keep, 1)
            index = np.take_along_axis(index, keep, 1)
    return index


def _ordered(query, rows, index, k: int, block: int = 256):
    index = np.sort(index, axis=1)  # lower row numbers first among equals (the sort is stable)
    exact = np.empty(index.shape)
    for first in range(0, len(query), block):
        part = slice(first, first + block)
        candidate = rows[index[part]].astype(np.float64)
        exact[part] = np.einsum("qd,qcd->qc", query[part].astype(np.float64), candidate)
    order = np.argsort(-np.round(exact, 12), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1)


def votes(
    index: Int[np.ndarray, "Q k"],
    similarity: Float[np.ndarray, "Q k"],
    label: Int[np.ndarray, " N"],
    classes: int,
    temperature: float | None = 0.07,
) -> Float[np.ndarray, "Q C"]:
    """Sum of the neighbours' weights for each class.

        weight = exp(similarity / T), or 1 where T is None (plain k-NN)

    Wu et al. 2018, arXiv:1805.01978, eq. 7. Weights are taken relative to the nearest neighbour,
    which changes no order and cannot overflow.
    """
    if temperature is None:
        weight = np.ones(index.shape)
    else:
        weight = np.exp((similarity - similarity[:, :1]) / temperature)
    flat = np.arange(len(index))[:, None] * classes + np.asarray(label)[index]
    count = np.bincount(flat.ravel(), weight.ravel(), minlength=len(index) * classes)
    return count.reshape(len(index), classes)
