"""The background painted over; what is background is told by GrabCut on a small picture.

H, W: the picture's height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from vislang.data.domains.domain import AXES
from vislang.data.sample import BadSample
from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from vislang.data.domains.apply import Shared

_SHRINK, _ROUNDS, _MEDIAN = 8, 3, 21


def paint_background(
    pixels: UInt8[np.ndarray, "H W 3"],
    shared: Shared,
    colour: tuple[int, int, int],
    axes: str,
) -> UInt8[np.ndarray, "H W 3"]:
    """Everything outside of the foreground in one colour (RGB); the mask is made once a picture."""
    height, width = pixels.shape[:2]
    # Row by row: numpy would else copy three bytes at a time, which takes 50 times as long.
    row = np.tile(np.array(colour, np.uint8), width)
    out = np.broadcast_to(row, (height, 3 * width)).copy().reshape(height, width, 3)
    cv2.copyTo(pixels, shared.foreground(axes), out)
    return out


def find_foreground(
    pixels: UInt8[np.ndarray, "H W 3"], axes: str = "corrected"
) -> UInt8[np.ndarray, "H W"]:
    """255 where GrabCut sees the object, 0 elsewhere.

    The middle 80 % of both sides may be foreground, the middle half of these is. Three rounds on
    1/8 of the size; the labels are enlarged and median-filtered.

    Args:
        pixels: the picture.
        axes: "original" swaps height and width in the box of what may be foreground, as the
            authors' program did; the same for square pictures.

    Raises:
        BadSample: the picture is too small to be segmented.
    """
    if axes not in AXES:
        raise UserError(f"axes must be one of {', '.join(AXES)}, got {axes!r}.")
    height, width = pixels.shape[:2]
    first = start_labels(height, width, axes)
    by = 1 / _SHRINK
    try:
        small = cv2.resize(pixels, None, fx=by, fy=by, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(first, None, fx=by, fy=by, interpolation=cv2.INTER_NEAREST)
        cv2.setRNGSeed(0)  # GrabCut draws from OpenCV's global generator
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    except cv2.error as error:
        raise BadSample(
            "", f"too small: {width} x {height} pixels cannot be segmented at 1/{_SHRINK}"
        ) from error
    labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    labels = cv2.medianBlur(labels, _MEDIAN)
    return cv2.LUT(labels, _FOREGROUND)


_FOREGROUND = np.zeros(256, np.uint8)
_FOREGROUND[[cv2.GC_FGD, cv2.GC_PR_FGD]] = 255


def start_labels(height: int, width: int, axes: str) -> UInt8[np.ndarray, "H W"]:
    """GrabCut's labels before it starts: background, perhaps foreground, foreground."""
    w, h = round(0.8 * width), round(0.8 * height)
    x, y = (width - w) // 2, (height - h) // 2
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    if axes == "original":
        labels[x : x + w, y : y + h] = cv2.GC_PR_FGD
    else:
        labels[y : y + h, x : x + w] = cv2.GC_PR_FGD
    sure = slice(int(y + 0.25 * h), int(y + 0.75 * h)), slice(int(x + 0.25 * w), int(x + 0.75 * w))
    labels[sure] = cv2.GC_FGD
    return labels


def overlap(one: Bool[np.ndarray, "H W"], other: Bool[np.ndarray, "H W"]) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
