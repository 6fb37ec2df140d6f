"""The measures of GRIT, number for number (Gupta et al. 2022, arXiv:2204.13653).

A sample's metric m is in [0, 1], its confidence c too.  Boxes are (x1, y1, x2, y2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vislang.metrics.boxes import as_boxes, iou_matrix

EPSILON = 1e-6
MEASURES = ("acc", "inf", "misinf", "conf", "sa", "rmse")
TASKS = {"categorization": "cat", "localization": "loc", "vqa": "vqa", "refexp": "ref",
         "segmentation": "seg", "keypoint": "kp", "normal": "sn"}  # fmt: skip


def localization(found: Any, truth: Any) -> float:
    """Overlaps of the best one-to-one assignment over everything that was found or is there.

        Σ IoU of kept pairs / (found + there - kept),   kept: IoU > 0

    Not an average precision: each false or doubled box adds 1 below, confidence plays no part.

    >>> round(localization([[0, 0, 9, 9]] * 2, [[0, 0, 9, 9]]), 4)
    0.5
    """
    return _assigned(as_boxes(found), as_boxes(truth))[0]


def assignment(found: Any, truth: Any) -> list[tuple[int, int, float]]:
    """The pairs (found, true, IoU) behind `localization`."""
    return _assigned(as_boxes(found), as_boxes(truth))[1]


def _assigned(found: np.ndarray, truth: np.ndarray) -> tuple[float, list[tuple[int, int, float]]]:
    from scipy.optimize import linear_sum_assignment

    if not len(found) or not len(truth):
        return float(len(found) == len(truth)), []
    overlap = iou_matrix(found, truth, epsilon=EPSILON)
    rows, columns = linear_sum_assignment(1 - overlap)
    pairs = [(int(r), int(c), float(overlap[r, c])) for r, c in zip(rows, columns)]
    kept = [pair for pair in pairs if pair[2] > 0]
    return sum(p[2] for p in kept) / (len(found) + len(truth) - len(kept)), kept


def refexp(found: Any, truth: Any) -> float:
    """1 if the first box found overlaps the first true one by more than a half."""
    found, truth = as_boxes(found), as_boxes(truth)
    if not len(found):
        return 0.0
    return float(iou_matrix(found[:1], truth[:1], epsilon=EPSILON)[0, 0] > 0.5)


def categorization(found: str, truth: str) -> float:
    """1 for the very same string; case and blanks matter."""
    return float(found == truth)


_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(n) for n, word in enumerate(_COUNTED.split())}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_SHORT = ("ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't"
          " mustn't needn't shouldn't wasn't weren't won't wouldn't could've should've would've"
          " might've must've i'd've he's she's that's there's they're they've we're we've what's"
          " where's who's why's you're you've you'll they'll she'd he'd"
          " i'm i've it'll y'all")  # fmt: skip
_CONTRACTIONS = {word.replace("'", ""): word for word in _SHORT.split()}
# Without their apostrophe these are words of their own.
_CONTRACTIONS = {k: v for k, v in _CONTRACTIONS.items() if k not in {"shed", "hed", "wont"}} | {
    "wont": "won't"
}


def normalized_answer(text: str) -> str:
    """An answer as visual question answering compares it.

    Lower case; punctuation out, or a blank where it stands between characters; number words as
    digits; articles out; apostrophes of contractions put back.

    >>> normalized_answer("The two-door cars, 1,000 of them!")
    'twodoor cars 1000 of them'
    """
    text = text.replace("\n", " ").replace("\t", " ").strip().lower()
    number_comma = re.search(r"(\d)(,)(\d)", text) is not None
    bare = text
    for mark in _PUNCTUATION:
        if f"{mark} " in text or f" {mark}" in text or number_comma:
            bare = bare.replace(mark, "")
        else:
            bare = bare.replace(mark, " ")
    bare = re.sub(r"(?<!\d)\.(?!\d)", "", bare)
    words = (_NUMBERS.get(word, word) for word in bare.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa(found: Sequence[str], truth: Sequence[str]) -> float:
    """min(answers like the first one found / 3, 1), of ten people's."""
    if not found:
        return 0.0
    answer = normalized_answer(found[0])
    return min(sum(normalized_answer(t) == answer for t in truth) / 3, 1.0)


def measures(metric: float, confidence: float) -> dict[str, float]:
    """The six measures of one sample; rmse is squared until it is averaged.

    >>> measures(1.0, 0.5)["sa"]
    50.0
    """
    m, c = metric, confidence
    return {
        "acc": 100 * m,
        "inf": 100 * c * m,
        "misinf": 100 * c * (1 - m),
        "conf": 100 * c,
        "sa": 100 * (c * m + (1 - c) * (1 - m)),
        "rmse": (100 * (c - m)) ** 2,
    }


