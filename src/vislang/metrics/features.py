"""What an embedding space looks like: gap, alignment, uniformity, spread, effective rank.

N: rows, D: width; x: image rows, y: text rows; every function normalises its rows first, except
`spread` and `effective_rank`, which take them as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


def unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows divided by their lengths; a zero row stays zero. Float16 becomes float32.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8], [0. , 0. ]])
    """
    rows = np.asarray(rows)
    rows = rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return rows / np.maximum(length, 1e-12)[:, None].astype(rows.dtype)


def modality_gap(x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "M D"]) -> float:
    """Distance between the mean image and the mean text: ||mean(x) - mean(y)||.

    Liang et al. 2022, arXiv:2203.02053.
    """
    return float(np.linalg.norm(_mean(unit(x)) - _mean(unit(y))))


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0, dtype=np.float64)


def alignment(x: Float[np.ndarray, "N D"], y: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Squared distance of each pair, ||x_i - y_i||²; its mean is the alignment (lower is closer).

    Wang & Isola 2020, arXiv:2005.10242.
    """
    return np.square(unit(x) - unit(y), dtype=np.float64).sum(axis=1)


def kernel(x: Float[np.ndarray, "N D"], t: float = 2.0) -> Float[np.ndarray, "N N"]:
    """exp(-t ||x_i - x_j||²) of every pair of rows."""
    x = unit(x).astype(np.float64)
    return np.exp(-t * np.clip(2 - 2 * (x @ x.T), 0, None))


def uniformity(x: Float[np.ndarray, "N D"], t: float = 2.0, block: int = 1024) -> float:
    """log of the mean of exp(-t ||x_i - x_j||²) over pairs i < j; lower is more spread out.

    0 when all rows are one point; about -4 at best for t = 2. Wang & Isola 2020.
    """
    x = unit(x).astype(np.float64)
    n = len(x)
    if n < 2:
        raise ValueError("uniformity needs at least two rows")
    total = 0.0
    for first in range(0, n, block):
        dot = x[first : first + block] @ x.T
        total += float(np.exp(-t * np.clip(2 - 2 * dot, 0, None)).sum())
    return float(np.log((total - n) / (n * (n - 1))))


def self_similarity(x: Float[np.ndarray, "N D"], block: int = 1024) -> float:
    """Mean of the strictly positive entries of the cosine matrix, the diagonal included."""
    x = unit(x).astype(np.float64)
    total, count = 0.0, 0
    for first in range(0, len(x), block):
        cosine = x[first : first + block] @ x.T
        positive = cosine > 0
        total += float(cosine[positive].sum())
        count += int(positive.sum())
    return total / count if count else 0.0


def spread(x: Float[np.ndarray, "N D"]) -> float:
    """Mean over dimensions of the standard deviation over rows (N - 1 in the denominator)."""
    return float(np.std(np.asarray(x, np.float64), axis=0, ddof=1).mean())


def effective_rank(x: Float[np.ndarray, "N D"]) -> float:
    """exp of the entropy of the shares of the covariance's eigenvalues: 1 (a line) to D.

        rank = exp(-Σ p_i log p_i),   p_i = λ_i / Σ λ

    Roy & Vetterli 2007, EUSIPCO, on eigenvalues. A single point has rank 0.
    """
    x = np.asarray(x, np.float64)
    x = x - x.mean(axis=0)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    values = np.clip(np.linalg.eigvalsh(gram), 0, None)
    total = values.sum()
    if total <= 1e-24 * max(len(x), 1):
        return 0.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
