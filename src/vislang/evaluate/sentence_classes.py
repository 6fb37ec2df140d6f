"""SentEval's classification protocols on embeddings, with this house's solver.

n: rows, D: width, K: classes, C: scikit-learn's weight of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.evaluate.softmax import Fit, SoftmaxRegression

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SEED = 1111
TOLERANCE = 1e-5  # of the gradient's norm
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
        threads: of the solver.
    """
    said = np.full(len(y), -1)
    chosen, dev, tests = [], [], []
    for train, test in _folds(y, folds):
        parts = _folds(y[train], inner if inner > 1 else 10)
        best, cost = _choose(x[train], y[train], parts[:inner], grid, threads)
        fit = _fit(x[train], y[train], [cost], threads)[0]
        said[test] = fit.scores(x[test]).argmax(1)
        chosen.append(cost)
        dev.append(best)
        tests.append(float((said[test] == y[test]).mean()))
    right = (said == y).astype(int)
    return Answers(
        right, said, float(np.mean(dev)), float(np.median(chosen)), float(np.mean(tests))
    )


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
    best, cost = _choose(x, y, _folds(y, folds), grid, threads)
    return _answers(_fit(x, y, [cost], threads)[0], test, test_y, best, cost)


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
    fits = _fit(x, y, grid, threads)
    scores = [float((fit.scores(valid).argmax(1) == valid_y).mean()) for fit in fits]
    best = int(np.argmax(scores))
    return _answers(fits[best], test, test_y, scores[best], grid[best])


def _answers(fit: Fit, x: np.ndarray, y: np.ndarray, dev: float, cost: float) -> Answers:
    said = fit.scores(x).argmax(1)
    right = (said == y).astype(int)
    return Answers(right, said, dev, cost, float(right.mean()))


def _folds(y: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold

    cut = StratifiedKFold(n_splits=folds, shuffle=True, random_state=SEED)
    return list(cut.split(np.zeros(len(y)), y))


def _choose(
    x: np.ndarray,
    y: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    grid: Sequence[float],
    threads: int | None,
) -> tuple[float, float]:
    """(mean accuracy on the held parts, the C that has it); of equals the smallest C."""
    scores = np.zeros(len(grid))
    for train, held in parts:
        for at, fit in enumerate(_fit(x[train], y[train], grid, threads)):
            scores[at] += (fit.scores(x[held]).argmax(1) == y[held]).mean()
    best = int(np.argmax(scores))
    return float(scores[best] / len(parts)), float(grid[best])


def _fit(x: np.ndarray, y: np.ndarray, grid: Sequence[float], threads: int | None) -> list[Fit]:
    """Fits for every C, each started from the one before.

    With two classes scikit-learn penalises one vector w where softmax has (w/2, -w/2), whose
    squared norm is half as large: its C is half of theirs.
    """
    classes = int(y.max()) + 1
    problem = SoftmaxRegression(x, y, classes, threads)
    factor = 2.0 if classes == 2 else 1.0
    fits: list[Fit] = []
    for cost in grid:
        start = fits[-1] if fits else None
        fits.append(problem.fit(factor / (cost * len(y)), start, TOLERANCE))
    return fits
