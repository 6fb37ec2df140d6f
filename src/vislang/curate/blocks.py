"""An array file as a stream of blocks: the next is read while the last one is used.

b: rows of a block, D: width.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vislang.errors import UserError
from vislang.store.rows import read_header

_AHEAD = 2


def read_blocks(path: Path, rows: int = 16_384) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows [b, D] as stored) of consecutive blocks.

    Plain reads into three buffers rather than a memory map: page faults of a mapping are served
    one by one, in the thread that computes. A block is valid until the next one is asked for.

    Raises:
        UserError: the file is torn, or cannot be read to its end.
    """
    shape, dtype = read_header(path)
    n, width = int(shape[0]), int(shape[1])
    free: queue.Queue = queue.Queue()
    for _ in range(_AHEAD + 1):
        free.put(np.empty((min(rows, max(n, 1)), width), dtype))
    full: queue.Queue = queue.Queue()
    stop = threading.Event()
    skip = path.stat().st_size - n * width * dtype.itemsize
    reader = threading.Thread(
        target=_read, args=(path, skip, n, free, full, stop), daemon=True, name="blocks"
    )
    reader.start()
    try:
        while True:
            item = full.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise UserError(f"{path} cannot be read: {item}.") from item
            first, buffer, count = item
            yield first, buffer[:count]
            free.put(buffer)
    finally:
        stop.set()
        free.put(None)
        reader.join()


def _read(
    path: Path, skip: int, n: int, free: queue.Queue, full: queue.Queue, stop: threading.Event
) -> None:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(skip)
            first = 0
            while first < n and not stop.is_set():
                buffer = free.get()
                if buffer is None:
                    return
                count = min(len(buffer), n - first)
                _fill(file, memoryview(buffer[:count]).cast("B"))
                full.put((first, buffer, count))
                first += count
        full.put(None)
    except Exception as error:
        full.put(error)


def _fill(file, view: memoryview) -> None:
    while len(view):
        got = file.readinto(view)
        if not got:
            raise OSError("it ended early; it was changed while it was read")
        view = view[got:]
