"""Image-text retrieval: ranks and recalls, streamed so that the N x M matrix never exists.

N: images, M: texts, D: width, P: right (image, text) pairs. A tie counts against the model.

Scores are products in float32 (BLAS), a block of texts at a time. Float32 cannot tell every
pair of scores apart, and where it cannot, the outcome would depend on block size, threads and
library; those few pairs are decided in float64. So the ranks are those of exact arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_ULP = 2.0**-24  # unit roundoff of float32
_TIE = 1e-12  # scores nearer than this, relative to the largest norms, are equal


@dataclass(frozen=True)
class Ranks:
    """How many wrong answers stand before (or level with) the best right one; 0 is a hit at 1.

    Args:
        image_to_text: [N]; M for an image without a right text, which is never found.
        text_to_image: [M]; N for a text without a right image.
    """

    image_to_text: Int[np.ndarray, " N"]
    text_to_image: Int[np.ndarray, " M"]


def retrieval_ranks(
    image: Float[np.ndarray, "N D"],
    text: Float[np.ndarray, "M D"],
    owner: Int[np.ndarray, " M"] | None = None,
    pairs: tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]] | None = None,
    block: int = 512,
) -> Ranks:
    """Ranks both ways by the inner product (normalise first to rank by cosine).

    Args:
        image, text: embeddings; any float type.
        owner: owner[m] is the image that text m describes, or
        pairs: (images, texts), all right pairs, where a text may fit several images.
        block: texts scored at a time; memory is about 6 · block · N bytes.

    Raises:
        ValueError: shapes do not fit, or an embedding is not finite.
    """
    image, text = np.asarray(image), np.asarray(text)
    pair_image, pair_text = _checked(image, text, owner, pairs)
    n, m = len(image), len(text)
    image32 = image.astype(np.float32, copy=False)
    text32 = text.astype(np.float32, copy=False)
    largest = _largest_norm(image) * _largest_norm(text)
    # Rounding of a product of length D is below 8 √D u |x||y| all but surely (Higham & Mary,
    # SIAM J. Sci. Comput. 41, 2019); inside this guard float32 does not decide.
    guard = np.float32(8 * (image.shape[1] + 4) ** 0.5 * _ULP * largest)
    own = _pair_scores(image, text, pair_image, pair_text)
    right = _Right(
        _best(own, pair_text, m), _best(own, pair_image, n), guard, _TIE * max(largest, 1e-300)
    )
    of_text, of_image = np.zeros(m, np.int64), np.zeros(n, np.int64)
    starts = np.searchsorted(pair_text, np.arange(0, m + block, block))
    held = np.empty((min(block, m), n), np.float32)
    for number, first in enumerate(range(0, m, block)):
        last = min(first + block, m)
        score = np.matmul(text32[first:last], image32.T, out=held[: last - first])
        mine = slice(starts[number], starts[number + 1])
        score[pair_text[mine] - first, pair_image[mine]] = -np.inf  # right ones never stand ahead
        by_text, by_image = right.ahead(score, slice(first, last), image, text)
        of_text[first:last] = by_text
        of_image += by_image
    of_text[np.isneginf(right.of_text)] = n
    of_image[np.isneginf(right.of_image)] = m
    return Ranks(of_image, of_text)


def _checked(image, text, owner, pairs) -> tuple[np.ndarray, np.ndarray]:
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        raise ValueError(
            f"image must be [N, D] and text [M, D], got {image.shape} and {text.shape}"
        )
    if not len(image) or not len(text):
        raise ValueError(
            f"retrieval needs images and texts, got {len(image)} images, {len(text)} texts"
        )
    if (owner is None) == (pairs is None):
        raise ValueError("give either owner or pairs")
    if pairs is None:
        pairs = (np.asarray(owner), np.arange(len(text)))
        if len(pairs[0]) != len(text):
            raise ValueError(f"owner must have one image a text ({len(text)}), got {len(pairs[0])}")
    pair_image, pair_text = (np.asarray(side, np.int64) for side in pairs)
    if len(pair_image) and not (
        pair_image.min() >= 0 and pair_image.max() < len(image) and pair_text.min() >= 0
        and pair_text.max() < len(text)
    ):  # fmt: skip
        raise ValueError("a right pair names an image or a text that is not there")
    for name, rows in (("image", image), ("text", text)):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} embeddings must be finite numbers")
    order = np.argsort(pair_text, kind="stable")
    return pair_image[order], pair_text[order]


def _largest_norm(rows: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64).max()))


def _pair_scores(image, text, i, j, block: int = 1024) -> Float[np.ndarray, " P"]:
    """Inner products of chosen pairs in float64."""
    scores = np.empty(len(i))
    for first in range(0, len(i), block):
        part = slice(first, first + block)
        left, right = image[i[part]].astype(np.float64), text[j[part]].astype(np.float64)
        scores[part] = np.einsum("pd,pd->p", left, right)
    return scores


def _best(scores: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    best = np.full(count, -np.inf)
    np.maximum.at(best, of, scores)
    return best


@dataclass(frozen=True)
class _Right:
    """Scores of the best right answers in float64, and how closely float32 can compare to them."""

    of_text: Float[np.ndarray, " M"]
    of_image: Float[np.ndarray, " N"]
    guard: np.float32
    tie: float

    def ahead(self, score, rows: slice, image, text) -> tuple[np.ndarray, np.ndarray]:
        """Wrong answers ahead in one block of scores [b, N]: by text [b] and by image [N]."""
        row, column = self.of_text[rows].astype(np.float32), self.of_image.astype(np.float32)
        sure_text = (score > (row + self.guard)[:, None]).sum(axis=1)
        near_text = (score >= (row - self.guard)[:, None]).sum(axis=1) - sure_text
        sure_image = (score > column + self.guard).sum(axis=0)
        near_image = (score >= column - self.guard).sum(axis=0) - sure_image
        doubtful = int(near_text.sum() + near_image.sum())
        if doubtful > score.size // 64:  # collapsed embeddings: the whole block is level
            return self._ahead_exactly(score, rows, image, text)
        if doubtful:
            at, other = self._near(score, near_text > 0, row[:, None], axis=0)
            exact = _pair_scores(image, text, other, at + rows.start)
            hits = exact >= self.of_text[rows.start + at] - self.tie
            sure_text += np.bincount(at[hits], minlength=len(row))
            other, at = self._near(score, near_image > 0, column, axis=1)
            exact = _pair_scores(image, text, at, other + rows.start)
            hits = exact >= self.of_image[at] - self.tie
            sure_image += np.bincount(at[hits], minlength=len(column))
        return sure_text, sure_image

    def _near(self, score, chosen, right, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Places (row, column) of scores within the guard, in the chosen rows or columns."""
        chosen = np.flatnonzero(chosen)
        part = np.take(score, chosen, axis=axis)
        right = right[chosen]
        row, column = np.nonzero((part >= right - self.guard) & (part <= right + self.guard))
        return (chosen[row], column) if axis == 0 else (row, chosen[column])

    def _ahead_exactly(self, score, rows: slice, image, text) -> tuple[np.ndarray, np.ndarray]:
        exact = text[rows].astype(np.float64) @ image.astype(np.float64).T
        exact[np.isneginf(score)] = -np.inf
        by_text = (exact >= self.of_text[rows, None] - self.tie).sum(axis=1)
        return by_text, (exact >= self.of_image - self.tie).sum(axis=0)


