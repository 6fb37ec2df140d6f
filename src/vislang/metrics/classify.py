"""Classification: accuracy, top-k, mean recall of the classes, confusion.

N: samples, C: classes. A tie counts against the model: a class that scores as much as the
right one stands before it, so that constant scores are worth 0, not 1/C and not 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.intervals import Interval, wilson, wilson_mean_of_classes

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def ranks(scores: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """How many wrong classes stand before (or level with) the right one; 0 is a hit.

    A score that is not a number cannot win: a NaN right class is last, a NaN wrong class too.

    >>> ranks(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))
    array([0, 1])
    """
    scores, label = _checked(scores, label)
    own = np.take_along_axis(scores, label[:, None], axis=1)
    ahead = (scores >= own).sum(axis=1) - 1
    return np.where(np.isnan(own[:, 0]), scores.shape[1] - 1, ahead)


def decide(scores: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The class that each sample is held to: the best, and of equals one that is wrong.

    So `decide(...) == label` agrees with `ranks(...) == 0`.
    """
    scores, label = _checked(scores, label)
    held = np.where(np.isnan(scores), -np.inf, scores)
    rows = np.arange(len(held))
    held[rows, label] = -np.inf
    best_wrong = held.argmax(axis=1)
    return np.where(ranks(scores, label) == 0, label, best_wrong)


def _checked(scores: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, label = np.asarray(scores), np.asarray(label)
    if scores.ndim != 2 or label.shape != scores.shape[:1] or not len(label):
        raise ValueError(
            f"scores must be [N, C] and label [N] with N >= 1, got {scores.shape} and {label.shape}"
        )
    if label.min() < 0 or label.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must be in 0..{scores.shape[1] - 1}, got {label.min()}..{label.max()}"
        )
    return scores, label


def accuracy(rank: Int[np.ndarray, " N"], k: int = 1) -> Interval:
    """Share of samples whose right class is among the first k; `rank` comes from `ranks`.

    >>> accuracy(np.array([0, 0, 3, 1]), k=2).value
    0.75
    """
    rank = np.asarray(rank)
    return wilson(int((rank < k).sum()), len(rank))


def recalls(
    rank: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], classes: int
) -> tuple[Int[np.ndarray, " C"], Int[np.ndarray, " C"]]:
    """How many samples of each class were right, and how many there are: [C], [C]."""
    right = np.bincount(label, weights=np.asarray(rank) == 0, minlength=classes)
    return right.astype(np.int64), np.bincount(label, minlength=classes)


def mean_recall(
    rank: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], classes: int
) -> Interval:
    """Mean over the classes that have samples of their recall ("mean per class").

    A class without samples has no recall; it is left out rather than counted as 0 or NaN.
    """
    right, count = recalls(rank, label, classes)
    there = count > 0
    return wilson_mean_of_classes(right[there] / count[there], count[there])


def confusion(
    decided: Int[np.ndarray, " N"], label: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "C C"]:
    """Counts; row: the true class, column: the class decided for.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    array([[1, 1], [0, 1]])
    """
    flat = np.asarray(label) * classes + np.asarray(decided)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)
