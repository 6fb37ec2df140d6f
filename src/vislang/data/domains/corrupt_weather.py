"""Corruptions that imitate weather; uint8 RGB [H, W, 3] in and out, values between in [0, 1]."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vislang.data.domains.corrupt_blur import along_line, enlarged, smooth
from vislang.data.domains.corrupt_noise import to_bytes
from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

_WATER, _MUD = (238, 238, 175), (63, 42, 20)  # RGB
_FROSTS = 5  # pictures that are drawn from; the sixth of the published set never was


def fog(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, strength: float, decay: float
) -> UInt8[np.ndarray, "H W 3"]:
    """(x + strength · haze) · max / (max + strength), max the largest value of the picture."""
    height, width = pixels.shape[:2]
    x = pixels / 255.0
    most = x.max()
    haze = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width]
    return to_bytes((x + strength * haze[..., None]) * most / (most + strength))


def plasma(side: int, decay: float, rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """A fractal height map in [0, 1] by midpoints of squares and diamonds on a torus.

    Fournier, Fussell and Carpenter 1982. `side` is a power of two; each halving of the step
    divides the random part by `decay`.
    """
    heights = np.zeros((side, side))
    step, spread = side, 100.0

    def filled(total: np.ndarray) -> np.ndarray:
        return total / 4 + spread * rng.uniform(-spread, spread, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = filled(pairs + np.roll(pairs, -1, axis=1))
        middles, corners = heights[half::step, half::step], heights[::step, ::step]
        # Above and below, then left and right, of each edge's midpoint.
        beside = (middles + np.roll(middles, 1, axis=0)) + (corners + np.roll(corners, -1, axis=1))
        heights[::step, half::step] = filled(beside)
        beside = (middles + np.roll(middles, 1, axis=1)) + (corners + np.roll(corners, -1, axis=0))
        heights[half::step, ::step] = filled(beside)
        step, spread = half, spread / decay
    heights -= heights.min()
    return heights / max(heights.max(), 1e-12)


def snow(
    pixels: UInt8[np.ndarray, "H W 3"],
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    zoom: float,
    least: float,
    radius: int,
    sigma: float,
    mix: float,
) -> UInt8[np.ndarray, "H W 3"]:
    """Flakes of noise above a threshold, blurred as they fall, over a whitened picture.

    Args:
        pixels: the picture.
        rng: draws the flakes and the angle of their fall.
        mean, deviation: of the noise.
        zoom: enlarges the flakes.
        least: noise below becomes none.
        radius, sigma: of the blur along the fall.
        mix: share of the picture that stays as it was.
    """
    x = pixels.astype(np.float32) / 255
    flakes = rng.normal(size=x.shape[:2], loc=mean, scale=deviation).astype(np.float32)
    flakes = enlarged(flakes, zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = along_line(flakes, radius, sigma, float(rng.uniform(-135, -45)))
    flakes = (np.rint(flakes * 255) / 255)[..., None]
    light = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5
    x = mix * x + (1 - mix) * np.maximum(x, light)
    return to_bytes(x + flakes + flakes[::-1, ::-1])


def frost(
    pixels: UInt8[np.ndarray, "H W 3"],
    rng: np.random.Generator,
    keep: float,
    add: float,
    scale: float = 0.2,
    pictures: str = "",
) -> UInt8[np.ndarray, "H W 3"]:
    """keep · x + add · ice, in bytes.

    Args:
        pixels: the picture.
        rng: draws the ice.
        keep, add: the shares.
        scale: of the pictures of ice; 1 enlarges small ones to cover the picture.
        pictures: folder with the published frost1.png ... frost5.jpg; by default ice is drawn.
    """
    height, width = pixels.shape[:2]
    if pictures:
        ice = _cropped(_frost_picture(pictures, int(rng.integers(0, _FROSTS)), scale), rng,
                       height, width)  # fmt: skip
    else:
        ice = draw_ice(height, width, rng)
    return np.clip(keep * pixels.astype(np.float64) + add * ice, 0, 255).astype(np.uint8)


def draw_ice(height: int, width: int, rng: np.random.Generator) -> Float[np.ndarray, "H W 3"]:
    """Bluish white needles: the ridges of a fractal map, brighter where a second one is high."""
    side = 1 << (max(height, width, 2) - 1).bit_length()
    ridges = 1 - np.abs(2 * plasma(side, 1.7, rng) - 1) * 4
    cover = plasma(side, 2.5, rng)
    needles = np.clip(ridges, 0, 1) * 0.6 + np.clip(2 * cover - 0.4, 0, 1) * 0.5
    return np.clip(needles[:height, :width, None] * np.array([215.0, 235.0, 255.0]), 0, 255)


@lru_cache(maxsize=_FROSTS)
def _frost_picture(folder: str, number: int, scale: float) -> np.ndarray:
    found = sorted(Path(folder).glob("frost*.*"))
    if len(found) < _FROSTS:
        raise UserError(
            f"{folder} has {len(found)} frost pictures (frost1.png ...), {_FROSTS} are needed."
            " Leave `pictures` out to have ice drawn."
        )
    read = cv2.imread(str(found[number]), cv2.IMREAD_COLOR)
    if read is None:
        raise UserError(f"{found[number]} is not a picture that OpenCV reads.")
    read = cv2.resize(read, None, fx=scale, fy=scale) if scale != 1 else read
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)


def _cropped(ice: np.ndarray, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random part of this size, from a picture that is enlarged where it is too small."""
    by = max(1.0, 1.1 * (height + 1) / ice.shape[0], 1.1 * (width + 1) / ice.shape[1])
    if by > 1:
        ice = cv2.resize(ice, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC)
    top = int(rng.integers(0, ice.shape[0] - height))
    left = int(rng.integers(0, ice.shape[1] - width))
    return ice[top : top + height, left : left + width]


def spatter(
    pixels: UInt8[np.ndarray, "H W 3"],
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    sigma: float,
    least: float,
    strength: float,
    mud: bool,
) -> UInt8[np.ndarray, "H W 3"]:
    """Drops where blurred noise is high: pale water is added, or brown mud covers.

    Args:
        pixels: the picture.
        rng: draws the drops.
        mean, deviation: of the noise.
        sigma: its blur.
        least: noise below is no drop.
        strength: how strong water is; for mud the blur of its edge.
        mud: mud instead of water.
    """
    x = pixels.astype(np.float32) / 255
    drops = smooth(rng.normal(size=x.shape[:2], loc=mean, scale=deviation), sigma)
    drops[drops < least] = 0
    if not mud:
        return to_bytes(
            x + strength * _shine(drops)[..., None] * np.array(_WATER, np.float32) / 255
        )
    cover = smooth((drops > least).astype(np.float32), strength)
    cover[cover < 0.8] = 0
    cover = cover[..., None]
    return to_bytes(x * (1 - cover) + cover * np.array(_MUD) / 255)


def _shine(drops: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """How much light a drop adds: bright rims with a shadow from one side; at most 1."""
    layer = (drops * 255).astype(np.uint8)
    away = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    away = cv2.equalizeHist(cv2.blur(np.minimum(away, 20), (3, 3)).astype(np.uint8))
    relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    away = cv2.blur(cv2.filter2D(away, cv2.CV_8U, relief), (3, 3)).astype(np.float32)
    shine = layer * away
    return shine / max(float(shine.max()), 1e-6)
