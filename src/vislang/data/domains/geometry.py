"""Domains that move pixels: crops, turns and a barrel distortion; uint8 RGB [H, W, 3].

Positions are rounded to 1/32 pixel and the pixels between mixed by OpenCV's fixed-point remap,
which gives the same values in every version; its newer floating-point one differs by up to 4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vislang.data.sample import BadSample

if TYPE_CHECKING:
    from jaxtyping import UInt8

_STEPS = 32  # parts of a pixel
_SCALE = 1024  # of the integers in which OpenCV's affine warp adds up positions


def closeup(pixels: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
    """The centre, 1 / factor of both sides; not enlarged again."""
    top, bottom, left, right = _centre(pixels.shape[0], pixels.shape[1], factor)
    return pixels[top:bottom, left:right].copy()


def _centre(height: int, width: int, factor: float) -> tuple[int, int, int, int]:
    top, left = round((1 - 1 / factor) * height / 2), round((1 - 1 / factor) * width / 2)
    bottom, right = round(top + height / factor), round(left + width / factor)
    if bottom <= top or right <= left:
        raise BadSample("", f"too small: {width} x {height} pixels have no centre of 1/{factor:g}")
    return top, bottom, left, right


def upside_down(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Half a turn."""
    return cv2.rotate(pixels, cv2.ROTATE_180)


def sideways(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "W H 3"]:
    """A quarter turn, counter-clockwise or clockwise."""
    return turn(pixels, int(rng.choice([1, 3])))


def turn(pixels: UInt8[np.ndarray, "H W 3"], quarters: int) -> np.ndarray:
    """`quarters` (1 or 3) quarter turns counter-clockwise."""
    to = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 3: cv2.ROTATE_90_CLOCKWISE}[quarters]
    return cv2.rotate(pixels, to)


def tilt(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, least: float, most: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Turned by s · U degrees, s of {+1, -1}, U uniform in [least, most]."""
    sign = int(rng.choice([1, -1]))
    return tilt_by(pixels, sign * float(rng.uniform(least, most)))


def tilt_by(pixels: UInt8[np.ndarray, "H W 3"], angle: float) -> UInt8[np.ndarray, "H W 3"]:
    """Turned counter-clockwise by `angle` degrees about (W/2, H/2); same size, black corners."""
    height, width = pixels.shape[:2]
    (a, b, shift_x), (c, d, shift_y) = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    # The inverse takes a new position to the old one.
    scale = 1 / (a * d - b * c)
    a, b, c, d = d * scale, -b * scale, -c * scale, a * scale
    x, y = np.arange(width), np.arange(height)
    half = _SCALE // _STEPS // 2  # so that the shift below rounds instead of cutting
    at_x = np.rint(a * x * _SCALE).astype(np.int32)
    at_y = np.rint(c * x * _SCALE).astype(np.int32)
    from_x = np.rint((b * y - a * shift_x - b * shift_y) * _SCALE).astype(np.int32) + half
    from_y = np.rint((d * y - c * shift_x - d * shift_y) * _SCALE).astype(np.int32) + half
    shift = (_SCALE // _STEPS).bit_length() - 1
    where_x, where_y = from_x[:, None] + at_x, from_y[:, None] + at_y
    where_x >>= shift
    where_y >>= shift
    return _sample(pixels, where_x, where_y)


def _sample(pixels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels at positions in 1/32 pixel, bilinear; black outside. Spoils x and y."""
    bits = _STEPS.bit_length() - 1
    whole = np.empty((*x.shape, 2), np.int16)
    np.right_shift(x, bits, out=whole[..., 0], casting="unsafe")
    np.right_shift(y, bits, out=whole[..., 1], casting="unsafe")
    # In place: this is most of the time of a tilt.
    x &= _STEPS - 1
    y &= _STEPS - 1
    y <<= bits
    y |= x
    rest = y.astype(np.uint16)
    return cv2.remap(pixels, whole, rest, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def fisheye(
    pixels: UInt8[np.ndarray, "H W 3"], strength: float, factor: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Barrel distortion, then the centre, 1 / factor of both sides.

    With m = min(H, W), u = (x - W/2) / m, v = (y - H/2) / m and r² = u² + v², a pixel comes from
    (m g u + W/2, m g v + H/2), g = 1 + strength · (r² + r⁴ + r⁶); black outside.
    """
    whole, rest = _fisheye_map(pixels.shape[0], pixels.shape[1], strength, factor)
    return cv2.remap(pixels, whole, rest, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


@lru_cache(maxsize=32)  # many sources have few sizes
def _fisheye_map(
    height: int, width: int, strength: float, factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of the crop come from; only those are computed."""
    top, bottom, left, right = _centre(height, width, factor)
    side = min(height, width)
    u = (np.arange(left, right) - width / 2) / side
    v = ((np.arange(top, bottom) - height / 2) / side)[:, None]
    square = u * u + v * v
    gain = 1 + strength * (square + square**2 + square**3)
    x = (side * gain * u + width / 2).astype(np.float32)
    y = (side * gain * v + height / 2).astype(np.float32)
    return cv2.convertMaps(x, y, cv2.CV_16SC2)  # type: ignore[return-value]
