"""Average precision of detections as COCO defines it, number for number.

D: detections, G: objects, T: overlap thresholds, A: ranges of area.
Lin et al. 2014, arXiv:1405.0312, and its evaluation's rules: a detection takes the best object
still free that overlaps at least the threshold, objects that count before those to be ignored;
a crowd may be taken often and its overlap is the part of the *detection* that lies in it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vislang.metrics.boxes import as_boxes
from vislang.metrics.intervals import Interval

if TYPE_CHECKING:
    from jaxtyping import Float, Num

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
    return Matches(found, truth, ious).summary()


class Matches:
    """Detections matched to objects once, for numbers over all images or over samples of them.

    Args:
        found, truth, ious: as for `average_precision`.
    """

    def __init__(
        self,
        found: Mapping[tuple[object, object], Detections],
        truth: Mapping[tuple[object, object], Objects],
        ious: Sequence[float] = tuple(IOUS),
    ):
        keys = sorted(set(found) | set(truth), key=_order)  # decides between equal scores
        self.thresholds = np.asarray(ious, np.float64)
        self.images = list(dict.fromkeys(key[0] for key in keys))
        place = {image: i for i, image in enumerate(self.images)}
        self._parts: dict[object, dict[tuple[str, int], _Ranked]] = {}
        self._where: dict[object, np.ndarray] = {}
        groups: dict[object, list[tuple[object, object]]] = defaultdict(list)
        for key in keys:
            groups[key[1]].append(key)
        for category, mine in groups.items():
            self._where[category] = np.array([place[key[0]] for key in mine])
            self._parts[category] = {}
            pairs = [_Pair.of(found.get(k), truth.get(k)) for k in mine]
            for name, limits in RANGES.items():
                matched = [_match(pair, limits, self.thresholds) for pair in pairs]
                for most in MOST if name == "all" else (MOST[-1],):
                    self._parts[category][name, most] = _Ranked.of(matched, most)

    def summary(self, weights: Num[np.ndarray, " images"] | None = None) -> dict[str, float]:
        """The twelve numbers; an image of weight 2 counts as if it were there twice."""
        if weights is None:
            weights = np.ones(len(self.images))
        precision: dict[str, list[np.ndarray]] = {name: [] for name in RANGES}
        recall: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
        for category, parts in self._parts.items():
            mine = np.asarray(weights, np.float64)[self._where[category]]
            for (name, most), ranked in parts.items():
                curve, reached = ranked.curve(mine)
                recall[name, most].append(reached)
                if most == MOST[-1]:
                    precision[name].append(curve)
        return _summary(precision, recall, self.thresholds)

    def intervals(self, draws: int = 100, seed: int = 0) -> dict[str, Interval]:
        """The numbers that there are, with bootstrap intervals over images."""
        value, n = self.summary(), len(self.images)
        rng = np.random.default_rng(seed)
        drawn = [
            self.summary(np.bincount(rng.integers(n, size=n), minlength=n)) for _ in range(draws)
        ]
        out = {}
        for name, middle in value.items():
            if math.isnan(middle):
                continue
            low, high = np.nanquantile([one[name] for one in drawn], [0.025, 0.975])
            ends = min(float(low), middle), max(float(high), middle)
            out[name] = Interval(middle, *ends, n, f"bootstrap over images 95% ({draws})")
        return out

    def per_category(self) -> dict[object, tuple[float, int]]:
        """Category -> its AP over all thresholds and sizes, and how many objects it has."""
        out = {}
        for category, parts in self._parts.items():
            ranked = parts["all", MOST[-1]]
            curve, _ = ranked.curve(np.ones(len(ranked.objects)))
            out[category] = float(curve.mean()), int(ranked.objects.sum())
        return out


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


@dataclass(frozen=True)
class _Pair:
    """Detections of one image and category, best first, beside its objects."""

    scores: np.ndarray  # [D]
    size: np.ndarray  # [D], area
    overlap: np.ndarray  # [D, G]
    crowd: np.ndarray  # [G]
    area: np.ndarray  # [G]

    @classmethod
    def of(cls, found: Detections | None, truth: Objects | None) -> _Pair:
        found = found or Detections(np.zeros((0, 4)), np.zeros(0))
        best = np.argsort(-found.scores, kind="stable")[: MOST[-1]]
        boxes, scores = as_boxes(found.boxes)[best], found.scores[best]
        size = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if truth is None or not len(truth.crowd):
            none = np.zeros(0)
            return cls(scores, size, np.zeros((len(scores), 0)), none.astype(bool), none)
        return cls(scores, size, _overlaps(boxes, truth), truth.crowd.astype(bool), truth.area)


def _match(pair: _Pair, limits: tuple[float, float], thresholds: np.ndarray) -> _Matched:
    shape = (len(thresholds), len(pair.scores))
    taken, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    outside = (pair.size < limits[0]) | (pair.size > limits[1])
    if not len(pair.crowd):
        ignored |= outside
        return _Matched(pair.scores, taken, ignored, 0)
    ignore = pair.crowd | (pair.area < limits[0]) | (pair.area > limits[1])
    order = np.argsort(ignore, kind="stable")
    ignore, crowd, overlap = ignore[order], pair.crowd[order], pair.overlap[:, order]
    near = overlap.max(1)
    for t, threshold in enumerate(thresholds):
        least = min(threshold, 1 - 1e-10)
        free = np.ones(len(order), bool)
        for d in np.flatnonzero(near >= least):
            choice = _choose(overlap[d], free | crowd, ignore, least)
            if choice >= 0:
                taken[t, d], ignored[t, d], free[choice] = True, ignore[choice], False
    ignored |= ~taken & outside
    return _Matched(pair.scores, taken, ignored, int((~ignore).sum()))


def _choose(overlap: np.ndarray, free: np.ndarray, ignore: np.ndarray, least: float) -> int:
    """The free object that overlaps most, one that counts if any does; of equal ones the last."""
    for among in (~ignore, ignore):
        usable = free & among & (overlap >= least)
        if usable.any():
            best = overlap[usable].max()
            return int(np.flatnonzero(usable & (overlap == best))[-1])
    return -1


@dataclass(frozen=True)
class _Ranked:
    """Detections of one category over all images, best first, ready for any weights."""

    where: np.ndarray  # [D], which of the category's images
    right: np.ndarray  # [T, D]
    wrong: np.ndarray  # [T, D]
    objects: np.ndarray  # objects of each image

    @classmethod
    def of(cls, matched: list[_Matched], most: int) -> _Ranked:
        kept = [min(most, len(m.scores)) for m in matched]
        scores = np.concatenate([m.scores[:k] for m, k in zip(matched, kept)])
        order = np.argsort(-scores, kind="stable")
        taken = np.concatenate([m.taken[:, :most] for m in matched], axis=1)[:, order]
        ignored = np.concatenate([m.ignored[:, :most] for m in matched], axis=1)[:, order]
        where = np.repeat(np.arange(len(matched)), kept)[order]
        objects = np.array([m.objects for m in matched])
        return cls(where, taken & ~ignored, ~taken & ~ignored, objects)

    def curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision at each recall [T, R] and the largest recall [T]; NaN without objects."""
        count = float(weights @ self.objects)
        curve = np.full((len(self.right), len(RECALLS)), np.nan)
        reached = np.full(len(self.right), np.nan)
        if not count:
            return curve, reached
        weight = weights[self.where]
        right = np.cumsum(weight * self.right, axis=1)
        wrong = np.cumsum(weight * self.wrong, axis=1)
        recall = right / count
        precision = right / (right + wrong + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))
        for t, reach in enumerate(recall):
            curve[t] = precision[t, np.searchsorted(reach, RECALLS, side="left")]
            reached[t] = reach[-1] if len(reach) else 0.0
        return curve, reached
