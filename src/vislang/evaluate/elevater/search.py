"""The toolkit's search for a learning rate and a weight decay: 90 trainings, or fewer at an end.

For each of six rates, seven weight decays spread over 10^-6 ... 10^6 are tried; then, four times,
one to the left and one to the right of the best, each time half as far away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RATES: tuple[float, ...] = tuple(np.logspace(-6, -1, 6).tolist())
DECAYS: tuple[float, ...] = tuple(np.logspace(-6, 6, 97).tolist())
FIRST = tuple(range(0, 97, 16))
SPANS = (8, 4, 2, 1)
EPOCHS, FINAL_EPOCHS = 10, 50

Pair = tuple[float, float]


@dataclass(frozen=True)
class Chosen:
    """What a search found.

    Args:
        rate, decay: the best pair; 0 and 0 where every score is 0, as in the toolkit.
        score: theirs.
        visited: (rate, decay, score) of every training, in the toolkit's order.
    """

    rate: float
    decay: float
    score: float
    visited: list[tuple[float, float, float]]


@dataclass
class _Line:
    """The trainings of one rate; before any score above 0 the toolkit stands one left of them."""

    best: int = -1
    score: float = 0.0

    def take(self, place: int, score: float) -> None:
        if score > self.score:
            self.best, self.score = place, score


def search(
    score: Callable[[list[Pair]], Sequence[float]],
    rates: Sequence[float] = RATES,
    decays: Sequence[float] = DECAYS,
    left_twice: bool = False,
) -> Chosen:
    """Find the pair with the highest score; of equals the one that the toolkit tries first.

    Args:
        score: scores of several (rate, decay) pairs. The rates do not depend on each other, so
            that those of one round are asked for together.
        rates, decays: the grid.
        left_twice: look twice to the left and never to the right, as the toolkit's first release.
    """
    lines = [_Line() for _ in rates]
    visited: list[list[tuple[float, float, float]]] = [[] for _ in rates]

    def ask(places: list[list[tuple[int, int]]]) -> None:
        """Places of each rate, as (where it counts, what is tried)."""
        pairs = [(rates[k], decays[at]) for k, row in enumerate(places) for _, at in row]
        values = iter([float(value) for value in score(pairs)])
        for k, row in enumerate(places):
            for place, at in row:
                value = next(values)
                visited[k].append((rates[k], decays[at], value))
                lines[k].take(place, value)

    ask([[(place, place) for place in FIRST] for _ in rates])
    for span in SPANS:
        rounds = []
        for line in lines:
            left, right = max(line.best - span, 0), min(line.best + span, len(decays) - 1)
            sides = [(left, left), (right, left if left_twice else right)]
            rounds.append([side for side in sides if side[0] != line.best])
        ask(rounds)
    flat = [one for row in visited for one in row]
    rate, decay, value = 0.0, 0.0, 0.0
    for one in flat:  # strictly above 0: the toolkit starts from there
        if one[2] > value:
            rate, decay, value = one
    return Chosen(rate, decay, value, flat)
