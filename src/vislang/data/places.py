"""Bytes of an image wherever it lies: a file, memory, or a place inside a tar or a zip."""

import os
import stat
import threading
import zlib
from collections import OrderedDict
from io import FileIO
from pathlib import Path

from vislang.data.sample import BadSample, Place

# A shard list can be longer than the usual limit of 1,024 open files.
_MOST_HANDLES = 64


class _Handle:
    """A file descriptor that is closed when nobody holds it any more."""

    def __init__(self, path: Path):
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


_handles: OrderedDict[Path, _Handle] = OrderedDict()
_lock = threading.Lock()


def _handle(path: Path) -> _Handle:
    """An open file, kept for the next call; it closes when it is both old and unused.

    Handles are opened where they are first used, so that a source carries none when it is
    pickled; one inherited through fork is safe, since pread uses no shared position.
    """
    with _lock:
        handle = _handles.pop(path, None) or _Handle(path)
        _handles[path] = handle
        while len(_handles) > _MOST_HANDLES:
            _handles.popitem(last=False)
        return handle


def forget(path: Path) -> None:
    """Open `path` anew at its next use; called where a source is opened, as it may be replaced."""
    with _lock:
        _handles.pop(path, None)


def read_at(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes at `offset`; fewer only where the file ends. The position is not moved."""
    handle = _handle(path)
    parts = []
    while size > 0:
        part = os.pread(handle.fd, size, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_bytes(image: Path | bytes | Place, max_bytes: int) -> bytes:
    """The bytes of an image file, at most `max_bytes` of them.

    The size is known before anything is read or inflated, so neither a huge file nor a zip
    bomb costs memory.

    Raises:
        BadSample: with an empty id and a reason of the form "kind: detail".
    """
    if isinstance(image, bytes):
        _check_size(len(image), max_bytes)
        return image
    try:
        if isinstance(image, Place):
            return _read_place(image, max_bytes)
        status = os.stat(image)
        if not stat.S_ISREG(status.st_mode):  # a FIFO would block for ever
            raise BadSample("", f"unreadable file: {image} is not a regular file")
        _check_size(status.st_size, max_bytes)
        with FileIO(image) as file:
            return file.read(max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadSample("", f"missing file: {error.filename}") from error
    except OSError as error:
        raise BadSample("", f"unreadable file: {error}") from error


def _check_size(size: int, max_bytes: int) -> None:
    if size == 0:
        raise BadSample("", "empty file: it has 0 bytes")
    if size > max_bytes:
        raise BadSample("", f"file too large: {size:,} bytes, max_bytes is {max_bytes:,}")


def _read_place(place: Place, max_bytes: int) -> bytes:
    _check_size(max(place.size, place.raw_size), max_bytes)
    data = read_at(place.path, place.offset, place.size)
    if len(data) < place.size:
        raise BadSample(
            "", f"truncated container: {place.path} ends {place.size - len(data):,} bytes too early"
        )
    if place.method == "stored":
        return data
    if place.method != "deflate":
        raise BadSample("", f"unknown compression: {place.method} in {place.path}")
    try:
        # One byte more than promised is enough to notice a member that lies about its size.
        raw = zlib.decompressobj(-15).decompress(data, place.raw_size + 1)
    except zlib.error as error:
        raise BadSample(
            "", f"damaged container: {place.path} at {place.offset}: {error}"
        ) from error
    if len(raw) != place.raw_size:
        raise BadSample(
            "", f"damaged container: a member of {place.path} is not of its promised size"
        )
    return raw
