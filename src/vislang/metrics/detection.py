"""Average precision of detections as COCO defines it, number for number.

D: detections, G: objects, T: overlap thresholds, A: ranges of area.
Lin et al. 2014, arXiv:1405.0312, and its evaluation's rules: a detection takes the best object
still free that overlaps at least the threshold, objects that count before those to be ignored;
a crowd may be taken often and its overlap is the part of the *detection* that lies in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.boxes import as_boxes

if TYPE_CHECKING:
    from jaxtyping import Float

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
RANGES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2),
          "large": (96.0**2, 1e10)}  # fmt: skip
MOST = (1, 10, 100)


@dataclass(frozen=True)
class Objects:
    """What is in one image of one category.

    Args:
        boxes: [G, 4], x1 y1 x2 y2.
        crowd: [G] of 0 and 1.
        area: [G]; COCO's own are of the masks, not of the boxes.
    """

    boxes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray


@dataclass(frozen=True)
class Detections:
    """What was found in one image of one category: boxes [D, 4] and scores [D]."""

    boxes: np.ndarray
    scores: np.ndarray


@dataclass
class _Matched:
    scores: np.ndarray
    taken: np.ndarray  # [T, D]
    ignored: np.ndarray  # [T, D]
    objects: int


def average_precision(
    found: Mapping[tuple[object, object], Detections],
    truth: Mapping[tuple[object, object], Objects],
    ious: Sequence[float] = tuple(IOUS),
) -> dict[str, float]:
    """COCO's twelve numbers, with NaN where no object is of that size.

    Args:
        found: (image, category) -> detections; images without truth may not occur in it.
        truth: (image, category) -> objects.
        ious: overlap thresholds.

    Returns:
        AP, AP50, AP75, AP_small, AP_medium, AP_large, AR1, AR10, AR100, AR_small, AR_medium,
        AR_large.
    """
    groups: dict[object, list[tuple[object, object]]] = defaultdict(list)
    for key in sorted(set(found) | set(truth), key=_order):  # decides between equal scores
        groups[key[1]].append(key)
    precision: dict[str, list[np.ndarray]] = {name: [] for name in RANGES}
    recall: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    thresholds = np.asarray(ious, np.float64)
    for keys in groups.values():
        for name, limits in RANGES.items():
            matched = []
            for key in keys:
                one = _match(found.get(key), truth.get(key), limits, thresholds)
                matched += [one] if one else []
            for most in MOST if name == "all" else (MOST[-1],):
                curve, reached = _accumulate(matched, thresholds, most)
                recall[name, most].append(reached)
                if most == MOST[-1]:
                    precision[name].append(curve)
    return _summary(precision, recall, thresholds)


def _order(key: tuple[object, object]) -> list[tuple[bool, float, str]]:
    """Numbers by size, then names by letters."""
    return [(isinstance(k, str), 0.0 if isinstance(k, str) else float(k), str(k)) for k in key]  # type: ignore[arg-type]


def _summary(precision, recall, thresholds: np.ndarray) -> dict[str, float]:
    def mean(parts: list[np.ndarray]) -> float:
        values = np.stack(parts) if parts else np.full(1, np.nan)
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def at(level: float) -> float:
        near = np.isclose(thresholds, level)
        return mean([part[near] for part in precision["all"]]) if near.any() else float("nan")

    out = {"AP": mean(precision["all"]), "AP50": at(0.5), "AP75": at(0.75)}
    out |= {f"AP_{name}": mean(precision[name]) for name in ("small", "medium", "large")}
    out |= {f"AR{most}": mean(recall["all", most]) for most in MOST}
    return out | {f"AR_{n}": mean(recall[n, MOST[-1]]) for n in ("small", "medium", "large")}


def _overlaps(found: np.ndarray, objects: Objects) -> Float[np.ndarray, "D G"]:
    """Widths times heights, as COCO's: no box is repaired."""
    a, b = as_boxes(found), as_boxes(objects.boxes)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    own = (a[:, 2:] - a[:, :2]).prod(1)[:, None]
    union = own + (b[:, 2:] - b[:, :2]).prod(1)[None] - common
    union = np.where(objects.crowd[None].astype(bool), own, union)
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _match(
    found: Detections | None,
    truth: Objects | None,
    limits: tuple[float, float],
    thresholds: np.ndarray,
) -> _Matched | None:
    if found is None and truth is None:
        return None
    found = found or Detections(np.zeros((0, 4)), np.zeros(0))
    truth = truth or Objects(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    ignore = truth.crowd.astype(bool) | (truth.area < limits[0]) | (truth.area > limits[1])
    order = np.argsort(ignore, kind="stable")
    ignore, crowd = ignore[order], truth.crowd.astype(bool)[order]
    best = np.argsort(-found.scores, kind="stable")[: MOST[-1]]
    boxes, scores = as_boxes(found.boxes)[best], found.scores[best]
    overlap = _overlaps(boxes, truth)[:, order]
    shape = (len(thresholds), len(scores))
    taken, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    for t, threshold in enumerate(thresholds):
        free = np.ones(len(order), bool)
        for d in range(len(scores)):
            choice = _choose(overlap[d], free | crowd, ignore, min(threshold, 1 - 1e-10))
            if choice >= 0:
                taken[t, d], ignored[t, d], free[choice] = True, ignore[choice], False
    sides = boxes[:, 2:] - boxes[:, :2]
    outside = (sides.prod(1) < limits[0]) | (sides.prod(1) > limits[1])
    ignored |= ~taken & outside[None]
    return _Matched(scores, taken, ignored, int((~ignore).sum()))


def _choose(overlap: np.ndarray, free: np.ndarray, ignore: np.ndarray, least: float) -> int:
    """The free object that overlaps most, one that counts if any does; of equal ones the last."""
    for among in (~ignore, ignore):
        usable = free & among & (overlap >= least)
        if usable.any():
            best = overlap[usable].max()
            return int(np.flatnonzero(usable & (overlap == best))[-1])
    return -1


def _accumulate(
    matched: list[_Matched], thresholds: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Precision at each recall [T, R] and the largest recall [T]; NaN without objects."""
    count = sum(m.objects for m in matched)
    curve = np.full((len(thresholds), len(RECALLS)), np.nan)
    reached = np.full(len(thresholds), np.nan)
    if not count:
        return curve, reached
    scores = np.concatenate([m.scores[:most] for m in matched])
    order = np.argsort(-scores, kind="stable")
    taken = np.concatenate([m.taken[:, :most] for m in matched], axis=1)[:, order]
    ignored = np.concatenate([m.ignored[:, :most] for m in matched], axis=1)[:, order]
    right = np.cumsum(taken & ~ignored, axis=1).astype(np.float64)
    wrong = np.cumsum(~taken & ~ignored, axis=1).astype(np.float64)
    for t in range(len(thresholds)):
        recall = right[t] / count
        precision = right[t] / (right[t] + wrong[t] + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(recall, RECALLS, side="left")
        curve[t] = np.append(precision, 0.0)[np.minimum(place, len(precision))]
        reached[t] = recall[-1] if len(recall) else 0.0
    return curve, reached
