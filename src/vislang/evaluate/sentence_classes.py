"""SentEval's classification protocols on embeddings, all folds and all C in one solution.

n: rows, D: width, K: classes, C: scikit-learn's weight of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.evaluate.many_fits import ROUGH, ManyFits, Weights

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SEED = 1111
GRID = tuple(2.0**t for t in range(-2, 4))  # SentEval's, where it does not use k-fold alone
GRID_KFOLD = tuple(2.0**t for t in range(-1, 6))


@dataclass(frozen=True)
class Answers:
    """What a classifier said of rows it did not learn from.

    Args:
        right: whether each row was answered rightly [n].
        said: the class it was given [n].
        validation: accuracy on what the C was chosen by.
        cost: the C, the median where there were several.
        mean: test accuracy; for folds the mean over folds, which may differ from the rows' mean.
    """

    right: Int[np.ndarray, " n"]
    said: Int[np.ndarray, " n"]
    validation: float
    cost: float
    mean: float


def pair_features(
    u: Float[np.ndarray, "n D"], v: Float[np.ndarray, "n D"], themselves: bool = False
) -> Float[np.ndarray, "n E"]:
    """[|u - v|, u * v], width E = 2 D: SentEval's features of a pair; for SNLI u and v before them.

    >>> pair_features(np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]]))
    array([[2., 0., 3., 4.]])
    """
    own = [u, v] if themselves else []
    return np.concatenate([*own, np.abs(u - v), u * v], axis=1)


def by_inner_folds(
    x: Float[np.ndarray, "n D"],
    y: Int[np.ndarray, " n"],
    folds: int = 10,
    inner: int = 1,
    grid: Sequence[float] = GRID,
    threads: int | None = None,
) -> Answers:
    """Every row answered by a classifier that did not see it: stratified folds (MR, CR, ...).

    Args:
        x, y: features and classes 0..K-1.
        folds: outer folds.
        inner: folds within the training rows by which C is chosen. SentEval takes as many as
            outer ones; 1 takes the first of ten, which costs a tenth.
        grid: the C.
        threads: of the products.
    """
    fits = ManyFits(x, y, int(y.max()) + 1, threads)
    outer = _folds(y, folds)
    parts = [
        (train[learn], train[held])
        for train, _ in outer
        for learn, held in _folds(y[train], inner if inner > 1 else 10)[:inner]
    ]
    found = _scores(fits, y, parts, grid)
    scores = found.scores.reshape(folds, inner, len(grid)).mean(axis=1)
    best = scores.argmax(axis=1)
    learn = _masks(len(y), [train for train, _ in outer])
    begin = found.weights_of(np.arange(folds) * inner, best)
    each = fits.said(fits.fit(learn, np.arange(folds), found.grid[best], start=begin))
    said = np.full(len(y), -1)
    tests = []
    for fold, (_, test) in enumerate(outer):
        said[test] = each[test, fold]
        tests.append(float((said[test] == y[test]).mean()))
    right, top = (said == y).astype(int), float(scores.max(axis=1).mean())
    return Answers(right, said, top, float(np.median(found.grid[best])), float(np.mean(tests)))


def by_folds(
    x: Float[np.ndarray, "n D"],
    y: Int[np.ndarray, " n"],
    test: Float[np.ndarray, "m D"],
    test_y: Int[np.ndarray, " m"],
    folds: int = 10,
    grid: Sequence[float] = GRID_KFOLD,
    threads: int | None = None,
) -> Answers:
    """C by stratified folds of the training rows, one classifier from all of them (TREC, MRPC)."""
    fits = ManyFits(x, y, int(max(y.max(), test_y.max())) + 1, threads)
    return _answered(fits, _scores(fits, y, _folds(y, folds), grid), test, test_y)


def by_split(
    x: Float[np.ndarray, "n D"],
    y: Int[np.ndarray, " n"],
    valid: Float[np.ndarray, "v D"],
    valid_y: Int[np.ndarray, " v"],
    test: Float[np.ndarray, "m D"],
    test_y: Int[np.ndarray, " m"],
    grid: Sequence[float] = GRID,
    threads: int | None = None,
) -> Answers:
    """C by a validation part, the classifier from the training part alone (SST, SICK-E)."""
    classes = int(max(y.max(), valid_y.max(), test_y.max())) + 1
    fits = ManyFits(x, y, classes, threads)
    alone = np.ones((len(x), 1), bool)
    weights = fits.fit(alone, np.zeros(len(grid), int), np.asarray(grid), ROUGH)
    scores = (fits.said(weights, valid) == valid_y[:, None]).mean(axis=0)
    return _answered(fits, _Search(np.asarray(grid), scores[None], weights), test, test_y)


@dataclass(frozen=True)
class _Search:
    """Accuracy on the held rows of each part for each C [parts, costs], and the weights."""

    grid: Float[np.ndarray, " costs"]
    scores: Float[np.ndarray, "parts costs"]
    weights: Weights

    def weights_of(self, part: np.ndarray, cost: np.ndarray) -> Weights:
        """Of some (part, place of the cost) pairs."""
        at = part * len(self.grid) + cost
        return self.weights[0][:, at], self.weights[1][at]


def _answered(fits: ManyFits, found: _Search, test: np.ndarray, test_y: np.ndarray) -> Answers:
    """The C that is best on average; a classifier with it from all rows answers."""
    scores = found.scores.mean(axis=0)
    best = np.array([scores.argmax()])
    learn, none = np.ones((len(fits.z), 1), bool), np.zeros(1, int)
    begin = found.weights_of(none, best)
    made = fits.fit(learn, none, found.grid[best], start=begin)
    said = fits.said(made, test)[:, 0].astype(int)
    right = (said == test_y).astype(int)
    cost = float(found.grid[best[0]])
    return Answers(right, said, float(scores.max()), cost, float(right.mean()))


def _scores(
    fits: ManyFits,
    y: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    grid: Sequence[float],
) -> _Search:
    """Fits of every C on each (learnt, held) part."""
    masks = _masks(len(y), [learn for learn, _ in parts])
    of, cost = np.repeat(np.arange(len(parts)), len(grid)), np.tile(grid, len(parts))
    weights = fits.fit(masks, of, cost, ROUGH)
    said = fits.said(weights)
    found = [
        (said[held, at * len(grid) : (at + 1) * len(grid)] == y[held, None]).mean(axis=0)
        for at, (_, held) in enumerate(parts)
    ]
    return _Search(np.asarray(grid), np.array(found), weights)


def _masks(n: int, rows: Sequence[np.ndarray]) -> np.ndarray:
    """[n, sets] of whether a row belongs to a set."""
    found = np.zeros((n, len(rows)), bool)
    for at, mine in enumerate(rows):
        found[mine, at] = True
    return found


def _folds(y: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    cut = StratifiedKFold(n_splits=folds, shuffle=True, random_state=SEED)
    return list(cut.split(np.zeros(len(y)), y))
