"""ELEVATER's four metrics in two conventions: `elevater` (its leaderboard's) and `standard`.

N: samples, C: classes.

| metric | elevater | standard |
|---|---|---|
| accuracy | of equals the first class | the same |
| mean-per-class | classes without a sample may not be answered | they may |
| 11point_mAP | precision at recall 0 is always 1 | the largest precision there is |
| roc_auc | ties count half | the same |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CONVENTIONS = ("elevater", "standard")
METRICS = ("accuracy", "mean-per-class", "11point_mAP", "roc_auc")


def elevater_metric(
    name: str,
    scores: Float[np.ndarray, "N C"],
    label: Int[np.ndarray, "*shape"],
    convention: str = "elevater",
) -> float:
    """One of METRICS.

    Args:
        name: of the metric.
        scores: probabilities, or anything that ranks as they do.
        label: class of each sample [N]; for 11point_mAP 0 or 1 [N, C].
        convention: one of CONVENTIONS.

    Raises:
        UserError: an unknown name or convention, scores that are not finite, labels out of range.

    >>> elevater_metric("accuracy", np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 0]))
    1.0
    """
    if name not in METRICS or convention not in CONVENTIONS:
        raise UserError(
            f"No metric {name!r} in the convention {convention!r}. Metrics: {', '.join(METRICS)};"
            f" conventions: {', '.join(CONVENTIONS)}."
        )
    scores, label = np.asarray(scores, np.float64), np.asarray(label)
    wanted = scores.shape if name == "11point_mAP" else scores.shape[:1]
    if scores.ndim != 2 or label.shape != wanted or not len(scores):
        raise UserError(f"{name}: scores {scores.shape} and labels {label.shape} do not fit.")
    most = 2 if name in ("11point_mAP", "roc_auc") else scores.shape[1]
    if not np.isfinite(scores).all() or label.min() < 0 or label.max() >= most:
        raise UserError(f"{name}: scores must be finite and labels in 0..{most - 1}.")
    own = convention == "elevater"
    if name == "accuracy":
        return float((scores.argmax(1) == label).mean())
    if name == "mean-per-class":
        return _mean_per_class(scores, label, own)
    if name == "roc_auc":
        return _roc_auc(scores, label)
    return _map_11_points(scores, label, own)


def _mean_per_class(scores: np.ndarray, label: np.ndarray, only_present: bool) -> float:
    present = np.unique(label)
    said = present[scores[:, present].argmax(1)] if only_present else scores.argmax(1)
    return float(np.mean([(said[label == k] == k).mean() for k in present]))


def _roc_auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Chance that a sample of class 1 scores above one of class 0, by ranks."""
    from scipy.stats import rankdata

    if scores.shape[1] != 2:
        raise UserError(f"roc_auc needs two classes, got {scores.shape[1]}.")
    right = int(label.sum())
    wrong = len(label) - right
    if not right or not wrong:
        raise UserError("roc_auc needs samples of both classes.")
    above = rankdata(scores[:, 1])[label == 1].sum() - right * (right + 1) / 2
    return float(above / (right * wrong))


def _map_11_points(scores: np.ndarray, label: np.ndarray, own: bool) -> float:
    """Mean over classes with a positive of 1/11 Σ max precision at recall >= 0, 0.1 ... 1."""
    kept = np.flatnonzero(label.sum(0))
    if not len(kept):
        raise UserError("11point_mAP: no sample has a class.")
    return float(np.mean([_eleven_points(scores[:, k], label[:, k], own) for k in kept]))


def _eleven_points(score: np.ndarray, label: np.ndarray, own: bool) -> float:
    order = np.argsort(-score, kind="stable")
    # One point for each distinct score: those that are level are taken together.
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(label[order])[ends]
    precision, recall = hits / (ends + 1), hits / hits[-1]
    points = np.arange(0, 11) / 10
    # A level that a recall meets exactly counts as met, though 0.1 has no exact form.
    best = [float(precision[recall >= t - 1e-12].max()) for t in points]
    if own:
        best[0] = 1.0
    return float(np.mean(best))