@dataclass(frozen=True)
class Judged:
    """One sample with its result.

    Args:
        id: example_id; a distorted one ends in "_dist", its twin has the same without it.
        task: one of TASKS.
        metric, confidence: in [0, 1].
        new_source, new_concept: whether the training task had neither its images' source nor
            its concept.
        groups: groups of concepts that its query belongs to.
    """

    id: str
    task: str
    metric: float
    confidence: float
    new_source: bool = False
    new_concept: bool = False
    groups: tuple[str, ...] = ()

    @property
    def distorted(self) -> bool:
        """Whether its image was distorted."""
        return self.id.endswith("_dist")


def aggregate(judged: Iterable[Judged]) -> dict[str, dict[str, float | int]]:
    """All published numbers: "measure.group.partition.task" -> value, low, high, n.

    Partitions: sameSrc, newSrc, sameCpt, newCpt (undistorted samples); dist; undist (the twins of
    the distorted); deldist (undist - dist, pair by pair; not for rmse); agg (mean of sameSrc and
    newSrc). "all" is the mean over seven tasks, a missing one counts 0. 95 % intervals: Student's
    with a standard error 1e-6 larger; normal ones for agg and all.
    """
    samples = list(judged)
    out: dict[str, dict[str, float | int]] = {}
    sources: dict[tuple[str, str], dict[str, tuple[float, float, int]]] = {}
    groups = ["any", *sorted({g for s in samples for g in s.groups})]
    for task, short in TASKS.items():
        own = [s for s in samples if s.task == task]
        for group in groups:
            chosen = [s for s in own if group == "any" or group in s.groups]
            for measure in MEASURES if group == "any" else ("acc",):
                parts = _partitions(chosen, measure)
                sources[f"{measure}.{group}", short] = _source_means(parts, measure)
                if group == "any":
                    for name, values in parts.items():
                        if (row := _interval(values, measure, name)) is not None:
                            out[f"{measure}.{group}.{name}.{short}"] = row
                row = _mean_of(sources[f"{measure}.{group}", short].values(), 2, measure)
                if row is not None:
                    out[f"{measure}.{group}.agg.{short}"] = row
    for prefix in sorted({key for key, _ in sources}):
        cells = [v for (key, _), means in sources.items() if key == prefix for v in means.values()]
        if (row := _mean_of(cells, 2 * len(TASKS), prefix.partition(".")[0])) is not None:
            out[f"{prefix}.agg.all"] = row
    return out


def _partitions(samples: Sequence[Judged], measure: str) -> dict[str, np.ndarray]:
    value = {s.id: measures(s.metric, s.confidence)[measure] for s in samples}
    plain = [s for s in samples if not s.distorted]
    pairs = [
        (s.id, twin)
        for s in samples
        if s.distorted and (twin := s.id.removesuffix("_dist")) in value
    ]

    def of(ids: Iterable[str]) -> np.ndarray:
        return np.array([value[i] for i in ids], np.float64)

    parts = {
        "sameSrc": of(s.id for s in plain if not s.new_source),
        "newSrc": of(s.id for s in plain if s.new_source),
        "sameCpt": of(s.id for s in plain if not s.new_concept),
        "newCpt": of(s.id for s in plain if s.new_concept),
        "dist": of(s.id for s in samples if s.distorted),
        "undist": of(twin for _, twin in pairs),
    }
    if measure != "rmse":
        parts["deldist"] = of(t for _, t in pairs) - of(d for d, _ in pairs)
    return parts


def _interval(values: np.ndarray, measure: str, name: str) -> dict[str, float | int] | None:
    from scipy.stats import t

    n = len(values)
    if n <= 1:
        return None
    mean = float(values.mean())
    half = float(t.ppf(0.975, n - 1)) * (float(values.std(ddof=1)) / math.sqrt(n) + EPSILON)
    return _row(mean, mean - half, mean + half, n, measure, signed=name == "deldist")


def _source_means(
    parts: Mapping[str, np.ndarray], measure: str
) -> dict[str, tuple[float, float, int]]:
    """Mean, variance of the mean and n of sameSrc and newSrc, where there are enough."""
    out = {}
    for name in ("sameSrc", "newSrc"):
        values = parts[name]
        if len(values) > 1:
            n = len(values)
            out[name] = (float(values.mean()), float(values.var(ddof=1)) / n, n)
    return out


def _mean_of(
    cells: Iterable[tuple[float, float, int]], of: int, measure: str
) -> dict[str, float | int] | None:
    cells = list(cells)
    if not cells:
        return None
    mean = sum(c[0] for c in cells) / of
    half = 1.96 * math.sqrt(sum(c[1] for c in cells)) / of
    return _row(mean, mean - half, mean + half, sum(c[2] for c in cells), measure)


def _row(
    mean: float, low: float, high: float, n: int, measure: str, signed: bool = False
) -> dict[str, float | int]:
    if measure == "rmse":
        mean, low, high = (math.sqrt(max(v, 0.0)) for v in (mean, low, high))
    high = min(high, 100.0)
    if not signed:
        low = max(low, 0.0)
    return {"value": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "n": n}
