"""Association of groups of images with groups of captions: effect size and permutation test.

P, Q: images of two groups, M: captions of a group, D: width.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.intervals import Interval, from_draws

if TYPE_CHECKING:
    from jaxtyping import Float

EXACT = 20_000  # partitions that are all looked at; of more, as many are drawn


@dataclass(frozen=True)
class Association:
    """How much nearer the first group is to the first captions than the second group is.

    Args:
        effect: d with a bootstrap interval over images; from -2 to 2.
        difference: mean s of the first group less that of the second, in cosine.
        p: two-sided, of the permutation test.
        exact: whether every partition was looked at.
    """

    effect: Interval
    difference: float
    p: float
    exact: bool


def leaning(
    images: Float[np.ndarray, "P D"], a: Float[np.ndarray, "M D"], b: Float[np.ndarray, "K D"]
) -> Float[np.ndarray, " P"]:
    """s(x): mean cosine to the captions a, less mean cosine to the captions b."""
    from vislang.metrics.true_class import unit64

    return unit64(images) @ (unit64(a).mean(axis=0) - unit64(b).mean(axis=0))


def association(
    first: Float[np.ndarray, " P"],
    second: Float[np.ndarray, " Q"],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Association:
    """Compare the leanings of two groups of images.

        d = (mean s(X) - mean s(Y)) / sd of s over X ∪ Y

    The test asks how often a random division into groups of these sizes has means at least as far
    apart. WEAT, Caliskan et al. 2017, Science 356, arXiv:1608.07187; for images and texts alike,
    Steed & Caliskan 2021, arXiv:2010.15052.

    Args:
        first, second: `leaning` of each image; at least two a group.
        resamples, seed: of the interval, and of the divisions where not all are looked at.

    >>> association(np.array([1.0, 0.9, 1.1]), np.array([0.0, 0.1, -0.1])).p
    0.1
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if min(len(first), len(second)) < 2:
        raise ValueError("each group needs at least two images")
    rng = np.random.default_rng(seed)
    draws = np.array([
        _effect(rng.choice(first, len(first)), rng.choice(second, len(second)))
        for _ in range(resamples)
    ])  # fmt: skip
    observed = float(first.mean() - second.mean())
    n = len(first) + len(second)
    effect = from_draws(_effect(first, second), draws, n, "bootstrap over images", centred=True)
    p, exact = _permuted(first, second, rng)
    return Association(effect, observed, p, exact)


def _effect(first: np.ndarray, second: np.ndarray) -> float:
    deviation = float(np.concatenate([first, second]).std(ddof=1))
    return float(first.mean() - second.mean()) / deviation if deviation > 1e-12 else 0.0


def _permuted(first: np.ndarray, second: np.ndarray, rng: np.random.Generator):
    """(two-sided p, whether every division was looked at)."""
    both, size = np.concatenate([first, second]), len(first)
    far = abs(first.mean() - second.mean()) - 1e-12
    total, rest = both.sum(), len(both) - size

    def apart(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums / size - (total - sums) / rest) >= far

    if math.comb(len(both), size) <= EXACT:
        every = np.array(list(itertools.combinations(range(len(both)), size)))
        return float(apart(both[every].sum(axis=1)).mean()), True
    sums = np.array([rng.permutation(both)[:size].sum() for _ in range(EXACT // 2)])
    return (int(apart(sums).sum()) + 1) / (len(sums) + 1), False
