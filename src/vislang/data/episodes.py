"""Which samples an epoch visits when that is not each of them once: episodes and mixtures.

Pure functions of (seed, epoch), as the order is, so that an episode needs no file, is the same in
every process, and can be entered at any step.  n: samples of a part, m: those that are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.order import generator, order
from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int64

# Streams of their own, beside those of order.py: draws must not be correlated with the order.
_ROUND, _REPLACED = 3, 4

# (samples, weight) of each part of a mixture; a plain source has one part.
Shares = tuple[tuple[int, float], ...]


def counts(weights: Sequence[float], size: int) -> list[int]:
    """How many of `size` samples fall to each part, in proportion to the weights.

    Largest remainder: each exact share is rounded down, and what is then left goes, one each, to
    the largest fractions (the earlier part where they are equal).

    >>> counts([2.0, 1.0], 10), counts([1, 1, 1], 5)
    ([7, 3], [2, 2, 1])
    """
    exact = np.asarray(weights, np.float64) / sum(weights) * size
    taken = np.floor(exact).astype(np.int64)
    left = size - int(taken.sum())
    taken[np.argsort(taken - exact, kind="stable")[:left]] += 1
    return taken.tolist()


def draw(
    seed: int, epoch: int, n: int, m: int, replace: bool = False, part: int = 0
) -> Int64[np.ndarray, " m"]:
    """Which m of n samples an epoch visits, in no particular order.

    With replacement every sample is drawn from all n. Without it, an episode holds a sample once
    (m <= n; beyond that m // n or m // n + 1 times), and after any number of episodes no sample
    was visited more than one time oftener than another: the source is exhausted before
    anything comes again, also across episodes. O(n + m) time, whatever the epoch.

    >>> both = [*draw(0, 0, 6, 3), *draw(0, 1, 6, 3)]
    >>> sorted(map(int, both))
    [0, 1, 2, 3, 4, 5]
    """
    if replace:
        return generator(_REPLACED, seed, part, epoch).integers(n, size=m)
    times, more = divmod(m, n)
    whole = np.tile(np.arange(n), times)
    if 2 * more <= n:
        few = _stretch(seed, epoch, n, more, part)
        return np.concatenate([whole, few]) if times else few
    # More than half: the samples that are left out are drawn, as evenly, in place of them.
    kept = np.ones(n, bool)
    kept[_stretch(seed, epoch, n, n - more, part)] = False
    return np.concatenate([whole, np.flatnonzero(kept)])


def _stretch(seed: int, epoch: int, n: int, m: int, part: int) -> np.ndarray:
    """Places [epoch * m, (epoch + 1) * m) of rounds through the source; 2 m <= n.

    A round visits every sample once. A stretch that begins in one round and ends in the next
    would meet some samples twice; the next round puts these off till right after the stretch.
    """
    if m == 0:
        return np.zeros(0, np.int64)
    number, at = divmod(epoch * m, n)
    current = _round(seed, number, n, m, part)[at : at + m]
    if len(current) == m:
        return current
    return np.concatenate([current, _round(seed, number + 1, n, m, part)[: m - len(current)]])


def _round(seed: int, number: int, n: int, m: int, part: int) -> np.ndarray:
    """The permutation of a round, in which the end of a stretch begun before repeats nothing.

    Because 2 m <= n, putting samples off moves nothing among the last m of a round, so that what
    the round before ended with is known without looking at the one before that.
    """
    plain = generator(_ROUND, seed, part, number).permutation(n)
    head = -number * n % m  # so many places belong to a stretch begun in the round before
    if head == 0:
        return plain
    before = generator(_ROUND, seed, part, number - 1).permutation(n)
    fresh = np.ones(n, bool)
    fresh[before[n - (m - head) :]] = False
    first = np.zeros(n, bool)
    first[plain[fresh[plain]][:head]] = True
    now = first[plain]
    return np.concatenate([plain[now], plain[~now]])


@lru_cache(maxsize=2)
def visits(
    seed: int, epoch: int, shares: Shares, size: int, replace: bool = False
) -> Int64[np.ndarray, " size"]:
    """The samples that an epoch of `size` visits, in order, as index + n · times visited before.

    n is here the number of samples of all parts. Each part gives its count (see `counts`) of its
    own samples (see `draw`); all are then shuffled together. The quotient by n tells the visits
    of a sample in one epoch apart, so that each has an augmentation and a caption of its own. An
    epoch of n samples of one part is the ordinary `order`.

    >>> [int(i) for i in visits(0, 0, ((2, 1.0), (1, 2.0)), 3)]  # 1, and 2 twice
    [1, 2, 5]
    """
    if len(shares) == 1 and size == shares[0][0] and not replace:
        return order(seed, epoch, size)  # no copy: it may have a hundred million rows
    parts, start = [], 0
    taken = counts([weight for _, weight in shares], size)
    for number, ((n, _), m) in enumerate(zip(shares, taken)):
        parts.append(draw(seed, epoch, n, m, replace, number) + start)
        start += n
    chosen = np.concatenate(parts)[order(seed, epoch, size)]
    if replace or any(m > n for (n, _), m in zip(shares, taken)):
        chosen = chosen + start * _times_before(chosen)
    chosen.flags.writeable = False
    return chosen


def _times_before(chosen: np.ndarray) -> np.ndarray:
    """How often each value stands further to the left.

    >>> _times_before(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    places = np.argsort(chosen, kind="stable")
    ordered = chosen[places]
    new = np.r_[True, ordered[1:] != ordered[:-1]]
    at = np.arange(len(chosen))
    times = np.empty_like(chosen)
    times[places] = at - np.maximum.accumulate(np.where(new, at, 0))
    return times


def check_episode(shares: Shares, size: int, names: Sequence[str] = ()) -> None:
    """Refuse an epoch in which a part of a mixture would never be seen."""
    taken = counts([weight for _, weight in shares], size)
    if 0 in taken:
        number = taken.index(0)
        name = names[number] if number < len(names) else f"number {number + 1}"
        share = shares[number][1] / sum(weight for _, weight in shares)
        raise UserError(
            f"The part {name!r} of the mixture has {share:.2g} of the weight, which is no sample"
            f" in an epoch of {size:,}: raise its weight, or take longer episodes (data.episode)."
        )
