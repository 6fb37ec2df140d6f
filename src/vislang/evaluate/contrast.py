"""Two models on the same data sets: paired differences with intervals and tests.

Models are runs, or folders of `vislang evaluate --out`; several runs of one recipe, its seeds, are
averaged sample by sample first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.files import read_json
from vislang.metrics.intervals import paired_difference
from vislang.metrics.paired import holm

COLUMNS = ("data set", "evaluation", "metric", "first", "second", "difference", "low", "high", "n",
           "p", "p_holm", "by seed")  # fmt: skip


def contrast_datasets(
    first: Sequence[Path | str] | Path | str, second: Sequence[Path | str] | Path | str
) -> dict[str, Any]:
    """A table {"columns", "rows"}: first less second, for every data set and metric of both.

    The unit is the test sample for a probe and the episode for few-shot, where equal seeds gave
    both models the same episodes. p is of the paired sign-flip test, p_holm corrected for all rows.
    Where several data sets have a metric, a row "average" is of the mean over them (interval and p
    by the normal distribution, sets as given). Intervals resample samples, not seeds; `by seed`
    has the difference of each pair of folders, where both sides have as many.

    Args:
        first, second: folders; several are seeds of the same thing.

    Raises:
        UserError: nothing in common, or other samples under the same name.
    """
    sides = [[side] if isinstance(side, str | Path) else list(side) for side in (first, second)]
    each = [[_read(Path(folder)) for folder in side] for side in sides]
    left, right = map(_merged, each)
    common = [key for key in left if key in right]
    if not common:
        raise UserError(
            f"{_named(sides[0])} and {_named(sides[1])} have no data set and metric in common with"
            " outcomes of single samples: evaluate both with the same --dataset or --source."
        )
    rows: list[list[Any]] = []
    parts: dict[tuple[str, str], list[tuple[Any, Any, list[float]]]] = {}
    for key in common:
        (ids, a), (others, b) = left[key], right[key]
        if ids != others:
            raise UserError(
                f"{' '.join(key)}: the samples are not the same ({len(ids):,} and"
                f" {len(others):,}): evaluate both on the same data."
            )
        found = paired_difference(a, b)
        pairs = list(zip(*each)) if len(each[0]) == len(each[1]) > 1 else []
        seeds = [float(x[key][1].mean() - y[key][1].mean()) for x, y in pairs]
        gap = found.interval
        rows.append([*key, float(a.mean()), float(b.mean()), gap.value, gap.low, gap.high,
                     len(ids), found.p, seeds])  # fmt: skip
        parts.setdefault(key[1:], []).append((a, b, seeds))
    rows += [_average(key, found) for key, found in parts.items() if len(found) > 1]
    for row, corrected in zip(rows, holm([row[9] for row in rows])):
        row.insert(10, corrected)
        row[11] = " ".join(f"{value:+.4f}" for value in row[11])
    return {"columns": list(COLUMNS), "rows": rows}


def _average(key: tuple[str, str], found: Sequence[tuple[Any, Any, list[float]]]) -> list[Any]:
    """The row of the mean over data sets."""
    first = float(np.mean([a.mean() for a, _, _ in found]))
    second = float(np.mean([b.mean() for _, b, _ in found]))
    variance = sum((a - b).var(ddof=1) / len(a) for a, b, _ in found) / len(found) ** 2
    error, gap = math.sqrt(variance), first - second
    p = 2 * NormalDist().cdf(-abs(gap) / error) if error else float(gap == 0)
    seeds = [float(np.mean(values)) for values in zip(*(part[2] for part in found))]
    reach = NormalDist().inv_cdf(0.975) * error
    return ["average", *key, first, second, gap, gap - reach, gap + reach, len(found), p, seeds]


def _named(folders: Sequence[Path | str]) -> str:
    return ", ".join(map(str, folders))


Outcomes = dict[tuple[str, str, str], tuple[list[str], np.ndarray]]


def _merged(each: Sequence[Outcomes]) -> Outcomes:
    """(data set, evaluation, metric) -> ids and values, averaged over the folders."""
    merged: Outcomes = {}
    for key, (ids, _) in each[0].items():
        if all(key in other and other[key][0] == ids for other in each):
            merged[key] = ids, np.mean([other[key][1] for other in each], axis=0)
    return merged


def _read(folder: Path) -> Outcomes:
    """Of all data sets below a folder, and of the source that it was evaluated on itself."""
    found: Outcomes = {}
    for place in [*sorted((folder / "datasets").glob("*/scores")), folder / "scores"]:
        steps = sorted(p for p in place.iterdir() if p.is_dir()) if place.is_dir() else ()
        for file in sorted(steps[-1].glob("*.json")) if steps else ():
            content: Mapping[str, Any] = read_json(file)
            own = content.get("provenance", {}).get("source", "")
            data = own if place.parent == folder else place.parent.name
            for metric, part in (content.get("per_sample") or {}).items():
                order = np.argsort(np.array(part["ids"], object), kind="stable")
                ids = [part["ids"][i] for i in order]
                values = np.array(part["values"], np.float64)[order]
                found[data, content["evaluation"], metric] = ids, values
    return found
