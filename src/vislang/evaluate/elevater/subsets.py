"""Which training samples few-shot learning gets, and which of them are held out: ELEVATER's choice.

C: classes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from vislang.errors import UserError

HELD_OUT = 0.2  # of the training samples of each class, rounded up
Labels = Sequence[tuple[int, ...]]


def few_shot(labels: Labels, classes: int, shots: int, seed: int) -> list[int]:
    """Positions of the samples that few-shot learning sees, in its order.

    Samples are shuffled and gone through until every class has `shots`. One without a label is
    taken until there are `shots` of those. One is passed over if the rarest of its classes has
    enough, and if its classes would become too unequal: it is taken only while the rarest has at
    most shots / 2 or the most frequent at most 1.5 shots.

    >>> few_shot([(0,), (0,), (1,), (1,), (1,)], 2, 1, seed=0)
    [2, 1]
    """
    if shots < 1:
        raise UserError(f"The number of shots must be at least 1, got {shots}.")
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)  # Python's own generator, as the toolkit's
    count = np.zeros(classes, np.int64)
    found, without = [], 0
    for i in order:
        own = list(labels[i])
        if not own:
            if without < shots:
                found.append(i)
                without += 1
            continue
        have = count[own]
        if have.min() >= shots or (have.min() > shots / 2 and have.max() > 1.5 * shots):
            continue
        found.append(i)
        count[own] += 1
        if (count >= shots).all():
            break
    return found


def divide(labels: Labels, several: bool) -> tuple[list[int], list[int]]:
    """(positions to learn from, positions held out): a fifth of each class, the first ones.

    Args:
        labels: of the samples, in the order in which they were chosen.
        several: samples may have several labels, or none: then those of the class that lacks most
            are held out one after the other, the lowest class first.

    >>> divide([(0,), (1,), (0,), (0,), (0,), (1,)], several=False)
    ([2, 3, 4, 5], [0, 1])
    """
    held = _several(labels) if several else _single(labels)
    apart = set(held)
    return [i for i in range(len(labels)) if i not in apart], held


def _single(labels: Labels) -> list[int]:
    total: dict[int, int] = {}
    for (label,) in labels:
        total[label] = total.get(label, 0) + 1
    left = {label: math.ceil(HELD_OUT * count) for label, count in total.items()}
    held = []
    for i, (label,) in enumerate(labels):
        if left[label]:
            held.append(i)
            left[label] -= 1
    return held


def _several(labels: Labels) -> list[int]:
    classes = 1 + max((label for row in labels for label in row), default=-1)
    total = np.zeros(classes, np.int64)
    rows: list[list[int]] = [[] for _ in range(classes)]
    for i, row in enumerate(labels):
        total[list(row)] += 1
        for label in row:
            rows[label].append(i)
    lack = np.ceil(HELD_OUT * total).astype(np.int64)
    next_ = [iter(each) for each in rows]
    held: list[int] = []
    taken: set[int] = set()
    for label in range(classes):
        while lack[label] > 0:  # the lowest class first; others are served on the way
            i = next(i for i in next_[label] if i not in taken)
            taken.add(i)
            held.append(i)
            lack[list(labels[i])] -= 1
    return held
