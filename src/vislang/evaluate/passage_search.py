"""Exact search of a stream of rows: the best k of each query, block after block.

Q: queries, n: rows of a block, D: width, k: answers kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

QUERIES, TILE = 1024, 1024  # queries and rows multiplied at once: 4 MiB of scores, in the cache


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
        first = 0
        while first < len(rows) and self.score.shape[1] < self.k:
            last = min(first + max(TILE, self.k), len(rows))
            self._fill(np.asarray(rows[first:last], np.float32))
            first = last
        if first < len(rows):
            self._improve(np.asarray(rows[first:], np.float32))

    def _fill(self, rows: np.ndarray) -> None:
        """Rows that come before each query has k."""
        width = min(self.k, self.score.shape[1] + len(rows))
        score = np.empty((len(self.asked), width), np.float32)
        where = np.empty((len(self.asked), width), np.int64)
        at = np.arange(self.seen, self.seen + len(rows))
        for first in range(0, len(self.asked), QUERIES):
            mine = slice(first, first + QUERIES)
            fresh = self.asked[mine] @ rows.T
            score[mine], where[mine] = self._merged(mine, fresh, np.broadcast_to(at, fresh.shape))
        self.score, self.where, self.seen = score, where, self.seen + len(rows)

    def _improve(self, rows: np.ndarray) -> None:
        """Later rows: only what beats the k-th counts, as an equal score comes too late."""
        room = np.empty((min(QUERIES, len(self.asked)), min(TILE, len(rows))), np.float32)
        for first in range(0, len(self.asked), QUERIES):
            mine = slice(first, first + QUERIES)
            asked, lowest = self.asked[mine], self.score[mine, -1:]
            found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
            for start in range(0, len(rows), TILE):
                some = rows[start : start + TILE]
                fresh = np.matmul(asked, some.T, out=room[: len(asked), : len(some)])
                row, column = np.divmod(np.flatnonzero(fresh > lowest), len(some))
                found.append((row, column + (self.seen + start), fresh[row, column]))
            row, at, score = (np.concatenate(part) for part in zip(*found))
            if len(row):
                values, places = _table(len(asked), row, at, score)
                self.score[mine], self.where[mine] = self._merged(mine, values, places)
        self.seen += len(rows)

    def _merged(
        self, mine: slice, score: np.ndarray, where: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k of those that the queries have and of later ones."""
        both = np.concatenate([self.score[mine], score], 1)
        place = np.concatenate([self.where[mine], where], 1)
        order = best_columns(both, place, self.k)
        return np.take_along_axis(both, order, axis=1), np.take_along_axis(place, order, axis=1)


def _table(
    n: int, row: np.ndarray, at: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, places) [n, most]: those of each row in the order given; -inf where it has fewer."""
    order = np.argsort(row, kind="stable")
    row = row[order]
    column = np.arange(len(row)) - np.searchsorted(row, np.arange(n))[row]
    most = int(column.max()) + 1
    values = np.full((n, most), -np.inf, np.float32)
    places = np.full((n, most), np.iinfo(np.int64).max)
    values[row, column], places[row, column] = score[order], at[order]
    return values, places


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
