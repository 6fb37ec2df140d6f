"""Corruptions of colour, place and coding; uint8 RGB [H, W, 3], values between in [0, 1]."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vislang.data.domains.corrupt_noise import to_bytes
from vislang.data.sample import BadSample

if TYPE_CHECKING:
    from jaxtyping import UInt8


def brightness(pixels: UInt8[np.ndarray, "H W 3"], add: float) -> UInt8[np.ndarray, "H W 3"]:
    """HSV's value plus `add`."""
    return _in_hsv(pixels, 2, 1.0, add)


def saturate(
    pixels: UInt8[np.ndarray, "H W 3"], factor: float, add: float
) -> UInt8[np.ndarray, "H W 3"]:
    """HSV's saturation times `factor` plus `add`."""
    return _in_hsv(pixels, 1, factor, add)


def _in_hsv(pixels: np.ndarray, channel: int, factor: float, add: float) -> np.ndarray:
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(pixels / 255.0)
    hsv[..., channel] = np.clip(hsv[..., channel] * factor + add, 0, 1)
    return to_bytes(hsv2rgb(hsv))


def contrast(pixels: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """(x - mean of the channel) · factor + mean."""
    x = pixels / 255.0
    mean = x.mean(axis=(0, 1), keepdims=True)
    return to_bytes((x - mean) * factor + mean)


def jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> UInt8[np.ndarray, "H W 3"]:
    """Through Pillow's JPEG and back."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def pixelate(
    pixels: UInt8[np.ndarray, "H W 3"], factor: float, smooth: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """Means over boxes at `factor` of the size; back by boxes (smooth) or nearest neighbour."""
    from PIL import Image

    height, width = pixels.shape[:2]
    small = int(width * factor), int(height * factor)
    if min(small) < 1:
        raise BadSample("", f"too small: {width} x {height} pixels become none at {factor:g}")
    box, back = Image.Resampling.BOX, Image.Resampling.NEAREST
    image = Image.fromarray(pixels).resize(small, box)
    return np.array(image.resize((width, height), box if smooth else back))


def elastic(
    pixels: UInt8[np.ndarray, "H W 3"],
    rng: np.random.Generator,
    reach: float,
    sigma: float,
    jitter: float,
) -> UInt8[np.ndarray, "H W 3"]:
    """A random affine map, then a displacement by smooth noise; all in shares of the shorter side.

    Args:
        pixels: the picture.
        rng: draws three moved points and two fields of noise.
        reach: factor of the blurred noise, which is uniform in [-1, 1].
        sigma: of the blur.
        jitter: most that the three points move along either axis.
    """
    from scipy.ndimage import gaussian_filter

    height, width = pixels.shape[:2]
    side = min(height, width)
    x = pixels.astype(np.float32) / 255
    centre, third = np.array([width // 2, height // 2], np.float32), side // 3
    corner = np.array([centre[0] + third, centre[1] - third], np.float32)
    old = np.array([centre + third, corner, centre - third], np.float32)
    new = old + rng.uniform(-jitter * side, jitter * side, size=old.shape).astype(np.float32)
    moved = cv2.warpAffine(
        x, cv2.getAffineTransform(old, new), (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    fields = []
    for _ in range(2):
        noise = rng.uniform(-1, 1, size=(height, width))
        if sigma:
            noise = gaussian_filter(noise, sigma * side, mode="reflect", truncate=3)
        fields.append((noise * (reach * side)).astype(np.float32))
    at_x, at_y = np.meshgrid(np.arange(width), np.arange(height))
    return to_bytes(cv2.remap(
        moved, (at_x + fields[0]).astype(np.float32), (at_y + fields[1]).astype(np.float32),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    ))  # fmt: skip
