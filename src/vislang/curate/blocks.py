"""An array file as a stream of blocks, on which several threads work, each reading its own.

b: rows of a block, t: rows of a tile of it, D: width.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vislang.errors import UserError
from vislang.store.rows import read_header

T = TypeVar("T")
TILE = 512


def map_blocks(
    path: Path,
    work: Callable[[Iterator[np.ndarray]], T],
    rows: int = 4096,
    tile: int = TILE,
    threads: int = 1,
    begin: Callable[[], None] | None = None,
    forget: bool = False,
) -> Iterator[tuple[int, T]]:
    """(first row, work(tiles)) of consecutive blocks, in the order of the file.

    A tile [t, D] is read when it is asked for, into memory that the tile before it had: so it is
    still in the processor's cache when it is used.  Plain reads rather than a memory map: what is
    gone from a file that is cut meanwhile is an error and not the end of the process.

    Args:
        path: a .npy file of rows.
        work: called with the tiles of a block, in one of the threads; a tile is valid until the
            next one is asked for.
        rows: of a block.
        tile: rows of a tile.
        threads: that work, each on a block of its own.
        begin: called first in each of them.
        forget: let the system's cache go of what was read. A stream larger than the memory
            pushes everything else out of it, and finding room for each page takes time.

    Raises:
        UserError: the file is torn, or cannot be read to its end.
    """
    shape, dtype = read_header(path)
    n, width = int(shape[0]), int(shape[1])
    skip = path.stat().st_size - n * width * dtype.itemsize
    row = width * dtype.itemsize

    def worked(first: int) -> T:
        count = min(rows, n - first)
        buffer = np.empty((min(tile, count), width), dtype)
        with closing(_tiles(path, skip + first * row, count, buffer, forget)) as tiles:
            return work(tiles)

    pool = ThreadPoolExecutor(threads, "blocks", begin)
    pending: deque[tuple[int, Future[T]]] = deque()
    try:
        for first in range(0, n, rows):
            pending.append((first, pool.submit(worked, first)))
            if len(pending) > 2 * threads:
                yield _result(path, *pending.popleft())
        while pending:
            yield _result(path, *pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(path: Path, first: int, future: Future[T]) -> tuple[int, T]:
    try:
        return first, future.result()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _tiles(
    path: Path, start: int, count: int, buffer: np.ndarray, forget: bool
) -> Generator[np.ndarray]:
    """`count` rows from a place in the file, a buffer full at a time."""
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        for first in range(0, count, len(buffer)):
            tile = buffer[: count - first]
            _fill(file, memoryview(tile.data).cast("B"))
            yield tile
        if forget and hasattr(os, "posix_fadvise"):
            size = file.tell() - start
            os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_DONTNEED)


def _fill(file: Any, view: memoryview) -> None:
    while len(view):
        got = file.readinto(view)
        if not got:
            raise OSError("it ended early; it was changed while it was read")
        view = view[got:]


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
