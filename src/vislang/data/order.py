"""Which sample comes when: pure functions of (seed, epoch, position), so that nothing is stored.

n: samples of the source, B: samples in the global batch, W: processes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int64

# Distinct streams for distinct uses: the order must not be correlated with augmentation.
_ORDER, _SAMPLE, _PARTNER = 1, 2, 101
_MASK = 2**64 - 1


def generator(*words: int) -> np.random.Generator:
    """Randomness that belongs to these numbers alone; the first is the stream's own."""
    seeds = np.random.SeedSequence([word & _MASK for word in words])
    return np.random.Generator(np.random.PCG64(seeds))


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, n: int) -> Int64[np.ndarray, " n"]:
    """The permutation of 0..n-1 in which an epoch visits its samples (read-only).

    O(n) time and 8n bytes; the two latest are kept, as every step of an epoch asks for the same.

    >>> sorted(order(0, 0, 5).tolist()), bool((order(0, 0, 50) == order(0, 1, 50)).all())
    ([0, 1, 2, 3, 4], False)
    """
    permutation = generator(_ORDER, seed, epoch).permutation(n)
    permutation.flags.writeable = False
    return permutation


def sample_rng(seed: int, epoch: int, index: int, times: int = 0) -> np.random.Generator:
    """The randomness (caption, augmentation) of one sample in one epoch; about 15 µs.

    Args:
        seed: of the run.
        epoch: counted from 0.
        index: position in the source.
        times: how often this epoch visited the sample before.
    """
    words = (_SAMPLE, seed, epoch, index)
    return generator(*words, times) if times else generator(*words)


def partner_rng(seed: int, epoch: int, index: int, times: int = 0) -> np.random.Generator:
    """The randomness that draws a sample's partner, apart from that of its views."""
    return generator(_PARTNER, seed, epoch, index, times)


def steps_in_epoch(n: int, batch_size: int, drop_last: bool = True) -> int:
    """Global batches in an epoch.

    >>> steps_in_epoch(10, 4), steps_in_epoch(10, 4, drop_last=False)
    (2, 3)
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    return n // batch_size if drop_last else -(-n // batch_size)


def samples_in_epoch(source: object, episode: int, batch_size: int) -> int:
    """How many samples an epoch visits: an episode's, what the source says, or all.

    A source may say it by `samples_in_epoch(batch_size)`, together with `visits(seed, epoch,
    batch_size)`, which then takes the place of the order (`sources/pure.py`).
    """
    own = getattr(source, "samples_in_epoch", None)
    if own is None:
        return episode or len(source)  # type: ignore[arg-type]
    if episode:
        raise UserError("This source has epochs of its own: leave data.episode at 0.")
    return own(batch_size)


def rank_part(indices: np.ndarray, rank: int = 0, world: int = 1) -> np.ndarray:
    """The part of a global batch that belongs to one process; the parts of all join to it again.

    Parts of a batch that W does not divide differ by at most one row.
    """
    if world == 1:
        return indices
    return np.array_split(indices, world)[rank]


def batch_indices(
    seed: int, epoch: int, n: int, batch_size: int, step: int, rank: int = 0, world: int = 1
) -> Int64[np.ndarray, " b"]:
    """Indices that process `rank` of `world` loads for global batch `step` of `epoch`.

    order(seed, epoch, n)[step * B : (step + 1) * B], of which the process takes its W-th part.
    """
    chosen = order(seed, epoch, n)[step * batch_size : (step + 1) * batch_size]
    return rank_part(chosen, rank, world)
