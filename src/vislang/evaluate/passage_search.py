"""Exact search of a stream of rows: the best k of each query, block after block.

Q: queries, n: rows of a block, D: width, k: answers kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

QUERIES = 1024  # searched together; with a block of 16,384 rows their scores take 64 MiB


class BestRows:
    """The k best rows of each query so far, by inner product; of equal ones the first.

    After the first blocks almost no score reaches a query's k-th best, so that a block costs its
    matrix product, one comparison a score, and a merge of the few that do.

    Args:
        asked: queries.
        k: rows kept of each.
    """

    def __init__(self, asked: Float[np.ndarray, "Q D"], k: int):
        self.asked, self.k, self.seen = np.asarray(asked, np.float32), k, 0
        self.score = np.empty((len(asked), 0), np.float32)
        self.where = np.empty((len(asked), 0), np.int64)
        self._room = np.empty(0, np.float32)

    def add(self, rows: Float[np.ndarray, "n D"]) -> None:
        """The next rows of the stream."""
        width = min(self.k, self.score.shape[1] + len(rows))
        score = np.empty((len(self.asked), width), np.float32)
        where = np.empty((len(self.asked), width), np.int64)
        for first in range(0, len(self.asked), QUERIES):
            mine = slice(first, first + QUERIES)
            fresh = self._products(self.asked[mine], rows)
            score[mine], where[mine] = self._merged(self.score[mine], self.where[mine], fresh)
        self.score, self.where = score, where
        self.seen += len(rows)

    def _products(self, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """asked @ rows.T in memory that is used again."""
        size = len(asked) * len(rows)
        if len(self._room) < size:
            self._room = np.empty(size, np.float32)
        out = self._room[:size].reshape(len(asked), len(rows))
        return np.matmul(asked, rows.astype(np.float32, copy=False).T, out=out)

    def _merged(
        self, score: np.ndarray, where: np.ndarray, fresh: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if score.shape[1] == self.k:  # only what beats the k-th: an equal one comes too late
            row, column = np.nonzero(fresh > score[:, -1:])
            place = np.arange(len(row)) - np.searchsorted(row, np.arange(len(fresh)))[row]
            few = int(place.max()) + 1 if len(place) else 0
            if not few:
                return score, where
            values = np.full((len(fresh), few), -np.inf, np.float32)
            at = np.full((len(fresh), few), np.iinfo(np.int64).max)
            values[row, place], at[row, place] = fresh[row, column], column + self.seen
        else:
            values = fresh
            at = np.broadcast_to(np.arange(self.seen, self.seen + fresh.shape[1]), fresh.shape)
        both, place = np.concatenate([score, values], 1), np.concatenate([where, at], 1)
        order = best_columns(both, place, self.k)
        return np.take_along_axis(both, order, axis=1), np.take_along_axis(place, order, axis=1)


def best_columns(
    score: Float[np.ndarray, "Q n"], place: Int[np.ndarray, "Q n"], k: int
) -> Int[np.ndarray, "Q k"]:
    """Columns of the k largest, best first; columns stand in the order of `place`.

    >>> best_columns(np.array([[1.0, 3.0, 3.0]]), np.array([[0, 1, 2]]), 2)
    array([[1, 2]])
    """
    if score.shape[1] > k:
        kth = np.partition(score, score.shape[1] - k, axis=1)[:, -k, None]
        above, level = score > kth, score == kth
        room = k - above.sum(1, keepdims=True)
        keep = above | (level & (np.cumsum(level, axis=1) <= room))
        columns = np.nonzero(keep)[1].reshape(len(score), k)
    else:
        columns = np.broadcast_to(np.arange(score.shape[1]), score.shape)
    chosen = np.take_along_axis(score, columns, axis=1)
    order = np.lexsort((np.take_along_axis(place, columns, axis=1), -chosen), axis=1)
    return np.take_along_axis(columns, order, axis=1)
