"""Pictures that are nearly the same: a perceptual hash of each, compared by differing bits.

n: samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.data.decode import Limits, decode_sample
from vislang.data.sample import BadSample, Source
from vislang.files import run_units, whole_file

if TYPE_CHECKING:
    from jaxtyping import UInt8

SIDE = 32  # pixels of the picture that is transformed
UNIT = 4096


def perceptual_hash(pixels: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits that survive scaling, compression and slight changes of colour.

    Grey, 32 x 32, discrete cosine transform; a bit says whether one of the 8 x 8 lowest
    frequencies is above their median (the constant one left out of it). Of pictures that have
    nothing in common 32 bits differ, give or take 4; of copies at most about 8. Zauner 2010,
    "Implementation and benchmarking of perceptual image hash functions", section 3.2.
    """
    from PIL import Image
    from scipy.fft import dctn

    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    waves = np.asarray(dctn(np.asarray(grey, np.float64)))[:8, :8].ravel()
    bits = waves > np.median(waves[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_source(
    source: Source,
    folder: Path,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64 [n], which of them exist [n]); resumes where it stopped."""
    units = {
        f"{at:09d}": range(at, min(at + UNIT, len(source))) for at in range(0, len(source), UNIT)
    }
    work = partial(_hash_unit, source, units, limits)
    run_units(folder, list(units), work, {"source": source.fingerprint, "hash": "dct64"})
    parts = [np.load(folder / f"{unit}.npy") for unit in units]
    table = np.concatenate(parts) if parts else np.zeros((0, 2), np.uint64)
    return table[:, 0], table[:, 1] > 0


def _hash_unit(
    source: Source, units: dict[str, range], limits: Limits, unit: str, folder: Path
) -> dict[str, Any]:
    rows = np.zeros((len(units[unit]), 2), np.uint64)
    for place, index in enumerate(units[unit]):
        try:
            pixels = decode_sample(source[index], limits, 2 * SIDE).pixels
        except BadSample:
            continue
        rows[place] = perceptual_hash(pixels), 1
    with whole_file(folder / f"{unit}.npy") as file:
        np.save(file, rows, allow_pickle=False)
    return {"hashed": int(rows[:, 1].sum())}


def differing_bits(
    left: Sequence[int] | np.ndarray, right: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Bits in which hashes differ.

    >>> differing_bits([0b1011], [0b0001]).tolist()
    [2]
    """
    apart = np.asarray(left, np.uint64) ^ np.asarray(right, np.uint64)
    return np.bitwise_count(apart).astype(np.int64)
