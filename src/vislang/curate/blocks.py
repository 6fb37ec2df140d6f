"""An array file as a stream of blocks, on which several threads work.

b: rows of a block, t: rows of a tile of it, D: width.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
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
    past_cache: bool = False,
) -> Iterator[tuple[int, T]]:
    """(first row, work(tiles)) of consecutive blocks, in the order of the file.

    Plain reads rather than a memory map: what is gone from a file that is cut meanwhile is an
    error and not the end of the process.

    Args:
        path: a .npy file of rows.
        work: called with the tiles [t, D] of a block, in one of the threads; a tile is valid
            until the next one is asked for.
        rows: of a block.
        tile: rows of a tile.
        threads: that work, each on a block of its own.
        begin: called first in each of them.
        past_cache: read past the system's cache, with a thread that reads ahead, where the file
            system can. For streams larger than the memory: they push everything else out of the
            cache, and finding room in it costs more than the rest of reading (measured: 4 µs of
            a core for 1,536 bytes, against 0.2 µs). Else a thread reads its own tiles, each into
            the memory of the one before, which is still in the processor's cache.

    Raises:
        UserError: the file is torn, or cannot be read to its end.
    """
    shape, dtype = read_header(path)
    table = _Table(path, path.stat().st_size, int(shape[0]), int(shape[1]), dtype)
    ahead = _ahead(table, min(rows, table.n), 2 * threads + 1) if past_cache else None

    def worked(first: int, read: Future[Any] | None) -> T:
        count = min(rows, table.n - first)
        if ahead is None or read is None:
            with closing(_tiles(table, first, count, tile, past_cache)) as tiles:
                return work(tiles)
        with closing(ahead.tiles(read.result(), count, tile)) as tiles:
            return work(tiles)

    pool = ThreadPoolExecutor(threads, "blocks", begin)
    pending: deque[tuple[int, Future[T]]] = deque()
    try:
        for first in range(0, table.n, rows):
            read = ahead and ahead.ask(first, min(rows, table.n - first))
            pending.append((first, pool.submit(worked, first, read)))
            if len(pending) > 2 * threads:
                yield _result(path, *pending.popleft())
        while pending:
            yield _result(path, *pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        if ahead is not None:
            ahead.close()


@dataclass(frozen=True)
class _Table:
    """Where rows lie in a file."""

    path: Path
    size: int
    n: int
    width: int
    dtype: np.dtype

    @property
    def row(self) -> int:
        """Bytes."""
        return self.width * self.dtype.itemsize

    def place(self, first: int) -> int:
        """Of a row."""
        return self.size - (self.n - first) * self.row


def _result(path: Path, first: int, future: Future[T]) -> tuple[int, T]:
    try:
        return first, future.result()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _tiles(table: _Table, first: int, count: int, tile: int, forget: bool) -> Generator[np.ndarray]:
    """`count` rows from a row on, through the system's cache, and that let go of what was read."""
    buffer = np.empty((min(tile, count), table.width), table.dtype)
    with open(table.path, "rb", buffering=0) as file:
        file.seek(table.place(first))
        for done in range(0, count, tile):
            some = buffer[: count - done]
            view = memoryview(some.data).cast("B")
            while len(view):
                view = view[_some(file.readinto(view)) :]
            yield some
        if forget and hasattr(os, "posix_fadvise"):
            start = table.place(first)
            os.posix_fadvise(file.fileno(), start, count * table.row, os.POSIX_FADV_DONTNEED)


def _some(got: int | None) -> int:
    if not got:
        raise OSError("it ended early; it was changed while it was read")
    return got


def _ahead(table: _Table, rows: int, blocks: int) -> _Ahead | None:
    """A reader past the system's cache, where the file system has one."""
    try:
        return _Ahead(table, rows, blocks)
    except (AttributeError, OSError):
        return None


class _Ahead:
    """Blocks of a file, read past the system's cache by a thread of their own.

    Args:
        table: of the file.
        rows: of a block, at most.
        blocks: that may have been asked for and not been given back.

    Raises:
        AttributeError, OSError: no such reads here.
    """

    def __init__(self, table: _Table, rows: int, blocks: int):
        self.table, self.page = table, mmap.PAGESIZE
        self.file = os.open(table.path, os.O_RDONLY | os.O_DIRECT)
        size = -(-rows * table.row // self.page) * self.page + self.page
        self.free: SimpleQueue[mmap.mmap] = SimpleQueue()
        for _ in range(blocks):
            self.free.put(mmap.mmap(-1, size))  # memory that begins with a page, as such reads ask
        self.thread = ThreadPoolExecutor(1, "reading")
        try:
            self._fill(memoryview(mmap.mmap(-1, self.page)), 0, 1)
        except OSError:
            self.close()
            raise

    def ask(self, first: int, count: int) -> Future[tuple[mmap.mmap, int]]:
        """A buffer, and where in it `count` rows from a row on begin."""
        return self.thread.submit(self._read, first, count)

    def _read(self, first: int, count: int) -> tuple[mmap.mmap, int]:
        place = self.table.place(first)
        start = place // self.page * self.page
        need = place - start + count * self.table.row
        buffer = self.free.get_nowait()
        self._fill(memoryview(buffer)[: -(-need // self.page) * self.page], start, need)
        return buffer, place - start

    def _fill(self, view: memoryview, start: int, need: int) -> None:
        """Read at least `need` bytes from a place; both places and lengths are whole pages."""
        done = 0
        while done < need:
            got = os.preadv(self.file, [view[done:]], start + done)
            done += _some(got if done + got >= need else got // self.page * self.page)

    def tiles(self, read: tuple[mmap.mmap, int], count: int, tile: int) -> Generator[np.ndarray]:
        """The rows that were read; closing it gives the buffer back."""
        buffer, place = read
        width = self.table.width
        try:
            flat = np.frombuffer(buffer, self.table.dtype, count * width, place)
            for first in range(0, count, tile):
                yield flat[first * width : (first + tile) * width].reshape(-1, width)
        finally:
            self.free.put(buffer)

    def close(self) -> None:
        """Wait for what is being read."""
        self.thread.shutdown(cancel_futures=True)
        os.close(self.file)


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
