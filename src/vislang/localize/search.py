"""From a heat-map to the box that holds most heat for its area.

    F(box) = heat inside / (all heat + 1e-8) - alpha · area / (H · W)

over inclusive boxes of at least 2 x 2 pixels: the rectangle of largest sum in the map
heat / sum - alpha / (H · W).  `exact` finds the optimum; `coarse_to_fine` is the published search
(Li, Shakhnarovich, Yeh 2022, arXiv:2204.03647), which misses what lies between its samples.
H, W: pixels of the map.  Boxes are (x1, y1, x2, y2), indices of the last pixels inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

_BLOCK = 8


class Found(NamedTuple):
    """A box (inclusive pixel indices) and its objective F."""

    box: tuple[int, int, int, int]
    value: float


def exact(heat: Float[np.ndarray, "H W"], alpha: float) -> Found:
    """The best box of all, in float64.

    Pairs of blocks of rows are bounded first: the largest sum that each column can have between
    a top row in one block and a bottom row in the other is known at once, and the best run of
    columns of those is an upper bound.  Only pairs whose bound exceeds the best box so far are
    searched row by row, so that a map with a clear peak costs a small part of O(H² W).
    """
    heat = _checked(heat)
    if heat.shape[0] > heat.shape[1]:
        box, value = exact(np.ascontiguousarray(heat.T), alpha)
        return Found((box[1], box[0], box[3], box[2]), value)
    height, width = heat.shape
    weight = heat / (heat.sum() + 1e-8) - alpha / (height * width)
    down = np.zeros((height + 1, width))
    np.cumsum(weight, axis=0, out=down[1:])
    starts = np.arange(0, height + 1, _BLOCK)
    low = np.minimum.reduceat(down, starts, axis=0)
    high = np.maximum.reduceat(down, starts, axis=0)
    top, bottom = np.triu_indices(len(starts))
    bounds = _best_runs(high[bottom] - low[top])
    order = np.argsort(-bounds, kind="stable")
    best, value, at, batch = (0, 0, 1, 1), -np.inf, 0, 1
    while at < len(order) and bounds[order[at]] > value + 1e-15:
        pairs = order[at : at + batch]
        # Growing batches: the first pair mostly holds the optimum, a flat map needs many.
        at, batch = at + batch, min(2 * batch, 32)
        pairs = pairs[bounds[pairs] > value + 1e-15]
        y1 = (starts[top[pairs], None, None] + np.arange(_BLOCK)[:, None]).repeat(_BLOCK, 2).ravel()
        end = (starts[bottom[pairs], None, None] + np.arange(_BLOCK)).repeat(_BLOCK, 1).ravel()
        tall = (end >= y1 + 2) & (end <= height)
        if not tall.any():
            continue
        y1, end = y1[tall], end[tall]
        sums = down[end] - down[y1]
        reached = _best_runs(sums)
        row = int(np.argmax(reached))
        if reached[row] > value:
            x1, x2 = _run(sums[row])
            value, best = float(reached[row]), (x1, int(y1[row]), x2, int(end[row]) - 1)
    return Found(best, value)


def _best_runs(sums: Float[np.ndarray, "R W"]) -> Float[np.ndarray, " R"]:
    """The largest sum of at least two neighbouring numbers in each row."""
    along = np.zeros((sums.shape[1] + 1, len(sums)))
    np.cumsum(sums.T, axis=0, out=along[1:])
    least = along[0].copy()
    best = along[2] - least
    for column in range(3, len(along)):
        np.minimum(least, along[column - 2], out=least)
        np.maximum(best, along[column] - least, out=best)
    return best


def _run(sums: Float[np.ndarray, " W"]) -> tuple[int, int]:
    """First and last place of the run that `_best_runs` found."""
    along = np.concatenate([[0.0], np.cumsum(sums)])
    least = np.minimum.accumulate(along)[:-2]
    end = int(np.argmax(along[2:] - least)) + 2
    return int(np.argmin(along[: end - 1])), end - 1


def coarse_to_fine(heat: Float[np.ndarray, "H W"], alpha: float) -> Found:
    """The published search: all boxes on an 8 times smaller map, then each corner within 8.

    In float32, the first of equal boxes in the order x1, y1, x2, y2.
    """
    import torch
    import torch.nn.functional as F

    heat32 = _checked(heat).astype(np.float32)
    height, width = heat32.shape
    if min(height, width) < 2 * _BLOCK:  # nothing to shrink: all boxes of the map itself
        spans = (np.arange(width), np.arange(height), np.arange(width), np.arange(height))
        return _all_boxes(heat32, alpha, spans)
    small = F.interpolate(
        torch.from_numpy(heat32)[None, None],
        (height // _BLOCK, width // _BLOCK),
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    h, w = small.shape
    coarse = _all_boxes(small, alpha, (np.arange(w), np.arange(h), np.arange(w), np.arange(h)))
    spans = []
    for corner, side in zip(coarse.box, (width, height, width, height)):
        near = corner * _BLOCK
        spans.append(np.arange(max(0, near - _BLOCK), min(side - 1, near + _BLOCK) + 1))
    return _all_boxes(heat32, alpha, tuple(spans))


def _all_boxes(heat: np.ndarray, alpha: float, spans: tuple[np.ndarray, ...]) -> Found:
    """The best of all boxes whose corners lie in the spans (of x1, y1, x2, y2)."""
    height, width = heat.shape
    integral = np.zeros((height + 1, width + 1), np.float32)
    integral[1:, 1:] = heat.cumsum(1, dtype=np.float32).cumsum(0, dtype=np.float32)
    (x1, x2), (y1, y2) = _ordered(spans[0], spans[2]), _ordered(spans[1], spans[3])
    inner = integral[y2 + 1][:, x2 + 1] - integral[y1][:, x2 + 1]
    inner = inner - integral[y2 + 1][:, x1] + integral[y1][:, x1]
    area = ((y2 - y1 + 1)[:, None] * (x2 - x1 + 1)[None]).astype(np.float32)
    total = np.float32(integral[-1, -1] + np.float32(1e-8))
    values = inner / total - np.float32(alpha) * (area / np.float32(height * width))
    best = values.max()
    rows, columns = np.nonzero(values == best)
    first = np.lexsort((y2[rows], x2[columns], y1[rows], x1[columns]))[0]
    row, column = rows[first], columns[first]
    box = (int(x1[column]), int(y1[row]), int(x2[column]), int(y2[row]))
    return Found(box, float(best))


def _ordered(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a smaller and a larger number."""
    a, b = (grid.ravel() for grid in np.meshgrid(low, high, indexing="ij"))
    keep = a < b
    return a[keep], b[keep]


