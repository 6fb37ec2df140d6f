"""Approximate nearest neighbours for tens of millions of rows: faiss's IVF and HNSW.

What the index says is computed again exactly; how much it misses is measured on a sample, and its
effort is doubled until the recall that was asked for is reached.

n: rows, D: width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.exact import Allowed, Nearest, cosines
from vislang.errors import UserError
from vislang.files import whole_file

if TYPE_CHECKING:
    from jaxtyping import Float32

KINDS = ("ivf", "hnsw")
QUERIES = 512  # rows whose exact neighbours measure the recall
_TRAINED = 64  # training rows a list
_MOST_FETCHED = 1024


class Index:
    """An approximate index over unit rows, tuned to a recall.

    Args:
        x: unit rows.
        kind: ivf or hnsw.
        recall: share of the true k nearest to be found; in (0, 1].
        k: how many nearest.
        path: where the index is kept, so that resumed work need not build it again.
        lists: of IVF; 0 takes 4 sqrt(n).
        seed: of the rows that train it and of those that measure it.

    Attributes:
        note: kind, lists, effort (nprobe or efSearch) and measured recall.
    """

    def __init__(
        self,
        x: Float32[np.ndarray, "n D"],
        kind: str = "ivf",
        recall: float = 0.99,
        k: int = 1,
        path: Path | None = None,
        lists: int = 0,
        seed: int = 0,
    ):
        import faiss

        if kind not in KINDS:
            raise UserError(f"The index must be exact, {' or '.join(KINDS)}; got {kind!r}.")
        if not 0 < recall <= 1:
            raise UserError(f"recall must be above 0 and at most 1, got {recall}.")
        self.x, self.kind, self.k = x, kind, k
        self.lists = max(1, min(lists or int(4 * np.sqrt(len(x))), len(x) // 40 or 1))
        if path is not None and path.exists():
            self.index: Any = faiss.read_index(str(path))
        else:
            self.index = self._build(seed)
            if path is not None:
                with whole_file(path) as file:
                    file.write(faiss.serialize_index(self.index).tobytes())
        self.note = self._tune(recall, seed)

    def _build(self, seed: int) -> Any:
        import faiss

        n, width = self.x.shape
        if self.kind == "hnsw":
            index: Any = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 128
        else:
            coarse: Any = faiss.IndexFlatIP(width)
            index = faiss.IndexIVFFlat(coarse, width, self.lists, faiss.METRIC_INNER_PRODUCT)
            index.own_fields = True
            coarse.this.disown()
            index.cp.seed, index.cp.niter = seed + 1234, 10
            rng = np.random.default_rng(seed)
            most = min(n, max(_TRAINED * self.lists, 1000))
            rows = np.sort(rng.choice(n, most, replace=False))
            index.cp.min_points_per_centroid = 1
            index.train(np.ascontiguousarray(self.x[rows]))
        for first in range(0, n, 65_536):
            index.add(np.ascontiguousarray(self.x[first : first + 65_536]))
        return index

    def _tune(self, goal: float, seed: int) -> dict[str, Any]:
        """Double the effort until the measured recall reaches the goal."""
        rng = np.random.default_rng([seed, 1])
        rows = np.sort(rng.choice(len(self.x), min(QUERIES, len(self.x)), replace=False))
        truth = _exact(self.x, rows, self.k)
        effort, most = (8, self.lists) if self.kind == "ivf" else (64, 8192)
        while True:
            effort = min(effort, most)
            self._set(effort)
            got = self._fetch(rows, self.k + 1)
            shares = [
                _share_found(self.x, row, true, near) for row, true, near in zip(rows, truth, got)
            ]
            recall = float(np.mean(shares))
            if recall >= goal or effort >= most:
                break
            effort *= 2
        name = "nprobe" if self.kind == "ivf" else "efSearch"
        return {"kind": self.kind, "lists": self.lists, name: effort, "recall": recall,
                "goal": goal, "queries": len(rows)}  # fmt: skip

    def _set(self, effort: int) -> None:
        if self.kind == "ivf":
            self.index.nprobe = effort
        else:
            self.index.hnsw.efSearch = effort

    def _fetch(self, rows: np.ndarray, count: int) -> np.ndarray:
        queries = np.ascontiguousarray(self.x[rows])
        if self.kind == "hnsw":
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
