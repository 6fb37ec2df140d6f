"""Which pictures are near copies of earlier ones, exactly, without comparing all pairs.

n: pictures; b: bits in which the hashes of copies may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vislang.curate.duplicates import differing_bits

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt64

BITS = 64


def near_copies(hashes: UInt64[np.ndarray, " n"], bits: int) -> Int64[np.ndarray, " n"]:
    """For each picture the first kept one of which it is a copy, or -1: it is kept.

    In their order, a picture is kept unless its hash differs in at most `bits` bits from that of
    a picture kept before. Hashes that differ in at most b bits agree on at least one of b + 1
    bands of bits, so only pictures that agree on a band are compared (Norouzi et al. 2012,
    arXiv:1307.2982, section 3); the result is that of comparing all pairs.

    Args:
        hashes: of the pictures, in the order in which they are kept.
        bits: at most so many differ; 0: equal hashes; less: nothing is a copy.

    >>> near_copies(np.array([0b1111, 0b0000, 0b1110, 0b0100], np.uint64), 1).tolist()
    [-1, -1, 0, 1]
    """
    copy_of = np.full(len(hashes), -1, np.int64)
    if bits < 0 or not len(hashes):
        return copy_of
    values, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # distinct hashes by first appearance
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    chosen = _first_kept(values[order], bits)
    # Of equal hashes the first stands for all; it may itself be a copy of an earlier one.
    own = place[group]
    stands_for = np.where(chosen[own] >= 0, chosen[own], own)
    result = first[order][stands_for]
    return np.where(result == np.arange(len(hashes)), -1, result)


def _first_kept(values: np.ndarray, bits: int) -> np.ndarray:
    """The same for distinct hashes."""
    chosen = np.full(len(values), -1, np.int64)
    if bits == 0:
        return chosen
    found = [pairs for band in bands(bits) for pairs in _alike(values, bits, *band)]
    if not found:
        return chosen
    pairs = np.unique(np.concatenate(found), axis=0)  # by the later one, then by the earlier
    for later, earlier in pairs.tolist():
        if chosen[later] < 0 and chosen[earlier] < 0:
            chosen[later] = earlier
    return chosen


def bands(bits: int) -> list[tuple[int, int]]:
    """(lowest bit, width) of bits + 1 bands that cover a hash.

    >>> bands(4)
    [(0, 13), (13, 13), (26, 13), (39, 13), (52, 12)]
    """
    count = min(bits + 1, BITS)
    ends = [-(-BITS * i // count) for i in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(ends)]


def _alike(values: np.ndarray, bits: int, low: int, width: int) -> Iterator[np.ndarray]:
    """Pairs (later, earlier) that agree on a band and differ in at most `bits` bits."""
    band = (values >> np.uint64(low)) & np.uint64((1 << width) - 1)
    order = np.argsort(band, kind="stable")
    band, at, apart = band[order], np.arange(len(values)), 0
    while True:  # neighbours in the order of the band, then those two apart, ...
        apart += 1
        at = at[at + apart < len(values)]
        at = at[band[at] == band[at + apart]]
        if not len(at):
            return
        left, right = order[at], order[at + apart]
        near = differing_bits(values[left], values[right]) <= bits
        pairs = np.stack([np.maximum(left, right)[near], np.minimum(left, right)[near]], axis=1)
        if len(pairs):
            yield pairs