SEARCHES = {"exact": exact, "coarse_to_fine": coarse_to_fine}


def boxes_of(
    heat: Float[np.ndarray, "H W"],
    alpha: float,
    *,
    most: int = 1,
    search: str = "exact",
    least: float = 0.3,
) -> list[Found]:
    """Several boxes of one heat-map, best first.

    After each box its heat is taken out and the search goes on in what is left, so boxes may
    touch but hardly overlap.

    Args:
        heat: the map.
        alpha: price of area.
        most: boxes at most.
        search: exact or coarse_to_fine.
        least: a further box must reach this share of the first one's objective.
    """
    if search not in SEARCHES:
        raise UserError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}.")
    left = np.array(heat, np.float64)
    total = left.sum()
    found: list[Found] = []
    while len(found) < max(1, most):
        best = SEARCHES[search](left, alpha)
        if found:
            # of the whole map's heat, not of what is left of it
            share = left.sum() / max(total, 1e-12)
            best = Found(best.box, best.value * share)
            if best.value <= max(0.0, least * found[0].value):
                break
        found.append(best)
        x1, y1, x2, y2 = best.box
        left[y1 : y2 + 1, x1 : x2 + 1] = 0.0
        if left.sum() <= 0:
            break
    return found


def _checked(heat: np.ndarray) -> np.ndarray:
    heat = np.asarray(heat, np.float64)
    if heat.ndim != 2 or min(heat.shape) < 2:
        raise UserError(f"A heat-map must be at least 2 x 2, got {list(heat.shape)}.")
    if not np.isfinite(heat).all():
        raise UserError("The heat-map holds numbers that are not finite; lower 1 / temperature.")
    return heat
