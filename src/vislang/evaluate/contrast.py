"""Two models on the same data sets: paired differences with intervals and tests.

Models are runs (or folders of `vislang evaluate --out`) that `--dataset` has evaluated; several
runs of one recipe, its seeds, are averaged sample by sample first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.files import read_json
from vislang.metrics.intervals import paired_difference
from vislang.metrics.paired import holm


def contrast_datasets(
    first: Sequence[Path | str] | Path | str, second: Sequence[Path | str] | Path | str
) -> dict[str, Any]:
    """A table {"columns", "rows"}: first less second, for every data set and metric of both.

    The unit is the test sample for a probe and the episode for few-shot, where equal seeds gave
    both models the same episodes. p is of the paired sign-flip test, p_holm corrected for all rows.

    Args:
        first, second: folders; several are seeds of the same thing.

    Raises:
        UserError: nothing in common, or other samples under the same name.
    """
    left, right = (_outcomes([side] if isinstance(side, str | Path) else side)
                   for side in (first, second))  # fmt: skip
    common = [key for key in left if key in right]
    if not common:
        raise UserError(
            f"{first} and {second} have no data set and metric in common with outcomes of single"
            " samples: evaluate both with the same --dataset."
        )
    rows = []
    for key in common:
        (ids, a), (others, b) = left[key], right[key]
        if ids != others:
            raise UserError(
                f"{' '.join(key)}: the samples are not the same ({len(ids):,} and"
                f" {len(others):,}): evaluate both on the same data."
            )
        found = paired_difference(a, b)
        rows.append([*key, float(a.mean()), float(b.mean()), found.interval.value,
                     found.interval.low, found.interval.high, len(ids), found.p])  # fmt: skip
    for row, corrected in zip(rows, holm([row[-1] for row in rows])):
        row.append(corrected)
    columns = ["data set", "evaluation", "metric", "first", "second", "difference", "low", "high",
               "n", "p", "p_holm"]  # fmt: skip
    return {"columns": columns, "rows": rows}


Outcomes = dict[tuple[str, str, str], tuple[list[str], np.ndarray]]


def _outcomes(folders: Sequence[Path | str]) -> Outcomes:
    """(data set, evaluation, metric) -> ids and values, averaged over the folders."""
    each = [_read(Path(folder)) for folder in folders]
    merged: Outcomes = {}
    for key, (ids, _) in each[0].items():
        if all(key in other and other[key][0] == ids for other in each):
            merged[key] = ids, np.mean([other[key][1] for other in each], axis=0)
    return merged


def _read(folder: Path) -> Outcomes:
    found: Outcomes = {}
    for place in sorted((folder / "datasets").glob("*/scores")):
        steps = sorted(p for p in place.iterdir() if p.is_dir())
        for file in sorted(steps[-1].glob("*.json")) if steps else ():
            content: Mapping[str, Any] = read_json(file)
            for metric, part in (content.get("per_sample") or {}).items():
                order = np.argsort(np.array(part["ids"], object), kind="stable")
                ids = [part["ids"][i] for i in order]
                values = np.array(part["values"], np.float64)[order]
                found[place.parent.name, content["evaluation"], metric] = ids, values
    return found
