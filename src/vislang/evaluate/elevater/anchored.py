"""Our linear probe of few samples: a head that is held to the class prompts as firmly as pays.

    F(V, c) = mean loss(W0 x + V (x - m) / r + c, y) + l2/2 (‖V‖² + ‖c‖²)

W0 is the zero-shot classifier (or 0), x rows of length 1, m their mean and r their spread, so that
l2 means the same for every tower. At l2 = ∞ it is zero-shot classification, at 0 an ordinary probe.
l2 is chosen on held-out training samples; of equal scores the larger one. Of a multi-label set
W0 x - s stands for W0 x: zero-shot ranks the samples of a class, but knows no threshold s.

n: samples, D: width, C: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.evaluate.lbfgs import minimise
from vislang.metrics.features import unit

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PENALTIES = (np.inf, *(10.0**power for power in range(2, -7, -1)))
SCALE = 100.0  # of zero-shot's cosines
TOLERANCE, MOST = 1e-5, 300


@dataclass(frozen=True)
class Anchored:
    """A fitted head.

    Args:
        anchor: W0 [C, D].
        weight, bias: V, and c - s.
        mean, spread: m and r.
        penalty: l2.
        tried: (l2, score on the held-out samples).
    """

    anchor: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    spread: float
    penalty: float
    tried: tuple[tuple[float, float], ...] = ()

    def logits(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """Scores of the classes."""
        x = unit(np.asarray(x, np.float64))
        return x @ self.anchor.T + (x - self.mean) / self.spread @ self.weight.T + self.bias


def probabilities(logits: Float[np.ndarray, "n C"], several: bool) -> Float[np.ndarray, "n C"]:
    """Softmax over the classes; of a multi-label set each class's own logistic function.

    >>> probabilities(np.zeros((1, 2)), several=False)
    array([[0.5, 0.5]])
    """
    if several:
        return 0.5 * (1 + np.tanh(logits / 2))
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def thresholds(
    logits: Float[np.ndarray, "n C"], target: Int[np.ndarray, "n C"]
) -> Float[np.ndarray, " C"]:
    """s for which the mean of logistic(logits - s) is each class's share of samples.

    Zero-shot's logits of a multi-label set are all far above 0; without s every class is sure, to
    the last digit of float32, and the ranking is lost.

    >>> thresholds(np.array([[30.0], [30.0]]), np.array([[1], [0]])).round(6)
    array([30.])
    """
    n = len(logits)
    share = np.clip(target.mean(0), 0.5 / n, 1 - 0.5 / n)
    low, high = logits.min(0) - 50, logits.max(0) + 50
    for _ in range(60):  # halves 100 and the span of the logits down to rounding
        middle = (low + high) / 2
        above = probabilities(logits - middle, several=True).mean(0) > share
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def fit_path(
    x: Float[np.ndarray, "n D"],
    target: np.ndarray,
    anchor: Float[np.ndarray, "C D"],
    penalties: Sequence[float] = PENALTIES,
) -> list[Anchored]:
    """A head for each penalty, from the strongest on, each started from the one before.

    Args:
        x: features.
        target: classes [n], or 0 and 1 [n, C].
        anchor: W0.
        penalties: l2, in falling order.
    """
    x = unit(np.asarray(x, np.float64))
    mean = x.mean(0)
    centred = x - mean
    spread = float(np.sqrt((centred**2).sum(1).mean())) or 1.0
    z, fixed = centred / spread, x @ anchor.T
    several = target.ndim == 2
    shift = thresholds(fixed, target) if several else np.zeros(len(anchor))
    fixed = fixed - shift
    wanted = target if several else np.eye(len(anchor))[target]
    point = np.zeros(anchor.shape[0] * (anchor.shape[1] + 1))
    found = []
    for penalty in penalties:
        if np.isfinite(penalty):
            loss = _loss(z, fixed, wanted, several, penalty)
            point = minimise(loss, point, lambda g: float(g @ g) < TOLERANCE**2, MOST).x
        weight, bias = _parts(point, len(anchor))
        found.append(Anchored(anchor, weight, bias - shift, mean, spread, penalty))
    return found


def fit_anchored(
    x: Float[np.ndarray, "n D"],
    target: np.ndarray,
    anchor: Float[np.ndarray, "C D"],
    divided: tuple[Sequence[int], Sequence[int]],
    score: Callable[[np.ndarray, np.ndarray], float],
) -> Anchored:
    """The head whose penalty does best on held-out samples, fitted on all of them.

    Args:
        x, target, anchor: see `fit_path`.
        divided: rows to learn from, and rows held out.
        score: (probabilities, target) -> the larger the better.
    """
    learnt, held = (np.asarray(rows, np.int64) for rows in divided)
    penalties = PENALTIES if anchor.any() else PENALTIES[1:]
    several = target.ndim == 2
    tried = []
    for head in fit_path(x[learnt], target[learnt], anchor, penalties):
        rows = probabilities(head.logits(x[held]), several)
        tried.append((head.penalty, score(rows, target[held])))
    penalty = max(tried, key=lambda pair: pair[1])[0]  # the first of equals is the strongest
    upto = penalties[: penalties.index(penalty) + 1]
    last = fit_path(x, target, anchor, upto)[-1]
    return Anchored(last.anchor, last.weight, last.bias, last.mean, last.spread, penalty,
                    tuple(tried))  # fmt: skip


def _parts(point: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    return point[:-classes].reshape(classes, -1), point[-classes:]


def _loss(z: np.ndarray, fixed: np.ndarray, wanted: np.ndarray, several: bool, penalty: float):
    n, classes = wanted.shape
    share = 1 / (n * classes) if several else 1 / n

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = _parts(point, classes)
        logits = fixed + z @ weight.T + bias
        error = (probabilities(logits, several) - wanted) * share
        if several:
            cost = (np.logaddexp(0, logits) - wanted * logits).sum() * share
        else:
            top = logits.max(1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(1))
            cost = (total - (wanted * logits).sum(1)).sum() * share
        gradient = np.concatenate([(error.T @ z).ravel(), error.sum(0)]) + penalty * point
        return float(cost + penalty / 2 * point @ point), gradient

    return loss
