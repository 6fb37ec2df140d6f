"""Choosing the strength of a probe's penalty on a validation split, never on the test set.

Seven coarse costs, then a halving of 29 finer ones around the best (language-guided pre-training,
CVPR 2023; CLIP's own search, arXiv:2103.00020 appendix A.3, is alike). C has scikit-learn's
meaning: C · Σ cross-entropy + ½ ‖W‖².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int

COARSE = tuple(10.0**power for power in range(-6, 7, 2))
PER_DECADE, REACH = 7, 100.0  # the finer costs: 7 a decade, from best/100 to best*100


def fine_costs(best: float) -> list[float]:
    """The 29 finer costs around `best`, of which those outside the coarse range are left out.

    They are float32 numbers, as in the original, so that the same costs are tried.

    >>> len(fine_costs(100.0)), len(fine_costs(1e6))
    (29, 15)
    """
    count = round(np.log10(REACH**2) * PER_DECADE) + 1
    costs = np.logspace(np.log10(best / REACH), np.log10(best * REACH), count, dtype=np.float32)
    inside = (costs >= np.float32(COARSE[0]) * 0.9999) & (costs <= np.float32(COARSE[-1]) * 1.0001)
    return [float(cost) for cost in costs[inside]]


def search_cost(score: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """The best cost, and every cost that was tried with its score.

    Args:
        score: validation score of a cost; higher is better. Called once for each cost.

    Of equally good costs the first one tried wins, which is the coarse best.
    """
    tried = {cost: score(cost) for cost in COARSE}
    best = max(tried, key=lambda cost: tried[cost])
    memory = {best: tried[best]}
    costs = fine_costs(best)

    def known(cost: float) -> float:
        for other, value in memory.items():
            if abs(other - cost) <= 1e-6 * other:  # float32's 100 is the coarse 100
                return value
        memory[cost] = tried[cost] = score(cost)
        return memory[cost]

    while (n := len(costs)) > 1:
        places = (n // 4, n // 2, n - -(-n // 4))
        first, middle, third = (known(costs[place]) for place in places)
        most = max(first, middle, third)
        if first == most:
            costs = costs[: n // 2]
        elif third == most:
            costs = costs[n // 2 :]
        else:
            costs = costs[places[0] : places[2]]
    return max(memory, key=lambda cost: memory[cost]), tried


def search_grid(score: Callable[[float], float], count: int) -> tuple[float, dict[float, float]]:
    """The best of `count` costs spread evenly over the logarithms of 1e-6 to 1e6, lowest first.

    CLIP's range, arXiv:2103.00020, appendix A.3 (96 costs). Of equally good costs the lowest wins,
    which penalises most.
    """
    costs = np.logspace(np.log10(COARSE[0]), np.log10(COARSE[-1]), count).tolist()
    tried = {cost: score(cost) for cost in costs}
    return max(tried, key=lambda cost: tried[cost]), tried


def held_out(
    how: str, label: np.ndarray, ids: Sequence[str], share: float, seed: int
) -> Int[np.ndarray, " m"]:
    """Rows of the training samples on which a search judges.

    Args:
        how: stratified (the share of each class, seeded), contiguous (the last share of the rows,
            as TFDS slices them), or id:PREFIX (samples of a validation split).
        label: of the training samples.
        ids: of the training samples; may be empty unless prefixes are asked for.
        share, seed: see stratified_split.
    """
    if how == "stratified":
        return stratified_split(label, share, seed)[1]
    if how == "contiguous":
        return np.arange(int(len(label) * (1 - share) + 1e-9), len(label))
    prefix = how.removeprefix("id:")
    rows = np.array([i for i, id_ in enumerate(ids) if id_.startswith(prefix)], np.int64)
    if not 0 < len(rows) < len(label):
        raise UserError(
            f"probe: {len(rows):,} of {len(label):,} training samples have an id that begins with"
            f" {prefix!r}: some, but not all, must, to choose C on them."
        )
    return rows


def stratified_split(
    label: Int[np.ndarray, " n"], share: float = 0.2, seed: int = 93
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " m"]]:
    """Rows for training and rows held out, both in ascending order.

    Of each class the first ⌊share · size⌋ of its rows, shuffled with a generator of its own, are
    held out, but at least one where the class has two; a class of one row is only trained on.

    >>> train, held = stratified_split(np.repeat([0, 1], [10, 3])); held.size
    3
    """
    label = np.asarray(label)
    held = []
    for value in np.unique(label):
        rows = np.flatnonzero(label == value)
        count = max(int(share * len(rows) + 1e-9), 1) if len(rows) > 1 else 0
        held.append(np.random.default_rng([seed, int(value)]).permutation(rows)[:count])
    chosen = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(label)), chosen), chosen


def as_table(tried: dict[float, float], fits: dict[float, Any]) -> dict[str, Any]:
    """The search as a table of a scores file, in the order of the costs."""
    columns = [
        "C", "validation", "objective", "gradient_norm", "weight_norm", "evaluations", "converged"
    ]  # fmt: skip
    rows = []
    for cost in sorted(tried):
        fit = fits.get(cost)
        rows.append(
            [cost, tried[cost]]
            + ([getattr(fit, name) for name in columns[2:]] if fit is not None else [None] * 5)
        )
    return {"columns": columns, "rows": rows}
