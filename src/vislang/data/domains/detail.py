"""Domains that take detail away: blur, low resolution, edges only; uint8 RGB [H, W, 3]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from vislang.data.sample import BadSample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from vislang.data.domains.apply import Shared


def blur(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "H W 3"]:
    """Gaussian blur, size x size, sigma = 0.3 ((size - 1) / 2 - 1) + 0.8, mirrored at the edges."""
    return cv2.GaussianBlur(pixels, (size, size), 0)


def sketchify(pixels: UInt8[np.ndarray, "H W 3"], shared: Shared) -> UInt8[np.ndarray, "H W 3"]:
    """255 - |Laplacian| of the grey picture after a Gaussian blur of 3 x 3 pixels."""
    smooth = cv2.GaussianBlur(shared.grey, (3, 3), 0)
    edges = cv2.convertScaleAbs(cv2.Laplacian(smooth, cv2.CV_16S, ksize=3))
    return cv2.merge([cv2.bitwise_not(edges)] * 3)


def low_res(pixels: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """Nearest neighbour by `factor`, and back to the old size."""
    height, width = pixels.shape[:2]
    if min(round(height * factor), round(width * factor)) < 1:
        raise BadSample("", f"too small: {width} x {height} pixels become none at {factor:g}")
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
