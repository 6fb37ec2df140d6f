"""Batches of one domain each, in rounds that visit every domain once: pure functions of the step.

Endless rounds; each round takes the next batch of every domain, in an order drawn anew. A domain
whose batches are used up begins a new pass of its own in another order, so all domains give
equally many batches, whatever their sizes. Batch t belongs to round t // C and is the batch
(t // C) mod L of its domain, so any step can be entered directly and nothing is stored.

C: domains, n: samples of a domain, L: whole batches of a domain, B: samples of a batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vislang.data.order import generator
from vislang.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Int64

_PURE = 6  # a stream of its own, beside those of order.py and episodes.py


class _Orders:
    """Python's generator gives the rounds one after another; those drawn are kept."""

    def __init__(self, seed: int, domains: int):
        self._random, self._domains = random.Random(seed), domains
        self._known: list[list[int]] = []

    def __call__(self, number: int) -> list[int]:
        while len(self._known) <= number:
            self._known.append(self._random.sample(range(self._domains), self._domains))
        return self._known[number]


@lru_cache(maxsize=4)
def _orders(seed: int, domains: int) -> _Orders:
    return _Orders(seed, domains)


def round_order(seed: int, number: int, domains: int) -> tuple[int, ...]:
    """The order of the domains in a round; the one of the original's multiplexer.

    >>> round_order(0, 0, 3), round_order(0, 3, 3)
    ((1, 2, 0), (2, 0, 1))
    """
    return tuple(_orders(seed, domains)(number))


def batch_at(seed: int, step: int, lengths: Sequence[int]) -> tuple[int, int, int]:
    """(domain, its pass, its batch in the pass) of a step, counted over all epochs.

    Args:
        seed: of the rounds.
        step: counted from 0, across epochs.
        lengths: L of each domain.

    >>> [batch_at(0, t, (2, 3, 5)) for t in (0, 8)]
    [(1, 0, 0), (0, 1, 0)]
    """
    number, place = divmod(step, len(lengths))
    domain = round_order(seed, number, len(lengths))[place]
    return domain, *divmod(number, lengths[domain])


def whole_batches(sizes: Sequence[int], names: Sequence[str], batch_size: int) -> tuple[int, ...]:
    """L of each domain; one that cannot fill a batch is refused."""
    lengths = tuple(size // batch_size for size in sizes)
    if 0 in lengths:
        at = lengths.index(0)
        raise UserError(
            f"The domain {names[at]!r} has {sizes[at]:,} samples, which do not fill one batch of"
            f" {batch_size:,} that is its alone: take a data.batch_size of at most"
            f" {min(sizes):,}, or leave the domain out."
        )
    return lengths


@lru_cache(maxsize=2)
def pure_visits(
    seed: int, epoch: int, sizes: tuple[int, ...], batch_size: int
) -> Int64[np.ndarray, " m"]:
    """The samples of an epoch in order, as index + n_all · times visited before in the epoch.

    An epoch is as many batches as all domains have together; B samples in a row are of one domain.

    >>> [int(i) // 2 for i in pure_visits(0, 0, (2, 2, 2), 2)]
    [1, 1, 2, 2, 0, 0]
    """
    lengths = tuple(size // batch_size for size in sizes)
    starts, total, many = np.cumsum([0, *sizes]), sum(sizes), sum(lengths)
    passes: dict[tuple[int, int], np.ndarray] = {}
    seen: dict[int, int] = {}  # domain -> the first pass of this epoch
    chosen = np.empty(many * batch_size, np.int64)
    for k in range(many):
        domain, turn, at = batch_at(seed, epoch * many + k, lengths)
        if (domain, turn) not in passes:
            passes[domain, turn] = generator(_PURE, seed, domain, turn).permutation(sizes[domain])
        # A sample is at most once in a pass, so the pass tells its visits apart.
        times = turn - seen.setdefault(domain, turn)
        rows = passes[domain, turn][at * batch_size : (at + 1) * batch_size]
        chosen[k * batch_size : (k + 1) * batch_size] = rows + starts[domain] + total * times
    chosen.flags.writeable = False
    return chosen
