"""An array file as a stream of blocks: the next is read while the last one is used.

b: rows of a block, D: width.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.store.rows import read_header

_AHEAD = 2


def read_blocks(
    path: Path, rows: int = 16_384, convert: Callable[[int, np.ndarray], Any] | None = None
) -> Iterator[tuple[int, Any]]:
    """(first row, rows [b, D] as stored) of consecutive blocks.

    Plain reads into three buffers rather than a memory map: page faults of a mapping are served
    one by one, in the thread that computes. A block is valid until the next one is asked for.

    Args:
        path: a .npy file of rows.
        rows: of a block.
        convert: called in the reading thread with (number of the buffer, block); what it returns
            comes in the block's place. There are three buffers.

    Raises:
        UserError: the file is torn, or cannot be read to its end.
    """
    shape, dtype = read_header(path)
    n, width = int(shape[0]), int(shape[1])
    free: queue.Queue = queue.Queue()
    for number in range(_AHEAD + 1):
        free.put((number, np.empty((min(rows, max(n, 1)), width), dtype)))
    full: queue.Queue = queue.Queue()
    stop = threading.Event()
    skip = path.stat().st_size - n * width * dtype.itemsize
    reader = threading.Thread(
        target=_read, args=(path, skip, n, free, full, stop, convert), daemon=True, name="blocks"
    )
    reader.start()
    try:
        while True:
            item = full.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise UserError(f"{path} cannot be read: {item}.") from item
            first, slot, block = item
            yield first, block
            free.put(slot)
    finally:
        stop.set()
        free.put(None)
        reader.join()


def _read(
    path: Path, skip: int, n: int, free: queue.Queue, full: queue.Queue, stop: threading.Event,
    convert: Callable[[int, np.ndarray], Any] | None,
) -> None:  # fmt: skip
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(skip)
            first = 0
            while first < n and not stop.is_set():
                slot = free.get()
                if slot is None:
                    return
                number, buffer = slot
                count = min(len(buffer), n - first)
                _fill(file, memoryview(buffer[:count]).cast("B"))
                block = buffer[:count]
                full.put((first, slot, convert(number, block) if convert else block))
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
