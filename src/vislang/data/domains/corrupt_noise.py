"""Corruptions by noise; uint8 RGB [H, W, 3] in and out, values between them in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8


def to_bytes(values: Float[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Clipped to [0, 1], times 255, cut (not rounded), as the published pictures were."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def gaussian(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, deviation: float
) -> UInt8[np.ndarray, "H W 3"]:
    """x + N(0, deviation²)."""
    return to_bytes(pixels / 255.0 + rng.normal(size=pixels.shape, scale=deviation))


def shot(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, photons: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Poisson(x · photons) / photons."""
    return to_bytes(rng.poisson(pixels / 255.0 * photons) / photons)


def impulse(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, share: float
) -> UInt8[np.ndarray, "H W 3"]:
    """This share of the values becomes 0 or 255, each with probability 1/2."""
    hit = rng.uniform(size=pixels.shape) < share
    white = rng.uniform(size=pixels.shape) < 0.5
    return np.where(hit, np.where(white, 255, 0), pixels).astype(np.uint8)


def speckle(
    pixels: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator, deviation: float
) -> UInt8[np.ndarray, "H W 3"]:
    """x + x · N(0, deviation²)."""
    x = pixels / 255.0
    return to_bytes(x + x * rng.normal(size=pixels.shape, scale=deviation))
