"""How an image stands to its own class among all class vectors, without an N x C matrix.

N: images, C: classes, D: width. The cosine to the own class and the mean cosine to the other
classes are taken in float64, from N products of length D each: the mean over the others is
(x · Σ w - x · w_own) / (C - 1). Only the rank needs every score; these are products in float32, a
block of images at a time, and where float32 cannot tell two scores apart float64 decides, so that
ranks do not depend on block size, threads or library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.files import cores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK = 1024  # images whose scores exist at a time: 4 MB of them for 1,000 classes
_ULP = 2.0**-24  # unit roundoff of float32
_TIE = 1e-12  # cosines nearer than this are equal


@dataclass(frozen=True)
class TrueClass:
    """Each image against its own class and the others.

    Args:
        own: cosine to the own class [N].
        others: mean cosine to the other classes [N]; NaN where there is no other.
        rank: wrong classes before or level with the own one [N]; 0 is a hit. A tie counts
            against the model, and an embedding that is not finite is last.
    """

    own: Float[np.ndarray, " N"]
    others: Float[np.ndarray, " N"]
    rank: Int[np.ndarray, " N"]


def true_class(
    rows: Any,
    weight: Float[np.ndarray, "C D"],
    label: Int[np.ndarray, " N"],
    *,
    want_rank: bool = True,
    block: int = BLOCK,
    threads: int | None = None,
) -> TrueClass:
    """Cosines and ranks of every image; rows of any length are normalised here.

    Args:
        rows: embeddings [N, D], an array or one on disk; read a block at a time.
        weight: class vectors of length 1 [C, D].
        label: own class of each image, 0 .. C-1 [N].
        want_rank: False leaves the matrix product out, and the ranks at 0.
        block: images at a time.
        threads: blocks worked on at the same time; None takes all cores.

    >>> found = true_class(np.array([[2.0, 0.0], [1.0, 1.0]]), np.eye(2), np.array([0, 1]))
    >>> found.own.round(3), found.rank
    (array([1.   , 0.707]), array([0, 1]))
    """
    weight, label = np.asarray(weight, np.float64), np.asarray(label)
    if len(rows) != len(label):
        raise ValueError(f"rows and label must be equally many, got {len(rows)} and {len(label)}")
    if len(label) and not 0 <= label.min() <= label.max() < len(weight):
        raise ValueError(f"labels must be in 0..{len(weight) - 1}")
    total, weight32 = weight.sum(axis=0), weight.astype(np.float32).T
    guard = np.float32(8 * (weight.shape[1] + 4) ** 0.5 * _ULP)
    found = TrueClass(np.empty(len(label)), np.empty(len(label)), np.zeros(len(label), np.int64))

    reading = threading.Lock()  # rows on disk keep a list of open files, which threads would tear

    def work(part: slice) -> None:
        with reading:
            x = np.array(rows[part], np.float64)
        x, mine = unit64(x), label[part]
        own = np.einsum("nd,nd->n", x, weight[mine])
        found.own[part] = own
        others = len(weight) - 1
        found.others[part] = (x @ total - own) / others if others else np.nan
        if want_rank:
            scores = x.astype(np.float32) @ weight32
            ahead = _ahead(scores, own, mine, x, weight, guard)
            found.rank[part] = np.where(np.isfinite(own), ahead, len(weight) - 1)

    for_blocks(len(label), work, block, threads)
    return found


def _ahead(scores, own, mine, x, weight, guard) -> np.ndarray:
    """Wrong classes that score at least as much as the own one, for one block [b, C]."""
    scores[np.arange(len(mine)), mine] = -np.inf
    own32 = own.astype(np.float32)[:, None]
    sure = _count(scores > own32 + guard)
    doubtful = np.flatnonzero(_count(scores >= own32 - guard) != sure)
    if len(doubtful):
        part, level = scores[doubtful], own32[doubtful]
        row, other = np.nonzero((part >= level - guard) & (part <= level + guard))
        row = doubtful[row]
        exact = np.einsum("nd,nd->n", x[row], weight[other])
        sure += np.bincount(row[exact >= own[row] - _TIE], minlength=len(sure))
    return sure


def _count(mask: np.ndarray) -> np.ndarray:
    """How many are true in each row; bits are counted eight at a time."""
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


def unit64(rows: Any) -> Float[np.ndarray, "N D"]:
    """Rows of length 1 in float64; a zero row stays zero."""
    x = np.array(rows, np.float64)  # a copy: divided in place
    x /= np.maximum(np.sqrt(np.einsum("nd,nd->n", x, x)), 1e-300)[:, None]
    return x


def for_blocks(
    count: int, work: Callable[[slice], None], block: int = BLOCK, threads: int | None = None
) -> None:
    """Call `work` with each block of 0 .. count; several at a time, each on one BLAS thread."""
    from threadpoolctl import threadpool_limits

    parts = [slice(at, min(at + block, count)) for at in range(0, count, block)]
    threads = min(threads or cores(), max(len(parts), 1))
    with threadpool_limits(1):
        if threads == 1:
            for part in parts:
                work(part)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, parts))
