"""Approximate nearest neighbours for millions of rows: a row is compared with the lists near it.

Spherical k-means divides the rows into lists. Row x of the list of centroid c looks into the list
of centroid d where it lies no further than `margin` from the plane between the two,

    (x·c - x·d) / ‖c - d‖ <= margin,

for a row of the other list is at least as far from x as that plane. Both sides of a pair learn of
it, so a pair is missed only if neither row looks into the list of the other. The margin is the
least that reaches the recall on a sample. Against a fixed number of lists a row (IVF's nprobe)
that is a sixth to a third of the comparisons at a recall of 0.99. What is compared is compared
exactly (`exact.compare`).

n: rows, D: width, L: lists, q: rows of the sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.curate.exact import BLOCK, Allowed, Bound, Nearest, compare, offer_best
from vislang.errors import UserError
from vislang.files import whole_file
from vislang.metrics.intervals import wilson

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

Blocks = tuple[np.ndarray, np.ndarray]  # rows, and those that they are compared with
QUERIES = 2048  # rows whose exact neighbours measure the recall
_TRAINED = 48  # training rows a list
_ROUNDS = 8  # of k-means
_PART = 65_536  # rows whose lists are looked up at a time
_PRODUCTS = 1 << 20  # at a time: 4 MB, near to what the second-level caches hold


class Lists:
    """Lists of unit rows, and how far from its own list a row looks.

    Args:
        x: unit rows.
        bound: of these rows (`make_bound`).
        recall: share of the true k nearest allowed rows to be found; in (0, 1].
        k: how many nearest.
        threshold: least similarity of a neighbour.
        allowed: which pairs may be taken; None allows all.
        path: an .npz that keeps the lists, so that resumed work finds the same.
        lists: how many; 0 takes 4 sqrt(n).
        seed: of the rows that train the lists and of those that measure the recall.

    Attributes:
        note: kind, lists, margin (in the lengths of unit rows), recall on the sample with its
            interval, and `share`: of all rows, those that a row is compared with on its own
            account; exact search compares it with half of them.
    """

    def __init__(
        self,
        x: Float32[np.ndarray, "n D"],
        bound: Bound,
        recall: float = 0.99,
        k: int = 1,
        threshold: float = -1.0,
        allowed: Allowed | None = None,
        path: Path | None = None,
        lists: int = 0,
        seed: int = 0,
    ):
        self.x, self.bound = x, bound
        self.allowed = allowed or (lambda row, column: np.ones(len(row), bool))
        if path is not None and path.exists():
            with np.load(path) as kept:
                self.centroids, self.home, self.own = (
                    kept[n] for n in ("centroids", "home", "own")
                )
                self.note: dict[str, Any] = json.loads(str(kept["note"]))
        else:
            check_recall(recall)
            lists = max(1, min(lists or int(4 * np.sqrt(len(x))), len(x) // 40))
            self.centroids = self._centroids(lists, seed)
            self.home, self.own = self._homes()
            self.note = self._tune(recall, k, threshold, seed)
            if path is not None:
                with whole_file(path) as file:
                    np.savez(
                        file, centroids=self.centroids, home=self.home, own=self.own,
                        note=json.dumps(self.note),
                    )  # fmt: skip
        self.order = np.argsort(self.home, kind="stable")
        self.starts = np.searchsorted(self.home[self.order], np.arange(len(self.centroids) + 1))

    def _centroids(self, lists: int, seed: int) -> Float32[np.ndarray, "L D"]:
        import faiss

        made: Any = faiss.Kmeans(
            self.x.shape[1], lists, niter=_ROUNDS, spherical=True, seed=seed + 1234,
            min_points_per_centroid=1, max_points_per_centroid=_TRAINED,
        )  # fmt: skip
        made.train(self.x)
        return made.centroids / np.linalg.norm(made.centroids, axis=1, keepdims=True)

    def _on_device(self, part: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(part).to(self.bound.rows.device)  # type: ignore[attr-defined]

    def _homes(self) -> tuple[np.ndarray, np.ndarray]:
        """The list of each row, and its cosine with the list's centroid."""
        n, centroids = len(self.x), self._on_device(self.centroids)
        home, own = np.zeros(n, np.int32), np.zeros(n, np.float32)
        for first in range(0, n, 4096):
            part = slice(first, min(first + 4096, n))
            best = (self._on_device(self.x[part]) @ centroids.T).max(dim=1)
            own[part], home[part] = best.values.cpu().numpy(), best.indices.cpu().numpy()
        return home, own

    def _gaps(self, lists: slice | np.ndarray) -> Float32[np.ndarray, "l L"]:
        """Distances of some centroids from all."""
        return np.sqrt(np.maximum(0, 2 - 2 * self.centroids[lists] @ self.centroids.T))

    def _tune(self, recall: float, k: int, threshold: float, seed: int) -> dict[str, Any]:
        """The note, with the least margin that reaches the recall on a sample."""
        n = len(self.x)
        rows = np.random.default_rng([seed, 1]).choice(n, min(QUERIES, n), replace=False)
        rows.sort()
        row, column = self._truth(rows, k, threshold)
        far = np.minimum(self._to_plane(row, column), self._to_plane(column, row))
        asked = np.bincount(row, minlength=n)
        weight = 1 / asked[row]  # a row with few neighbours counts like others
        order = np.argsort(far)
        asking = int((asked > 0).sum())
        note: dict[str, Any] = {"kind": "ivf", "lists": len(self.centroids), "margin": 0.0,
                                "goal": recall, "queries": asking}  # fmt: skip
        if asking:
            place = int(np.searchsorted(np.cumsum(weight[order]), recall * asking - 1e-9))
            note["margin"] = float(far[order[min(place, len(order) - 1)]]) + 1e-6
            note |= recall_note(float(weight[far <= note["margin"]].sum()), asking)
        cosines = self.x[rows] @ self.centroids.T
        looks = cosines >= self.own[rows, None] - note["margin"] * self._gaps(self.home[rows])
        size = np.bincount(self.home, minlength=len(self.centroids))
        return note | {"share": float((looks @ size).mean() / n)}

    def _to_plane(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Distances of rows from the planes between their lists and those of other rows."""
        far = self.centroids[self.home[others]]
        gap = np.linalg.norm(self.centroids[self.home[rows]] - far, axis=1)
        ahead = self.own[rows] - np.einsum("nd,nd->n", self.x[rows], far)
        return np.divide(ahead, gap, out=np.zeros_like(gap), where=gap > 1e-4)  # 0 in its own list

    def _truth(self, rows: np.ndarray, k: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest allowed rows of some rows, as pairs."""
        n, found = len(self.x), Nearest(len(self.x), k, threshold)
        blocks = ((rows, np.arange(a, min(a + BLOCK, n))) for a in range(0, n, BLOCK))
        self._compare(found, blocks, both=False)
        return found.pairs()[:2]

    def _compare(self, found: Nearest, blocks: Iterable[Blocks], both: bool = True) -> None:
        for _ in compare(found, self.x, self.bound, self.allowed, blocks, both):
            pass

    def begin(self, found: Nearest) -> None:
        """Compare the rows of each list among themselves: later blocks have few hits."""

        def blocks() -> Iterator[Blocks]:
            for first, end in zip(self.starts, self.starts[1:]):
                for rows, others in _upper_blocks(self.order[first:end]):
                    if rows is others:
                        offer_best(found, self.x, self.bound, self.allowed, rows, others)
                    yield rows, others

        self._compare(found, blocks())

    def search(self, found: Nearest, stripe: range) -> None:
        """Compare part of the rows, in the order of the lists, with all rows that look there."""
        self._compare(found, self._looks(stripe))

    def _looks(self, stripe: range) -> Iterator[Blocks]:
        """Rows of each list and those of other lists that look into it."""
        n = len(self.x)
        first_list = int(np.searchsorted(self.starts, stripe.start, "right")) - 1
        last_list = int(np.searchsorted(self.starts, stripe.stop, "left"))
        lists = slice(first_list, last_list)
        centroids = self._on_device(self.centroids[lists])
        margins = self.note["margin"] * self._gaps(lists)
        for first in range(0, n, _PART):
            part = slice(first, min(first + _PART, n))
            near = centroids @ self._on_device(self.x[part]).T
            home = self.home[part]
            looks = near.cpu().numpy() >= self.own[part] - np.take(margins, home, axis=1)
            own = np.flatnonzero((home >= first_list) & (home < last_list))
            looks[home[own] - first_list, own] = False  # they were compared at the beginning
            for number, looking in enumerate(looks, first_list):
                begin, end = self.starts[number], self.starts[number + 1]
                members = self.order[max(begin, stripe.start) : min(end, stripe.stop)]
                rows = first + np.flatnonzero(looking)
                step = max(1, _PRODUCTS // max(1, len(members)))
                for at in range(0, len(rows) if len(members) else 0, step):
                    yield members, rows[at : at + step]


def check_recall(recall: float) -> None:
    """Raises: UserError unless 0 < recall <= 1."""
    if not 0 < recall <= 1:
        raise UserError(f"recall must be above 0 and at most 1, got {recall}.")


def recall_note(found: float, queries: int) -> dict[str, float]:
    """The recall of `queries` rows, of which `found` were answered, with its interval."""
    made = wilson(found, queries)
    return {"recall": made.value, "recall_low": made.low, "recall_high": made.high}


def _upper_blocks(rows: np.ndarray) -> Iterator[Blocks]:
    """Pairs of blocks, each pair of rows once."""
    blocks = [rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK)]
    for place, block in enumerate(blocks):
        for other in blocks[place:]:
            yield block, other
