"""Splits that never change: a picture's own key decides, whatever else there is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def split_of(key: str, shares: Mapping[str, float]) -> str:
    """The split of a picture: a function of its key alone, so it never changes as data grow.

    >>> split_of("a", {"train": 0.5, "test": 0.5}), split_of("b", {"train": 0.5, "test": 0.5})
    ('train', 'test')
    """
    place = int(hashlib.sha256(f"split {key}".encode()).hexdigest()[:13], 16) / 16**13
    total = 0.0
    for name, share in shares.items():
        total += share
        if place < total:
            return name
    return next(reversed([name for name, share in shares.items() if share > 0]))
