"""Boxes against boxes: overlap, hits, the pointing game.

A box is (x1, y1, x2, y2) in pixels. n, m: boxes.  Two conventions are in use: corners as places
between pixels (area = width x height, the default here, GRIT's and COCO's), and corners as
indices of the last pixel inside (`inclusive`: each side is one longer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

THRESHOLDS = (0.3, 0.5, 0.7)


def as_boxes(boxes: object) -> Float[np.ndarray, "n 4"]:
    """Anything that holds boxes as float64 [n, 4]; nothing at all is [0, 4].

    >>> as_boxes([]).shape, as_boxes([1, 2, 3, 4]).shape
    ((0, 4), (1, 4))
    """
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.shape[-1] != 4 or array.ndim > 2:
        raise ValueError(f"boxes must be [n, 4], got {list(array.shape)}")
    return array.reshape(-1, 4)


def areas(boxes: Float[np.ndarray, "n 4"], inclusive: bool = False) -> Float[np.ndarray, " n"]:
    """Area of each box; 0 where a side is not positive."""
    boxes = as_boxes(boxes)
    sides = boxes[:, 2:] - boxes[:, :2] + inclusive
    return np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)


def iou_matrix(
    a: Float[np.ndarray, "n 4"],
    b: Float[np.ndarray, "m 4"],
    *,
    inclusive: bool = False,
    epsilon: float = 0.0,
) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every pair; 0 where both are empty.

    Args:
        a, b: boxes.
        inclusive: corners are pixel indices, each side is one longer.
        epsilon: added to the union (GRIT adds 1e-6, so that a perfect box gets 0.999...).
    """
    a, b = as_boxes(a), as_boxes(b)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low + inclusive, 0, None).prod(2)
    empty = (areas(a, inclusive) == 0)[:, None] | (areas(b, inclusive) == 0)[None]
    common = np.where(empty, 0.0, common)
    union = areas(a, inclusive)[:, None] + areas(b, inclusive)[None] - common + epsilon
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def paired_iou(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"], inclusive: bool = False
) -> Float[np.ndarray, " n"]:
    """Overlap of each box with the box in the same place."""
    a, b = as_boxes(a), as_boxes(b)
    if len(a) != len(b):
        raise ValueError(f"paired boxes must be as many, got {len(a)} and {len(b)}")
    return np.array([iou_matrix(x[None], y[None], inclusive=inclusive)[0, 0] for x, y in zip(a, b)])


def zsg_iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Overlap as the evaluator of zero-shot grounding computes it.

    In float32, without any epsilon; two empty boxes give NaN, which no threshold calls a hit; a
    box whose corners are exchanged has the (possibly negative) product of its sides as area.
    """
    a32, b32 = as_boxes(a).astype(np.float32), as_boxes(b).astype(np.float32)
    sides = np.minimum(a32[:, 2:], b32[:, 2:]) - np.maximum(a32[:, :2], b32[:, :2])
    common = np.clip(sides, 0, None).prod(1)
    union = (a32[:, 2:] - a32[:, :2]).prod(1) + (b32[:, 2:] - b32[:, :2]).prod(1) - common
    with np.errstate(invalid="ignore", divide="ignore"):
        return common / union


def hits(
    iou: Float[np.ndarray, " n"], threshold: float = 0.5, strict: bool = True
) -> Bool[np.ndarray, " n"]:
    """Which overlaps count: above the threshold (`strict`), or at it, too. NaN never does.

    >>> hits(np.array([0.5, np.nan]), 0.5), hits(np.array([0.5, np.nan]), 0.5, strict=False)
    (array([False, False]), array([ True, False]))
    """
    iou = np.asarray(iou)
    with np.errstate(invalid="ignore"):
        return iou > threshold if strict else iou >= threshold


def inside(
    points: Float[np.ndarray, "n 2"], boxes: Float[np.ndarray, "n 4"], margin: float = 0.0
) -> Bool[np.ndarray, " n"]:
    """The pointing game: whether each point (x, y) lies in its box, edges included.

    `margin` widens the box by so many pixels (15 in Zhang et al. 2016, arXiv:1608.00507).
    """
    points, boxes = np.asarray(points, np.float64).reshape(-1, 2), as_boxes(boxes)
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    return np.asarray(((points >= low) & (points <= high)).all(1))


def peak(heat: Float[np.ndarray, "h w"], size: tuple[int, int]) -> tuple[float, float]:
    """Where a heat-map is highest, as (x, y) in an image of `size` (height, width).

    The centre of the map's cell; of several equal ones the first in reading order.

    >>> peak(np.array([[0.0, 1.0], [0.0, 0.0]]), (10, 20))
    (15.0, 2.5)
    """
    row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
    return (
        float((column + 0.5) * size[1] / heat.shape[1]),
        float((row + 0.5) * size[0] / heat.shape[0]),
    )


def clip_boxes(boxes: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> np.ndarray:
    """Boxes cut to an image of `size` (height, width); what lies outside becomes empty."""
    height, width = size
    return np.clip(as_boxes(boxes), 0, [width, height, width, height])


def suppress(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], threshold: float
) -> list[int]:
    """Non-maximum suppression: rows that stay, best first; equal scores in their order.

    A box goes when its overlap with a better one that stays exceeds `threshold`.
    """
    boxes = as_boxes(boxes)
    overlap = iou_matrix(boxes, boxes)
    alive = np.ones(len(boxes), bool)
    kept = []
    for row in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        if alive[row]:
            kept.append(int(row))
            alive &= overlap[row] <= threshold
    return kept


def centre_box(size: tuple[int, int], share: float = 0.5) -> Float[np.ndarray, " 4"]:
    """A box in the middle of an image of `size` with this share of its area: a baseline.

    >>> centre_box((100, 200), 0.25).tolist()
    [50.0, 25.0, 150.0, 75.0]
    """
    height, width = size
    side = share**0.5
    x, y = width * (1 - side) / 2, height * (1 - side) / 2
    return np.array([x, y, width - x, height - y])


def random_boxes(sizes: Float[np.ndarray, "n 2"], seed: int = 0) -> Float[np.ndarray, "n 4"]:
    """One box an image, both corners uniform in it: the baseline of knowing nothing."""
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)[:, ::-1]  # width, height
    corners = np.random.default_rng(seed).random((len(sizes), 2, 2)) * sizes[:, None]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)
