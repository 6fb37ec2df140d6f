"""Domains that change each pixel by itself; uint8 RGB [H, W, 3] in and out."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from vislang.data.domains.apply import Shared

# Rows: the new red, green, blue; columns: weights of the old.
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float64)


def noop(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy."""
    return pixels.copy()


def scale(pixels: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """round(min(factor · v, 255)), half to even."""
    return cv2.LUT(pixels, _scaled(factor))


@lru_cache(maxsize=16)
def _scaled(factor: float) -> np.ndarray:
    values = np.float32(factor) * np.arange(256, dtype=np.float32)
    return np.rint(np.minimum(values, 255)).astype(np.uint8)


def grayscale(pixels: UInt8[np.ndarray, "H W 3"], shared: Shared) -> UInt8[np.ndarray, "H W 3"]:
    """Luma (ITU-R BT.601, integer arithmetic) in all channels."""
    return cv2.merge([shared.grey] * 3)


def sepia(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """R' = .393 R + .769 G + .189 B and so on, at most 255.

    OpenCV computes it with weights rounded to n / 1024: (sum of c · v + 512) >> 10.
    """
    return cv2.transform(pixels, _SEPIA)


def posterize(pixels: UInt8[np.ndarray, "H W 3"], bits: int) -> UInt8[np.ndarray, "H W 3"]:
    """Keep the highest `bits` bits of each value; 2 leaves 0, 64, 128 and 192."""
    return pixels & np.uint8(256 - (1 << (8 - bits)))
