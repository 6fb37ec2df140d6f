"""The K best rows of each domain, kept while rows stream by, in memory of O(K).

D: domains, b: rows of a block, K: rows to keep of each domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64


class TopK:
    """Keeps, for each domain, the K largest pairs (score, key) in lexicographic order.

    So of equal scores the larger key wins, whatever order rows come in: with keys that sort as
    the names of images, the rule of the original's heaps. Rows with a score that is not finite
    never enter; they are counted.

    Candidates collect in a buffer of 2 K and are thinned to K by selection, so a row costs O(1)
    on average; most rows of a long stream are turned away by one comparison with the K-th score.

    Args:
        domains: D.
        k: K.
        floor: scores below this are turned away at once; [D]. A lower bound of the K-th score,
            from parts that were scored before.

    Attributes:
        refused: rows that had a score that is not finite.
    """

    def __init__(self, domains: int, k: int, floor: Float[np.ndarray, " D"] | None = None):
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        self.k, self.refused = k, 0
        low = np.full(domains, -np.inf, np.float64) if floor is None else np.array(floor, float)
        self.floor: Float[np.ndarray, " D"] = low
        self._full = np.zeros(domains, bool)  # whether K were seen, so that the floor is a score
        self._count = np.zeros(domains, np.int64)
        self._score: list[np.ndarray] = [np.empty(0)] * domains
        self._key: list[np.ndarray] = [np.empty(0, np.int64)] * domains

    def add(
        self,
        scores: Float[np.ndarray, "b D"],
        keys: Int64[np.ndarray, " b"],
        keep: Bool[np.ndarray, " b"] | None = None,
    ) -> None:
        """Look at a block of rows.

        Args:
            scores: of each domain.
            keys: unique over all blocks.
            keep: rows that may enter.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            total = scores.sum()
        if not np.isfinite(total):  # one pass tells that all are; else which
            finite = np.isfinite(scores).all(axis=1)
            self.refused += int((~finite).sum())
            keep = finite if keep is None else np.asarray(keep, bool) & finite  # type: ignore[assignment]
        # [D, b]: each domain's scores lie together, so that comparing them is one pass.
        columns = np.ascontiguousarray(scores.T)
        for domain, column in enumerate(columns):
            # In the scores' own type, as comparing two types converts a block; a floor that is
            # rounded down lets in what is thinned out later.
            good = column >= column.dtype.type(self.floor[domain])
            if keep is not None:
                good &= keep
            at = np.flatnonzero(good)
            for first in range(0, len(at), self.k):  # never more than K beyond the K that stay
                some = at[first : first + self.k]
                if first:
                    some = some[column[some] >= column.dtype.type(self.floor[domain])]
                self._enter(domain, column[some], keys[some])

    def merge(self, domain: int, scores: np.ndarray, keys: np.ndarray) -> None:
        """Candidates of one domain, from another TopK."""
        for first in range(0, len(scores), self.k):
            part = slice(first, first + self.k)
            self._enter(domain, scores[part], keys[part])

    def _enter(self, domain: int, score: np.ndarray, key: np.ndarray) -> None:
        count, more = int(self._count[domain]), len(score)
        if not more:
            return
        if count + more > 2 * self.k:  # at most K come at a time, so K that stay make room
            self._thin(domain)
            count = int(self._count[domain])
        if len(self._score[domain]) < count + more:
            size = max(count + more, min(2 * self.k, max(2 * (count + more), 1024)))
            self._score[domain] = _grown(self._score[domain], count, size, score.dtype)
            self._key[domain] = _grown(self._key[domain], count, size, np.dtype(np.int64))
        self._score[domain][count : count + more] = score
        self._key[domain][count : count + more] = key
        self._count[domain] = count + more
        # A floor as soon as there can be one; then only now and then, as thinning costs O(K).
        if count + more > (1.5 * self.k if self._full[domain] else self.k):
            self._thin(domain)

    def _thin(self, domain: int) -> None:
        count = int(self._count[domain])
        if count < self.k:
            return
        score, key = self._score[domain][:count], self._key[domain][:count]
        kth = np.partition(score, count - self.k)[count - self.k]
        better = np.flatnonzero(score > kth)
        level = np.flatnonzero(score == kth)
        short = self.k - len(better)
        if short < len(level):  # of those level with the K-th the largest keys
            level = level[np.argpartition(key[level], len(level) - short)[len(level) - short :]]
        kept = np.concatenate([better, level])
        score[: self.k], key[: self.k] = score[kept], key[kept]
        self._count[domain], self._full[domain] = self.k, True
        self.floor[domain] = max(self.floor[domain], float(kth))

    def kept(self, domain: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores, keys) of the K best so far, in no order."""
        if self._count[domain] > self.k:
            self._thin(domain)
        count = int(self._count[domain])
        return self._score[domain][:count], self._key[domain][:count]

    def best(self, domain: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores, keys) of the K best so far, best first; of equal scores the larger key first."""
        score, key = self.kept(domain)
        order = np.lexsort((key, score))[::-1]
        return score[order], key[order]

    def lowest(self) -> Float[np.ndarray, " D"]:
        """The K-th best score of each domain so far, -inf where fewer were seen."""
        for domain in range(len(self._count)):
            if self._count[domain] >= self.k:
                self._thin(domain)
        return self.floor.copy()

    @property
    def nbytes(self) -> int:
        """Memory of the buffers, at most D · 2 K · 16 bytes."""
        return sum(a.nbytes for a in (*self._score, *self._key))


def _grown(old: np.ndarray, count: int, size: int, dtype: np.dtype) -> np.ndarray:
    new = np.empty(size, dtype)
    new[:count] = old[:count]
    return new
