"""Fog: faint white discs, nearer to the border from ring to ring, and a box blur.

The rule is that of albumentations 1.2's RandomFog with fixed coefficients, so that its pictures
can be made again; uint8 RGB [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import cv2

from vislang.data.sample import BadSample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


def foggy(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, density: float, alpha: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Fog of random discs.

    Args:
        pixels: the picture.
        rng: draws the discs.
        density: radius of the discs as a share of W / 3, and strength together with alpha.
        alpha: share of white in a disc is alpha · density.
    """
    height, width = pixels.shape[:2]
    return draw_fog(pixels, fog_discs(height, width, rng, density), density, alpha)


def fog_discs(
    height: int, width: int, rng: np.random.Generator, density: float
) -> list[tuple[int, int]]:
    """Corners (x, y) of the boxes around the discs, ring after ring from the centre outwards."""
    reach = max(1, int(width // 3 * density))
    x, y, ring = width // 2 - 2 * reach, height // 2 - reach, 1
    step_x, step_y = (3 * reach * side // (height + width) for side in (width, height))
    if step_x < 1 or step_y < 1:
        raise BadSample("", f"too small: the rings of fog do not fit {width} x {height} pixels")
    discs = []
    while x > -reach or y > -reach:
        for _ in range(reach // 10 * ring):
            at_x = int(rng.integers(x, width - x - reach + 1))
            discs.append((at_x, int(rng.integers(y, height - y - reach + 1))))
        x, y, ring = x - step_x, y - step_y, ring + 1
    return discs


def draw_fog(
    pixels: UInt8[np.ndarray, "H W 3"],
    discs: Iterable[tuple[int, int]],
    density: float,
    alpha: float,
) -> UInt8[np.ndarray, "H W 3"]:
    """Blend the discs in one after the other, each rounded to bytes, then blur."""
    width = pixels.shape[1]
    size = max(int(width // 3 * density), 10)
    radius, share = size // 2, alpha * density
    out = pixels.copy()
    for x, y in discs:
        # Outside of the disc a blend changes nothing, so only its box is looked at.
        top, left = max(0, y), max(0, x)
        box = out[top : max(0, y + 2 * radius + 1), left : max(0, x + 2 * radius + 1)]
        if not box.size:
            continue
        disc = box.copy()
        cv2.circle(disc, (x + radius - left, y + radius - top), radius, (255, 255, 255), -1)
        box[:] = cv2.addWeighted(disc, share, box, 1 - share, 0)
    return cv2.blur(out, (size // 10, size // 10))