def recall_at(rank: Int[np.ndarray, " Q"], k: int) -> float:
    """Share of queries whose right answer is among the first k.

    >>> recall_at(np.array([0, 4, 5]), 5)
    0.6666666666666666
    """
    return float((np.asarray(rank) < k).mean())


def median_rank(rank: Int[np.ndarray, " Q"]) -> float:
    """Median place of the right answer; 1 is the best place there is."""
    return float(np.median(rank)) + 1


def retrieval(
    image: Float[np.ndarray, "N D"],
    text: Float[np.ndarray, "M D"],
    owner: Int[np.ndarray, " M"],
    ks: tuple[int, ...] = (1, 5, 10),
) -> dict[str, float]:
    """Recall@k both ways, their mean and the median ranks, without intervals.

    An image is found if any of its texts is among the first k (CLIP's convention).

    >>> retrieval(np.eye(3), np.eye(3), np.arange(3), ks=(1,))["mean_recall"]
    1.0
    """
    rank = retrieval_ranks(image, text, owner)
    ways = {"image_to_text": rank.image_to_text, "text_to_image": rank.text_to_image}
    found = {f"{way}@{k}": recall_at(r, k) for way, r in ways.items() for k in ks}
    found["mean_recall"] = float(np.mean(list(found.values())))
    found |= {f"{way}_median_rank": median_rank(r) for way, r in ways.items()}
    return found
