"""Approximate nearest neighbours by faiss's HNSW, a graph that is walked from row to nearer row.

What the graph says is computed again exactly; how much it misses is measured on a sample, and its
effort (efSearch) is doubled until the recall that was asked for is reached.

n: rows, D: width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.exact import Allowed, Nearest, cosines
from vislang.curate.lists import check_recall, recall_note
from vislang.files import whole_file

if TYPE_CHECKING:
    from jaxtyping import Float32

QUERIES = 512  # rows whose exact neighbours measure the recall
_MOST_FETCHED = 1024
_MOST_EFFORT = 8192


class Graph:
    """A graph over unit rows, tuned to a recall.

    Args:
        x: unit rows.
        recall: share of the true k nearest to be found; in (0, 1].
        k: how many nearest.
        path: where the graph is kept, so that resumed work need not build it again.
        seed: of the rows that measure the recall.

    Attributes:
        note: kind, efSearch, and recall on a sample with its interval.
    """

    def __init__(
        self,
        x: Float32[np.ndarray, "n D"],
        recall: float = 0.99,
        k: int = 1,
        path: Path | None = None,
        seed: int = 0,
    ):
        import faiss

        check_recall(recall)
        self.x, self.k = x, k
        if path is not None and path.exists():
            self.index: Any = faiss.read_index(str(path))
        else:
            self.index = self._build()
            if path is not None:
                with whole_file(path) as file:
                    file.write(faiss.serialize_index(self.index).tobytes())
        self.note = self._tune(recall, seed)

    def _build(self) -> Any:
        import faiss

        index: Any = faiss.IndexHNSWFlat(self.x.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 128
        for first in range(0, len(self.x), 65_536):
            index.add(np.ascontiguousarray(self.x[first : first + 65_536]))
        return index

    def _tune(self, goal: float, seed: int) -> dict[str, Any]:
        """Double the effort until the measured recall reaches the goal."""
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.choice(len(self.x), min(QUERIES, len(self.x)), replace=False))
        truth = _exact(self.x, rows, self.k)
        effort = 64
        while True:
            self.index.hnsw.efSearch = effort
            got = self._fetch(rows, self.k + 1)
            shares = [
                _share_found(self.x, row, true, near) for row, true, near in zip(rows, truth, got)
            ]
            recall = float(np.mean(shares))
            if recall >= goal or effort >= _MOST_EFFORT:
                break
            effort *= 2
        note = {"kind": "hnsw", "efSearch": effort, "goal": goal, "queries": len(rows)}
        return note | recall_note(recall * len(rows), len(rows))

    def _fetch(self, rows: np.ndarray, count: int) -> np.ndarray:
        queries = np.ascontiguousarray(self.x[rows])
        self.index.hnsw.efSearch = max(self.index.hnsw.efSearch, count)
        return self.index.search(queries, min(count, len(self.x)))[1]

    def search(self, found: Nearest, rows: np.ndarray, allowed: Allowed) -> None:
        """Add the neighbours of `rows`; more are fetched for rows whose nearest are not allowed."""
        fetch = self.k + 4
        while len(rows):
            got = self._fetch(rows, fetch)
            row = np.repeat(rows, got.shape[1])
            column = got.ravel().astype(np.int64)
            keep = (column >= 0) & (column != row)
            row, column = row[keep], column[keep]
            keep = allowed(row, column)
            found.add(row[keep], column[keep], cosines(self.x, row[keep], column[keep]))
            if fetch >= min(_MOST_FETCHED, len(self.x)):
                return
            # A row is done when it is full, or when what came last lies below the threshold.
            last = cosines(self.x, rows, np.maximum(got[:, -1], 0))
            open_ = (found.index[rows, -1] < 0) & (last >= found.threshold) & (got[:, -1] >= 0)
            rows, fetch = rows[open_], fetch * 4


def _exact(x: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """The k nearest of a few rows by brute force [q, k]."""
    best_value = np.full((len(rows), 0), -np.inf, np.float32)
    best = np.zeros((len(rows), 0), np.int64)
    queries = x[rows]
    for first in range(0, len(x), 16_384):
        values = queries @ x[first : first + 16_384].T
        columns = np.arange(first, first + values.shape[1])
        values[rows[:, None] == columns] = -np.inf
        value = np.concatenate([best_value, values], axis=1)
        column = np.concatenate([best, np.broadcast_to(columns, values.shape)], axis=1)
        place = np.argsort(-value, axis=1, kind="stable")[:, :k]
        best_value = np.take_along_axis(value, place, 1)
        best = np.take_along_axis(column, place, 1)
    return best


def _share_found(x: np.ndarray, row: int, true: np.ndarray, fetched: np.ndarray) -> float:
    """Which part of the true nearest was fetched, or matched by something just as near."""
    there = fetched[(fetched >= 0) & (fetched != row)][: len(true)].astype(np.int64)
    if len(there) < len(true):
        return float(np.isin(true, there).mean())
    mine = cosines(x, np.full(len(there), row), there)
    values = cosines(x, np.full(len(true), row), true)
    return float((np.isin(true, there) | (values <= mine.min() + 1e-7)).mean())
