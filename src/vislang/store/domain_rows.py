"""The images of a DomainStore under one domain, as one array that stays on disk.

N: images, D: width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vislang.store.rows import pick

if TYPE_CHECKING:
    from vislang.store.domains import DomainStore


class DomainRows:
    """[N, D], the images of a DomainStore under one domain; nothing is read before it is asked.

    `rows[7]`, `rows[3:9]`, `rows[[5, 2]]` and `rows[mask]` copy what they name, `np.asarray(rows)`
    copies all, `blocks` walks through without copying.
    """

    ndim = 2

    def __init__(self, store: DomainStore, domain: int):
        self._store, self._domain = store, domain
        self.shape, self.dtype = (len(store), store.width), store._rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return pick(self, key)

    def _range(self, start: int, stop: int, step: int) -> np.ndarray:
        if step != 1:
            return self._take(np.arange(start, stop, step))
        out = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        for first, rows in self._parts(start, stop):
            begin, end = max(start, first), min(stop, first + len(rows))
            if begin < end:
                out[begin - start : end - start] = rows[begin - first : end - first]
        return out

    def _take(self, index: np.ndarray) -> np.ndarray:
        return self._store.take(np.where(index < 0, index + len(self), index), self._domain)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first image, rows) of consecutive blocks of at most `size`, each within a part."""
        for first, rows in self._parts():
            for at in range(0, len(rows), size):
                yield first + at, rows[at : at + size]

    def _parts(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of each part that holds an image of start .. stop; no other part is opened."""
        store, stop = self._store, len(self) if stop is None else stop
        for number, (first, count) in enumerate(zip(store._starts.tolist(), store._counts)):
            if first >= stop or first + count <= start:
                continue
            begin = self._domain * int(count)
            yield first, store._rows.part(number)[begin : begin + int(count)]
