"""Rows of several .npy files as one array that stays on disk.

n: rows of all parts together, D: width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError

_OPEN = 64  # parts mapped at a time: each holds a file handle, and LAION has thousands of parts


class Rows:
    """[n, D] over the parts of a store; read like an array, never loaded as a whole unasked.

    `rows[7]`, `rows[3:9]`, `rows[[5, 2, 5]]` (in that order) and `rows[mask]` copy what they
    name; `np.asarray(rows)` reads everything; `blocks` walks through.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = [Path(path) for path in paths]
        heads = [read_header(path) for path in self.paths]
        if not heads:
            raise ValueError("Rows need at least one file")
        shape, self.dtype = heads[0][0], heads[0][1]
        for path, (other, dtype) in zip(self.paths, heads):
            if len(other) != 2 or other[1:] != shape[1:] or dtype != self.dtype:
                raise UserError(
                    f"{path} holds {dtype} {list(other)}, which does not continue {self.paths[0]}"
                    f" with {self.dtype} {list(shape)}: they come from different models or"
                    " settings. Remove the file that does not belong there."
                )
        self.counts = [int(head[0][0]) for head in heads]
        self.starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self.shape = (int(self.starts[-1]), int(shape[1]))
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()

    ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows({self.shape[0]:,} x {self.shape[1]}, {self.dtype}, {len(self.paths)} parts)"

    def part(self, number: int) -> np.ndarray:
        """One part, memory-mapped."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if self.counts[number] == 0:  # an empty file cannot be mapped
            mapped = np.empty((0, self.shape[1]), self.dtype)
        else:
            mapped = np.load(self.paths[number], mmap_mode="r", allow_pickle=False)
        self._open[number] = mapped
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return mapped

    def __getitem__(self, key: Any) -> np.ndarray:
        return pick(self, key)

    def _range(self, start: int, stop: int, step: int) -> np.ndarray:
        if step != 1:
            return self._take(np.arange(start, stop, step))
        out = np.empty((max(stop - start, 0), self.shape[1]), self.dtype)
        # Copied part by part: a list of views would keep every part's file open.
        for number, first in enumerate(self.starts[:-1].tolist()):
            last = first + self.counts[number]
            if first < stop and last > start:
                begin, end = max(start, first), min(stop, last)
                out[begin - start : end - start] = self.part(number)[begin - first : end - first]
        return out

    def _take(self, index: np.ndarray) -> np.ndarray:
        n = len(self)
        if len(index) and (index.min() < -n or index.max() >= n):
            raise IndexError(f"rows must be in {-n}..{n - 1}, got {index.min()}..{index.max()}")
        index = np.where(index < 0, index + n, index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        number = np.searchsorted(self.starts, index, side="right") - 1
        for one in np.unique(number):
            here = number == one
            out[here] = self.part(int(one))[index[here] - self.starts[one]]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False and len(self.paths) > 1:
            raise ValueError("rows of several parts cannot become one array without a copy")
        whole = self[:] if len(self.paths) > 1 or copy else self.part(0)
        return np.asarray(whole, dtype=dtype)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) of consecutive blocks of at most `size` rows, each within a part."""
        for number, first in enumerate(self.starts[:-1]):
            part = self.part(number)
            for at in range(0, len(part), size):
                yield int(first) + at, part[at : at + size]


def pick(rows: Any, key: Any) -> np.ndarray:
    """What `rows[key]` names: a row, a slice, row numbers in their order, or a mask.

    `rows` has `_range(start, stop, step)` and `_take(row numbers)`, which may be negative.
    """
    if isinstance(key, tuple):
        raise TypeError("rows are indexed by row alone: rows[i][:, column]")
    if isinstance(key, int | np.integer):
        return rows._take(np.array([key]))[0]
    if isinstance(key, slice):
        return rows._range(*key.indices(len(rows)))
    index = np.asarray(key)
    if index.dtype == bool:
        if index.shape != (len(rows),):
            raise IndexError(f"a mask must have {len(rows)} entries, got {index.shape}")
        index = np.flatnonzero(index)
    return rows._take(index.astype(np.int64))


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a .npy file, whose bytes must all be there."""
    from numpy.lib import format as npy

    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            begin = file.tell()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or embed the source anew.") from error
    except ValueError as error:
        raise UserError(f"{path} is not a .npy file ({error}). Remove or restore it.") from error
    if dtype.hasobject or fortran or dtype.kind != "f":
        raise UserError(f"{path} holds {dtype}; embeddings are rows of float16, 32 or 64.")
    expected = begin + int(np.prod(shape)) * dtype.itemsize
    size = path.stat().st_size
    if size != expected:
        raise UserError(
            f"{path} is torn: {size:,} bytes where its header promises {expected:,}."
            " Copy or download it again, or remove it and embed the source anew."
        )
    return shape, dtype
