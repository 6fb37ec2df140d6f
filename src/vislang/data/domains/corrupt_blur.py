"""Corruptions by blur; uint8 RGB [H, W, 3] in and out, values between them in [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vislang.data.domains.corrupt_noise import to_bytes
from vislang.data.sample import BadSample

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def smooth(values: Float[np.ndarray, "H W *C"], sigma: float) -> Float[np.ndarray, "H W *C"]:
    """Gaussian filter cut at four sigma, the border repeated."""
    from scipy.ndimage import gaussian_filter

    axes = (sigma, sigma) + (0,) * (values.ndim - 2)
    return gaussian_filter(values, axes, mode="nearest", truncate=4.0)


def gaussian(pixels: UInt8[np.ndarray, "H W 3"], sigma: float) -> UInt8[np.ndarray, "H W 3"]:
    """Gaussian blur."""
    return to_bytes(smooth(pixels / 255.0, sigma))


def defocus(
    pixels: UInt8[np.ndarray, "H W 3"], radius: float, smooth: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Blur by a disc whose edge is softened by a Gaussian of sigma `smooth`."""
    reach, size = (8, 3) if radius <= 8 else (int(radius), 5)
    across = np.arange(-reach, reach + 1)
    disc = (across**2 + across[:, None] ** 2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disc / disc.sum(), (size, size), sigmaX=smooth)
    return to_bytes(cv2.filter2D(pixels / 255.0, -1, kernel))


def glass(
    pixels: UInt8[np.ndarray, "H W 3"],
    rng: np.random.Generator,
    sigma: float,
    reach: int,
    rounds: int,
) -> UInt8[np.ndarray, "H W 3"]:
    """Blur, take each pixel from within `reach` of its place, `rounds` times, blur again.

    All pixels of a round move at once.
    """
    height, width = pixels.shape[:2]
    if min(height, width) <= 2 * reach:
        raise BadSample("", f"too small: {width} x {height} pixels cannot move by {reach}")
    x = to_bytes(smooth(pixels / 255.0, sigma))
    inner = np.s_[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    rows, columns = (grid[inner] for grid in np.indices((height, width)))
    for _ in range(rounds):
        move = rng.integers(-reach, reach, size=(2, *rows.shape))
        x[inner] = x[rows + move[0], columns + move[1]]
    return to_bytes(smooth(x / 255.0, sigma))


def motion(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, radius: int, sigma: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Blur along a line that leaves the horizontal by at most 45 degrees."""
    angle = float(rng.uniform(-45, 45))
    return to_bytes(along_line(pixels.astype(np.float32) / 255, radius, sigma, angle))


def along_line(
    values: Float[np.ndarray, "H W *C"], radius: int, sigma: float, angle: float
) -> Float[np.ndarray, "H W *C"]:
    """Sum of 2 · radius + 1 copies, moved step by step along `angle` (degrees), with the weights
    of half a Gaussian; the border is repeated.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2))
    weights /= weights.sum()
    reach = 2 * radius + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step, weight in zip(steps, weights):
        down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        kernel[reach + down, reach + right] += weight
    return cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def zoom(pixels: UInt8[np.ndarray, "H W 3"], most: float, step: float) -> np.ndarray:
    """Mean of the picture and of its centre enlarged by 1, 1 + step ... below `most`."""
    x = pixels.astype(np.float32) / 255
    factors = np.arange(1, most, step)
    total = x.copy()
    for factor in factors:
        total += enlarged(x, float(factor))
    return to_bytes(total / (len(factors) + 1))


def enlarged(values: Float[np.ndarray, "H W *C"], factor: float) -> Float[np.ndarray, "H W *C"]:
    """The centre, 1 / factor of both sides, at the old size; bilinear, corner on corner."""
    height, width = values.shape[:2]
    high, wide = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - high) // 2, (width - wide) // 2
    x = _positions(wide, round(wide * factor), width) + left
    y = _positions(high, round(high * factor), height) + top
    at_x, at_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(values, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _positions(old: int, new: int, kept: int) -> np.ndarray:
    """Where the middle `kept` of `new` positions lie among `old` ones."""
    first = max(0, new - kept) // 2
    return (first + np.arange(kept)) * ((old - 1) / max(new - 1, 1))
